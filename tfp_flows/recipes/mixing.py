"""Parts shared by recipes: transformers per layer, mixing and normalization layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import ActNorm, BatchNormalization, LULinear
from tfp_flows.checks import one_of
from tfp_flows.transformers import Transformer

MIXINGS = ("reverse", "permute", "lu")
NORMALIZATIONS = ("actnorm", "batch_norm")


def mixing_layer(mixing: str, event_size: int, seed: int, dtype: tf.DType, name: str) -> tfb.Bijector:
    """Return a layer that mixes the dimensions: `"reverse"`, `"permute"` (fixed, random) or `"lu"` (trainable)."""
    one_of("mixing", mixing, MIXINGS)
    if mixing == "lu":
        return LULinear(event_size, seed=seed, dtype=dtype, name=name)
    order = np.arange(event_size)[::-1] if mixing == "reverse" else np.random.default_rng(seed).permutation(event_size)
    return tfb.Permute(order.astype(np.int32), name=name)


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
