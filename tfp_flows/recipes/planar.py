"""Flows for variational inference: planar, radial, Sylvester."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import PlanarFlow, RadialFlow, SylvesterFlow
from tfp_flows.checks import positive_int
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed

tfb = tfp.bijectors


def amortized_layers(
    kind: type,
    event_size: int,
    name: str,
    *,
    num_layers: int = 16,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    conditional_size: int | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
    **options,
) -> list[tfb.Bijector]:
    """Return layers of one class, each with its own seed."""
    options = {"hidden_units": hidden_units, "activation": activation, "conditional_size": conditional_size, **options}
    seeds = split_seed(seed, positive_int("num_layers", num_layers, 0))
    return [kind(event_size, seed=s, dtype=dtype, name=f"{name}_{i}", **options) for i, s in enumerate(seeds)]


@recipe(
    like=amortized_layers,
    paper="Rezende and Mohamed 2015, Variational Inference with Normalizing Flows",
    arxiv="1505.05770",
    density="O(D) and a scalar solve, no network",
    sampling="O(D), no network",
)
def planar_flow(event_size: int, **options):
    """Planar flow (Rezende and Mohamed 2015), with sampling and densities of any point.

    Args:
      num_layers: Number of layers. With 0, the flow is its base.
      hidden_units: Sizes of the hidden layers of the networks that compute `u`, `w` and `b` from a condition.

    Example:
      >>> flow = planar_flow(2, num_layers=4, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    return amortized_layers(PlanarFlow, event_size, "planar", **options)


@recipe(
    like=amortized_layers,
    paper="Rezende and Mohamed 2015, Variational Inference with Normalizing Flows",
    arxiv="1505.05770",
    density="O(D), no network",
    sampling="O(D), no network",
)
def radial_flow(event_size: int, **options):
    """Radial flow (Rezende and Mohamed 2015), with both directions in closed form.

    Args:
      num_layers: Number of layers. With 0, the flow is its base.
      hidden_units: Sizes of the hidden layers of the networks that read a condition.

    Example:
      >>> flow = radial_flow(2, num_layers=4, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    return amortized_layers(RadialFlow, event_size, "radial", **options)


@recipe(
    like=amortized_layers,
    paper="van den Berg et al. 2018, Sylvester Normalizing Flows for Variational Inference",
    arxiv="1803.05649",
    density="O(D M) and M scalar solves, no network",
    sampling="O(D M), no network",
)
def sylvester_flow(
    event_size: int, *, num_layers: int = 8, rank: int | None = None, num_reflections: int | None = None, **options
):
    """Sylvester flow (van den Berg et al. 2018), with sampling and densities of any point.

    Args:
      num_layers: Number of layers. With 0, the flow is its base.
      rank: Number `M <= D` of hidden units of each layer, or `None` for `D`.
      num_reflections: Number of Householder reflections of each layer, or `None` for `min(4, D)`. Zero is the triangular
        variant, with a reversal of the dimensions between the layers.
      hidden_units: Sizes of the hidden layers of the networks that read a condition.

    Example:
      >>> flow = sylvester_flow(4, num_layers=2, rank=2, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    options |= {"num_layers": num_layers, "rank": rank, "num_reflections": num_reflections}
    layers = amortized_layers(SylvesterFlow, event_size, "sylvester", **options)
    if num_reflections == 0:
        reverse = np.arange(event_size)[::-1].astype(np.int32)
        reversals = [tfb.Permute(reverse, name=f"reverse_{i}") for i in range(len(layers))]
        layers = [part for pair in zip(layers, reversals, strict=True) for part in pair][:-1]
    return layers
