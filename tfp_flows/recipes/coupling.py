"""The recipes of coupling flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import RealNVP
from tfp_flows.checks import one_of
from tfp_flows.distribution import FlowDistribution
from tfp_flows.networks import real_nvp_template
from tfp_flows.numerics import DEFAULT_LOG_SCALE_BOUND, real_dtype
from tfp_flows.recipes.mixing import MIXINGS, mixing_layer, normalization_layers
from tfp_flows.recipes.recipe import assemble, recipe, sizes
from tfp_flows.seeds import split_seed, structure_seed
from tfp_flows.transformers import SplineTransformer, Transformer

tfb = tfp.bijectors
tfd = tfp.distributions


def _coupling_layers(
    event_size: int,
    num_layers: int,
    mixing: str,
    normalization: str | None,
    seed: int,
    dtype: tf.DType,
    transformer: Transformer | None = None,
    shift_only: bool = False,
    **network: Any,
) -> list[tfb.Bijector]:
    """Coupling layers that condition on the first and on the last half of the dimensions in turn.

    After every second layer the dimensions are mixed; in two dimensions only a linear map has anything to mix.
    """
    one_of("mixing", mixing, MIXINGS)
    first = event_size // 2
    seeds, mixing_seed = split_seed(seed, num_layers + 1)[:-1], split_seed(structure_seed(seed), num_layers + 1)[-1]
    mixing_seeds = split_seed(mixing_seed, num_layers)
    layers: list[tfb.Bijector] = []
    for i, s in enumerate(seeds):
        num_masked = first if i % 2 == 0 else first - event_size
        template = real_nvp_template(
            input_units=abs(num_masked),
            output_units=event_size - abs(num_masked),
            transformer=transformer,
            shift_only=shift_only,
            seed=s,
            dtype=dtype,
            name=f"coupling_{i}",
            **network,
        )
        role = "shift_and_log_scale_fn" if transformer is None else "bijector_fn"
        layers.append(RealNVP(num_masked, is_constant_jacobian=shift_only, name=f"coupling_{i}", **{role: template}))
        layers += normalization_layers(normalization, event_size, dtype, str(i))
        if i % 2 == 1 and i < num_layers - 1 and (event_size > 2 or mixing == "lu"):
            layers.append(mixing_layer(mixing, event_size, mixing_seeds[i], dtype, f"mixing_{i}"))
    return layers


@recipe
def nice(
    event_size: int,
    *,
    num_layers: int = 8,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    mixing: str = "permute",
    normalization: str | None = None,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "nice",
) -> FlowDistribution:
    """NICE (Dinh et al. 2014): additive coupling layers, then one trainable scale for each dimension (section 3.3).

    Args:
      event_size: Size `D` of the events, at least 2.
      num_layers: Number of coupling layers, at least 2, so that every dimension is transformed.
      hidden_units: Sizes of the hidden layers of each coupling network.
      activation: Activation of the hidden layers.
      mixing: What mixes the dimensions after every second layer: `"reverse"`, `"permute"` (fixed and random) or `"lu"` (a
        trainable linear map, see `LULinear`).
      normalization: `"actnorm"` or `"batch_norm"` after each layer, or `None`.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: one pass of each network, in both directions.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> nice(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])

    References:
      L. Dinh, D. Krueger and Y. Bengio, NICE, 2014, arXiv:1410.8516.
    """
    event_size, num_layers = sizes(event_size, num_layers, 2, 2)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    layers = _coupling_layers(event_size, num_layers, mixing, normalization, seed, dtype, shift_only=True, **network)
    log_scale = tf.Variable(tf.zeros([event_size], dtype), name="log_scale")
    layers.append(tfb.Scale(log_scale=log_scale, name="scale"))
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def real_nvp(
    event_size: int,
    *,
    num_layers: int = 8,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    mixing: str = "permute",
    normalization: str | None = None,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "real_nvp",
) -> FlowDistribution:
    """RealNVP (Dinh et al. 2016): affine coupling layers.

    The layers condition on the first and on the last half of the dimensions in turn; after every second layer
    the dimensions are mixed.

    Args:
      event_size: Size `D` of the events, at least 2.
      num_layers: Number of coupling layers, at least 2, so that every dimension is transformed.
      hidden_units: Sizes of the hidden layers of each coupling network.
      activation: Activation of the hidden layers.
      log_scale_bound: Bound of the log-scale of a layer, by `bound_log_scale`; `None` for none.
      mixing, normalization: As in `nice`.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: one pass of each network, in both directions.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> real_nvp(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])

    References:
      L. Dinh, J. Sohl-Dickstein and S. Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.
    """
    event_size, num_layers = sizes(event_size, num_layers, 2, 2)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    layers = _coupling_layers(
        event_size, num_layers, mixing, normalization, seed, dtype, log_scale_bound=log_scale_bound, **network
    )
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def spline_coupling(
    event_size: int,
    *,
    num_layers: int = 4,
    num_bins: int = 8,
    bound: float = 5.0,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    mixing: str = "lu",
    normalization: str | None = None,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "spline_coupling",
) -> FlowDistribution:
    """Neural spline flow with coupling layers (Durkan et al. 2019): rational-quadratic splines, quick in both directions.

    Args:
      event_size: Size `D` of the events, at least 2.
      num_layers: Number of coupling layers, at least 2, so that every dimension is transformed.
      num_bins, bound: As in `SplineTransformer`; outside of `[-bound, bound]` a layer is the identity, so give the flow
        standardized data, or `preprocess=standardize(x_train)`.
      hidden_units: Sizes of the hidden layers of each coupling network.
      activation: Activation of the hidden layers.
      mixing, normalization: As in `nice`. A linear map between layers, as in the paper, is the default: it brings in
        what lies outside of the splines' interval.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: one pass of each network, in both directions.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> spline_coupling(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])

    References:
      C. Durkan, A. Bekasov, I. Murray and G. Papamakarios, Neural Spline Flows, 2019, arXiv:1906.04032.
    """
    event_size, num_layers = sizes(event_size, num_layers, 2, 2)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    spline = SplineTransformer(num_bins, bound)
    layers = _coupling_layers(event_size, num_layers, mixing, normalization, seed, dtype, spline, **network)
    return assemble(layers, event_size, base, preprocess, dtype, name)
