"""Conversion of arrays, tensors, data frames and masked arrays to NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_array(name: str, x: Any, mixed: bool = False) -> np.ndarray:
    """Return `x` as a NumPy array, without losing what `np.asarray` drops.

    A data frame may hold floating-point columns, of NumPy's or pandas' nullable dtypes. If all columns are integers or
    flags, so is the result. With `mixed`, integers and flags may stand beside floating-point columns.

    Raises:
      ValueError: For masked or missing values, sparse matrices, and other columns of a data frame; it names the column.
    """
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise ValueError(f"`{name}` has {np.ma.count_masked(x)} masked values: leave those rows out, or fill them.")
        return np.asarray(x.data)
    if type(x).__module__.startswith("scipy.sparse") or hasattr(x, "tocsr"):
        raise ValueError(f"`{name}` is a sparse matrix, {type(x).__name__}: convert it with {name}.toarray().")
    if hasattr(x, "columns") and hasattr(x, "dtypes") and hasattr(x, "to_numpy"):
        return _from_frame(name, x, mixed)
    if hasattr(x, "isna") and hasattr(x, "to_numpy") and getattr(x, "ndim", 0) == 1:
        return _column(name, f"`{name}`", x)
    return np.asarray(x)


def column_names(x: Any) -> list[str] | None:
    """Return the column names of a data frame, or `None` for other arrays."""
    return [str(c) for c in x.columns] if hasattr(x, "columns") and hasattr(x, "dtypes") else None


def _from_frame(name: str, frame: Any, mixed: bool) -> np.ndarray:
    columns = [_column(name, f"column {c!r} of `{name}`", frame.iloc[:, i]) for i, c in enumerate(frame.columns)]
    kinds = [c.dtype.kind for c in columns]
    if "f" in kinds and not mixed:
        for c, values in zip(frame.columns, columns, strict=True):
            if values.dtype.kind in "iub":
                raise ValueError(
                    f"column {c!r} of `{name}` has dtype {values.dtype}, but a density is over real numbers. If its values "
                    f'are measurements, convert it with {name}.astype("float32"); else leave it out, or make it a condition. '
                    f"tff.fit_table({name}) gives integers and categories probabilities."
                )
    return np.stack(columns, axis=1) if columns else np.empty([len(frame), 0])


def _column(name: str, where: str, column: Any) -> np.ndarray:
    """Return a column as an array. The dtype `kind` of pandas' nullable types is that of the numbers."""
    kind = getattr(column.dtype, "kind", "O")
    if kind not in "fiub":
        raise ValueError(
            f"{where} has dtype {column.dtype}, where numbers are expected: encode it, or leave it out. "
            f"tff.fit_table({name}) takes text, flags and categories."
        )
    if column.isna().any():
        row = int(np.argmax(np.asarray(column.isna())))
        raise ValueError(
            f"{where} must be finite, got a missing value in row {row} of `{name}`: leave such rows out with {name}.dropna(), "
            f"fill them with {name}.fillna(...), or learn from the others with tff.fit_table({name}, any_order=True)."
        )
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    return column.to_numpy(dtype=column.dtype.numpy_dtype if hasattr(column.dtype, "numpy_dtype") else np.float64)
