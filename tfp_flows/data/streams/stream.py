"""The class `Stream`: rows in blocks that are read when needed."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int

READERS = 2  # blocks that are read in parallel


class StreamError(RuntimeError):
    """Error for an unusable block of a stream; the message names the file and the rows."""


@contextlib.contextmanager
def stream_errors() -> Iterator[None]:
    """Raise the original `StreamError` in place of TensorFlow's error from a pipeline."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"StreamError: (.*)", error.message)
        if found is None:
            raise
        raise StreamError(found.group(1)) from None


class Stream:
    """Rows in blocks, which `model.fit(stream)`, `standardize(stream)` and `model.adapt(stream)` read block by block.

    In training, each epoch draws a new order of the blocks, and shuffles rows within a window. Memory is that of a
    window, a few blocks and the batches, for any number of rows. Each of several workers reads its own blocks. Create a
    stream with `npy`, `parquet` or `tfrecord`.

    Args:
      sizes: Number of rows of each block.
      chunks_of: Callable from a dataset of block numbers to a dataset of their rows, in order, in chunks of any length.
        With `in_turns=True`, it may interleave blocks.
      element_spec: Spec of a chunk of events, or of a pair of conditions and events.
      window: Number of rows that are shuffled together.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        chunks_of: Callable[..., tf.data.Dataset],
        element_spec: tf.TensorSpec | tuple[tf.TensorSpec, tf.TensorSpec],
        window: int = 65536,
    ):
        # A worker with empty blocks only would make all others wait.
        self._sizes = [int(n) for n in sizes if n]
        self._numbers = [i for i, n in enumerate(sizes) if n]
        self._chunks_of = chunks_of
        self.element_spec = element_spec
        self.window = positive_int("window", window)
        if not sum(self._sizes):
            raise ValueError("The files have no rows.")

    def __len__(self) -> int:
        return sum(self._sizes)

    def __repr__(self) -> str:
        return f"<Stream of {len(self)} rows in {len(self._sizes)} blocks, {self.element_spec}>"

    def batches(self, batch_size: int) -> tf.data.Dataset:
        """Return all rows in their order, in batches."""
        batch_size = positive_int("batch_size", batch_size)
        blocks = tf.data.Dataset.from_tensor_slices(tf.constant(self._numbers, tf.int64))
        batches = self._chunks_of(blocks).rebatch(batch_size)
        return batches.apply(tf.data.experimental.assert_cardinality(-(-len(self) // batch_size)))

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all events in their order, as arrays of a few thousand rows."""
        with stream_errors():
            for chunk in self.batches(min(self.window, 8192)).as_numpy_iterator():
                yield chunk[1] if isinstance(chunk, tuple) else chunk

    def a_pass(
        self, seed: tf.Tensor, batch_size: int, *, shuffle: bool = True, worker: int = 0, workers: int = 1
    ) -> tf.data.Dataset:
        """Return the batches of a pass over the rows, in an order that depends on the seed `[2]`.

        Several workers repeat their blocks until all have made the same number of steps, so use many blocks of similar size.
        """
        if workers > len(self._sizes):
            raise ValueError(
                f"{self} has fewer blocks than there are workers ({workers}): write more, or smaller, files."
            )
        blocks = tf.constant(self._numbers, tf.int64)
        if shuffle:
            blocks = tf.random.experimental.stateless_shuffle(blocks, seed)
        blocks = blocks[worker::workers]
        rows = self._chunks_of(tf.data.Dataset.from_tensor_slices(blocks), in_turns=shuffle)
        if shuffle:

            @tf.autograph.experimental.do_not_convert
            def permuted(i, window):
                rows = tf.shape(tf.nest.flatten(window)[0])[0]
                order = tf.random.experimental.stateless_shuffle(tf.range(rows), seed + tf.stack([i + 1, worker]))
                return tf.nest.map_structure(lambda values: tf.gather(values, order), window)

            rows = rows.rebatch(self.window).enumerate().map(permuted)
        return (rows.repeat() if workers > 1 else rows).rebatch(batch_size)


def paths_of(paths: str | os.PathLike | Sequence) -> list[str]:
    """Return the files of a path, a pattern such as `"data/*.npy"`, or several, sorted by name. At least one must exist."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[str] = []
    for path in map(os.fspath, given):
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path))
        if not matches:
            raise ValueError(f"`paths`: no such file: {path!r}.")
        found += matches
    if not found:
        raise ValueError("`paths` must name at least one file.")
    return found


def stream_of_blocks(
    read: Callable, sizes: Sequence[int], shape: Sequence[int], dtype, conditional_size: int | None, window: int
) -> Stream:
    """Return a stream, where `read(i)` returns the rows of block `i`. Conditions are the first columns."""
    shape, dtype = [None, *shape], tf.as_dtype(dtype)
    if conditional_size is not None:
        conditional_size = positive_int("conditional_size", conditional_size)
        if len(shape) != 2 or conditional_size >= shape[1]:
            raise ValueError(
                f"`conditional_size` must be less than the number of columns, got {conditional_size} for rows {shape[1:]}."
            )

    @tf.autograph.experimental.do_not_convert
    def rows_of(block):
        rows = tf.ensure_shape(tf.numpy_function(read, [block], dtype, stateful=False), shape)
        return rows if conditional_size is None else (rows[:, :conditional_size], rows[:, conditional_size:])

    def chunks_of(blocks, in_turns=False):
        del in_turns  # blocks are small here
        return blocks.map(rows_of, num_parallel_calls=READERS, deterministic=True)

    spec = tf.TensorSpec(shape, dtype)
    if conditional_size is not None:
        widths = (conditional_size, shape[1] - conditional_size)
        spec = tuple(tf.TensorSpec([None, width], dtype) for width in widths)
    return Stream(sizes, chunks_of, spec, window)


def check_block(where: str, rows: np.ndarray, first: int) -> np.ndarray:
    """Return the rows of a block. Raise a `StreamError` if a value is not finite."""
    if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(np.sum(rows, dtype=np.float64)):
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            row, *column = map(int, bad[0])
            raise StreamError(f"{where} is not finite in row {first + row}, column {', '.join(map(str, column))}.")
    return rows
