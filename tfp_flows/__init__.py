"""Normalizing flows for TensorFlow Probability, trained through Keras 3."""

from tfp_flows import data, plots
from tfp_flows._version import __version__
from tfp_flows.bijectors import MaskedAutoregressiveFlow, PlanarFlow, RealNVP, Standardize, standardize
from tfp_flows.distribution import FlowDistribution
from tfp_flows.flows import iaf, maf, nice, planar_flow, real_nvp
from tfp_flows.models import FlowModel
from tfp_flows.numerics import bound_log_scale
from tfp_flows.templates import (
    AutoregressiveNetwork,
    DenseNetwork,
    Template,
    as_template,
    masked_autoregressive_template,
    real_nvp_template,
)



__all__ = [
    "AutoregressiveNetwork",
    "DenseNetwork",
    "FlowDistribution",
    "FlowModel",
    "MaskedAutoregressiveFlow",
    "PlanarFlow",
    "RealNVP",
    "Standardize",
    "Template",
    "as_template",
    "bound_log_scale",
    "__version__",
    "data",
    "iaf",
    "maf",
    "masked_autoregressive_template",
    "nice",
    "planar_flow",
    "plots",
    "real_nvp",
    "real_nvp_template",
    "standardize",
]
