"""Checks of a model's distribution, and of data against its support and its conditions."""

from __future__ import annotations

import warnings

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.bijectors import Standardize, Support
from tfp_flows.bijectors.composition import is_affine, layers_of
from tfp_flows.distribution import FlowDistribution
from tfp_flows.training.validation import look_at_conditions


def check_distribution(name: str, distribution) -> None:
    """Raise a `ValueError` unless `distribution` has one floating-point tensor as its event and batch shape []."""
    tfd = tfp.distributions
    # `tfp.experimental.util.make_trainable` returns a `DeferredModule`.
    if not isinstance(distribution, (tfd.Distribution, tfp.experimental.util.DeferredModule)):
        raise ValueError(f"`{name}` must be a tfd.Distribution, got {distribution!r}.")
    if isinstance(distribution.dtype, (list, tuple, dict)) or not isinstance(distribution.event_shape, tf.TensorShape):
        raise ValueError(f"`{name}` must have one tensor as its event, got a joint one: {distribution}.")
    if not tf.as_dtype(distribution.dtype).is_floating:
        raise ValueError(f"`{name}` must be over real numbers, got dtype {distribution.dtype}: {distribution}.")
    if distribution.batch_shape.rank not in (None, 0):
        raise ValueError(
            f"`{name}` must have batch shape [], got {distribution.batch_shape}: row i of the data would be "
            "scored by member i. Wrap it in tfd.Independent, or in tfd.MixtureSameFamily."
        )


def bijector_of(distribution) -> tfp.bijectors.Bijector | None:
    """Return the bijector of a flow, and `None` for other distributions."""
    bijector = getattr(distribution, "bijector", None)
    return bijector if isinstance(bijector, tfp.bijectors.Bijector) else None


def warn_of_shared_networks(distribution: tfp.distributions.Distribution) -> None:
    """Warn if layers of a flow share weights, as in `Chain([layer] * 8)`, which is rarely intended."""
    bijector = bijector_of(distribution)
    owner: dict[int, int] = {}
    for i, layer in enumerate([] if bijector is None else layers_of(bijector)):
        found = tracking.find(layer)
        for weight in [w.value for network in found.layers for w in network.trainable_variables] + found.variables:
            first = owner.setdefault(id(weight), i)
            if first != i:
                warnings.warn(
                    f"Layers {first} and {i} of the flow share weights ({weight.name}, of {layer.name}): what occurs twice is "
                    "trained as one. If that is not meant, make a network for each.",
                    stacklevel=3,
                )
                return


def check_support(name: str, events: np.ndarray | None, distribution: tfp.distributions.Distribution) -> None:
    """Raise a `ValueError` if an event lies on or outside the bounds of TFP bijectors on the data's side of a flow."""
    if events is None or not isinstance(distribution, FlowDistribution):
        return
    value = tf.constant(np.asarray(events, distribution.dtype.as_numpy_dtype))
    if not np.all(np.isfinite(value)):
        return  # other checks report it
    for layer in layers_of(distribution.bijector):
        if isinstance(layer, Support):
            layer.check(name, value)
            return
        if hasattr(layer, "inverse_and_log_det") and not is_affine(layer):
            return  # our layers have all real numbers as their range
        try:
            value = layer.inverse(tf.identity(value))
        except (ValueError, NotImplementedError):
            return
        outside = np.argwhere(~np.isfinite(value.numpy()))
        if len(outside):
            index = tuple(outside[0]) if value.shape == events.shape else (outside[0][0],)
            column = f", column {index[1]}" if len(index) == 2 else ""
            raise ValueError(
                f"`{name}` has {np.asarray(events)[index]} in row {index[0]}{column}, on or outside of the bounds of "
                f"{layer.name}, where the flow has no density ({len(np.unique(outside[:, 0]))} such rows in all): leave such "
                "rows out, or widen the bounds of `preprocess`."
            )


def prepare_conditions(
    distribution: tfp.distributions.Distribution, rows: np.ndarray | None, events: np.ndarray | None
) -> None:
    """Adapt the `preprocess_condition` of a new flow to conditions `[N, C]`, and warn if their scale is far from one.

    A flow that already depends on its conditions was trained without `FlowModel`, so its `preprocess_condition` is not
    changed. `events` are the matching events, if available. Without `rows`, warn if they would be standardized.
    """
    layer = getattr(distribution, "preprocess_condition", None)
    waits = isinstance(layer, Standardize) and not layer.adapted
    if rows is None:
        if waits:
            warnings.warn(
                "The conditions of a generator, or of a dataset of unknown length, are not standardized, since they cannot be "
                "read before. Call flow.preprocess_condition.adapt(conditions), or make the flow with "
                "preprocess_condition=None.",
                stacklevel=3,
            )
        return
    read = np.asarray(rows, np.float64)
    if isinstance(distribution, FlowDistribution):
        given, encoded = tf.cast(rows, distribution.dtype), hasattr(distribution, "condition_shape")
        if waits and not encoded and _ignores_conditions(distribution, given, events):
            layer.adapt_to_conditions(rows)
        read = np.reshape(np.asarray(distribution.condition_before_encoder(given)), [len(rows), -1])
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
