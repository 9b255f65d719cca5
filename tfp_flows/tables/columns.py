"""Columns of a table: names, kinds and levels, and the maps between data frames and arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfp_flows.bijectors.support import read_support, unconstrained
from tfp_flows.data.frames import (
    LARGEST_INTEGER,
    check_names,
    frame_columns,
    frame_labels,
    is_frame,
    kind_of,
    pandas,
    read_values,
)
from tfp_flows.registry import serializable
from tfp_flows.tables.bins import count_bins, integer_bins

MOST_CATEGORIES = 1000


@serializable
@dataclasses.dataclass(frozen=True)
class Column:
    """Description of one column.

    Args:
      name: Name of the column.
      kind: `"real"`, `"integer"` or `"category"`.
      dtype: Dtype of the column in pandas, which samples have too.
      categories: Values of a category, whose positions are the codes.
      ordered: Whether these values have an order.
      edges: Increasing integers: bin `b` of an integer column holds `edges[b] .. edges[b + 1] - 1`.
      tails: Mean distances of the integers below the first and above the last edge; 0 for none.
      weights: Log-frequencies of the lower tail, the bins, and the upper tail in the rows; or of the categories.
      low, high: Bounds of the values, which lie strictly between.
      shift, scale: Mean and standard deviation of real values, after the map from `(low, high)` to the real line.

    Example:
      >>> tff.Columns.of(np.array([[0.5], [1.5]])).columns[0].kind
      'real'
    """

    name: str
    kind: str
    dtype: str
    categories: tuple = ()
    ordered: bool = False
    edges: tuple = ()
    tails: tuple = (0.0, 0.0)
    weights: tuple = ()
    low: float = -math.inf
    high: float = math.inf
    shift: float = 0.0
    scale: float = 1.0


@serializable
class Columns:
    """Columns of a table, which map its rows to an array of numbers and back.

    Floating-point columns are real. Integer columns are integers, and so are floating-point columns of whole numbers
    below 2**24 with missing values, which is how pandas reads integers with gaps. Pass `kinds` to `Columns.of` if they
    are measurements. Text, flags and `"category"` columns are categories, coded by their position. In the array, missing
    values are NaN.

    Args:
      columns: `Column` objects, which `Columns.of` makes from rows.
      framed: Whether rows are data frames; otherwise they are arrays.
      labels: Labels of the columns in data frames that `decode` returns, strings or integers; their names if `None`.

    Example:
      >>> columns = tff.Columns.of(np.array([[0.5, 1.0], [1.5, 3.0], [2.5, 2.0]]))
      >>> columns.names
      ['x1', 'x2']
    """

    def __init__(self, columns: Sequence[Column], framed: bool = True, labels: Sequence[str | int] | None = None):
        self.columns, self.framed = list(columns), bool(framed)
        self.names = [column.name for column in self.columns]
        self.labels = self.names if labels is None else list(labels)

    def __len__(self) -> int:
        return len(self.columns)

    @classmethod
    def of(
        cls,
        x: Any,
        *,
        support: Any = "real",
        missing: bool = False,
        kinds: Mapping[str, str] | None = None,
        fit_rows: Any = None,
        name: str = "x",
    ) -> Columns:
        """Return the columns of a data frame, or of an array, whose columns are named `x1`, `x2`, ...

        Args:
          x: Rows `[N, D]`.
          support: Support of the numbers (see `Support`): an entry for all, a list, or a dictionary by name.
          missing: Whether values may be missing.
          kinds: Dictionary of `"real"` or `"integer"` for columns of numbers whose dtype does not tell their kind.
          fit_rows: Positions of the rows that are learned from; all if `None`. Frequencies, bins, means and deviations are
            those of these rows, so that the others can be held out. Categories and ranges are those of all rows.
          name: Name of the argument, for messages.

        Raises:
          ValueError: If a column cannot be modeled; the message names it.
        """
        framed, values = is_frame(x), frame_columns(name, x)
        if not values or len(next(iter(values.values()))) < 2:
            rows = len(next(iter(values.values()))) if values else 0
            raise ValueError(
                f"`{name}` must have at least 2 rows and 1 column, got {rows} rows and {len(values)} columns."
            )
        entries, kinds = _entries(support, list(values)), _kinds(kinds, list(values))
        columns = [
            _describe(name, key, part, entries[key], missing, kinds.get(key), fit_rows) for key, part in values.items()
        ]
        texts = [] if framed else [c for c in columns if c.kind == "category" and c.dtype != "bool"]
        if texts or (not framed and len({c.dtype == "bool" for c in columns}) > 1):
            raise ValueError(
                f"`{name}` must be a data frame if it holds text, or flags and numbers, got an array of dtype "
                f"{np.asarray(x).dtype}: pass pd.DataFrame({name}).infer_objects()."
            )
        return cls(columns, framed, frame_labels(x) if framed else None)

    def index(self, column: str | int) -> int:
        """Return the position of a column that is given by name.

        Raises:
          ValueError: If there is no such column.
        """
        if str(column) in self.names:
            return self.names.index(str(column))
        raise ValueError(f"`column` must be one of {', '.join(map(repr, self.names))}, got {column!r}.")

    def encode(self, x: Any, *, missing: bool = False, partial: bool = False, name: str = "x") -> np.ndarray:
        """Return rows as a float64 array `[N, D]`: numbers, the codes of categories, and NaN where a value is missing.

        Args:
          x: Data frame with these columns in this order, or an array if the columns were made from one.
          missing: Whether values may be missing.
          partial: Whether columns may be missing, or come in another order.
          name: Name of the argument, for messages.

        Raises:
          ValueError: If columns or values do not fit; the message names the column, and says what was expected.
        """
        if self.framed != is_frame(x):
            expected = "a data frame" if self.framed else "an array"
            raise ValueError(f"`{name}` must be {expected} with the columns {self._listed()}, got {type(x).__name__}.")
        values = frame_columns(name, x)
        if not partial or not self.framed:
            check_names(name, list(values), self.names)
        elif unknown := [key for key in values if key not in self.names]:
            raise ValueError(f"`{name}` has a column {unknown[0]!r}, expected columns among {self._listed()}.")
        result = np.full([len(x), len(self)], np.nan)
        for j, column in enumerate(self.columns):
            if column.name in values:
                result[:, j] = _encode(name, column, values[column.name], missing)
        return result

    def outside(self, rows: np.ndarray, dtype=np.float32) -> np.ndarray:
        """Return where values of encoded rows `[N, D]` lie outside of the bounds of their column, as the model computes."""
        low, high = (np.array([getattr(c, side) for c in self.columns], dtype) for side in ("low", "high"))
        rows = rows.astype(dtype)
        return (rows <= low) | (rows >= high)

    def check_known(self, name: str, rows: np.ndarray, dtype=np.float32) -> None:
        """Raise a `ValueError` if a value of encoded rows is impossible, so that nothing can be conditioned on it."""
        outside = self.outside(rows, dtype)
        if np.any(outside):
            row, j = (int(i) for i in np.argwhere(outside)[0])
            column = self.columns[j]
            raise ValueError(
                f"column {column.name!r} of `{name}` must lie between {column.low:g} and {column.high:g}, exclusively, got "
                f"{rows[row, j]:g} in row {row}: nothing can be conditioned on a value of probability zero."
            )

    def _listed(self) -> str:
        return ", ".join(map(repr, self.names))

    def decode(self, array: np.ndarray, index=None) -> Any:
        """Return a data frame, or an array, with the values of encoded rows `[N, D]`."""
        if not self.framed:
            kinds = {column.kind for column in self.columns}
            return array.astype(
                {"integer": np.int64, "category": bool}.get(kinds.pop() if len(kinds) == 1 else "", np.float32)
            )
        pd = pandas()
        return pd.DataFrame(
            {self.labels[j]: decode_column(column, array[:, j], index) for j, column in enumerate(self.columns)},
            index=index,
        )


def decode_column(column: Column, codes: np.ndarray, index=None):
    """Return encoded values of a column as a pandas series in the dtype of the column."""
    pd = pandas()
    if column.kind == "real":
        return pd.Series(codes, index=index, dtype=column.dtype)
    if column.kind == "integer":
        return pd.Series(np.round(codes).astype(np.int64), index=index).astype(column.dtype)
    codes = codes.astype(np.int64)
    if column.dtype == "category":
        values = pd.Categorical.from_codes(codes, categories=list(column.categories), ordered=column.ordered)
        return pd.Series(values, index=index)
    return pd.Series([column.categories[code] for code in codes], index=index, dtype=column.dtype)


def _entries(support: Any, names: list[str]) -> dict[str, tuple]:
    """Return the bounds `(low, high)` of each column."""
    if isinstance(support, Mapping):
        support = {str(key): entry for key, entry in support.items()}
        if unknown := [key for key in support if key not in names]:
            raise ValueError(f"`support` has a column {unknown[0]!r}, expected {', '.join(map(repr, names))}.")
        support = [support.get(key, "real") for key in names]
    entries = read_support(support, len(names))
    for key, entry in zip(names, entries, strict=True):
        if entry[0] != "interval":
            raise ValueError(
                f'`support` of column {key!r} must be "real", "positive" or (low, high) in a table with integers, categories '
                f"or any order, got {entry[0]!r}."
            )
    return {key: entry[1:] for key, entry in zip(names, entries, strict=True)}


def _kinds(kinds: Mapping[str, str] | None, names: list[str]) -> dict[str, str]:
    """Return the kinds that are given by name."""
    kinds = {str(key): kind for key, kind in (kinds or {}).items()}
    for key, kind in kinds.items():
        if key not in names:
            raise ValueError(f"`kinds` has a column {key!r}, expected {', '.join(map(repr, names))}.")
        if kind not in ("real", "integer"):
            raise ValueError(
                f'`kinds` of column {key!r} must be "real" or "integer", got {kind!r}: convert categories with '
                f'.astype({{{key!r}: "category"}}).'
            )
    return kinds


def _read_as(wanted: str | None, where: str, read: tuple, part: Any) -> tuple:
    """Return what `read_values` has read, with another kind."""
    values, kind, dtype, *rest = read
    if wanted in (None, kind):
        return read
    if kind == "category":
        raise ValueError(f"{where} must hold numbers, since `kinds` makes it {wanted!r}, got dtype {dtype}.")
    given = getattr(part.dtype, "name", str(part.dtype))
    if wanted == "real":
        return values, "real", given if getattr(part.dtype, "kind", "O") == "f" else "float64", *rest
    if np.any(wrong := ~np.isnan(values) & (values != np.round(values))):
        row = int(np.argmax(wrong))
        raise ValueError(
            f'{where} must hold whole numbers, since `kinds` makes it "integer", got {values[row]:g} in row {row}.'
        )
    return values, "integer", dtype, *rest


def _describe(name: str, key: str, part: Any, bounds, missing: bool, wanted: str | None, fit_rows) -> Column:
    where = f"column {key!r} of `{name}`"
    values, kind, dtype, categories, ordered = _read_as(wanted, where, read_values(name, key, part), part)
    present = values[~np.isnan(values)]
    learned = values if fit_rows is None else values[np.asarray(fit_rows)]
    learned = learned[~np.isnan(learned)]
    if len(present) < len(values) and not missing:
        raise ValueError(_missing_message(where, name, values))
    if len(present) < 2:
        raise ValueError(f"{where} must have at least 2 values, got {len(present)}: leave it out.")
    if np.all(present == present[0]):
        shown = categories[int(present[0])] if categories else f"{present[0]:g}"
        raise ValueError(f"{where} is constant ({shown!r}), where values that vary are expected: leave it out.")
    if kind == "category":
        _check_categories(where, categories, len(present))
        if bounds != (-math.inf, math.inf):
            raise ValueError(f'`support` of column {key!r} must be "real", since it holds categories, got {bounds}.')
        count = np.bincount(learned.astype(int), minlength=len(categories)) + 0.5
        weights = tuple(np.log(count / count.sum()).tolist())
        return Column(key, kind, dtype, tuple(categories), ordered, weights=weights)
    _check_range(where, name, present, values, kind, bounds)
    if len(learned) < 2:
        raise ValueError(
            f"{where} must have at least 2 values in the rows to learn from, got {len(learned)}: leave it out."
        )
    if kind == "real":
        u = unconstrained(bounds, learned)
        scale = float(np.std(u))
        if np.spacing(np.float32(np.max(np.abs(u)))) > 1e-2 * scale:
            raise ValueError(
                f"{where} varies by {np.std(learned):.3g} around {np.mean(learned):.8g}, which is too little to be seen in "
                "float32: subtract a constant from it."
            )
        return Column(key, kind, dtype, low=bounds[0], high=bounds[1], shift=float(np.mean(u)), scale=scale)
    limits = int(present.min()), int(present.max())
    edges, tails, (low, high) = integer_bins(learned.astype(np.int64), bounds, dtype, limits)
    weights = count_bins(learned, edges, tails)
    return Column(key, kind, dtype, edges=edges, tails=tails, weights=weights, low=low, high=high)


def _missing_message(where: str, name: str, values: np.ndarray) -> str:
    row, count = int(np.argmax(np.isnan(values))), int(np.sum(np.isnan(values)))
    return (
        f"{where} must have a value in each row, got a missing value in row {row} ({count} in all): learn from the others with "
        f"any_order=True, leave such rows out with {name}.dropna(), or fill them with {name}.fillna(...)."
    )


def _check_categories(where: str, categories: Sequence, rows: int) -> None:
    if len(categories) > MOST_CATEGORIES or (len(categories) > 100 and len(categories) > 0.5 * rows):
        raise ValueError(
            f"{where} has {len(categories)} categories in {rows} rows, expected at most {MOST_CATEGORIES} that repeat: if it "
            "is a name or an identifier, leave it out; else join rare categories."
        )


def _check_range(where: str, name: str, present, values, kind: str, bounds: tuple[float, float]) -> None:
    largest = float(np.max(np.abs(present)))
    if kind == "integer" and largest > LARGEST_INTEGER:
        raise ValueError(
            f"{where} must hold integers below 2**24 = {LARGEST_INTEGER + 1}, got {largest:.0f}: leave it out if it is an "
            "identifier; if it is a measurement, convert it with .astype(float) or divide it."
        )
    if kind == "real" and largest > 1e30:
        raise ValueError(f"{where} must hold numbers up to 1e30, got {largest:g}: rescale it.")
    if kind == "integer" and len(np.unique(present)) == len(present) and len(present) > 100:
        steps = np.diff(present)
        if np.all(steps == steps[0]):
            raise ValueError(f"{where} counts the rows, where values of a variable are expected: leave it out.")
    if np.any((present <= bounds[0]) | (present >= bounds[1])):
        row = int(np.argmax((values <= bounds[0]) | (values >= bounds[1])))
        raise ValueError(
            f"{where} must lie between {bounds[0]:g} and {bounds[1]:g}, by `support`, got {values[row]:g} in row {row}."
        )


def _encode(name: str, column: Column, part: Any, missing: bool) -> np.ndarray:
    where = f"column {column.name!r} of `{name}`"
    if missing and hasattr(part, "isna") and part.isna().all():  # of any dtype
        return np.full(len(part), np.nan)
    values, kind, dtype, categories, _ = read_values(name, column.name, part)
    if np.all(np.isnan(values)):
        pass
    elif column.kind == "category":
        values = _codes_of(where, column, values, kind, dtype, categories)
    elif kind == "category":
        raise ValueError(f"{where} must hold numbers, got dtype {dtype}.")
    elif column.kind == "integer":
        _check_integers(where, values)
    if np.any(np.isnan(values)) and not missing:
        raise ValueError(_missing_message(where, name, values))
    return values


def _codes_of(where: str, column: Column, values, kind: str, dtype: str, categories: Sequence) -> np.ndarray:
    """Return the codes of the values of a category."""
    if kind != "category" and not any(kind_of(c) == "number" for c in column.categories):
        raise ValueError(f"{where} must hold categories, got dtype {dtype}.")
    codes = {(kind_of(value), value): code for code, value in enumerate(column.categories)}  # since True == 1
    given = categories if kind == "category" else np.unique(values[~np.isnan(values)]).tolist()
    table = np.array([codes.get((kind_of(value), value), -1) for value in given] + [np.nan])
    index = values if kind == "category" else np.searchsorted(given, values).astype(float)
    result = table[np.where(np.isnan(values), len(given), index).astype(int)]
    if np.any(result == -1):
        row = int(np.argmax(result == -1))
        known = ", ".join(map(repr, column.categories[:10])) + (", ..." if len(column.categories) > 10 else "")
        raise ValueError(f"{where} must hold one of {known}, got {given[int(index[row])]!r} in row {row}.")
    return result


def _check_integers(where: str, values: np.ndarray) -> None:
    present = np.where(np.isnan(values), 0.0, values)
    if np.any(wrong := present != np.round(present)):
        row = int(np.argmax(wrong))
        raise ValueError(f"{where} must hold whole numbers, got {values[row]:g} in row {row}.")
    if np.any(wrong := np.abs(present) > LARGEST_INTEGER):
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{where} must hold integers below 2**24 = {LARGEST_INTEGER + 1}, got {values[row]:.0f} in row {row}, which "
            "float32 may not tell from others."
        )
