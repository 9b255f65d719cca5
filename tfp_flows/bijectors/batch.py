"""Layers that start from data, and the batches they start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

MOST_ROWS = 2**17


class StartsFromData:
    """Of a bijector whose method `initialize(batch)` lets it start from data: whether it has, in a variable that is saved."""

    def _make_initialized(self, dtype: tf.DType, value: bool = False) -> None:
        # A number and not a boolean, so that Keras can save it.
        self._initialized = tf.Variable(tf.cast(value, dtype), trainable=False, name="initialized")

    @property
    def initialized(self) -> bool:
        """Whether `initialize` was called, here or before a checkpoint that was restored, or need not be."""
        return bool(self._initialized.numpy() != 0)


def rows_of(name: str, batch: Any, size: int) -> np.ndarray:
    """The events of a batch `[..., size]`, or of an iterator of batches, as rows in float64.

    For layers whose start needs all rows at once, such as quantiles. Of more than 131,072 rows every second is left out, or
    three of four, and so on.

    Raises:
      ValueError: If a batch has another shape or a value that is not finite, or if there are fewer than two rows.
    """
    found, count, kept, every = [], 0, 0, 1
    for part in batch if isinstance(batch, Iterator) else [batch]:
        shape = np.shape(part)
        if not shape or shape[-1] != size:
            raise ValueError(f"{name} must have shape [..., {size}], got {list(shape)}.")
        rows = np.reshape(np.asarray(part, np.float64), [-1, size])
        if not np.all(np.isfinite(rows)):
            row, column = np.argwhere(~np.isfinite(rows))[0]
            raise ValueError(f"{name} must be finite, got {rows[row, column]} in row {count + row}, column {column}.")
        found.append(rows[-count % every :: every])
        count += len(rows)
        kept += len(found[-1])
        while kept > MOST_ROWS:
            thinned = np.concatenate(found)[::2]
            found, kept, every = [thinned], len(thinned), 2 * every
    if count < 2:
        raise ValueError(f"{name} must have at least 2 rows, got {count}.")
    return np.concatenate(found)


def deviation_or_one(deviation: np.ndarray, largest: np.ndarray, dtype: tf.DType) -> np.ndarray:
    """Deviations to divide by: 1 where a column of absolute values up to `largest` varies by rounding only."""
    floor = 1e3 * np.finfo(dtype.as_numpy_dtype).eps * np.maximum(1.0, largest)
    return np.where(deviation > floor, deviation, 1.0)


def without_far_values(rows: np.ndarray) -> np.ndarray:
    """Rows `[N, D]`, each column clipped to its middle 99 %: a few far rows must not decide how wide the rest is."""
    return np.clip(rows, *np.quantile(rows, [0.005, 0.995], axis=0))
