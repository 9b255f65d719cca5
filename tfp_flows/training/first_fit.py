"""Initialization of the support and of the base of a flow from all rows of its first `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Support
from tfp_flows.bijectors.composition import inverse_and_log_det, layers_of
from tfp_flows.distribution import FlowDistribution

_ROWS = 2**14  # rows that a base is fitted to


def adapt_support(distribution: tfp.distributions.Distribution, events: np.ndarray | None) -> None:
    """Fit shift and scale of the `Support` of a new flow to events `[N, D]`, if there are any."""
    if events is None or not isinstance(distribution, FlowDistribution):
        return
    last = layers_of(distribution.bijector)[0]
    if isinstance(last, Support) and not last.adapted:
        last.adapt(events)


def adapt_base(
    distribution: tfp.distributions.Distribution, events: np.ndarray | None, condition: dict[str, Any]
) -> None:
    """Fit the base of a new flow, if it can be adapted, to the latent values of events `[N, D]`; at most 16,384 rows count."""
    base = getattr(distribution, "distribution", None)
    if events is None or not isinstance(distribution, FlowDistribution) or getattr(base, "adapted", True):
        return
    every = -(-len(events) // _ROWS)
    kwargs = {name: value[::every] for name, value in condition.items() if value is not None}
    nested = distribution.bijector_kwargs(kwargs["conditional_input"]) if kwargs else {}
    rows = tf.cast(events[::every], distribution.dtype)
    base.adapt(inverse_and_log_det(distribution.bijector, rows, 1, **nested)[0].numpy())
