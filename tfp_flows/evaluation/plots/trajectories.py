"""Points on their way through the layers of a two-dimensional flow."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _compat_tfp
from tfp_flows.bijectors import Standardize
from tfp_flows.bijectors.composition import forward_and_log_det, inverse_and_log_det
from tfp_flows.bijectors.conditioning import conditional_kwargs

tfb, tfd = tfp.bijectors, tfp.distributions


class Step(NamedTuple):
    """A single bijector of a flow. If `inverted`, its `inverse` goes toward the data."""

    bijector: tfb.Bijector
    inverted: bool
    kwargs: dict[str, Any]


def distribution_of(name: str, flow: Any) -> tfd.Distribution:
    """Return the distribution of a model, or `flow` itself if it is a distribution over a bijector.

    Raises:
      ValueError: If there is no bijector between base and data. The message calls the argument `name`.
    """
    if not isinstance(flow, tfd.Distribution):
        flow = getattr(flow, "distribution", getattr(flow, "flow", flow))
    if not isinstance(flow, _compat_tfp.AnyTransformedDistribution):
        raise ValueError(
            f"`{name}` must be a flow, such as tff.maf(2), or a model over one: a distribution with base and bijector, got "
            f"{flow!r}."
        )
    return flow


def plane_flow(name: str, flow: Any) -> tfd.Distribution:
    """Return the distribution of a flow or model. Raise a `ValueError` if its events are not two-dimensional."""
    flow = distribution_of(name, flow)
    if flow.event_shape != [2]:
        raise ValueError(f"`{name}` must have events of shape [2], got {flow.event_shape}.")
    return flow


def bijector_kwargs(flow: Any, conditional_input: Any) -> dict[str, Any]:
    """Return the nested keywords that pass one condition `[C]` to all layers of a flow."""
    if hasattr(flow, "bijector_kwargs"):
        return (
            {}
            if conditional_input is None and flow.conditional_size is None
            else flow.bijector_kwargs(conditional_input)
        )
    if conditional_input is None:
        return {}
    return conditional_kwargs(flow.bijector, tf.cast(tf.convert_to_tensor(conditional_input), flow.dtype))


def steps_of(bijector: tfb.Bijector, kwargs: dict[str, Any], inverted: bool = False) -> list[Step]:
    """Return the single bijectors of a composition, from base to data."""
    while isinstance(bijector, _compat_tfp.Invert):
        bijector, inverted = bijector.bijector, not inverted
    if not isinstance(bijector, _compat_tfp.Chain):
        return [Step(bijector, inverted, kwargs)]
    parts = bijector.bijectors if inverted else reversed(bijector.bijectors)
    return [step for part in parts for step in steps_of(part, kwargs.get(part.name, {}), inverted)]


def _is_relabeling(bijector: tfb.Bijector) -> bool:
    """Return whether a bijector only relabels the two axes, or does nothing."""
    return isinstance(bijector, (tfb.Identity, tfb.Permute, tfb.Reshape))


def _swaps(bijector: tfb.Bijector) -> bool:
    return isinstance(bijector, tfb.Permute) and list(np.asarray(bijector.permutation)) == [1, 0]


class Trajectory(NamedTuple):
    """Points before the first layer and after each layer, from base to data, with the names of these places.

    Permutations only relabel the axes, so they are no layers here: all points have their axes in the order of the data.
    `Standardize` only changes the units, so it is part of the layer before it.
    """

    names: list[str]
    points: list[np.ndarray]  # each [N, 2]


def trajectory(flow: tfd.Distribution, x: Any, *, inverse: bool = False, conditional_input: Any = None) -> Trajectory:
    """Move points `[N, 2]` through all layers: base points toward the data, or with `inverse` data toward the base."""
    steps = steps_of(flow.bijector, bijector_kwargs(flow, conditional_input))
    value = tf.cast(tf.convert_to_tensor(x), flow.dtype)
    values = [value]
    for step in reversed(steps) if inverse else steps:
        move = inverse_and_log_det if step.inverted != inverse else forward_and_log_det
        value, _ = move(step.bijector, value, value.shape.rank - 1, **step.kwargs)
        values.append(value)
    points = [np.reshape(v, [len(v), 2]) for v in (reversed(values) if inverse else values)]
    names, shown = ["base"], [points[0]]
    for step, after in zip(steps, points[1:], strict=True):
        if _swaps(step.bijector):
            shown = [p[:, ::-1] for p in shown]
        if isinstance(step.bijector, Standardize) and len(names) > 1:
            shown[-1] = after
        elif not _is_relabeling(step.bijector):
            names.append(re.sub(r"_\d+$", "", step.bijector.name).replace("_", " "))
            shown.append(after)
    return Trajectory(names, shown)


def draw_base(flow: tfd.Distribution, n: int, seed: int) -> np.ndarray:
    """Return `n` points of the base, those that `FlowModel.sample(n, seed=seed)` moves to the data."""
    x = flow.distribution.sample(n, seed=tf.constant([seed % 2**31, 0], tf.int32))
    return np.reshape(x, [n, 2])
