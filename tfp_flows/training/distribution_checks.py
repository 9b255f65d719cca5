"""Checks of a model's distribution, and of data against its support."""

from __future__ import annotations

import warnings

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.bijectors.composition import is_affine, layers_of
from tfp_flows.distribution import FlowDistribution


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


def warn_of_shared_networks(distribution: tfp.distributions.Distribution) -> None:
    """Warn if layers of a flow share weights, as in `Chain([layer] * 8)`, which is rarely intended."""
    bijector = getattr(distribution, "bijector", None)
    if not isinstance(bijector, tfp.bijectors.Bijector):
        return
    owner: dict[int, int] = {}
    for i, layer in enumerate(layers_of(bijector)):
        found = tracking.find(layer)
        weights = [w.value for network in found.layers for w in network.trainable_variables] + found.variables
        for weight in weights:
            first = owner.setdefault(id(weight), i)
            if first != i:
                warnings.warn(
                    f"Layers {first} and {i} of the flow share weights ({weight.name}, of {layer.name}): what occurs twice is "
                    "trained as one. If that is not meant, make a network for each.",
                    stacklevel=4,
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
