"""The maps: `tfb.Bijector` subclasses. `forward` goes from latent to data, as in TFP."""

from tfp_flows.bijectors.masked_autoregressive import MaskedAutoregressiveFlow
from tfp_flows.bijectors.planar import PlanarFlow
from tfp_flows.bijectors.real_nvp import RealNVP
from tfp_flows.bijectors.standardize import Standardize, standardize

__all__ = ["MaskedAutoregressiveFlow", "PlanarFlow", "RealNVP", "Standardize", "standardize"]
