"""What autoregressive and coupling bijectors share: a tracked conditioner, and the scalar maps that it determines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfp_flows.templates import Template, TransformerTemplate, as_template
from tfp_flows.tracking import Mirror


def tracked_conditioner(shift_and_log_scale_fn: Callable | None, bijector_fn: Callable | None):
    """Returns both functions with the given one tracked, and the tracked one once more, to be kept as an attribute.

    Raises:
      ValueError: If neither or both are given.
    """
    if (shift_and_log_scale_fn is None) == (bijector_fn is None):
        given = "neither" if bijector_fn is None else "both"
        raise ValueError(f"Exactly one of `shift_and_log_scale_fn` and `bijector_fn` must be given, got {given}.")
    if bijector_fn is not None:
        if isinstance(bijector_fn, Template):
            raise ValueError("A template without a `transformer` is a `shift_and_log_scale_fn`, not a `bijector_fn`.")
        tracked = bijector_fn if isinstance(bijector_fn, TransformerTemplate) else Mirror(bijector_fn)
        return None, tracked, tracked
    tracked = as_template(shift_and_log_scale_fn)
    return tracked, None, tracked


class ScalarMaps(NamedTuple):
    """A map of scalars in both directions; each function returns the value and the log of the derivative, elementwise."""

    forward: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    inverse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def scalar_maps(conditioner: Template | TransformerTemplate, *args, **condition_kwargs) -> ScalarMaps:
    """The maps that a template determines from its arguments."""
    if isinstance(conditioner, TransformerTemplate):
        params = conditioner.parameters(*args, **condition_kwargs)
        transformer = conditioner.transformer
        return ScalarMaps(lambda x: transformer.forward(x, params), lambda y: transformer.inverse(y, params))
    shift, log_scale = conditioner(*args, **condition_kwargs)

    def forward(x):
        y = x if log_scale is None else x * tf.exp(log_scale)
        return y if shift is None else y + shift, tf.zeros_like(x) if log_scale is None else log_scale

    def inverse(y):
        x = y if shift is None else y - shift
        if log_scale is None:
            return x, tf.zeros_like(y)
        return x * tf.exp(-log_scale), -log_scale

    return ScalarMaps(forward, inverse)


def sum_log_det(log_det: tf.Tensor, like: tf.Tensor, event_ndims: int = 1) -> tf.Tensor:
    """Sums elementwise log-dets, which may still have to be broadcast to the shape of `like`, over the event."""
    if log_det.shape != like.shape or not like.shape.is_fully_defined():
        log_det = tf.broadcast_to(log_det, tf.shape(like))
    return tf.reduce_sum(log_det, axis=list(range(-event_ndims, 0)))
