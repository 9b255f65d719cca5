"""Reading of data frames and arrays column by column, with errors that name the column."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

LARGEST_INTEGER = 2**24 - 1  # above, float32 skips integers


def pandas():
    """Return the module pandas.

    Raises:
      ImportError: If it is not installed.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError("Data frames need pandas: pip install 'tfp_flows[tables]'") from error


def is_frame(x: Any) -> bool:
    """Return whether `x` is a data frame."""
    return hasattr(x, "columns") and hasattr(x, "dtypes") and hasattr(x, "iloc")


def frame_columns(name: str, x: Any) -> dict[str, Any]:
    """Return the columns of a data frame by name, or of an array `[N, D]`, as `x1`, `x2`, ...

    Raises:
      ValueError: For another rank, and for names that are not unique.
    """
    if not is_frame(x):
        array = np.ma.filled(x.astype(float), np.nan) if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
        if array.ndim != 2:
            raise ValueError(
                f"`{name}` must be a data frame or an array of shape [N, D], got shape {list(array.shape)}."
            )
        return {f"x{j + 1}": array[:, j] for j in range(array.shape[1])}
    if getattr(x.columns, "nlevels", 1) > 1:
        raise ValueError(f"`{name}` must have one name for each column, got {x.columns.nlevels} levels of names.")
    names = [str(c) for c in x.columns]
    for j, key in enumerate(names):
        if names.index(key) != j:
            raise ValueError(f"`{name}` must have columns with different names, got two named {key!r}.")
    return {key: x.iloc[:, j] for j, key in enumerate(names)}


def frame_labels(x: Any) -> list[str | int]:
    """Return the column labels of a data frame: strings and integers as they are, others as strings."""
    labels = x.columns.tolist()
    return [c if isinstance(c, (str, int)) and not isinstance(c, bool) else str(c) for c in labels]


def frame_layout(x: Any) -> dict[str, list]:
    """Return labels and names of dtypes of the columns of a data frame, for `to_frame`."""
    return {"labels": frame_labels(x), "dtypes": [str(dtype) for dtype in x.dtypes]}


def to_frame(values: np.ndarray, layout: dict[str, list] | None, names: list[str]) -> Any:
    """Return rows of numbers as a data frame. Columns get their dtypes if these are of the same kind as the numbers."""
    pd = pandas()
    if layout is None:  # of an old file
        return pd.DataFrame(values, columns=names)
    frame = pd.DataFrame(values, columns=layout["labels"])
    dtypes = dict(zip(layout["labels"], layout["dtypes"], strict=True))
    same = "f" if values.dtype.kind == "f" else "iub"
    return frame.astype({key: name for key, name in dtypes.items() if pd.api.types.pandas_dtype(name).kind in same})


def is_array(x: Any) -> bool:
    """Return whether `x` holds rows of an array, and is no data frame, dataset or generator."""
    return isinstance(x, (list, tuple)) or (hasattr(x, "__array__") and not is_frame(x))


def check_names(name: str, given: list[str], expected: list[str]) -> None:
    """Raise a `ValueError` that names the columns of `given` that are missing, unknown or in another order."""
    listed = ", ".join(map(repr, expected))
    if twice := [key for key in given if given.count(key) > 1]:
        raise ValueError(f"`{name}` must have columns with different names, got two named {twice[0]!r}.")
    if absent := [key for key in expected if key not in given]:
        raise ValueError(f"`{name}` has no column {', '.join(map(repr, absent))}, expected the columns {listed}.")
    if unknown := [key for key in given if key not in expected]:
        raise ValueError(f"`{name}` has a column {', '.join(map(repr, unknown))}, expected only the columns {listed}.")
    for own, other in zip(expected, given, strict=True):
        if own != other:
            raise ValueError(
                f"`{name}` has the columns in another order: expected {own!r}, got {other!r} in its place. Select them in the "
                f"order of the model: {name}[[{listed}]]."
            )


def check_columns(known: list[str] | None, part: str, **given: Any) -> list[str] | None:
    """Check the names of several data frames by argument, and return `known`, or the names of the first frame.

    Pairs are read at `part`, `"[0]"` or `"[1]"`; anything else than data frames is skipped.
    """
    for name, rows in given.items():
        label = name
        if isinstance(rows, (tuple, list)) and rows:
            rows, label = rows[0 if part != "[1]" else -1], name + part
        if is_frame(rows):
            names = [str(c) for c in rows.columns]
            if known is None:
                known = names
            check_names(label, names, known)
    return known


