"""Checks of the data for `fit`, `evaluate` and `predict`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flows.data.arrays import to_array
from tfp_flows.data.degenerate import find_degenerate
from tfp_flows.data.moments import Moments, moments


def check_events(name: str, x: Any, event_shape: tuple[int | None, ...], dtype: tf.DType) -> np.ndarray:
    """Return events `[N, *event_shape]` in the distribution's dtype. Raise a `ValueError` if any is not finite or real."""
    array = to_array(name, x)
    if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
        raise ValueError(
            f"`{name}` has dtype {array.dtype}, but a density is over real numbers. If its values are measurements, "
            f'convert it with {name}.astype("{dtype.name}"); if they are levels, as in images, '
            "see FlowModel(..., dequantize=levels), which adds noise: a density of discrete values has no bound."
        )
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
        raise ValueError(f"`{name}` must be an array of floating point numbers, got dtype {array.dtype}.")
    _check_shape(name, array, event_shape)
    with np.errstate(over="ignore"):
        array = array.astype(dtype.as_numpy_dtype)
    check_finite(name, array)
    return array


def _check_shape(name: str, array: np.ndarray, event_shape: tuple[int | None, ...]) -> None:
    expected = "[N" + "".join(f", {'?' if n is None else n}" for n in event_shape) + "]"
    sizes_differ = any(n is not None and n != m for n, m in zip(event_shape, array.shape[1:], strict=False))
    if array.ndim != 1 + len(event_shape) or sizes_differ:
        raise ValueError(f"`{name}` must have shape {expected}, got {list(array.shape)}.")
    if array.size == 0:
        raise ValueError(f"`{name}` is empty: it has shape {list(array.shape)}.")


def check_levels(name: str, x: Any, event_shape: tuple[int | None, ...], levels: int) -> np.ndarray:
    """Return integers `0 .. levels - 1`, as bytes if they fit. Raise a `ValueError` for other values or another shape."""
    array = to_array(name, x)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ValueError(f"`{name}` must be an array of integers, got dtype {array.dtype}.")
    _check_shape(name, array, event_shape)
    low, high = array.min(), array.max()
    whole = np.issubdtype(array.dtype, np.integer) or np.all(array == np.floor(array))
    if not whole or low < 0 or high > levels - 1:
        raise ValueError(
            f"`{name}` must hold the integers 0 to {levels - 1}, which the model dequantizes, got {array.dtype} from {low} to "
            f"{high}."
        )
    return array.astype(np.uint8 if levels <= 256 else np.int32)


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise a `ValueError` that names the first row (and column) that is not finite."""
    # A finite sum proves that all values are finite, and is faster than a check of each.
    if np.isfinite(np.sum(array, dtype=np.float64)):
        return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, *rest = map(int, bad[0])
        column = f", column {rest[0] if len(rest) == 1 else rest}" if rest else ""
        raise ValueError(
            f"`{name}` must be finite in {array.dtype}, got {array[tuple(bad[0])]} in row {row}{column} "
            f"({len(bad)} such values in all)."
        )


def look_at_rows(
    name: str,
    given: Any,
    array: np.ndarray,
    scaled: bool,
    columns: Sequence[str] | None = None,
    stacklevel: int = 4,
    dependent: Sequence[int] = (),
) -> None:
    """Warn if no density can be fitted to rows `[N, D]` of training data; `given` may have a higher precision than `array`.

    Columns with an index in `dependent` follow from the others, and are not looked at.

    Raises a `ValueError` for a single row, and for columns whose variation is lost in the dtype of `array`.
    """
    if len(array) < 2:
        raise ValueError(
            f"`{name}` must have at least 2 rows to train on, got 1: a density fitted to one has no bound."
        )
    if array.ndim != 2:
        return
    columns, free = range(array.shape[1]) if columns is None else columns, np.delete(range(array.shape[1]), dependent)
    columns = [columns[j] for j in free]
    labels, array, exact = [repr(c) for c in columns], array[:, free], to_array(name, given)[:, free]
    found = moments(f"`{name}`", array.shape[1], (exact[i : i + 65536] for i in range(0, len(exact), 65536)))
    _check_precision(name, found, array.dtype, labels)
    spread, constant = found.deviation, array.min(axis=0) == array.max(axis=0)
    problem = None
    if np.any(constant):
        problem = f"column {labels[int(np.argmax(constant))]} is constant"
    elif (pair := _equal_columns(array)) is not None:
        problem = f"columns {labels[pair[0]]} and {labels[pair[1]]} are equal"
    if problem:
        message = f"`{name}`: {problem}, so the likelihood is unbounded: leave such a column out."
        warnings.warn(message, stacklevel=stacklevel)
    for finding in find_degenerate(array, columns):
        warnings.warn(f"`{name}`: {finding}.", stacklevel=stacklevel)
    if not problem and not scaled and (np.any(spread > 1e4) or np.any(spread < 1e-4)):
        column = int(np.argmax(np.abs(np.log(spread))))
        warnings.warn(
            f"`{name}` has a standard deviation of {spread[column]:.3g} in column {labels[column]}, and a flow starts near "
            "one. Give the recipe preprocess=tff.standardize(x).",
            stacklevel=stacklevel,
        )


def farthest_value(array: np.ndarray | None) -> tuple[int, int, float] | None:
    """Return the row and column of the value farthest from its column's mean, and its distance in standard deviations."""
    if array is None or array.ndim != 2 or len(array) < 2:
        return None
    spread = array.std(axis=0, dtype=np.float64)
    far = np.abs(array - array.mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1.0)
    row, column = np.unravel_index(np.argmax(far), far.shape)
    return int(row), int(column), float(far[row, column])


