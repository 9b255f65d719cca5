"""Bijectors: subclasses of `tfb.Bijector`. `forward` maps latent values to data, as in TFP."""

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.boxes import BoxBijector
from tfp_flows.bijectors.conditioning import make_bijector_kwargs
from tfp_flows.bijectors.continuous import ContinuousFlow
from tfp_flows.bijectors.lu_linear import LULinear
from tfp_flows.bijectors.marginal import MarginalGaussianization
from tfp_flows.bijectors.masked_autoregressive import MaskedAutoregressiveFlow
from tfp_flows.bijectors.masked_coupling import AffineCouplingLayer
from tfp_flows.bijectors.masks import channel_binary_mask, checkerboard_binary_mask
from tfp_flows.bijectors.mixture import MixtureBijector
from tfp_flows.bijectors.multi_scale import MultiScale
from tfp_flows.bijectors.normalization import ActNorm, BatchNormalization
from tfp_flows.bijectors.planar import PlanarFlow
from tfp_flows.bijectors.radial import RadialFlow
from tfp_flows.bijectors.real_nvp import RealNVP
from tfp_flows.bijectors.rotation import Rotation
from tfp_flows.bijectors.squeeze import Squeeze, get_preprocess_bijector
from tfp_flows.bijectors.standardize import Standardize, standardize
from tfp_flows.bijectors.support import Support
from tfp_flows.bijectors.sylvester import SylvesterFlow

__all__ = [
    "ActNorm",
    "AffineCouplingLayer",
    "BatchNormalization",
    "BoxBijector",
    "ContinuousFlow",
    "FlowBijector",
    "LULinear",
    "MarginalGaussianization",
    "MaskedAutoregressiveFlow",
    "MixtureBijector",
    "MultiScale",
    "PlanarFlow",
    "RadialFlow",
    "RealNVP",
    "Rotation",
    "Squeeze",
    "Standardize",
    "Support",
    "SylvesterFlow",
    "channel_binary_mask",
    "checkerboard_binary_mask",
    "get_preprocess_bijector",
    "make_bijector_kwargs",
    "standardize",
]