def read_values(name: str, key: str, part: Any) -> tuple[np.ndarray, str, str, list, bool]:
    """Read a column: float64 values or codes (NaN if missing), kind, dtype, categories, and whether these are ordered.

    Raises:
      ValueError: If the column holds something else than numbers, text and flags.
    """
    where = f"column {key!r} of `{name}`"
    dtype = getattr(part.dtype, "name", str(part.dtype))
    kind = getattr(part.dtype, "kind", "O")
    if dtype == "category":
        categories = part.cat.categories.tolist()
        _check_types(where, categories)
        return _codes(part.cat.codes.to_numpy()), "category", dtype, categories, bool(part.cat.ordered)
    if hasattr(part.dtype, "fill_value") and dtype.startswith("Sparse"):
        raise ValueError(f"{where} must be dense, got dtype {dtype}: convert it with .sparse.to_dense().")
    if kind in "mM":
        raise ValueError(
            f"{where} must hold numbers or categories, got dtype {dtype}: convert times to numbers, such as days since a date."
        )
    if kind == "c":
        raise ValueError(
            f"{where} must hold real numbers, got dtype {dtype}: use real and imaginary parts as two columns."
        )
    if kind in "iuf" and dtype != "object":
        values = np.asarray(
            part.to_numpy(dtype=np.float64, na_value=np.nan) if hasattr(part, "to_numpy") else part, np.float64
        )
        return _numbers(where, values, kind, dtype)
    return _read_objects(where, part, dtype)


def _numbers(where: str, values: np.ndarray, kind: str, dtype: str) -> tuple[np.ndarray, str, str, list, bool]:
    if np.any(np.isinf(values)):
        row = int(np.argmax(np.isinf(values)))
        raise ValueError(f"{where} must hold finite numbers, got {values[row]} in row {row}.")
    missing = np.isnan(values)
    present = values[~missing]
    whole = len(present) > 0 and np.all(present == np.round(present)) and np.all(np.abs(present) <= LARGEST_INTEGER)
    if kind == "f" and missing.any() and whole:
        return values, "integer", "Int64" if dtype[:1] == "F" else "int64", [], False
    return values, "real" if kind == "f" else "integer", dtype, [], False


def _read_objects(where: str, part: Any, dtype: str) -> tuple[np.ndarray, str, str, list, bool]:
    """Read text, flags, or Python objects: numbers stay numbers, and other distinct values become categories."""
    values = part.to_numpy(dtype=object) if hasattr(part, "to_numpy") else np.asarray(part, object)
    missing = np.asarray(part.isna()) if hasattr(part, "isna") else np.array([v is None or v != v for v in values])
    present = values[~missing]
    try:
        categories = list(dict.fromkeys(present.tolist()))
    except TypeError:
        kind = next(type(v).__name__ for v in present if type(v).__hash__ is None)
        raise ValueError(f"{where} must hold numbers, text or flags, got objects such as a {kind}.") from None
    _check_types(where, present.tolist() if dtype == "object" else categories)  # since True == 1
    if categories and kind_of(categories[0]) == "number":
        real = any(isinstance(c, (float, np.floating)) for c in categories)
        result = np.full(len(values), np.nan)
        result[~missing] = present.astype(np.float64)
        return _numbers(where, result, "f" if real else "i", "float64" if real else "int64")
    flags = bool(categories) and all(isinstance(c, (bool, np.bool_)) for c in categories)
    categories = [False, True] if flags else sorted(categories)
    codes = {value: code for code, value in enumerate(categories)}
    result = np.full(len(values), np.nan)
    result[~missing] = [codes[value] for value in present]
    return result, "category", "bool" if flags and dtype == "object" else dtype, categories, False


def _check_types(where: str, categories: list) -> None:
    kinds = {kind_of(c) for c in categories}
    if len(kinds) > 1:
        example = {kind: next(c for c in categories if kind_of(c) == kind) for kind in sorted(kinds)}
        shown = " and ".join(f"{kind} ({value!r})" for kind, value in list(example.items())[:2])
        raise ValueError(
            f"{where} must hold values of one type, got {shown}: convert it with .astype(str) or .astype(float)."
        )
    if kinds - {"flag", "text", "number"}:
        raise ValueError(f"{where} must hold numbers, text or flags, got values of type {kinds.pop()}.")


_NUMBERS = (int, float, np.integer, np.floating)


def kind_of(value: Any) -> str:
    """Return `"flag"`, `"text"` or `"number"`, or the name of another type."""
    if isinstance(value, (bool, np.bool_)):
        return "flag"
    return "text" if isinstance(value, str) else "number" if isinstance(value, _NUMBERS) else type(value).__name__


def _codes(codes: np.ndarray) -> np.ndarray:
    return np.where(codes < 0, np.nan, codes.astype(np.float64))
