"""Streams from TFRecord files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.data.streams.stream import READERS, Stream, check_block, paths_of

CHUNK = 1024  # records that are parsed together
OPEN = 16  # files that are interleaved


def tfrecord(
    paths: str | os.PathLike | Sequence,
    parse: Callable[[tf.Tensor], tf.Tensor | tuple[tf.Tensor, tf.Tensor]],
    *,
    compression: str | None = None,
    sizes: Sequence[int] | None = None,
    window: int = 65536,
) -> Stream:
    """Return the records of TFRecord files as a `Stream`. A block is a file; training interleaves several.

    Args:
      paths: A file, a pattern such as `"data/*.tfrecord"`, or several.
      parse: TensorFlow function from serialized records, strings `[n]`, to events `[n, *event_shape]`, or to conditions
        and events, with known row shapes, such as `tf.io.parse_example`.
      compression: `None`, `"GZIP"` or `"ZLIB"`.
      sizes: Number of records of each file. If `None`, all files are read once to count them.
      window: Number of rows that are shuffled together.

    Raises:
      ValueError: For a file that is missing or unreadable, for a `parse` that returns no batch, or if there are no records.
      StreamError: During reading, for a value that is not finite.

    Example:
      >>> features = {"x": tf.io.FixedLenFeature([2], tf.float32)}
      >>> parse = lambda records: tf.io.parse_example(records, features)["x"]
      >>> rows = tff.streams.tfrecord("data/*.tfrecord", parse)  # doctest: +SKIP
    """
    paths = paths_of(paths)
    parse = tf.autograph.experimental.do_not_convert(parse)

    def records_of(path):
        return tf.data.TFRecordDataset(path, compression_type=compression)

    if sizes is None:
        sizes = [_count(path, records_of(path)) for path in paths]
    if len(sizes) != len(paths):
        raise ValueError(f"`sizes` must hold a number for each of the {len(paths)} files, got {len(sizes)}.")
    spec = tf.data.Dataset.from_tensors(tf.constant([""])).repeat(2).unbatch().batch(CHUNK).map(parse).element_spec
    for part in tf.nest.flatten(spec):
        if part.shape.rank is None or part.shape.rank < 2 or None in part.shape[1:].as_list():
            raise ValueError(f"`parse` must return batches whose rows have a known shape, got {part}.")

    def checked(path, number, records):
        parts = parse(records)
        seen = tf.numpy_function(_check, [path, number, *tf.nest.flatten(parts)], tf.int64)
        with tf.control_dependencies([seen]):
            return tf.nest.map_structure(tf.identity, parts)

    def rows_of(path):
        records = records_of(path).batch(CHUNK).enumerate()
        return records.map(tf.autograph.experimental.do_not_convert(lambda i, batch: checked(path, i, batch)))

    def chunks_of(blocks, in_turns=False):
        files = blocks.map(lambda i: tf.constant(paths)[i])
        if not in_turns:
            return files.flat_map(rows_of)
        return files.interleave(rows_of, OPEN, block_length=1, num_parallel_calls=READERS, deterministic=True)

    return Stream(sizes, chunks_of, spec, window)


def _count(path: str, records: tf.data.Dataset) -> int:
    try:
        return int(records.batch(CHUNK).reduce(0, lambda n, batch: n + tf.size(batch)))
    except tf.errors.OpError as error:
        raise ValueError(f"`paths`: {path} cannot be read as TFRecord ({error.message}).") from error


def _check(path: bytes, number: np.int64, *parts: np.ndarray) -> np.int64:
    for part in parts:
        check_block(path.decode(), part, int(number) * CHUNK)
    return np.int64(0)
