"""The noise of a training step: a function of the model's seed, the step and the replica, and of nothing else."""

from __future__ import annotations

import tensorflow as tf


def step_seed(seed: int, step) -> tf.Tensor:
    """A stateless seed `[2]`. A run that is resumed at a step draws what the uninterrupted one would have drawn."""
    parts = tf.stack([tf.constant(seed % 2**31, tf.int32), tf.cast(step, tf.int32)])
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return parts
    return tf.random.experimental.stateless_fold_in(parts, context.replica_id_in_sync_group)
