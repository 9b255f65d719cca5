"""Entries of the API pages, made from the public names of each module, with types and readable signatures.

`.. room:: MODULE` stands for the entries of all public names of `tfp_flows.MODULE`, and `.. room:: MODULE NAME ...` for
those of some names. `.. rooms::` on the index page lists every room with its names.
"""

import importlib
import inspect
import pathlib
import re

import tfp_flows

# Methods that a page shows besides those that a class inherits.
METHODS = {
    "ActNorm": "adapt",
    "BatchNormalization": "adapt, update",
    "BoxBijector": "set_boxes",
    "CalibrationCurve": "plot",
    "Conditioner": "parameters",
    "ContinuousFlow": "velocity, with_solver",
    "Density": "sample, log_prob, entropy, standardized_entropy, mean, stddev",
    "Destructor": "adapt",
    "DestructorStack": "fit",
    "FlowBijector": "forward_and_log_det, inverse_and_log_det, adapt",
    "FlowDensity": "fit, score_samples, score, sample",
    "FlowDistribution": "given, with_base, bijector_kwargs",
    "FlowModel": "compile, fit, evaluate, predict, log_prob, sample, adapt, save, export",
    "FlowVAE": "compile, fit, evaluate, encode, sample, reconstruct, log_likelihood",
    "MarginalGaussianization": "adapt",
    "MixtureBijector": "adapt",
    "MCMCResult": "warnings, to_inference_data",
    "ModelTarget": "labels, sample_prior, parameters",
    "MultivariateStudentT": "adapt",
    "NeuralPosterior": "fit, sample, log_prob, given, simulate, calibrate",
    "PosteriorDiagnostics": "warnings, to_inference_data",
    "RealNVPModel": "predict",
    "Rotation": "adapt, set_axes, matrix",
    "Standardize": "adapt",
    "Transformer": "forward, inverse, adapt",
    "Uniformity": "p_value, plot",
    "VariationalFlow": "from_model, compile, fit, evaluate, diagnose",
}
DATA = {
    "DATA_COLOR": "Color of data in all plots.",
    "SAMPLE_COLOR": "Color of samples in all plots.",
    "densities": "Functions that return a `Density`, by name.",
}
JOINT = "&"
ROOM = re.compile(r"^\.\. room:: ([\w.]+)((?: \w+)*)$", re.M)


def public_names(room: str) -> list[str]:
    """Return the names of a room: `__all__`, or the functions and classes that the module defines, in their order."""
    module = importlib.import_module(f"tfp_flows.{room}")
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    ]


def entries(room: str, names: list[str] | None = None) -> dict[str, str]:
    """Return the full public name of each name of a room: in `tfp_flows` if it is there, else in the module."""
    module = importlib.import_module(f"tfp_flows.{room}")
    found = {}
    for name in names or public_names(room):
        if getattr(tfp_flows, name, None) is not getattr(
            module, name
        ):  # `plots.layers` is not the module `layers`
            found[name] = f"tfp_flows.{room}.{name}"
        elif room != "course":  # which repeats names of other rooms
            found[name] = f"tfp_flows.{name}"
        assert hasattr(module, name), (room, name)
    return found


def _entry(full: str) -> list[str]:
    module, _, name = full.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    lines = [f".. currentmodule:: {module}"]
    if not callable(value):
        return [*lines, f".. py:data:: {name}", "", f"   {DATA[name]}"]
    lines.append(f".. auto{'class' if isinstance(value, type) else 'function'}:: {name}")
    if name in METHODS:
        lines.append(f"   :members: {METHODS[name]}")
    return lines


def _expand(match: re.Match) -> str:
    room, names = match[1], match[2].split()
    lines = []
    if any(not full.startswith(f"tfp_flows.{name}") for name, full in entries(room, names).items()):
        lines += [f".. py:module:: tfp_flows.{room}", ""]
    for full in entries(room, names).values():
        lines += [*_entry(full), ""]
    return "\n".join(lines)


