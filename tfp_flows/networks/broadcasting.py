"""Batch axes of events and conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def _static_shape(value: Any) -> tf.TensorShape:
    return value.shape if tf.is_tensor(value) else tf.TensorShape(np.shape(value))


def check_condition(conditional_input: Any, size: int | None) -> None:
    """Raise a `ValueError` if `conditional_input` is missing, unexpected, or not of shape `[..., size]`."""
    if conditional_input is None and size is None:
        return
    if size is None:
        raise ValueError("`conditional_input` must be left out, since this flow is not conditional.")
    if conditional_input is None:
        raise ValueError(f"`conditional_input` must be passed as a named argument, of shape [..., {size}], got None.")
    shape = _static_shape(conditional_input)
    if shape.rank == 0 or (shape.rank is not None and shape[-1] not in (None, size)):
        raise ValueError(f"`conditional_input` must have shape [..., {size}], got {shape}.")


def check_rows(conditional_input: Any, batch_shape: tf.TensorShape) -> None:
    """Raise a `ValueError` unless the conditions `[..., C]` broadcast against a batch of shape `batch_shape`."""
    shape = _static_shape(conditional_input)
    if shape.rank is None:
        return
    try:
        tf.broadcast_static_shape(shape[:-1], batch_shape)
    except ValueError as error:
        raise ValueError(
            f"`conditional_input` has batch shape {shape[:-1]}, and the events have {batch_shape}: they do not broadcast."
        ) from error


def broadcast_events(x: tf.Tensor, conditional_input: Any, event_ndims: int = 1) -> tf.Tensor:
    """Repeat events for conditions `[..., C]` with more leading axes or rows."""
    if conditional_input is None:
        return x
    condition = tf.convert_to_tensor(conditional_input)
    batch = x.shape[: x.shape.rank - event_ndims] if x.shape.rank is not None else tf.TensorShape(None)
    given = condition.shape[:-1] if condition.shape.rank is not None else tf.TensorShape(None)
    if given.rank == 0 or (batch.is_fully_defined() and given.is_fully_defined() and _covers(batch, given)):
        return x
    split = tf.rank(x) - event_ndims
    shape = tf.broadcast_dynamic_shape(tf.shape(x)[:split], tf.shape(condition)[:-1])
    result = tf.broadcast_to(x, tf.concat([shape, tf.shape(x)[split:]], axis=0))
    if batch.rank is not None and given.rank is not None:
        static = tf.broadcast_static_shape(batch, given) if batch.rank + given.rank else batch
        result.set_shape(static.concatenate(x.shape[x.shape.rank - event_ndims :]))
    return result


def _covers(batch: tf.TensorShape, given: tf.TensorShape) -> bool:
    try:
        return tf.broadcast_static_shape(batch, given) == batch
    except ValueError:
        return True  # shapes that do not broadcast are reported elsewhere


def flatten_batch(x: tf.Tensor, conditional_input: Any):
    """Reshape `x` `[..., D]` to `[N, D]` and the conditions to `[N, C]`, or `[1, C]` if all rows share one.

    The third result is the batch shape, for `unflatten`.
    """
    if conditional_input is not None:
        conditional_input = tf.cast(tf.convert_to_tensor(conditional_input), x.dtype)
    static = x.shape[:-1]
    if conditional_input is None or conditional_input.shape.rank == 1:
        if conditional_input is not None:
            conditional_input = conditional_input[tf.newaxis]
        if static.rank == 1:
            shape = [-1 if static[0] is None else static[0]]
        else:
            shape = static.as_list() if static.is_fully_defined() else tf.shape(x)[:-1]
        return (x if static.rank == 1 else tf.reshape(x, [-1, x.shape[-1]])), conditional_input, shape
    if static.rank == 1 and static.is_fully_defined() and conditional_input.shape[:-1] == static:
        return x, conditional_input, static.as_list()
    shape = tf.broadcast_dynamic_shape(tf.shape(x)[:-1], tf.shape(conditional_input)[:-1])
    return flat_rows(x, shape), flat_rows(conditional_input, shape), shape


def flat_rows(tensor: tf.Tensor, batch_shape: tf.Tensor) -> tf.Tensor:
    """Broadcast a tensor `[..., D]` to a batch shape, and flatten the result to `[N, D]`."""
    full = tf.broadcast_to(tensor, tf.concat([batch_shape, tf.shape(tensor)[-1:]], axis=0))
    return tf.reshape(full, [-1, tensor.shape[-1]])


def unflatten(tensor: tf.Tensor, batch_shape: Any, event_shape: list[int]) -> tf.Tensor:
    """Restore the batch shape that `flatten_batch` returned."""
    if isinstance(batch_shape, list):
        return tf.reshape(tensor, [*batch_shape, *event_shape])
    return tf.reshape(tensor, tf.concat([batch_shape, tf.constant(event_shape, tf.int32)], axis=0))
