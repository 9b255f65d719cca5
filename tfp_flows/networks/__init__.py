"""Conditioners: Keras 3 networks with TFP's call signatures."""

from tfp_flows.networks.autoregressive import AutoregressiveNetwork
from tfp_flows.networks.conditioner import Conditioner, Template, as_template
from tfp_flows.networks.conv import conv_resnet_template, get_conv_resnet, glow_template
from tfp_flows.networks.dense import DenseNetwork
from tfp_flows.networks.fourier import FourierNetwork
from tfp_flows.networks.templates import masked_autoregressive_template, real_nvp_template
from tfp_flows.networks.unet import VelocityUNet

TransformerTemplate = Conditioner  # earlier name

__all__ = [
    "AutoregressiveNetwork",
    "Conditioner",
    "DenseNetwork",
    "FourierNetwork",
    "Template",
    "TransformerTemplate",
    "VelocityUNet",
    "as_template",
    "conv_resnet_template",
    "get_conv_resnet",
    "glow_template",
    "masked_autoregressive_template",
    "real_nvp_template",
]
