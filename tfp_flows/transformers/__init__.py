"""Univariate transformers: monotone maps of one number whose parameters a conditioner computes."""

from tfp_flows.transformers.affine import AffineTransformer, ShiftTransformer
from tfp_flows.transformers.base import Transformer
from tfp_flows.transformers.bernstein import BernsteinTransformer
from tfp_flows.transformers.circular_spline import CircularSplineTransformer
from tfp_flows.transformers.deep_sigmoidal import DeepSigmoidalTransformer
from tfp_flows.transformers.gaussian_mixture import GaussianMixtureTransformer
from tfp_flows.transformers.quantile_spline import QuantileSplineTransformer
from tfp_flows.transformers.spline import SplineTransformer

__all__ = [
    "AffineTransformer",
    "BernsteinTransformer",
    "CircularSplineTransformer",
    "DeepSigmoidalTransformer",
    "GaussianMixtureTransformer",
    "QuantileSplineTransformer",
    "ShiftTransformer",
    "SplineTransformer",
    "Transformer",
]