def rooms(folder: pathlib.Path) -> dict[str, dict[str, str]]:
    """Return the entries of each page of the API by the name of its file, in alphabetical order."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.md")):
        found[path.stem] = {}
        for room, names in ROOM.findall(path.read_text(encoding="utf-8")):
            found[path.stem] |= entries(room, names.split())
    return found


def _expand_rooms(app, docname, source):
    source[0] = ROOM.sub(_expand, source[0])
    if docname == "api":
        rows = ["| page | names |", "|---|---|"]
        found_rooms = rooms(pathlib.Path(app.srcdir, "api"))
        for page in re.findall(r"^api/(\w+)$", source[0], re.M):  # in the order of the sidebar
            found = found_rooms[page]
            # Names as in `import tfp_flows as tff`, without the prefix.
            names = ", ".join(f"`{full.removeprefix('tfp_flows.')}`" for full in found.values())
            rows.append(f"| [](api/{page}.md) | {names} |")
        source[0] = source[0].replace("<!-- rooms -->", "\n".join(rows))


def _signature(value) -> inspect.Signature | None:
    try:
        # A Keras layer defines `__new__(*args, **kwargs)`, which hides the arguments of `__init__`.
        return inspect.signature(value.__init__ if isinstance(value, type) else value)
    except (TypeError, ValueError):
        return None


def _readable_signature(app, what, name, value, options, signature, returned):
    if signature is None:
        return None
    if what == "class" and signature.startswith("(*args, **kwargs)"):
        found = _signature(value)
        parameters = [p.replace(annotation=p.empty) for p in list(found.parameters.values())[1:]]
        signature = str(inspect.Signature(parameters))
        if signature == "(*args, **kwargs)":
            return "", None  # a base class with the arguments of `keras.Model`
    signature = re.sub(r"<class 'numpy\.(\w+)'>", r"np.\1", signature)
    return re.sub(r"<dtype: '(\w+)'>", r"tf.\1", signature), None


def typed_docstring(app, what, name, value, options, lines):
    """Adds types to `Args:`, and turns `Returns:` into a field, since napoleon takes text before a colon as a type."""
    found = _signature(value) if what in ("class", "function", "method") else None
    types = {} if found is None else {p.name: p.annotation for p in found.parameters.values()}
    section, typed = "", []
    for line in lines:
        heading = re.match(r"(Args|Returns|Raises|Example|References|Attributes|Yields):$", line)
        if heading:
            section = heading[1]
            if section == "Returns":
                returned = None if found is None else found.return_annotation
                if isinstance(returned, str) and what != "class":
                    typed.append(f":rtype: {returned}")
                typed.append(":returns:")
                continue
        elif line and not line.startswith(" "):
            section = ""
        argument = re.match(r"  ((?:\*{0,2}\w+, )*\*{0,2}\w+): ", line)
        if section == "Args" and argument:
            arguments = argument[1].split(", ")
            kinds = {types.get(name.lstrip("*")) for name in arguments}
            kind = next(iter(kinds)) if len(kinds) == 1 else None
            kind = f" ({kind})" if isinstance(kind, str) else ""
            # Napoleon would repeat the text for each of several names with commas.
            line = f"  {JOINT.join(arguments)}{kind}: {line[argument.end() :]}"
        # An initial at the start of a line, as in "D. P. Kingma", would begin a list.
        typed.append(re.sub(r"^(\s*)([A-Z])\. ", r"\1\2\. ", line))
    lines[:] = typed


def _space_joint_arguments(app, doctree):
    from docutils import nodes
    from sphinx import addnodes  # here, so that tests read the rooms without Sphinx

    for node in doctree.findall(addnodes.literal_strong):
        if JOINT in node.astext():
            node[:] = [nodes.Text(node.astext().replace(JOINT, ", "))]


def _end_code(app, doctree):
    """Removes the empty line that ends the output of a doctest."""
    from docutils import nodes

    for node in doctree.findall(nodes.literal_block):
        node.rawsource = node.astext().rstrip()
        node[:] = [nodes.Text(node.rawsource)]


def setup(app):
    app.connect("doctree-read", _space_joint_arguments)
    app.connect("doctree-read", _end_code)
    app.connect("source-read", _expand_rooms)
    app.connect("autodoc-process-signature", _readable_signature)
    app.connect("autodoc-process-docstring", typed_docstring, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
