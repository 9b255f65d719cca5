"""Flows with a Keras network that encodes the condition."""

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
    """A conditional flow with an encoder of the condition, trained jointly: `p(y | encoder(past))`.

    Pass the condition flat, of size `prod(condition_shape)`. The encoder sees it with its shape, such as `[T, D]` for the
    windows of `sequence_windows`, as recurrent and convolutional networks need. Otherwise it works like any conditional flow:
    `flow.log_prob(y, conditional_input=past)`, `FlowModel(flow).fit(past, y)`.

    Args:
      flow: A conditional flow, such as `tff.maf(D, conditional_size=C)`.
      encoder: A Keras layer or model from `[N, *condition_shape]` to `[N, C]`.
      condition_shape: Shape of a condition, such as `[T, D]`.
      preprocess: A bijector whose `inverse` is first applied to the condition, such as `standardize(x_train)`.
      name: Name of the distribution; that of `flow` if `None`.

    Attributes:
      conditional_size: `prod(condition_shape)`, the size of `conditional_input`.

    Raises:
      ValueError: If the flow is not conditional, or if the size of the encoder's output is not the flow's condition size.

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
            raise ValueError("`flow` already has an encoder: put both networks into one `encoder`.")
        name = flow.name if name is None else name
        parameters = {
            "flow": flow,
            "encoder": encoder,
            "condition_shape": condition_shape,
            "preprocess": preprocess,
            "name": name,
        }
        self._keep(flow.distribution, flow.bijector, flow.preprocess_condition, False, name, parameters)
        self._flow = flow
        self.condition_shape = [positive_int("condition_shape", n) for n in condition_shape]
        self._preprocess = preprocess
        self._encoder = Mirror(encoder)
        wanted = flow.conditional_size
        code = self._encoder(tf.zeros([1, *self.condition_shape], self.dtype))  # builds its weights too
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

    def with_base(self, distribution: tfp.distributions.Distribution) -> EncodedFlow:
        """Return this flow over another base distribution, with shared layers and encoder."""
        return self.copy(flow=self._flow.with_base(distribution))
