"""Parts shared by recipes: transformers per layer, mixing and normalization layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import ActNorm, BatchNormalization, LULinear, Support
from tfp_flows.checks import one_of
from tfp_flows.transformers import CircularSplineTransformer, Transformer

MIXINGS = ("reverse", "permute", "lu")
NORMALIZATIONS = ("actnorm", "batch_norm")


def mixing_layer(mixing: str, event_size: int, seed: int, dtype: tf.DType, name: str) -> tfb.Bijector:
    """Return a layer that mixes the dimensions: `"reverse"`, `"permute"` (fixed, random) or `"lu"` (trainable)."""
    one_of("mixing", mixing, MIXINGS)
    if mixing == "lu":
        return LULinear(event_size, seed=seed, dtype=dtype, name=name)
    return tfb.Permute(mixing_order(mixing, event_size, seed).astype(np.int32), name=name)


def mixing_order(mixing: str, event_size: int, seed: int) -> np.ndarray | None:
    """Return the order of the dimensions after a mixing layer, or `None` for one that is no permutation."""
    orders = {"reverse": np.arange(event_size)[::-1], "permute": np.random.default_rng(seed).permutation(event_size)}
    return orders.get(mixing)


def mixing_for(mixing: str, is_angle: Sequence[bool]) -> str:
    """Return the checked name of the mixing. With angles, permutations replace linear maps, which are not periodic."""
    one_of("mixing", mixing, MIXINGS)
    return "permute" if mixing == "lu" and any(is_angle) else mixing


def angles_of(support: Support | None, event_size: int, normalization: str | None) -> list[bool]:
    """Return for each latent dimension of `support` whether it is an angle."""
    is_angle = [support is not None and i in support.circles for i in range(event_size)]
    if any(is_angle) and normalization is not None:
        raise ValueError(f"`normalization` must be None with angles, which have no scale, got {normalization!r}.")
    return is_angle


def before_each_layer(is_angle: list[bool], orders: Sequence[np.ndarray | None]) -> list[list[bool]]:
    """Return which dimensions of each layer are angles, given those of the last. `orders` are permutations after the layers."""
    found = []
    for order in reversed(orders):
        if order is not None:
            is_angle = np.array(is_angle)[np.argsort(order)].tolist()
        found.append(is_angle)
    return found[::-1]


def spline_of_angles(transformer: Transformer) -> Transformer:
    """Return the transformer of angles in a flow with `transformer` for real columns: with as many bins, if it has any."""
    return CircularSplineTransformer(getattr(transformer, "num_bins", 8))


def normalization_layers(normalization: str | None, event_size: int, dtype: tf.DType, name: str) -> list[tfb.Bijector]:
    """Return a list with the normalization after a layer, empty for `None`."""
    if normalization is None:
        return []
    one_of("normalization", normalization, NORMALIZATIONS)
    layer = ActNorm if normalization == "actnorm" else BatchNormalization
    return [layer(event_size, dtype=dtype, name=f"{normalization}_{name}")]


def each_layer(transformer: Transformer | Sequence[Transformer], num_layers: int) -> list[Transformer]:
    """Return one transformer per layer. Raise a `ValueError` for other types or a list of another length."""
    transformers = list(transformer) if isinstance(transformer, (list, tuple)) else [transformer] * num_layers
    if len(transformers) != num_layers or not all(isinstance(t, Transformer) for t in transformers):
        raise ValueError(
            f"`transformer` must be a Transformer such as SplineTransformer(), or {num_layers} of them, one for each layer, "
            f"got {transformer!r}."
        )
    return transformers
