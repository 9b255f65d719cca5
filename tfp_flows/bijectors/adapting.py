"""Data-dependent initialization of the layers of a flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.composition import walk

MOST_ROWS = 2**17


def rows_of(name: str, batch: Any, size: int) -> np.ndarray:
    """Return the events of a batch `[..., size]`, or of an iterator of batches, as float64 rows.

    Layers use it whose initialization needs all rows at once, such as quantiles. Above 131,072 rows it thins them evenly.

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
    """Replace deviations that are only rounding errors by 1; `largest` holds the largest absolute value of each column."""
    floor = 1e3 * np.finfo(dtype.as_numpy_dtype).eps * np.maximum(1.0, largest)
    return np.where(deviation > floor, deviation, 1.0)


def without_far_values(rows: np.ndarray) -> np.ndarray:
    """Clip each column of rows `[N, D]` to its middle 99 %, so that a few outliers do not decide the scale."""
    return np.clip(rows, *np.quantile(rows, [0.005, 0.995], axis=0))


def waits_for_data(bijector: tfb.Bijector) -> bool:
    """Return whether `fit` still has to adapt a layer."""
    return any(map(_waits, (bijector, *bijector.submodules)))


def _waits(part: Any) -> bool:
    return isinstance(part, FlowBijector) and part.adapts_in_fit and not part.adapted


def adapt_layers(bijector: tfb.Bijector, y: tf.Tensor, event_ndims: int, **kwargs) -> None:
    """Adapt every uninitialized layer to one batch `y`, from the data side inwards."""

    def visit(part, value, inverse):
        if inverse and _waits(part):
            part.adapt(value)

    walk(bijector, y, event_ndims, True, kwargs, visit)


def adapt_layers_by_all(bijector: tfb.Bijector, batches: Callable[[], Iterable], event_ndims: int) -> None:
    """Like `adapt_layers`, but over all batches `(y, kwargs)`. Makes one pass per uninitialized layer."""
    waiting: list[FlowBijector] = []

    def note(part, value, inverse):
        if inverse and _waits(part) and part not in waiting:
            waiting.append(part)

    def values_before(layer):
        seen: list[tf.Tensor] = []

        def visit(part, value, inverse):
            if inverse and part is layer:
                seen.append(value)

        for y, kwargs in batches():
            seen.clear()
            walk(bijector, y, event_ndims, True, kwargs, visit)
            yield seen[0]

    for y, kwargs in batches():
        walk(bijector, y, event_ndims, True, kwargs, note)
        break
    for layer in waiting:
        layer.adapt(values_before(layer))
