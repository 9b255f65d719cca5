"""Points on their way through the layers of a two-dimensional flow."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _compat_tfp
from tfp_flows.bijectors import ContinuousFlow, Standardize
from tfp_flows.bijectors.composition import forward_and_log_det, inverse_and_log_det
from tfp_flows.bijectors.conditioning import conditional_kwargs

tfb, tfd = tfp.bijectors, tfp.distributions
_TIMES, _SUBSTEPS = 8, 4  # places of a `ContinuousFlow`, and steps of the integration between two


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
    A `ContinuousFlow` has several places, at equal distances in time.
    """

    names: list[str]
    points: list[np.ndarray]  # each [N, 2]


def trajectory(flow: tfd.Distribution, x: Any, *, inverse: bool = False, conditional_input: Any = None) -> Trajectory:
    """Move points `[N, 2]` through all layers: base points toward the data, or with `inverse` data toward the base."""
    steps = steps_of(flow.bijector, bijector_kwargs(flow, conditional_input))
    value = tf.cast(tf.convert_to_tensor(x), flow.dtype)
    stops = []  # of each step, from base to data, without the base side
    for step in reversed(steps) if inverse else steps:
        way = [value, *_move(step, value, step.inverted != inverse)]
        value = way[-1]
        stops.append(way[-2::-1] if inverse else way[1:])
    if inverse:
        stops.reverse()
    names, points = ["base"], [np.reshape(value if inverse else x, [len(value), 2])]
    for step, after in zip(steps, stops, strict=True):
        after = [np.reshape(v, [len(v), 2]) for v in after]
        if _swaps(step.bijector):
            points = [p[:, ::-1] for p in points]
        if isinstance(step.bijector, Standardize) and len(names) > 1:
            points[-1] = after[-1]
        elif not _is_relabeling(step.bijector):
            name = re.sub(r"_\d+$", "", step.bijector.name).replace("_", " ")
            names += [name if len(after) == 1 else f"{name} {k}/{len(after)}" for k in range(1, len(after) + 1)]
            points += after
    return Trajectory(names, points)


def _move(step: Step, value: tf.Tensor, inverse: bool) -> list[tf.Tensor]:
    """Return the values of a bijector, or of its inverse, on the way from `value` to the result, which is the last."""
    move = inverse_and_log_det if inverse else forward_and_log_det
    end, _ = move(step.bijector, value, value.shape.rank - 1, **step.kwargs)
    if not isinstance(step.bijector, ContinuousFlow):
        return [end]
    # Runge-Kutta steps of fourth order; their end differs from the solver's by less than a picture shows.
    h = (-1.0 if inverse else 1.0) / (_TIMES * _SUBSTEPS)
    time, way = 1.0 if inverse else 0.0, []
    for i in range(1, (_TIMES - 1) * _SUBSTEPS + 1):
        k1 = step.bijector.velocity(time, value, **step.kwargs)
        k2 = step.bijector.velocity(time + h / 2, value + h / 2 * k1, **step.kwargs)
        k3 = step.bijector.velocity(time + h / 2, value + h / 2 * k2, **step.kwargs)
        k4 = step.bijector.velocity(time + h, value + h * k3, **step.kwargs)
        value, time = value + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), time + h
        if i % _SUBSTEPS == 0:
            way.append(value)
    return [*way, end]


def draw_base(flow: tfd.Distribution, n: int, seed: int) -> np.ndarray:
    """Return `n` points of the base, those that `FlowModel.sample(n, seed=seed)` moves to the data."""
    x = flow.distribution.sample(n, seed=tf.constant([seed % 2**31, 0], tf.int32))
    return np.reshape(x, [n, 2])
