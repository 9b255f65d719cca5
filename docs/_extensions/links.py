"""Links from names in backticks to their entries, in pages and docstrings, without a network.

`tff.maf`, `maf`, `tff.maf(2)`, `FlowModel.fit` and `tff.plots.density` link to the API pages. In a docstring, names of
the same class or module link too. `tfb.Chain`, `tf.data.Dataset` and `keras.Model.fit` link to the documentation of
TensorFlow if they exist in the installed version. A `tff.` name without an entry is a warning.
"""

import builtins
import inspect
import re

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

logger = logging.getLogger(__name__)

NAME = re.compile(r"([A-Za-z_][\w.]*\w|[A-Za-z])(\(.*\))?", re.S)
PREFIXES = {"tfb": "tfp.bijectors", "tfd": "tfp.distributions", "np": "numpy", "tensorflow": "tf"}
PREFIXES["tensorflow_probability"] = "tfp"
MODULES = {"tf": tf, "tfp": tfp, "keras": keras, "numpy": np}
MEMBERS = ("attribute", "method", "property")
TENSORFLOW = "https://www.tensorflow.org/{}api_docs/python/{}"
PYTHON = {
    "functions.html": "bool float int",
    "stdtypes.html": "bytes dict list set str tuple",
    "constants.html": "None",
}
STANDARD = {name: f"{page}#{name}" for page, names in PYTHON.items() for name in names.split()}
STANDARD |= {
    name: f"collections.abc.html#collections.abc.{name}"
    for name in ("Callable", "Iterable", "Mapping", "Sequence")
}
STANDARD |= {"Any": "typing.html#typing.Any", "pathlib.Path": "pathlib.html#pathlib.Path"}
STANDARD |= {"os.PathLike": "os.html#os.PathLike"}
MATPLOTLIB = {
    "Axes": "axes/_as_gen/matplotlib.axes.Axes.html",
    "Figure": "_as_gen/matplotlib.figure.Figure.html",
}


def external(name: str) -> str | None:
    """Return the address of the documentation of a name of Python, NumPy, TensorFlow, TFP or Keras."""
    if name in STANDARD:
        return f"https://docs.python.org/3/library/{STANDARD[name]}"
    if name in MATPLOTLIB:
        return f"https://matplotlib.org/stable/api/{MATPLOTLIB[name]}"
    error = getattr(builtins, name, None)
    if inspect.isclass(error) and issubclass(error, BaseException):
        return f"https://docs.python.org/3/library/exceptions.html#{name}"
    head, _, rest = name.partition(".")
    name = ".".join(filter(None, (PREFIXES.get(head, head), rest)))
    root, *path = name.split(".")
    value, owner = MODULES.get(root), None
    if value is None or not path:
        return None
    for part in path:
        owner, value = value, getattr(value, part, None)
        if value is None:
            return None
    if not (callable(value) or inspect.ismodule(value)) or "ops" in path:
        return None  # a constant, or Keras' operations, which TensorFlow's pages leave out
    if root == "numpy":
        return (
            f"https://numpy.org/doc/stable/reference/generated/{name}.html"
            if len(path) == 1
            else None
        )
    if root == "keras":
        name = f"tf.{name}"
    elif root == "tf":  # the page of an alias is that of the first name
        name = f"tf.{getattr(value, '_tf_api_names', [name[3:]])[0]}"
    page = name.replace(".", "/")
    if inspect.isclass(owner):
        page = "#".join(page.rsplit("/", 1))
    return TENSORFLOW.format("probability/" if root == "tfp" else "", page)


