"""Sphinx configuration."""

import importlib
import re

import tfp_flows

project = "tfp_flows"
author = "the tfp_flows authors"
copyright = "2026, the tfp_flows authors"
release = version = tfp_flows.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
html_theme = "furo"
exclude_patterns = ["_build"]
default_role = "literal"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
myst_enable_extensions = ["dollarmath"]
nitpicky = False


# Methods that a page shows besides those that a class inherits.
_METHODS = {
    "ActNorm": "adapt",
    "BatchNormalization": "adapt, update",
    "FlowBijector": "forward_and_log_det, inverse_and_log_det, adapt",
    "MarginalGaussianization": "adapt",
    "MixtureBijector": "adapt",
    "BoxBijector": "set_boxes",
    "Rotation": "adapt, set_axes, matrix",
    "Standardize": "adapt",
    "Transformer": "forward, inverse, adapt",
    "Conditioner": "parameters",
    "FlowModel": "compile, fit, evaluate, predict, log_prob, sample, adapt, save, export",
    "ContinuousFlow": "velocity",
    "VariationalFlow": "compile, fit, evaluate",
    "FlowVAE": "compile, fit, evaluate, encode, sample, reconstruct, log_likelihood",
}


def _list_rooms(app, docname, source):
    """Writes an entry for each public name of a room in place of `.. room:: NAME`."""

    def entries(match):
        room = importlib.import_module(f"tfp_flows.{match[1]}")
        lines = []
        for name in room.__all__:
            kind = "autoclass" if isinstance(getattr(room, name), type) else "autofunction"
            lines.append(f".. {kind}:: {name}")
            if name in _METHODS:
                lines.append(f"   :members: {_METHODS[name]}")
        return "\n".join(lines)

    source[0] = re.sub(r"^\.\. room:: (\w+)$", entries, source[0], flags=re.M)


def setup(app):
    app.connect("source-read", _list_rooms)
