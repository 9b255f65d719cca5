"""The recipes of the flows of variational inference: planar, radial, Sylvester."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import PlanarFlow, RadialFlow, SylvesterFlow
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import real_dtype
from tfp_flows.recipes.recipe import assemble, recipe, sizes
from tfp_flows.seeds import split_seed

tfb = tfp.bijectors
tfd = tfp.distributions


def _layers(kind, event_size: int, num_layers: int, seed: int, dtype, name: str, options: dict) -> list[tfb.Bijector]:
    """`num_layers` layers of one kind, each with a seed of its own."""
    return [
        kind(event_size, seed=s, dtype=dtype, name=f"{name}_{i}", **options)
        for i, s in enumerate(split_seed(seed, num_layers))
    ]


@recipe
def planar_flow(
    event_size: int,
    *,
    num_layers: int = 16,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "planar_flow",
) -> FlowDistribution:
    """A composition of planar flows (Rezende and Mohamed 2015), which can be sampled and scored.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of layers; none leaves the base.
      hidden_units, activation: Of the networks that compute `u`, `w` and `b` from a condition; unused without one.
      base: Distribution of the latent values, with event shape `[D]`; a standard `MultivariateNormalDiag` if `None`, one with
        trainable mean and scale if `"trainable"`.
      preprocess: A bijector on the data's side, such as `standardize(x_train)`.
      conditional_size: Size `C` of the `conditional_input` of a conditional flow, which `log_prob` and `sample` then need.
      seed: Integer seed of the initial weights.
      dtype: `tf.float32` or `tf.float64`.
      name: Name of the distribution.

    Returns:
      A transformed distribution. Cost for each event and layer: sampling `O(D)`; `log_prob` `O(D)` and a scalar solve.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = planar_flow(2, num_layers=4, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])

    References:
      D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv:1505.05770.
    """
    event_size, num_layers = sizes(event_size, num_layers, minimum_layers=0)
    dtype = real_dtype(dtype)
    network = {"conditional_size": conditional_size, "hidden_units": hidden_units, "activation": activation}
    layers = _layers(PlanarFlow, event_size, num_layers, seed, dtype, "planar", network)
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def radial_flow(
    event_size: int,
    *,
    num_layers: int = 16,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "radial_flow",
) -> FlowDistribution:
    """A composition of radial flows (Rezende and Mohamed 2015), which can be sampled and scored in closed form.

    Args:
      event_size, num_layers, hidden_units, activation, base: As in `planar_flow`.
      preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost for each event and layer: `O(D)` for sampling and for `log_prob`.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = radial_flow(2, num_layers=4, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])

    References:
      D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv:1505.05770.
    """
    event_size, num_layers = sizes(event_size, num_layers, minimum_layers=0)
    dtype = real_dtype(dtype)
    network = {"conditional_size": conditional_size, "hidden_units": hidden_units, "activation": activation}
    layers = _layers(RadialFlow, event_size, num_layers, seed, dtype, "radial", network)
    return assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def sylvester_flow(
    event_size: int,
    *,
    num_layers: int = 8,
    rank: int | None = None,
    num_reflections: int | None = None,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "sylvester_flow",
) -> FlowDistribution:
    """A composition of Sylvester flows (van den Berg et al. 2018), which can be sampled and scored.

    Args:
      event_size, num_layers, hidden_units, activation, base: As in `planar_flow`.
      rank: Number `M <= D` of hidden units of each layer; `D` if `None`.
      num_reflections: Householder reflections of each layer; 4, or `D` if that is less, if `None`. Zero is the triangular
        variant, with a reversal of the dimensions between the layers.
      preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost for each event and layer: sampling `O(D M + M^2)`; `log_prob` the same and `M`
      scalar solves in turn.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = sylvester_flow(4, num_layers=2, rank=2, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])

    References:
      R. van den Berg, L. Hasenclever, J. M. Tomczak and M. Welling, Sylvester Normalizing Flows for Variational Inference,
      2018, arXiv:1803.05649.
    """
    event_size, num_layers = sizes(event_size, num_layers, minimum_layers=0)
    dtype = real_dtype(dtype)
    options = {
        "rank": rank,
        "num_reflections": num_reflections,
        "conditional_size": conditional_size,
        "hidden_units": hidden_units,
        "activation": activation,
    }
    layers = _layers(SylvesterFlow, event_size, num_layers, seed, dtype, "sylvester", options)
    if num_reflections == 0:
        reverse = np.arange(event_size)[::-1].astype(np.int32)
        reversals = [tfb.Permute(reverse, name=f"reverse_{i}") for i in range(len(layers))]
        layers = [part for pair in zip(layers, reversals, strict=True) for part in pair][:-1]
    return assemble(layers, event_size, base, preprocess, dtype, name)
