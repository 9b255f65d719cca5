"""Flows whose condition passes through a Keras network first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.registry import serializable
from tfp_flows.tracking import Mirror

tfb = tfp.bijectors


@serializable
class EncodedFlow(FlowDistribution):
    """Conditional flow `p(y | encoder(past))`, trained jointly with an encoder of its condition.

    The condition is passed flat, of size `conditional_size = prod(condition_shape)`, and reshaped for the encoder. For
    example, windows from `sequence_windows` become `[T, D]` for a recurrent or convolutional network. Use it like any
    conditional flow: `flow.log_prob(y, conditional_input=past)`, `FlowModel(flow).fit(past, y)`.

    Args:
      flow: A conditional flow, such as `tff.maf(D, conditional_size=C)`.
      encoder: A Keras layer or model from `[N, *condition_shape]` to `[N, C]`.
      condition_shape: Shape of a condition, such as `[T, D]`.
      preprocess: A bijector whose `inverse` is applied to the condition first, such as `standardize(x_train)`.
      name: Name of the distribution; that of `flow` if `None`.

    Raises:
      ValueError: If the flow is not conditional, or the encoder's output does not have size `C`.

    Example:
      >>> flow = tff.EncodedFlow(tff.maf(2, num_layers=1, conditional_size=8), keras.layers.GRU(8), [5, 2])
      >>> flow.log_prob(tf.zeros([3, 2]), conditional_input=tf.zeros([3, 10])).shape
      TensorShape([3])
    """

    def __init__(
        self,
        flow: FlowDistribution,
        encoder: Callable,
        condition_shape: Sequence[int],
        *,
        preprocess: tfb.Bijector | None = None,
        name: str | None = None,
    ):
        if not isinstance(flow, FlowDistribution) or flow.conditional_size is None:
            raise ValueError(f"`flow` must be a conditional flow (conditional_size=...), got {flow!r}.")
        if isinstance(flow, EncodedFlow):
            raise ValueError("`flow` already has an encoder: combine both networks in one `encoder`.")
        name = flow.name if name is None else name
        parameters = {"flow": flow, "encoder": encoder, "condition_shape": condition_shape}
        parameters |= {"preprocess": preprocess, "name": name}
        self._keep(flow.distribution, flow.bijector, flow.preprocess_condition, False, name, parameters)
        self._flow = flow
        self.condition_shape = [positive_int("condition_shape", n) for n in condition_shape]
        self._preprocess = preprocess
        self._encoder = Mirror(encoder)
        wanted = flow.conditional_size
        code = self._encoder(tf.zeros([1, *self.condition_shape], self.dtype))  # also builds the encoder
        if code.shape != [1, wanted]:
            raise ValueError(f"`encoder` must return shape [N, {wanted}], the flow's condition, got {code.shape}.")
        self.conditional_size = int(np.prod(self.condition_shape))

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return super()._parameter_properties(dtype, num_classes)

    def _encode(self, condition: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(condition)[:-1]
        code = tf.cast(self._encoder(self.condition_before_encoder(condition)), self.dtype)
        return super()._encode(tf.reshape(code, tf.concat([batch, tf.shape(code)[-1:]], axis=0)))

    def condition_before_encoder(self, condition: tf.Tensor) -> tf.Tensor:
        """Return the input of the encoder, `[N, *condition_shape]`."""
        condition = tf.reshape(condition, [-1, *self.condition_shape])
        return condition if self._preprocess is None else self._preprocess.inverse(condition)

    def _is_traceable(self) -> bool:
        return False  # an encoder is code of the user

    def with_base(self, distribution: tfp.distributions.Distribution) -> EncodedFlow:
        return self.copy(flow=self._flow.with_base(distribution))
