"""One transformer for each column."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfp_flows.registry import serializable
from tfp_flows.transformers.base import Transformer


@serializable
@dataclasses.dataclass(frozen=True)
class ColumnTransformer(Transformer):
    """Transformer of vectors `[..., D]` with one transformer for each column, such as splines of angles and of real numbers.

    Each column reads as many of its parameters as its transformer needs.

    Args:
      transformers: Tuple of `D` transformers.
    """

    transformers: tuple[Transformer, ...]

    @property
    def params(self) -> int:
        return max(transformer.params for transformer in self.transformers)

    def _each(self, direction: str, value, params):
        columns: dict[Transformer, list[int]] = {}
        for i, transformer in enumerate(self.transformers):
            columns.setdefault(transformer, []).append(i)
        pairs = [
            getattr(transformer, direction)(
                tf.gather(value, own, axis=-1), tf.gather(params, own, axis=-2)[..., : transformer.params]
            )
            for transformer, own in columns.items()
        ]
        order = np.argsort(np.concatenate(list(columns.values())))
        return tuple(tf.gather(tf.concat(parts, axis=-1), order, axis=-1) for parts in zip(*pairs, strict=True))

    def forward(self, x, params):
        return self._each("forward", x, params)

    def inverse(self, y, params):
        return self._each("inverse", y, params)


def for_columns(transformer: Transformer, is_angle: list[bool], for_angles: Transformer) -> Transformer:
    """Return `transformer`, with `for_angles` in its place in the columns that are angles unless it is circular itself."""
    if transformer.is_circular or not any(is_angle):
        return transformer
    return for_angles if all(is_angle) else ColumnTransformer(tuple(for_angles if a else transformer for a in is_angle))
