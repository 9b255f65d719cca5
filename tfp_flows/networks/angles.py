"""Angles as inputs of networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def angle_inputs(circular_inputs: Sequence[int], size: int) -> list[int]:
    """Return the indices of inputs that are angles as a sorted list. Raise a `ValueError` unless they fit `size`."""
    found = sorted({int(i) for i in circular_inputs})
    if found and not 0 <= found[0] <= found[-1] < size:
        raise ValueError(f"`circular_inputs` must be indices of {size} inputs, got {list(circular_inputs)!r}.")
    return found


def read_angles(x: tf.Tensor, circular_inputs: Sequence[int]) -> tf.Tensor:
    """Return `x` `[..., D]` with cosines in place of its angles, and their sines appended, so that networks are periodic."""
    if not circular_inputs:
        return x
    is_angle = np.isin(np.arange(x.shape[-1]), circular_inputs)
    sines = tf.sin(tf.gather(x, circular_inputs, axis=-1))
    return tf.concat([tf.where(is_angle, tf.cos(x), x), sines], axis=-1)


def with_sines(rows: np.ndarray, circular_inputs: Sequence[int]) -> np.ndarray:
    """Return an array with one row for each input, with those of the angles appended once more, for their sines."""
    return np.concatenate([rows, rows[list(circular_inputs)]]) if circular_inputs else rows
