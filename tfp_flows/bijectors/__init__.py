"""The maps: `tfb.Bijector` subclasses. `forward` goes from latent to data, as in TFP."""

from tfp_flows.bijectors.affine_coupling import AffineCouplingLayer
from tfp_flows.bijectors.box_map import BoxMap
from tfp_flows.bijectors.composition import (
    Walked,
    conditional_kwargs,
    conditional_sizes,
    density_parts,
    forward_and_log_det,
    has_constant_log_det,
    initialize_layers,
    initialize_layers_by,
    inverse_and_log_det,
    is_affine,
    layers_of,
    make_bijector_kwargs,
    waits_for_data,
)
from tfp_flows.bijectors.continuous import ContinuousFlow
from tfp_flows.bijectors.lu_linear import LULinear
from tfp_flows.bijectors.marginal import MarginalGaussianization
from tfp_flows.bijectors.masked_autoregressive import MaskedAutoregressiveFlow
from tfp_flows.bijectors.masks import channel_binary_mask, checkerboard_binary_mask
from tfp_flows.bijectors.mixture_map import MixtureMap
from tfp_flows.bijectors.multi_scale import MultiScale
from tfp_flows.bijectors.normalization import ActNorm, BatchNormalization
from tfp_flows.bijectors.planar import PlanarFlow
from tfp_flows.bijectors.radial import RadialFlow
from tfp_flows.bijectors.real_nvp import RealNVP
from tfp_flows.bijectors.rotation import Rotation
from tfp_flows.bijectors.squeeze import Squeeze, get_preprocess_bijector
from tfp_flows.bijectors.standardize import Standardize, standardize
from tfp_flows.bijectors.sylvester import SylvesterFlow

__all__ = [
    "ActNorm",
    "AffineCouplingLayer",
    "BatchNormalization",
    "BoxMap",
    "ContinuousFlow",
    "LULinear",
    "MarginalGaussianization",
    "MaskedAutoregressiveFlow",
    "MixtureMap",
    "MultiScale",
    "PlanarFlow",
    "RadialFlow",
    "RealNVP",
    "Rotation",
    "Squeeze",
    "Standardize",
    "SylvesterFlow",
    "Walked",
    "channel_binary_mask",
    "checkerboard_binary_mask",
    "conditional_kwargs",
    "conditional_sizes",
    "density_parts",
    "forward_and_log_det",
    "has_constant_log_det",
    "get_preprocess_bijector",
    "initialize_layers",
    "initialize_layers_by",
    "layers_of",
    "inverse_and_log_det",
    "is_affine",
    "make_bijector_kwargs",
    "standardize",
    "waits_for_data",
]
