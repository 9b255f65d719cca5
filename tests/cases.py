"""The registry: every public bijector and recipe is here, or `test_completeness` fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.recipes import recipe
from tfp_flows.testing import redraw_weights

tfb = tfp.bijectors


@dataclass(frozen=True)
class Case:
    """Recipe for a bijector in a dtype, and which inputs each output of its inverse may depend on."""

    name: str
    covers: str
    make: Callable[[tf.DType], tfb.Bijector]
    event_size: int
    zeros: np.ndarray | None = None
    tolerance: float = 1e-8
    scale: float = 0.3  # of the redrawn weights

    def build(self, dtype=tf.float64) -> tfb.Bijector:
        bijector = self.make(dtype)
        redraw_weights(bijector, seed=7, scale=self.scale)
        return bijector


def _made(dtype, **kwargs):
    return tff.masked_autoregressive_template([12, 12], event_size=3, activation="tanh", seed=1, dtype=dtype, **kwargs)


def _linear(dtype):
    return tff.masked_autoregressive_template([], event_size=3, seed=1, dtype=dtype)


def _coupling(dtype, inputs=1, outputs=2, **kwargs):
    return tff.real_nvp_template(
        [12], input_units=inputs, output_units=outputs, activation="tanh", seed=1, dtype=dtype, **kwargs
    )


def _sequential(dtype, inputs, outputs):
    return keras.Sequential(
        [
            keras.Input((inputs,), dtype=dtype.name),
            keras.layers.Dense(8, "tanh", dtype=dtype.name),
            keras.layers.Dense(outputs, dtype=dtype.name),
        ]
    )


def _bijector_fn(dtype):
    net = _sequential(dtype, 1, 4)

    def fn(x0, output_units, **kwargs):
        shift, raw = tff.as_template(net)(x0, output_units)
        return tfb.Chain([tfb.Shift(shift), tfb.Scale(log_scale=tff.bound_log_scale(raw))])

    return fn


def _standardize(dtype):
    bijector = tff.Standardize(3, dtype=dtype)
    bijector.adapt(np.random.default_rng(1).normal(size=[50, 3]) * [1.0, 3.0, 0.2] + [0.0, 5.0, -1.0])
    return bijector


_COUPLING = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]], bool)
_LOWER = np.tril(np.ones([3, 3], bool))

TRANSFORMERS = {
    "affine": tff.AffineTransformer(log_scale_bound=2.0),
    "shift": tff.ShiftTransformer(),
    "spline": tff.SplineTransformer(num_bins=5, bound=4.0),
    "deep_sigmoidal": tff.DeepSigmoidalTransformer(num_units=4, num_layers=2),
    "gaussian_mixture": tff.GaussianMixtureTransformer(num_components=3),
    "quantile_spline": tff.QuantileSplineTransformer(num_bins=5),
    "bernstein": tff.BernsteinTransformer(order=6, bound=3.0),
    "circular_spline": tff.CircularSplineTransformer(num_bins=5),
}

# A transformer that is not listed is tested with its defaults.
_LISTED = {type(transformer) for transformer in TRANSFORMERS.values()}
TRANSFORMERS |= {
    name: getattr(tff.transformers, name)()
    for name in tff.transformers.__all__
    if name != "Transformer" and getattr(tff.transformers, name) not in _LISTED
}

BIJECTORS = [
    Case("planar", "PlanarFlow", lambda dtype: tff.PlanarFlow(3, dtype=dtype), 3, scale=1.0),
    Case("planar_1d", "PlanarFlow", lambda dtype: tff.PlanarFlow(1, dtype=dtype), 1, scale=1.5),
    Case("radial", "RadialFlow", lambda dtype: tff.RadialFlow(3, dtype=dtype), 3, scale=1.0),
    Case("sylvester", "SylvesterFlow", lambda dtype: tff.SylvesterFlow(3, rank=2, seed=1, dtype=dtype), 3, scale=1.0),
    Case(
        "sylvester_triangular",
        "SylvesterFlow",
        lambda dtype: tff.SylvesterFlow(3, num_reflections=0, seed=1, dtype=dtype),
        3,
        np.triu(np.ones([3, 3], bool)),
        scale=1.0,
    ),
    Case("real_nvp", "RealNVP", lambda dtype: tff.RealNVP(1, shift_and_log_scale_fn=_coupling(dtype)), 3, _COUPLING),
    Case(
        "real_nvp_last",
        "RealNVP",
        lambda dtype: tff.RealNVP(-2, shift_and_log_scale_fn=_coupling(dtype, 2, 1)),
        3,
        np.array([[1, 1, 1], [0, 1, 0], [0, 0, 1]], bool),
    ),
    Case(
        "real_nvp_sequential",
        "RealNVP",
        lambda dtype: tff.RealNVP(1, shift_and_log_scale_fn=_sequential(dtype, 1, 4)),
        3,
        _COUPLING,
    ),
    Case(
        "real_nvp_bijector_fn", "RealNVP", lambda dtype: tff.RealNVP(1, bijector_fn=_bijector_fn(dtype)), 3, _COUPLING
    ),
    Case(
        "nice",
        "RealNVP",
        lambda dtype: tff.RealNVP(
            1, shift_and_log_scale_fn=_coupling(dtype, shift_only=True), is_constant_jacobian=True
        ),
        3,
        _COUPLING,
    ),
    Case("maf", "MaskedAutoregressiveFlow", lambda dtype: tff.MaskedAutoregressiveFlow(_made(dtype)), 3, _LOWER),
    Case(
        "maf_right_to_left",
        "MaskedAutoregressiveFlow",
        lambda dtype: tff.MaskedAutoregressiveFlow(_made(dtype, input_order="right-to-left")),
        3,
        _LOWER.T,
    ),
    Case(
        "iaf",
        "MaskedAutoregressiveFlow",
        lambda dtype: tfb.Invert(tff.MaskedAutoregressiveFlow(_made(dtype))),
        3,
        _LOWER,
    ),
    Case(
        "tfp_real_nvp",
        "real_nvp_template",
        lambda dtype: tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=_coupling(dtype)),
        3,
        _COUPLING,
    ),
    Case(
        "tfp_maf",
        "masked_autoregressive_template",
        lambda dtype: tfb.MaskedAutoregressiveFlow(_made(dtype)),
        3,
        _LOWER,
    ),
    *[
        Case(
            f"maf_{name}",
            "Conditioner",
            lambda dtype, transformer=transformer: tff.MaskedAutoregressiveFlow(
                bijector_fn=_made(dtype, transformer=transformer, input_order=[2, 3, 1])
            ),
            3,
            np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]], bool),
        )
        for name, transformer in TRANSFORMERS.items()
    ],
    Case(
        "coupling_spline",
        "Conditioner",
        lambda dtype: tff.RealNVP(1, bijector_fn=_coupling(dtype, transformer=TRANSFORMERS["spline"])),
        3,
        _COUPLING,
    ),
    Case(
        "maf_no_hidden",
        "MaskedAutoregressiveFlow",
        lambda dtype: tff.MaskedAutoregressiveFlow(_linear(dtype)),
        3,
        _LOWER,
    ),
    Case(
        "maf_unrolled",
        "MaskedAutoregressiveFlow",
        lambda dtype: tff.MaskedAutoregressiveFlow(_made(dtype), unroll_loop=True),
        3,
        _LOWER,
    ),
    Case("lu_linear", "LULinear", lambda dtype: tff.LULinear(3, seed=1, dtype=dtype), 3),
    Case("rotation", "Rotation", lambda dtype: tff.Rotation(3, seed=1, dtype=dtype), 3, scale=1.0),
    Case(
        "rotation_deep", "Rotation", lambda dtype: tff.Rotation(3, num_reflections=5, seed=1, dtype=dtype), 3, scale=1.0
    ),
    Case(
        "marginal",
        "MarginalGaussianization",
        lambda dtype: tff.MarginalGaussianization(3, TRANSFORMERS["quantile_spline"], dtype=dtype),
        3,
        np.eye(3, dtype=bool),
    ),
    Case(
        "marginal_mixture",
        "MarginalGaussianization",
        lambda dtype: tff.MarginalGaussianization(3, TRANSFORMERS["gaussian_mixture"], dtype=dtype),
        3,
        np.eye(3, dtype=bool),
    ),
    Case(
        "continuous",
        "ContinuousFlow",
        lambda dtype: tff.ContinuousFlow(3, hidden_units=[6], rtol=1e-10, atol=1e-10, seed=1, dtype=dtype),
        3,
        tolerance=1e-7,
    ),
    Case("actnorm", "ActNorm", lambda dtype: tff.ActNorm(3, dtype=dtype), 3, np.eye(3, dtype=bool)),
    Case(
        "batch_norm",
        "BatchNormalization",
        lambda dtype: tff.BatchNormalization(3, dtype=dtype),
        3,
        np.eye(3, dtype=bool),
    ),
    Case("standardize", "Standardize", _standardize, 3, np.eye(3, dtype=bool)),
    # Bounds beyond the events of the shared checks; tests/bijectors/test_support_bijector.py has the others.
    Case(
        "support",
        "Support",
        lambda dtype: tff.Support(3, [(-20.0, 20.0), (-10.0, np.inf), (-np.inf, 10.0)], dtype=dtype),
        3,
        np.eye(3, dtype=bool),
    ),
]

BASES = {
    "mixture": lambda dtype: tff.GaussianMixture(2, num_components=3, seed=1, dtype=dtype),
    "student_t": lambda dtype: tff.StudentT(2, dtype=dtype),
    "uniform": lambda dtype: tff.UniformAngles(2, dtype=dtype),
    "uniform_and_student_t": lambda dtype: tff.UniformAngles(2, [1], tff.StudentT(1, dtype=dtype), dtype=dtype),
}

# Small values of the arguments of recipes, by name; a recipe that is registered is in the shared suite.
_SMALL = {
    "hidden_units": [8],
    "activation": "tanh",
    "num_bins": 4,
    "num_components": 3,
    "num_units": 4,
    "num_layers": 2,
    "rtol": 1e-10,
    "atol": 1e-10,
}
_LAYERS = {
    "planar_flow": 3,
    "radial_flow": 3,
    "real_nvp": 3,
    "spline_coupling": 3,
    "maf_mog": 1,
    "made": 1,
    "continuous_flow": 1,
}


def _small(name: str, fn) -> dict:
    values = {key: value for key, value in _SMALL.items() if key in inspect.signature(fn).parameters}
    return {**values, "num_layers": _LAYERS.get(name, 2)}


RECIPES = {name: _small(name, fn) for name, fn in sorted(recipe.RECIPES.items()) if not fn.facts.of_images}


def make_flow(name: str, event_size: int, dtype=tf.float64, redraw: bool = True, **kwargs) -> tff.FlowDistribution:
    flow = getattr(tff, name)(event_size, **{**RECIPES[name], "seed": 3, "dtype": dtype, **kwargs})
    if redraw:
        redraw_weights(flow, seed=8)
    return flow
