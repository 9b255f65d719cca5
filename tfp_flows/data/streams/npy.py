"""Streams from memory-mapped `.npy` files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from tfp_flows.checks import positive_int
from tfp_flows.data.streams.stream import Stream, check_block, paths_of, stream_of_blocks


def npy(
    paths: str | os.PathLike | Sequence,
    *,
    conditional_size: int | None = None,
    block_rows: int = 4096,
    window: int = 65536,
) -> Stream:
    """Return the rows of `.npy` files of shape `[N, *event_shape]` as a `Stream`.

    Args:
      paths: A file, a pattern such as `"data/*.npy"`, or several. All arrays must have the same dtype and row shape.
      conditional_size: Number of leading columns that are conditions, for a conditional flow.
      block_rows: Number of consecutive rows to read at once.
      window: Number of rows that are shuffled together.

    Raises:
      ValueError: For a file that is missing or not a `.npy` array of numbers, for different dtypes or row shapes, or if
        there are no rows.
      StreamError: During reading, for a value that is not finite.

    Example:
      >>> np.save("rows.npy", tff.data.moons().sample(1000, seed=0))
      >>> rows = tff.streams.npy("rows.npy", block_rows=100)
      >>> len(rows), rows.element_spec
      (1000, TensorSpec(shape=(None, 2), dtype=tf.float32, name=None))
      >>> preprocess = tff.standardize(rows)
    """
    paths, block_rows = paths_of(paths), positive_int("block_rows", block_rows)
    arrays = []
    for path in paths:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"`paths`: {path} is not a .npy file of numbers ({error}).") from error
        if not isinstance(array, np.ndarray) or array.ndim < 2 or not np.issubdtype(array.dtype, np.number):
            kind = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"`paths`: {path} must hold an array of numbers of shape [N, ...], got {kind}.")
        arrays.append(array)
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(f"`paths`: {path} has rows {array.shape[1:]}, and {paths[0]} has {arrays[0].shape[1:]}.")
        if array.dtype != arrays[0].dtype:
            raise ValueError(f"`paths`: {path} has dtype {array.dtype}, and {paths[0]} has {arrays[0].dtype}.")
    blocks = [(i, first) for i, array in enumerate(arrays) for first in range(0, len(array), block_rows)]
    sizes = [min(block_rows, len(arrays[i]) - first) for i, first in blocks]

    def read(block):
        i, first = blocks[block]
        # A new map for each block, because the pages of a permanent map would count as memory of this process.
        rows = np.load(paths[i], mmap_mode="r", allow_pickle=False)[first : first + block_rows]
        return check_block(paths[i], np.array(rows), first)

    return stream_of_blocks(read, sizes, arrays[0].shape[1:], arrays[0].dtype, conditional_size, window)
