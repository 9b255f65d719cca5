"""The recipe of trainable Gaussianization."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import ActNorm, MarginalGaussianization, Rotation
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import real_dtype
from tfp_flows.recipes.recipe import assemble, recipe, sizes
from tfp_flows.seeds import split_seed
from tfp_flows.transformers import GaussianMixtureTransformer

tfb = tfp.bijectors
tfd = tfp.distributions


@recipe
def gaussianization_flow(
    event_size: int,
    *,
    num_layers: int = 6,
    num_components: int = 8,
    num_reflections: int | None = None,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "gaussianization_flow",
) -> FlowDistribution:
    """A Gaussianization flow (Meng et al. 2020): mixture CDFs for each dimension, and trainable rotations between them.

    Layer by layer, from the data's side, the maps start as Gaussianization of the data: `FlowModel.fit` lets them start from
    its first batch, `FlowModel.adapt(x)` from all of `x`. Training goes on from there. (The paper's mixtures are
    logistic, with a component for each of many anchors; these are Gaussian and start by expectation maximization.)

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of layers; none leaves the base.
      num_components: Number of components of each mixture.
      num_reflections: Householder reflections of each rotation; enough for any rotation, `D - 1`, if `None`. With fewer the
        rotations start at random, and not along principal axes.
      hidden_units, activation: Of the networks that move the mixtures by a condition; unused without one.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost for each event and layer: `log_prob` `O(D^2 + D num_components)`, without a network;
      sampling the same, with a scalar solve for each dimension.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = gaussianization_flow(2, num_layers=2, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])

    References:
      C. Meng, Y. Song, J. Song and S. Ermon, Gaussianization Flows, 2020, arXiv:2003.01941.
    """
    event_size, num_layers = sizes(event_size, num_layers, minimum_layers=0)
    dtype = real_dtype(dtype)
    transformer = GaussianMixtureTransformer(num_components)
    enough = num_reflections is None or num_reflections >= max(1, event_size - 1)
    seeds = split_seed(seed, 2 * num_layers)
    layers: list[tfb.Bijector] = []
    for i in range(num_layers):
        marginal = MarginalGaussianization(
            event_size,
            transformer,
            conditional_size=conditional_size,
            hidden_units=hidden_units,
            activation=activation,
            seed=seeds[2 * i],
            dtype=dtype,
            name=f"marginal_{i}",
        )
        start = "pca" if enough else "random"
        rotation = Rotation(
            event_size,
            num_reflections=num_reflections,
            start=start,
            seed=seeds[2 * i + 1],
            dtype=dtype,
            name=f"rotation_{i}",
        )
        # Data are made normal before they are rotated for the first time.
        layers += [marginal, rotation] if i < num_layers - 1 else [marginal, ActNorm(event_size, dtype=dtype)]
    return assemble(layers, event_size, base, preprocess, dtype, name)
