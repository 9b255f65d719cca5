"""Recipes of flows for variational inference: planar, radial, Sylvester."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import PlanarFlow, RadialFlow, SylvesterFlow
from tfp_flows.checks import positive_int
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed


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
    """Return layers of one kind, each with its own seed.

    Args:
      num_layers: Number of layers; with 0, the flow is the base, followed by `support` or `preprocess`.
      hidden_units: Sizes of the hidden layers of the networks that read a condition; unused without one.
    """
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
    """Build a flow of planar layers (Rezende and Mohamed 2015).

    Example:
      >>> flow = tff.planar_flow(2, num_layers=4, seed=1)
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
    """Build a sequence of radial flows (Rezende and Mohamed 2015).

    Example:
      >>> flow = tff.radial_flow(2, num_layers=4, seed=1)
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
    """Build a sequence of Sylvester flows (van den Berg et al. 2018).

    Args:
      rank: Number `M <= D` of hidden units of each layer; `D` if `None`.
      num_reflections: Householder reflections of each layer; `min(4, D)` if `None`; 0 for reversals instead (triangular
        variant).

    Example:
      >>> flow = tff.sylvester_flow(4, num_layers=2, rank=2, seed=1)
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
