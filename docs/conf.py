"""Sphinx configuration."""

import tfp_flows

project = "tfp_flows"
author = "the tfp_flows authors"
copyright = "2026, the tfp_flows authors"
release = version = tfp_flows.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
default_role = "literal"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
myst_enable_extensions = ["dollarmath"]
nitpicky = False
