"""The order of training batches, as a function of seed, epoch and step, so that another process can resume a run."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.seeds import resolve_seed

PREFETCHED = 2  # batches


class Order:
    """The order of the batches in each epoch.

    Batches are counted over all passes through the data. An epoch is one pass, or `steps_per_epoch` batches, which may
    start in the middle of a pass. An iterator yields the batches from `start` to the end of its epoch.
    """

    def __init__(self, batches_per_pass: int, steps_per_epoch: int | None = None):
        self.per_pass = self.per_epoch = batches_per_pass
        if steps_per_epoch is not None:
            self.per_epoch = positive_int("steps_per_epoch", steps_per_epoch)
        # Keras makes the iterators, so only variables can pass these values. One copy on the host serves all replicas.
        with tf.device("CPU:0"):
            self.seed = tf.Variable(resolve_seed(None), trainable=False, dtype=tf.int64)
            self.start = tf.Variable(0, trainable=False, dtype=tf.int64)

    def begin(self, epoch: int, step: int) -> None:
        """Set the step of the epoch at which the next iterator starts."""
        self.start.assign(epoch * self.per_epoch + step)

    def batches(self, a_pass: Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]) -> tf.data.Dataset:
        """Return the batches of one epoch; `a_pass(seed, skip)` is a pass over the data without its first `skip` batches."""

        @tf.autograph.experimental.do_not_convert
        def from_here(_):
            start, seed = tf.identity(self.start), tf.identity(self.seed)
            first, end = start // self.per_pass, (start // self.per_epoch + 1) * self.per_epoch

            def rest_of(i):
                return a_pass(tf.stack([seed, i]), tf.where(i == first, start % self.per_pass, 0))

            passes = tf.data.Dataset.range(first, (end - 1) // self.per_pass + 1)
            return passes.flat_map(rest_of).take(end - start)

        batches = pipeline(tf.data.Dataset.from_tensors(0).flat_map(from_here))
        # Keras needs the length of an epoch. `assert_cardinality` would raise at the end of a resumed epoch, which is shorter.
        batches.cardinality = lambda: tf.constant(self.per_epoch, tf.int64)
        return batches


def order_of_rows(rows: int, seed: tf.Tensor, shuffle: bool) -> tf.Tensor:
    """Return the row indices of a pass, whose seed is `[2]`."""
    order = tf.range(rows, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(order, seed) if shuffle else order


def pipeline(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset that prefetches, and splits each batch between workers."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return without_autotuning(dataset.with_options(options).prefetch(PREFETCHED))


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return the dataset without autotuning, so that its iterators end at once.

    The tuning thread of tf.data can sleep through the end of its iterator (seen in TF 2.21), for as long as the epoch took.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
