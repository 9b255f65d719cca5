"""Operations on a flow's latent values: sampling at a temperature, and interpolation."""

from __future__ import annotations

import functools

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import forward_and_log_det, inverse_and_log_det
from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.networks.broadcasting import check_condition
from tfp_flows.registry import serializable

tfd = tfp.distributions

__all__ = ["at_temperature", "interpolate"]


def at_temperature(flow: FlowDistribution, temperature: float) -> FlowDistribution:
    """Return the flow with the standard deviation of its base multiplied by a temperature. The layers are shared.

    A temperature below 1 gives samples nearer to the center of the distribution: cleaner images with less variety
    (Kingma and Dhariwal 2018, arXiv:1807.03039, section 6).

    Args:
      flow: A flow whose base is a `MultivariateNormalDiag`, the default of every recipe.
      temperature: Positive number.

    Raises:
      ValueError: If `temperature` is not positive, or the base is another distribution.

    Example:
      >>> flow = tff.maf(2, num_layers=1)
      >>> cold = tff.at_temperature(flow, 0.5)
      >>> cold.sample(3).shape, len(cold.trainable_variables) == len(flow.trainable_variables)
      (TensorShape([3, 2]), True)
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature!r}.")
    base = flow.distribution
    if isinstance(base, _Tempered):
        base, temperature = base.base, temperature * base.temperature
    if not isinstance(base, tfd.MultivariateNormalDiag):
        raise ValueError(f"`flow` must have a MultivariateNormalDiag as its base, got {base}.")
    return flow.with_base(_Tempered(base, float(temperature)))


@serializable
class _Tempered(tfd.MultivariateNormalDiag):
    """Normal distribution with deviations multiplied by a temperature; its variables remain trainable."""

    def __init__(self, base: tfd.MultivariateNormalDiag, temperature: float, name: str = "tempered"):
        scale_diag = tfp.util.DeferredTensor(
            tf.constant(temperature, base.dtype),
            lambda factor: factor * base.stddev(),
            shape=base.batch_shape + base.event_shape,
            also_track=base,
        )
        super().__init__(base.loc, scale_diag, name=name)
        self.base, self.temperature = base, temperature
        self._parameters = {"base": base, "temperature": temperature, "name": name}  # for `copy`

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"base": tfp.util.BatchedComponentProperties()}  # gives the batch shape


def interpolate(flow: FlowDistribution, start, end, num_steps: int = 8, conditional_input=None) -> tf.Tensor:
    """Interpolate between events: latent values move along the great circle, while their length changes linearly.

    Args:
      flow: A flow.
      start, end: Events of shape `[..., *event_shape]`.
      num_steps: Number of events, including both ends.
      conditional_input: Condition of a conditional flow, of shape `[C]`.

    Returns:
      Events `[num_steps, ..., *event_shape]`.

    Raises:
      ValueError: If `num_steps` is less than 2.

    Example:
      >>> flow = tff.real_nvp(2, num_layers=2)
      >>> tff.interpolate(flow, tf.zeros([2]), tf.ones([2]), num_steps=5).shape
      TensorShape([5, 2])
    """
    steps = positive_int("num_steps", num_steps, 2)
    bijector, ndims = flow.bijector, flow.event_shape.rank
    check_condition(conditional_input, flow.conditional_size)
    kwargs = {} if conditional_input is None else flow.bijector_kwargs(conditional_input)
    latent_ndims = flow.distribution.event_shape.rank
    ends = [inverse_and_log_det(bijector, tf.cast(x, flow.dtype), ndims, **kwargs)[0] for x in (start, end)]
    total = functools.partial(tf.reduce_sum, axis=list(range(-latent_ndims, 0)), keepdims=True)
    lengths = [tf.sqrt(total(tf.square(z))) for z in ends]
    units = [z / tf.maximum(length, 1e-12) for z, length in zip(ends, lengths, strict=True)]
    cosine = total(units[0] * units[1])
    angle = tf.acos(tf.clip_by_value(cosine, -0.9999, 0.9999))
    straight = tf.abs(cosine) > 0.9999  # no unique great circle
    on_the_way = []
    for i in range(steps):
        t = tf.cast(i / (steps - 1), flow.dtype)
        turned = (tf.sin((1.0 - t) * angle) * units[0] + tf.sin(t * angle) * units[1]) / tf.sin(angle)
        turned *= (1.0 - t) * lengths[0] + t * lengths[1]
        z = tf.where(straight, (1.0 - t) * ends[0] + t * ends[1], turned)
        on_the_way.append(forward_and_log_det(bijector, z, latent_ndims, **kwargs)[0])
    return tf.stack(on_the_way)
