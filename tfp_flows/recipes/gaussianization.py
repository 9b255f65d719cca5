"""The recipe of trainable Gaussianization."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import ActNorm, MarginalGaussianization, Rotation
from tfp_flows.checks import positive_int
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed
from tfp_flows.transformers import GaussianMixtureTransformer

tfb = tfp.bijectors


@recipe(
    paper="Meng et al. 2020, Gaussianization Flows",
    arxiv="2003.01941",
    density="O(D^2), no network",
    sampling="O(D^2) and D scalar solves, no network",
)
def gaussianization_flow(
    event_size: int,
    *,
    num_layers: int = 6,
    num_components: int = 8,
    num_reflections: int | None = None,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    conditional_size: int | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
):
    """Gaussianization flow (Meng et al. 2020): mixture CDFs for each dimension, and trainable rotations between them.

    Layer by layer, from the data's side, the maps start as Gaussianization of the data: of the first batch in
    `FlowModel.fit`, of all of `x` by `FlowModel.adapt(x)` before. (The paper's mixtures are logistic, with a component for each
    of many anchors; these are Gaussian and start by expectation maximization.)

    Args:
      num_layers: Number of layers; none leaves the base.
      num_reflections: Householder reflections of each rotation; enough for any rotation, `D - 1`, if `None`. With fewer the
        rotations start at random, and not along principal axes.
      hidden_units: Sizes of the hidden layers of the networks that move the mixtures by a condition; unused without.

    Example:
      >>> flow = gaussianization_flow(2, num_layers=2, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    mixture = GaussianMixtureTransformer(num_components)
    enough = num_reflections is None or num_reflections >= max(1, event_size - 1)
    rotation = {"num_reflections": num_reflections, "start": "pca" if enough else "random", "dtype": dtype}
    seeds = split_seed(seed, 2 * positive_int("num_layers", num_layers, 0))
    layers: list[tfb.Bijector] = []
    for i in range(num_layers):
        name, seed = f"marginal_{i}", seeds[2 * i]
        layers.append(MarginalGaussianization(event_size, mixture, seed=seed, dtype=dtype, name=name, **network))
        # Data are made normal before they are rotated for the first time.
        if i < num_layers - 1:
            layers.append(Rotation(event_size, seed=seeds[2 * i + 1], name=f"rotation_{i}", **rotation))
        else:
            layers.append(ActNorm(event_size, dtype=dtype))
    return layers
