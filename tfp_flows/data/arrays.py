"""Conversion of user data to arrays: arrays, tensors, data frames and masked arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_array(name: str, x: Any, mixed: bool = False) -> np.ndarray:
    """Return `x` as a NumPy array. Unlike `np.asarray`, raise an error for masked and missing values.

    A data frame may hold floating point columns, of NumPy's or of pandas' nullable types. If all of its columns are integers
    or booleans, the result is an integer array.

    Args:
      name: Name of the argument, for messages.
      x: Array, tensor, data frame or series.
      mixed: Whether a data frame may mix integers and booleans with real numbers, as conditions do.

    Raises:
      ValueError: For masked or missing values, and for data frame columns of other types. The message names the column.
    """
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise ValueError(f"`{name}` has {np.ma.count_masked(x)} masked values: leave those rows out, or fill them.")
        return np.asarray(x.data)
    if _is_sparse(x):
        raise ValueError(f"`{name}` is a sparse matrix, {type(x).__name__}: convert it with {name}.toarray().")
    if hasattr(x, "columns") and hasattr(x, "dtypes") and hasattr(x, "to_numpy"):
        return _from_frame(name, x, mixed)
    if hasattr(x, "isna") and hasattr(x, "to_numpy") and getattr(x, "ndim", 0) == 1:
        return _column(name, f"`{name}`", x)
    return np.asarray(x)


def column_names(x: Any) -> list[str] | None:
    """Return the column names of a data frame, or `None` for anything else."""
    return [str(c) for c in x.columns] if hasattr(x, "columns") and hasattr(x, "dtypes") else None


def _is_sparse(x: Any) -> bool:
    return type(x).__module__.startswith("scipy.sparse") or hasattr(x, "tocsr")


def _from_frame(name: str, frame: Any, mixed: bool) -> np.ndarray:
    columns = [_column(name, f"column {c!r} of `{name}`", frame.iloc[:, i]) for i, c in enumerate(frame.columns)]
    kinds = [c.dtype.kind for c in columns]
    if "f" in kinds and not mixed:
        for c, values in zip(frame.columns, columns, strict=True):
            if values.dtype.kind in "iub":
                raise ValueError(
                    f"column {c!r} of `{name}` has dtype {values.dtype}, but a density is over real numbers. If its values "
                    f'are measurements, convert it with {name}.astype("float32"); else leave it out, or make it a condition.'
                )
    return np.stack(columns, axis=1) if columns else np.empty([len(frame), 0])


def _column(name: str, where: str, column: Any) -> np.ndarray:
    """Convert one column. Pandas' nullable types have a dtype whose `kind` is that of the numbers."""
    kind = getattr(column.dtype, "kind", "O")
    if kind not in "fiub":
        raise ValueError(f"{where} has dtype {column.dtype}, where numbers are expected: encode it, or leave it out.")
    if column.isna().any():
        row = int(np.argmax(np.asarray(column.isna())))
        raise ValueError(f"{where} must be finite, got a missing value in row {row} of `{name}`.")
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    return column.to_numpy(dtype=column.dtype.numpy_dtype if hasattr(column.dtype, "numpy_dtype") else np.float64)
