"""The recipes of autoregressive flows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import MaskedAutoregressiveFlow
from tfp_flows.checks import one_of
from tfp_flows.distribution import FlowDistribution
from tfp_flows.networks import masked_autoregressive_template
from tfp_flows.numerics import DEFAULT_LOG_SCALE_BOUND, real_dtype
from tfp_flows.recipes.mixing import MIXINGS, mixing_layer, normalization_layers
from tfp_flows.recipes.recipe import assemble, recipe, sizes
from tfp_flows.seeds import split_seed, structure_seed
from tfp_flows.transformers import (
    DeepSigmoidalTransformer,
    GaussianMixtureTransformer,
    SplineTransformer,
    Transformer,
)

tfb = tfp.bijectors
tfd = tfp.distributions


def _autoregressive_layers(
    event_size: int,
    num_layers: int,
    mixing: str,
    normalization: str | None,
    seed: int,
    dtype: tf.DType,
    transformer: Transformer | None = None,
    first: int = 0,
    inverted: bool = False,
    **network: Any,
) -> list[tfb.Bijector]:
    """Masked autoregressive layers. Reversals and permutations are orders of their inputs and need no layers of their own."""
    one_of("mixing", mixing, MIXINGS)
    if event_size == 1 and transformer is None:
        warnings.warn(
            "In one dimension an affine autoregressive flow is a Gaussian, whatever its networks: for event_size=1 take "
            "spline_autoregressive, neural_autoregressive, or made(1, num_components=8).",
            stacklevel=6,
        )
    orders = ("left-to-right", "right-to-left") if mixing == "reverse" else ("left-to-right",)
    seeds, mixing_seeds = split_seed(seed, 2 * num_layers), split_seed(structure_seed(seed), 2 * num_layers)
    layers: list[tfb.Bijector] = []
    for i in range(num_layers):
        index = first + i
        order = orders[index % len(orders)]
        if mixing == "permute":
            order = 1 + np.random.default_rng(mixing_seeds[2 * i]).permutation(event_size)
        template = masked_autoregressive_template(
            event_size=event_size,
            transformer=transformer,
            input_order=order,
            seed=seeds[2 * i],
            dtype=dtype,
            name=f"autoregressive_{index}",
            **network,
        )
        role = "shift_and_log_scale_fn" if transformer is None else "bijector_fn"
        layer = MaskedAutoregressiveFlow(name=f"autoregressive_{index}", **{role: template})
        layers.append(tfb.Invert(layer) if inverted else layer)
        layers += normalization_layers(normalization, event_size, dtype, str(index))
        if mixing == "lu" and i < num_layers - 1:
            layers.append(mixing_layer(mixing, event_size, mixing_seeds[2 * i + 1], dtype, f"mixing_{index}"))
    return layers


@recipe
def maf(
    event_size: int,
    *,
    num_layers: int = 5,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    mixing: str = "reverse",
    normalization: str | None = None,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "maf",
) -> FlowDistribution:
    """Masked autoregressive flow (Papamakarios et al. 2017): density and samples for about one pass of each network.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of layers.
      hidden_units: Sizes of the hidden layers of each MADE network.
      activation: Activation of the hidden layers.
      log_scale_bound: Bound of the log-scale of a layer, by `bound_log_scale`; `None` for none.
      mixing: What stands between layers: `"reverse"` and `"permute"` change the order in which dimensions depend on each
        other, `"lu"` is a trainable linear map (see `LULinear`).
      normalization: `"actnorm"` or `"batch_norm"` after each layer, or `None`.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: `log_prob` one pass of each network; sampling about one pass, in `D` steps.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> maf(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])

    References:
      G. Papamakarios, T. Pavlakou and I. Murray, Masked Autoregressive Flow, 2017, arXiv:1705.07057.
    """
    event_size, num_layers = sizes(event_size, num_layers)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    layers = _autoregressive_layers(
        event_size, num_layers, mixing, normalization, seed, dtype, log_scale_bound=log_scale_bound, **network
    )
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def iaf(
    event_size: int,
    *,
    num_layers: int = 5,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    mixing: str = "reverse",
    normalization: str | None = None,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "iaf",
) -> FlowDistribution:
    """Inverse autoregressive flow (Kingma et al. 2016): the networks read the latent values.

    Args:
      event_size, num_layers, hidden_units, activation, log_scale_bound, mixing, normalization: As in `maf`.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: sampling one pass of each network; `log_prob` about one pass, in `D` steps.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> iaf(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])

    References:
      D. P. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv:1606.04934.
    """
    event_size, num_layers = sizes(event_size, num_layers)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    network["log_scale_bound"] = log_scale_bound
    layers = _autoregressive_layers(
        event_size, num_layers, mixing, normalization, seed, dtype, inverted=True, **network
    )
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def made(
    event_size: int,
    *,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    num_components: int = 1,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "made",
) -> FlowDistribution:
    """MADE (Germain et al. 2015): one autoregressive density, whose conditionals are Gaussians or mixtures of Gaussians.

    Args:
      event_size: Size `D` of the events.
      hidden_units: Sizes of the hidden layers of the network.
      activation: Activation of the hidden layers.
      num_components: Number of Gaussians in the mixture of each conditional.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: `log_prob` one pass of the network; sampling about one pass, in `D` steps, with a
      scalar solve in each if `num_components` is more than 1.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> made(3, num_components=4).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])

    References:
      M. Germain, K. Gregor, I. Murray and H. Larochelle, MADE, 2015, arXiv:1502.03509.
    """
    event_size, _ = sizes(event_size, 1)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    mixture = GaussianMixtureTransformer(num_components)
    if num_components == 1:
        mixture = None
    layers = _autoregressive_layers(event_size, 1, "reverse", None, seed, dtype, mixture, **network)
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def maf_mog(
    event_size: int,
    *,
    num_layers: int = 5,
    num_components: int = 8,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    mixing: str = "reverse",
    normalization: str | None = None,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "maf_mog",
) -> FlowDistribution:
    """MAF over a MADE with mixtures of Gaussians, "MAF MoG" (Papamakarios et al. 2017, section 3.4).

    The layer next to the base has mixtures of Gaussians as its conditionals; the others are affine.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of affine layers, beside the one of mixtures.
      num_components: Number of Gaussians in each mixture.
      hidden_units, activation, log_scale_bound, mixing, normalization: As in `maf`.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: `log_prob` one pass of each network; sampling about one pass, in `D` steps, with
      a scalar solve in each step of the mixture layer.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> maf_mog(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])

    References:
      G. Papamakarios, T. Pavlakou and I. Murray, Masked Autoregressive Flow, 2017, arXiv:1705.07057.
    """
    event_size, num_layers = sizes(event_size, num_layers)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    mixture = GaussianMixtureTransformer(num_components)
    mixture_seed, seed = split_seed(seed, 2)
    layers = _autoregressive_layers(event_size, 1, mixing, normalization, mixture_seed, dtype, mixture, **network)
    network["log_scale_bound"] = log_scale_bound
    layers += _autoregressive_layers(event_size, num_layers, mixing, normalization, seed, dtype, first=1, **network)
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def spline_autoregressive(
    event_size: int,
    *,
    num_layers: int = 3,
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
    name: str = "spline_autoregressive",
) -> FlowDistribution:
    """Neural spline flow with autoregressive layers (Durkan et al. 2019): rational-quadratic splines.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of layers.
      num_bins, bound: As in `SplineTransformer`; outside of `[-bound, bound]` a layer is the identity, so give the flow
        standardized data, or `preprocess=standardize(x_train)`.
      hidden_units, activation, mixing, normalization: As in `maf`. A linear map between layers, as in the paper, is
        the default: it brings in what lies outside of the splines' interval.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: `log_prob` one pass of each network; sampling about one pass, in `D` steps.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> spline_autoregressive(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])

    References:
      C. Durkan, A. Bekasov, I. Murray and G. Papamakarios, Neural Spline Flows, 2019, arXiv:1906.04032.
    """
    event_size, num_layers = sizes(event_size, num_layers)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    spline = SplineTransformer(num_bins, bound)
    layers = _autoregressive_layers(event_size, num_layers, mixing, normalization, seed, dtype, spline, **network)
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def neural_autoregressive(
    event_size: int,
    *,
    num_layers: int = 3,
    num_units: int = 8,
    num_sigmoid_layers: int = 1,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    mixing: str = "reverse",
    normalization: str | None = None,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "neural_autoregressive",
) -> FlowDistribution:
    """Neural autoregressive flow (Huang et al. 2018): deep sigmoidal transformers.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of autoregressive layers.
      num_units, num_sigmoid_layers: Sizes of the `DeepSigmoidalTransformer` of each layer.
      hidden_units, activation, mixing, normalization: As in `maf`.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: `log_prob` one pass of each network; sampling about one pass, in `D` steps, with a
      scalar solve in each.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> neural_autoregressive(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])

    References:
      C.-W. Huang, D. Krueger, A. Lacoste and A. Courville, Neural Autoregressive Flows, 2018, arXiv:1804.00779.
    """
    event_size, num_layers = sizes(event_size, num_layers)
    dtype = real_dtype(dtype)
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    neural = DeepSigmoidalTransformer(num_units, num_sigmoid_layers)
    layers = _autoregressive_layers(event_size, num_layers, mixing, normalization, seed, dtype, neural, **network)
    return assemble(layers, event_size, base, preprocess, dtype, name)
