"""A stream from TFRecord files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfp_flows.streams.stream import READERS, Stream, paths_of

CHUNK = 1024  # records that are parsed at once
OPEN = 16  # files that are read in turns


def tfrecord(
    paths: str | os.PathLike | Sequence,
    parse: Callable[[tf.Tensor], tf.Tensor | tuple[tf.Tensor, tf.Tensor]],
    *,
    compression: str | None = None,
    sizes: Sequence[int] | None = None,
    window: int = 65536,
) -> Stream:
    """The records of TFRecord files, as a `Stream`. A block is a file, and several are read in turns.

    Args:
      paths: A file, a pattern such as `"data/*.tfrecord"`, or several.
      parse: Callable from serialized records, strings `[n]`, to events `[n, *event_shape]`, or to a pair of conditions and
        events; a TensorFlow function of known row shapes, such as one of `tf.io.parse_example`.
      compression: `None`, `"GZIP"` or `"ZLIB"`.
      sizes: Number of records of each file. If left out, all files are read once to count them.
      window: As in `Stream`.

    Raises:
      ValueError: For a file that is missing or cannot be read, for a `parse` whose result is no batch, or if there are no
        records.

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
        sizes = []
        for path in paths:
            try:
                sizes.append(int(records_of(path).batch(CHUNK).reduce(0, lambda n, batch: n + tf.size(batch))))
            except tf.errors.OpError as error:
                raise ValueError(f"`paths`: {path} cannot be read as TFRecord ({error.message}).") from error
    if len(sizes) != len(paths):
        raise ValueError(f"`sizes` must hold a number for each of the {len(paths)} files, got {len(sizes)}.")
    spec = tf.data.Dataset.from_tensors(tf.constant([""])).repeat(2).unbatch().batch(CHUNK).map(parse).element_spec
    for part in tf.nest.flatten(spec):
        if part.shape.rank is None or part.shape.rank < 2 or None in part.shape[1:].as_list():
            raise ValueError(f"`parse` must return batches whose rows have a known shape, got {part}.")
    constant = tf.constant(paths)

    def chunks_of(blocks):
        files = blocks.map(lambda i: constant[i])
        return files.interleave(
            lambda path: records_of(path).batch(CHUNK).map(parse),
            cycle_length=OPEN,
            block_length=1,
            num_parallel_calls=READERS,
            deterministic=True,
        )

    return Stream(sizes, chunks_of, spec, window)
