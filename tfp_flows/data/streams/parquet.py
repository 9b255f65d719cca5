"""Streams from Parquet files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from tfp_flows.data.streams.stream import Stream, StreamError, check_block, paths_of, stream_of_blocks


def parquet(
    paths: str | os.PathLike | Sequence,
    columns: Sequence[str] | None = None,
    *,
    conditional_columns: Sequence[str] = (),
    dtype: np.dtype = np.float32,
    window: int = 65536,
) -> Stream:
    """Return columns of Parquet files as a `Stream` of rows. Needs `pip install "tfp_flows[parquet]"`.

    A row group is read at once, so write files with row groups of a few thousand rows.

    Args:
      paths: A file, a pattern such as `"data/*.parquet"`, or several.
      columns: Names of the event columns; if `None`, all columns of the first file except the conditions.
      conditional_columns: Names of the condition columns, for a conditional flow.
      dtype: Dtype of the rows, float32 or float64.
      window: Number of rows that are shuffled together.

    Raises:
      ImportError: Without pyarrow.
      ValueError: For a file that is missing or not a Parquet file, for a column that is missing or not numeric, or if
        there are no rows.
      StreamError: During reading, for a value that is missing or not finite.

    Example:
      >>> rows = tff.streams.parquet("data/*.parquet", ["x1", "x2"])  # doctest: +SKIP
    """
    paths, conditional_columns = paths_of(paths), list(conditional_columns)
    files = [_open(path) for path in paths]
    known = files[0].schema_arrow.names
    columns = [name for name in known if name not in conditional_columns] if columns is None else list(columns)
    wanted = conditional_columns + columns
    blocks, sizes = [], []
    for path, file in zip(paths, files, strict=True):
        _check_columns(path, file.schema_arrow, wanted)
        first = 0
        for group in range(file.num_row_groups):
            blocks.append((path, group, first))
            sizes.append(file.metadata.row_group(group).num_rows)
            first += sizes[-1]
    if not columns:
        raise ValueError("`columns` must name at least one column.")

    def read(block):
        path, group, first = blocks[block]
        # A new reader for each block, because blocks are read in parallel and a reader is not thread-safe.
        table = _open(path).read_row_group(group, columns=wanted, use_threads=False)
        for name in wanted:
            if table[name].null_count:
                where = f"rows {first} to {first + len(table) - 1}"
                raise StreamError(f"{path} has a missing value in column {name!r}, in {where}.")
        rows = np.stack([table[name].to_numpy() for name in wanted], axis=1).astype(dtype)
        return check_block(path, rows, first)

    return stream_of_blocks(read, sizes, [len(wanted)], dtype, len(conditional_columns) or None, window)


def _open(path: str):
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError('Parquet files need pyarrow: pip install "tfp_flows[parquet]".') from error
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"`paths`: {path} is not a Parquet file ({error}).") from error


def _check_columns(path: str, schema, wanted: Sequence[str]) -> None:
    from pyarrow.types import is_floating, is_integer

    types = dict(zip(schema.names, schema.types, strict=True))
    for name in wanted:
        if name not in types:
            raise ValueError(f"`columns`: {path} has no column {name!r}; it has {', '.join(types)}.")
        if not (is_floating(types[name]) or is_integer(types[name])):
            raise ValueError(f"`columns`: {name!r} of {path} holds {types[name]}, not numbers.")
