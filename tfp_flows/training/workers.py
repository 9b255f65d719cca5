"""Training in several processes, with `tf.distribute.MultiWorkerMirroredStrategy`."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def workers(strategy: tf.distribute.Strategy) -> int:
    """Return the number of processes that train together, or 0 for a single one."""
    cluster = strategy.cluster_resolver
    return 0 if cluster is None else sum(len(tasks) for tasks in cluster.cluster_spec().as_dict().values())


def of_the_first(strategy: tf.distribute.Strategy, values: Sequence[tf.Tensor | tf.Variable]) -> list[tf.Tensor]:
    """Return the values of the first process in all processes. A collective operation: all call it, with the same shapes."""

    def part(value):
        local = tf.convert_to_tensor(value)
        wide = local if local.dtype.is_floating else tf.cast(local, tf.int64)
        first = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0)
        return tf.where(first, wide, tf.zeros_like(wide))

    @tf.function
    def together():
        parts = [strategy.run(part, args=(value,)) for value in values]
        totals = [strategy.reduce(tf.distribute.ReduceOp.SUM, p, axis=None) for p in parts]
        return [tf.cast(total, value.dtype) for total, value in zip(totals, values, strict=True)]

    return together()


def agree(strategy: tf.distribute.Strategy, variables: Sequence[tf.Variable]) -> None:
    """Copy the first process's variables to all: those that were drawn, or read from data or a file, may differ."""
    values = of_the_first(strategy, variables)
    with strategy.scope():
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
