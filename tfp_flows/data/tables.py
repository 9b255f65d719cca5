"""Tables of numbers from files."""

from __future__ import annotations

import csv
import math
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class TableError(ValueError):
    """Error for an unusable file; the message is one line that says where and why."""


class Table(NamedTuple):
    """Values, float64 `[rows, columns]`, the column names, and whether the names are from the file."""

    values: np.ndarray
    columns: list[str]
    named: bool = False


def read_table(path: str | os.PathLike) -> Table:
    """Read a `.csv` or `.npy` file of numbers.

    Raises:
      TableError: For a missing file, another suffix, unreadable content, or a value that is not a finite number.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in (".csv", ".npy"):
        raise TableError(f"{path}: expected a .csv or .npy file.")
    if not path.is_file():
        raise TableError(f"{path}: no such file.")
    return read_csv(path) if path.suffix.lower() == ".csv" else _read_npy(path)


def read_csv(path: str | os.PathLike) -> Table:
    """Read numbers from a CSV file, with or without a line of column names.

    pandas is not required, and would not name line and column of a bad field.
    The first line holds names if none of its fields is a number, and not all are missing values. Blank lines are skipped.

    Raises:
      TableError: For text, missing values, rows of another length, no rows, a blank line inside a single column, or
        names that are empty or not unique. The message names line and column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
            blank_inside = len(rows) != rows[-1][0] - rows[0][0] + 1 if rows else False
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as CSV ({error}).") from error
    if not rows:
        raise TableError(f"{path}: the file has no rows.")
    first = [field.strip() for field in rows[0][1]]
    # "Na" may be sodium, so a line of names only needs one word that is not a missing value.
    named = not any(map(_is_number, first)) and any(field.lower() not in _MISSING for field in first)
    columns = first if named else [f"x{i + 1}" for i in range(len(first))]
    if named:
        rows = rows[1:]
        for j, name in enumerate(columns):
            if not name:
                raise TableError(f"{path}: column {j + 1} has no name.")
            if columns.index(name) != j:
                raise TableError(f"{path}: two columns are named {name!r}.")
    if not rows:
        raise TableError(f"{path}: the file has column names but no rows.")
    if len(columns) == 1 and blank_inside:
        raise TableError(f"{path}: a blank line between the rows of a single column: is a value missing there?")
    values = np.empty([len(rows), len(columns)])
    for i, (number, row) in enumerate(rows):
        if len(row) != len(columns):
            raise TableError(f"{path}: line {number} has {len(row)} fields, expected {len(columns)}.")
        for j, field in enumerate(row):
            values[i, j] = _number(field.strip(), f"{path}: line {number}, column {columns[j]!r}")
    return Table(values, columns, named)


_MISSING = {"", "na", "nan", "null", "none", "?"}


def _number(text: str, where: str) -> float:
    if text.lower() in _MISSING:
        raise TableError(f"{where}: the value is missing.")
    try:
        value = float(text)
    except ValueError:
        raise TableError(f"{where}: expected a number, got {text[:40]!r}.") from None
    if not math.isfinite(value):
        raise TableError(f"{where}: expected a finite number, got {text!r}.")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_npy(path: pathlib.Path) -> Table:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TableError(f"{path}: cannot be read as a .npy array ({error}).") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        raise TableError(f"{path}: expected a 2-D array [rows, columns], got shape {np.shape(values)}.")
    if not (np.issubdtype(values.dtype, np.number) and np.isrealobj(values)):
        raise TableError(f"{path}: expected an array of real numbers, got dtype {values.dtype}.")
    values = values.astype(np.float64)
    if not np.all(np.isfinite(values)):
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise TableError(f"{path}: row {row}, column {column}: expected a finite number, got {values[row, column]}.")
    return Table(values, [f"x{i + 1}" for i in range(values.shape[1])])


def check_trainable(path: str | os.PathLike, table: Table) -> None:
    """Raise a `TableError` for a table with fewer than two rows, or with a constant column."""
    rows = len(table.values)
    if rows < 2 or not table.columns:
        raise TableError(f"{path}: a density cannot be fitted to {rows} row{'s' * (rows != 1)} of data.")
    for j, name in enumerate(table.columns):
        if np.all(table.values[:, j] == table.values[0, j]):
            raise TableError(f"{path}: column {name!r} is constant ({table.values[0, j]:g}): leave it out.")


def write_csv(path: str | os.PathLike, values: np.ndarray, columns: Sequence[str]) -> None:
    """Write a table with a line of column names. The write is atomic."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([[repr(float(v)) for v in row] for row in values])
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
