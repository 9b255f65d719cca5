"""Recipe of trainable Gaussianization."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import ActNorm, MarginalGaussianization, Rotation
from tfp_flows.checks import positive_int
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed
from tfp_flows.transformers import GaussianMixtureTransformer


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
    """Build a Gaussianization flow (Meng et al. 2020): mixture CDFs per dimension, with trainable rotations between them.

    `FlowModel.fit` initializes the layers from its first batch, one by one from the data side, and `FlowModel.adapt(x)`
    from all of `x`. The mixtures are Gaussian and fitted by expectation maximization; those of the paper are logistic.

    Args:
      num_layers: Number of layers; 0 returns the base.
      num_reflections: Householder reflections of each rotation; `D - 1`, enough for any rotation, if `None`. With
        fewer, the rotations start at random instead of along principal axes.
      hidden_units: Sizes of the hidden layers of the networks that change the mixtures by a condition; unused without one.

    Example:
      >>> flow = tff.gaussianization_flow(2, num_layers=2, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    network = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size}
    mixture = GaussianMixtureTransformer(num_components)
    enough = num_reflections is None or num_reflections >= max(1, event_size - 1)
    rotation = {"num_reflections": num_reflections, "start": "pca" if enough else "random", "dtype": dtype}
    seeds = split_seed(seed, 2 * positive_int("num_layers", num_layers, 0))
    layers: list[tfp.bijectors.Bijector] = []
    for i in range(num_layers):
        name, seed = f"marginal_{i}", seeds[2 * i]
        layers.append(MarginalGaussianization(event_size, mixture, seed=seed, dtype=dtype, name=name, **network))
        # The first map normalizes the data before any rotation.
        if i < num_layers - 1:
            layers.append(Rotation(event_size, seed=seeds[2 * i + 1], name=f"rotation_{i}", **rotation))
        else:
            layers.append(ActNorm(event_size, dtype=dtype))
    return layers