class Names:
    """The documented names of the package, by the forms in which text mentions them."""

    def __init__(self, objects):
        self.full = dict(objects)
        candidates: dict[str, list[str]] = {}
        for full, entry in self.full.items():
            path = full.split(".")[1:]
            forms = {".".join(path), ".".join(path[-2:])} - {""}
            if path and entry.objtype not in MEMBERS and is_telling(path[-1]):
                forms.add(path[-1])
            for form in forms:
                candidates.setdefault(form, []).append(full)
        self.short = {}
        for form, found in candidates.items():
            top = [full for full in found if full == f"tfp_flows.{form}"]
            if top or len(found) == 1:  # else ambiguous
                self.short[form] = (top or found)[0]

    def find(self, text: str, within: str = "") -> str | None:
        """Return the full name behind a text in the docstring of `within`."""
        text = re.sub(r"^(tff|tfp_flows)\.", "tfp_flows.", text)
        if text in self.full:
            return text
        while within.count("."):  # members of the class, and names of the module
            if (
                f"{within}.{text}" in self.full
                and self.full[f"{within}.{text}"].objtype != "attribute"
            ):
                return f"{within}.{text}"
            within = within.rpartition(".")[0]
        if (
            "." not in text
            and f"tfp_flows.{text}" in self.full
            and self.full[f"tfp_flows.{text}"].objtype == "module"
        ):
            return None  # `layers` or `data` is more often an argument
        return self.short.get(text)


def is_telling(name: str) -> bool:
    """Whether a name of a submodule can stand without it: not `Model`, which Keras has, nor a common word."""
    of_keras = any(hasattr(place, name) for place in (keras, keras.layers, keras.callbacks))
    return not of_keras and (("_" in name) or (name[0].isupper() and not name[1:].islower()))


def names(env) -> Names:
    if not hasattr(env, "_tff_names"):
        env._tff_names = Names(env.get_domain("py").objects)
    return env._tff_names


class LinkNames(SphinxPostTransform):
    default_priority = 5

    def run(self, **kwargs):
        for node in list(self.document.findall(nodes.literal)):
            unlinked = (
                nodes.reference,
                nodes.title,
                addnodes.pending_xref,
                addnodes.desc_signature,
            )
            parents = list(ancestors(node))
            if any(isinstance(parent, unlinked) for parent in parents) or "xref" in node["classes"]:
                continue
            match = NAME.fullmatch(node.astext())
            if match is None:
                continue
            within = next(
                (p[0]["ids"][0] for p in parents if isinstance(p, addnodes.desc) and p[0]["ids"]),
                "",
            )
            full = names(self.env).find(match[1], within)
            if full is not None and full != within:
                entry = names(self.env).full[full]
                node.replace_self(
                    make_refnode(
                        self.app.builder,
                        self.env.docname,
                        entry.docname,
                        entry.node_id,
                        node.deepcopy(),
                        full,
                    )
                )
            elif full is None and re.match(r"(tff|tfp_flows)\.", match[1]):
                logger.warning(
                    "no entry of the API pages for %s",
                    match[1],
                    location=node,
                    type="ref",
                    subtype="api",
                )
            elif "." in match[1] and (address := external(match[1])) is not None:
                node.replace_self(
                    nodes.reference("", "", node.deepcopy(), internal=False, refuri=address)
                )


class LinkImages(SphinxPostTransform):
    """Links each picture to its file, since labels are small at the width of a page."""

    default_priority = 5

    def run(self, **kwargs):
        for node in list(self.document.findall(nodes.image)):
            if node["uri"] in self.env.images and isinstance(node.parent, nodes.paragraph):
                up = "../" * self.env.docname.count("/")
                address = f"{up}_images/{self.env.images[node['uri']][1]}"
                node.replace_self(nodes.reference("", "", node.deepcopy(), refuri=address))


def ancestors(node):
    while node.parent is not None:
        node = node.parent
        yield node


def _resolve(app, env, node, content):
    """Resolves references of signatures, types and `Raises:` sections."""
    target = node.get("reftarget", "")
    full = names(env).find(
        target, ".".join(filter(None, (node.get("py:module"), node.get("py:class"))))
    )
    if full is not None:
        entry = names(env).full[full]
        return make_refnode(
            app.builder, node["refdoc"], entry.docname, entry.node_id, content, full
        )
    address = external(target)
    if address is not None:
        return nodes.reference("", "", content, internal=False, refuri=address)
    if node.get("reftype") == "class" and "." not in target:
        return content  # an alias of types, such as `Beta`, has no entry
    return None


def setup(app):
    app.add_post_transform(LinkNames)
    app.add_post_transform(LinkImages)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}