def _check_precision(name: str, found: Moments, dtype: np.dtype, labels: Sequence[str]) -> None:
    largest = np.maximum(np.abs(found.lowest), np.abs(found.highest))
    lost = (np.spacing(largest.astype(dtype)) > 1e-2 * found.deviation) & (found.highest > found.lowest)
    if np.any(lost):
        column = int(np.argmax(lost))
        raise ValueError(
            f"`{name}` varies by {found.deviation[column]:.3g} around {found.mean[column]:.8g} in column {labels[column]}, "
            f"which is too little to be seen in {dtype}: subtract a constant from the column, or make the flow in float64."
        )


def look_at_conditions(name: str, given: Any, dtype: tf.DType, read: np.ndarray, stacklevel: int = 4) -> None:
    """Warn if the scale of training conditions `[N, C]` is far from one where the networks read them.

    `read` are the preprocessed conditions; `given` may have a higher precision. Raises a `ValueError` for columns whose
    variation is lost in `dtype`.
    """
    exact = to_array(name, given, mixed=True)
    if len(exact) < 2:
        return
    labels = [str(j) for j in range(exact.shape[1])]
    _check_precision(name, moments(f"`{name}`", exact.shape[1], [exact]), np.dtype(dtype.as_numpy_dtype), labels)
    found = moments(f"`{name}`", read.shape[1], [read])
    spread, center = found.deviation, np.abs(found.mean)
    # Flags of rare classes vary little, which is no problem.
    varies = (found.highest > found.lowest) & ~np.all((read == 0) | (read == 1), axis=0)
    odd = varies & ((np.maximum(spread, center) > 100.0) | (np.maximum(spread, center) < 1e-2))
    if np.any(odd):
        column = int(np.argmax(odd))
        warnings.warn(
            f"`{name}` has mean {found.mean[column]:.3g} and standard deviation {spread[column]:.3g} in column {column} where "
            "networks read it, and they expect about 0 and 1: give the flow preprocess_condition=tff.standardize(conditions).",
            stacklevel=stacklevel,
        )


def _equal_columns(array: np.ndarray) -> tuple[int, int] | None:
    seen: dict[tuple, int] = {}
    for j, key in enumerate(zip(array[0].tolist(), array[-1].tolist(), array.sum(axis=0).tolist(), strict=True)):
        i = seen.setdefault(key, j)
        if i != j and np.array_equal(array[:, i], array[:, j]):
            return i, j
    return None


def check_conditions(name: str, x: Any, size: int, dtype: tf.DType) -> np.ndarray:
    """Return conditions `[N, size]` in the distribution's dtype. Raise a `ValueError` if any is not a finite number."""
    array = to_array(name, x, mixed=True)
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool or array.dtype.name == "bfloat16"):
        raise ValueError(f"`{name}` must be an array of numbers, got dtype {array.dtype}.")
    if array.ndim != 2 or array.shape[1] != size:
        raise ValueError(f"`{name}` must hold conditions, of shape [N, {size}], got {list(array.shape)}.")
    array = array.astype(dtype.as_numpy_dtype)
    check_finite(name, array)
    return array


def check_element_spec(
    name: str, spec: Any, event_shape: tuple[int | None, ...], conditional_size: int | None, levels: int | None
) -> None:
    """Raise a `ValueError` if the `element_spec` of a dataset has a wrong dtype, rank or size."""
    given = spec
    if conditional_size is not None:
        if not isinstance(spec, (tuple, list)) or len(spec) < 2:
            raise ValueError(f"`{name}` must yield (conditions, events), got elements {spec}.")
        (conditions, spec), shape = spec[:2], [None, conditional_size]
        if not isinstance(conditions, tf.TensorSpec) or not conditions.shape.is_compatible_with(shape):
            raise ValueError(f"`{name}` must yield conditions of shape {shape}, got {conditions}.")
    elif isinstance(spec, (tuple, list)) and len(spec) == 2:
        raise ValueError(f"`{name}` yields pairs; it must yield the events alone, since there is no `y`.")
    else:
        spec = spec[0] if isinstance(spec, (tuple, list)) and spec else spec
    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(f"`{name}` must yield batches of events, one tensor each, got elements {given}.")
    if levels is not None and not spec.dtype.is_integer:
        raise ValueError(
            f"`{name}` must yield integers 0 to {levels - 1}, which the model dequantizes, got {spec.dtype.name}."
        )
    if levels is None and not spec.dtype.is_floating:
        raise ValueError(
            f"`{name}` yields dtype {spec.dtype.name}, but a density is over real numbers: "
            f"map it with `lambda x: tf.cast(x, tf.float32)`; for levels, see FlowModel(..., dequantize=levels)."
        )
    if not spec.shape.is_compatible_with((None, *event_shape)):
        hint = " (batch the dataset first)" if spec.shape.is_compatible_with(event_shape) else ""
        raise ValueError(f"`{name}` must yield batches of shape {[None, *event_shape]}, got {spec.shape}{hint}.")
