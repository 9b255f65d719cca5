"""What a stream of rows is: blocks that are read when they are needed."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int

READERS = 2  # blocks that are read at the same time


class StreamError(RuntimeError):
    """A block of a stream that cannot be used; the message says which rows of which file."""


@contextlib.contextmanager
def stream_errors() -> Iterator[None]:
    """What TensorFlow reports of a `StreamError` in a pipeline as the error itself."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"StreamError: (.*)", error.message)
        if found is None:
            raise
        raise StreamError(found.group(1)) from None


class Stream:
    """Rows in blocks: `model.fit(stream)`, `standardize(stream)` and `model.adapt(stream)` read block by block.

    In training the blocks of each epoch come in an order of their own, and the rows are shuffled within a window: a row can
    move by a window's length within some blocks that were drawn at random. Memory is that of a window, of a few blocks and of
    the batches, whatever the number of rows. Under a strategy of several workers each reads its own blocks.

    Make one with `npy`, `parquet` or `tfrecord`.

    Args:
      sizes: Number of rows of each block.
      chunks_of: Callable from a dataset of blocks' numbers to a dataset of their rows, in chunks of any length, in that order;
        with `in_turns=True`, blocks may be read in turns.
      element_spec: Of a chunk: of events, or of pairs of conditions and events.
      window: Number of rows among which they are shuffled.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        chunks_of: Callable[..., tf.data.Dataset],
        element_spec: tf.TensorSpec | tuple[tf.TensorSpec, tf.TensorSpec],
        window: int = 65536,
    ):
        # Without empty blocks: a worker that had no others would have nothing to do, and the others wait for it.
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
        """All rows once, in their order, in batches."""
        batch_size = positive_int("batch_size", batch_size)
        blocks = tf.data.Dataset.from_tensor_slices(tf.constant(self._numbers, tf.int64))
        batches = self._chunks_of(blocks).rebatch(batch_size)
        return batches.apply(tf.data.experimental.assert_cardinality(-(-len(self) // batch_size)))

    def chunks(self) -> Iterator[np.ndarray]:
        """All events once, in their order, as arrays of a few thousand rows."""
        with stream_errors():
            for chunk in self.batches(min(self.window, 8192)).as_numpy_iterator():
                yield chunk[1] if isinstance(chunk, tuple) else chunk

    def a_pass(
        self, seed: tf.Tensor, batch_size: int, *, shuffle: bool = True, worker: int = 0, workers: int = 1
    ) -> tf.data.Dataset:
        """Batches of a pass over the rows, in an order that the seed `[2]` decides.

        Of several workers, each has its own blocks of the pass; when they are through, they begin again, since all workers
        must make the same number of steps. So blocks should be of about one size, and many.
        """
        number = len(self._sizes)
        if workers > number:
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
    """Return the files of a path, of a pattern such as `"data/*.npy"`, or of several of them, in the order of their names.

    Raises:
      ValueError: If there is none.
    """
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


def read_blocks(
    read: Callable[[int], np.ndarray], shape: Sequence[int], dtype: np.dtype, conditional_size: int | None
) -> tuple[Callable[[tf.data.Dataset], tf.data.Dataset], tf.TensorSpec | tuple[tf.TensorSpec, tf.TensorSpec]]:
    """`chunks_of` and `element_spec` of a function from a block's number to its rows; conditions are the first columns."""
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
        sizes = (conditional_size, shape[1] - conditional_size)
        spec = tuple(tf.TensorSpec([None, size], dtype) for size in sizes)
    return chunks_of, spec


def check_block(where: str, rows: np.ndarray, first: int) -> np.ndarray:
    """Raise a `StreamError` unless the rows of a block are finite."""
    if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(np.sum(rows, dtype=np.float64)):
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            row, *column = map(int, bad[0])
            raise StreamError(f"{where} is not finite in row {first + row}, column {', '.join(map(str, column))}.")
    return rows
