"""Sphinx configuration."""

import pathlib
import sys

import tfp_flows

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_extensions"))

project = "tfp_flows"
author = "the tfp_flows authors"
copyright = "2026, the tfp_flows authors"
release = version = tfp_flows.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
    "links",
    "rooms",
]
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
exclude_patterns = ["_build", "jupyter_execute"]
default_role = "literal"  # the extension `links` turns names into links
autodoc_typehints = "none"  # the extension `rooms` puts types into the lists of arguments
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes as a list
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `docs/tutorials/build.py` runs the notebooks
nitpicky = True
# Classes of other packages, which the pages name without a link.
nitpick_ignore = [
    ("py:class", "tensorflow.python.framework.tensor.Tensor"),
    ("py:exc", "sklearn.exceptions.NotFittedError"),
]
