"""Conditioners: Keras 3 networks behind TFP's call signatures."""

from tfp_flows.templates.autoregressive_network import AutoregressiveNetwork
from tfp_flows.templates.conv import conv_resnet_template, get_conv_resnet, glow_template
from tfp_flows.templates.dense_network import DenseNetwork
from tfp_flows.templates.ready_made import masked_autoregressive_template, real_nvp_template
from tfp_flows.templates.template import Template, TransformerTemplate, as_template

__all__ = [
    "AutoregressiveNetwork",
    "DenseNetwork",
    "Template",
    "TransformerTemplate",
    "as_template",
    "conv_resnet_template",
    "get_conv_resnet",
    "glow_template",
    "masked_autoregressive_template",
    "real_nvp_template",
]
