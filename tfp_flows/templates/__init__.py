"""Conditioners: Keras 3 networks behind TFP's call signatures."""

from tfp_flows.templates.dense import masked_autoregressive_template, real_nvp_template
from tfp_flows.templates.networks import AutoregressiveNetwork, DenseNetwork
from tfp_flows.templates.template import Template, as_template

__all__ = [
    "AutoregressiveNetwork",
    "DenseNetwork",
    "Template",
    "as_template",
    "masked_autoregressive_template",
    "real_nvp_template",
]
