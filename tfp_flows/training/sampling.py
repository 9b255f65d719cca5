"""Arguments of `sample`: shapes, seeds and conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flows.seeds import graph_seed


def sample_sizes(sample_shape: Any) -> np.ndarray:
    """Return the sizes of a sample shape.

    Raises:
      ValueError: If it is not a non-negative integer, or a tuple of them.
    """
    sizes = np.atleast_1d(np.asarray(sample_shape, dtype=None if np.size(sample_shape) else int))
    if sizes.ndim != 1 or not np.issubdtype(sizes.dtype, np.integer) or np.any(sizes < 0):
        raise ValueError(f"`sample_shape` must be a non-negative integer or a tuple of them, got {sample_shape!r}.")
    return sizes


def stateless_seed(seed: int | None) -> tf.Tensor:
    """Return a seed of two integers. Without `seed`, it depends on TensorFlow's global seed."""
    if seed is None:
        return tf.random.uniform([2], maxval=np.iinfo(np.int32).max, dtype=tf.int32)
    return tf.constant([graph_seed(seed), 0], tf.int32)


def conditions_of_samples(given: tf.Tensor, sizes: np.ndarray) -> tf.Tensor:
    """Return the condition of each sample, `[N, C]`.

    Raises:
      ValueError: If conditions do not broadcast to the sample shape.
    """
    rows = [*map(int, sizes), given.shape[-1]]
    try:
        given = tf.broadcast_to(given, rows)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"`conditional_input` of shape {given.shape} does not broadcast to the sample shape {rows[:-1]}: for one "
            f"sample of each condition, let `sample_shape` be {given.shape[:-1].as_list()}."
        ) from error
    return tf.reshape(given, [-1, given.shape[-1]])
