"""`SoftClip`: a smooth map of the real line onto an interval, nearly the identity inside."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp


class SoftClip(tfp.bijectors.Bijector):
    """The elementwise map `y = low + s (softplus(t) - softplus(t - w))`, `t = (x - low) / s`, `w = (high - low) / s`.

    Unlike `tfb.SoftClip`, it loses no digits at a bound, and its values never round to one. The log-det is
    `log(1 - exp(-w)) + log sigmoid(t) + log sigmoid(w - t)`.

    Args:
      low, high: Bounds.
      softness: Width `s` of the curve at each bound.
    """

    def __init__(self, low, high, softness, name: str = "soft_clip"):
        self.low, self.high, self.softness = map(tf.convert_to_tensor, (low, high, softness))
        super().__init__(forward_min_event_ndims=0, dtype=self.low.dtype, name=name)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    @classmethod
    def _is_increasing(cls):
        return True

    def _forward(self, x):
        low, high, s = self.low, self.high, self.softness
        from_low, from_high = (x - low) / s, (high - x) / s
        width = (high - low) / s
        rise = s * (tf.nn.softplus(from_low) - tf.nn.softplus(from_low - width))
        fall = s * (tf.nn.softplus(from_high) - tf.nn.softplus(from_high - width))
        y = tf.where(from_low < from_high, low + rise, high - fall)
        tiny = np.finfo(self.dtype.as_numpy_dtype).tiny  # TensorFlow takes smaller numbers for zero
        first = tf.maximum(tf.math.nextafter(low, high), low + tiny)
        last = tf.minimum(tf.math.nextafter(high, low), high - tiny)
        return tf.clip_by_value(y, first, last)

    def _inverse(self, y):
        below, above = (y - self.low) / self.softness, (self.high - y) / self.softness
        return self.low + self.softness * (_log_expm1(below) - tf.math.log(-tf.math.expm1(-above)))

    def _forward_log_det_jacobian(self, x):
        t, width = (x - self.low) / self.softness, (self.high - self.low) / self.softness
        log_total = tf.math.log(-tf.math.expm1(-width))
        return log_total + tf.math.log_sigmoid(t) + tf.math.log_sigmoid(width - t)


def _log_expm1(z: tf.Tensor) -> tf.Tensor:
    """Return `log(exp(z) - 1)` for positive `z`, without overflow."""
    return z + tf.math.log(-tf.math.expm1(-z))
