"""Scale of the conditions of training data."""

from __future__ import annotations

import warnings

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Standardize
from tfp_flows.distribution import FlowDistribution
from tfp_flows.training.validation import look_at_conditions


def warn_of_unseen_conditions(distribution: tfp.distributions.Distribution) -> None:
    """Warn if conditions would be standardized, but cannot be read before training."""
    layer = getattr(distribution, "preprocess_condition", None)
    if isinstance(layer, Standardize) and not layer.adapted:
        warnings.warn(
            "The conditions of a generator, or of a dataset of unknown length, are not standardized, since they cannot be read "
            "before. Call flow.preprocess_condition.adapt(conditions), or make the flow with preprocess_condition=None.",
            stacklevel=3,
        )


def prepare_conditions(
    distribution: tfp.distributions.Distribution, rows: np.ndarray, events: np.ndarray | None
) -> None:
    """Adapt the `preprocess_condition` of a new flow to conditions `[N, C]`, and warn if their scale is far from one.

    A flow that already depends on its conditions was trained without `FlowModel`, so its `preprocess_condition` is not
    changed. `events` are the matching events, if available.
    """
    given = tf.cast(rows, distribution.dtype)
    if not isinstance(distribution, FlowDistribution):
        look_at_conditions("x", rows, tf.as_dtype(distribution.dtype), np.asarray(rows, np.float64), stacklevel=5)
        return
    layer, encoded = distribution.preprocess_condition, hasattr(distribution, "condition_shape")
    if (
        isinstance(layer, Standardize)
        and not encoded
        and not layer.adapted
        and _ignores_conditions(distribution, given, events)
    ):
        layer.adapt_to_conditions(rows)
    if layer is not None and not encoded:
        read = layer.inverse(given)
    else:
        read = distribution.condition_before_encoder(given)
    read = np.reshape(np.asarray(read), [len(rows), -1])
    look_at_conditions("x", rows, tf.as_dtype(distribution.dtype), read, stacklevel=5)


def _ignores_conditions(distribution: FlowDistribution, rows: tf.Tensor, events: np.ndarray | None) -> bool:
    """Return whether distant conditions give the same density, as in a new flow."""
    far = rows[tf.argmax(tf.reduce_sum(tf.square(rows - rows[0]), axis=1))]
    if events is not None:
        x = tf.cast(events[:2], distribution.dtype)
    else:
        x = distribution.sample(2, seed=(1, 2), conditional_input=rows[0])
    first, second = (distribution.log_prob(tf.identity(x), conditional_input=c) for c in (rows[0], far))
    return bool(np.array_equal(first, second))
