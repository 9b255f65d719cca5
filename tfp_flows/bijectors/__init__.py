"""The maps: `tfb.Bijector` subclasses. `forward` goes from latent to data, as in TFP."""

from tfp_flows.bijectors.composition import (
    conditional_kwargs,
    conditional_sizes,
    forward_and_log_det,
    initialize_layers,
    inverse_and_log_det,
    make_bijector_kwargs,
    waits_for_data,
)
from tfp_flows.bijectors.lu_linear import LULinear
from tfp_flows.bijectors.masked_autoregressive import MaskedAutoregressiveFlow
from tfp_flows.bijectors.normalization import ActNorm, BatchNormalization
from tfp_flows.bijectors.planar import PlanarFlow
from tfp_flows.bijectors.real_nvp import RealNVP
from tfp_flows.bijectors.standardize import Standardize, standardize

__all__ = [
    "ActNorm",
    "BatchNormalization",
    "LULinear",
    "MaskedAutoregressiveFlow",
    "PlanarFlow",
    "RealNVP",
    "Standardize",
    "conditional_kwargs",
    "conditional_sizes",
    "forward_and_log_det",
    "initialize_layers",
    "inverse_and_log_det",
    "make_bijector_kwargs",
    "standardize",
    "waits_for_data",
]
