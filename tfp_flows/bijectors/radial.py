"""Radial flow, invertible in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.amortized import AmortizedBijector
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed


@serializable
class RadialFlow(AmortizedBijector):
    """Radial flow `f(z) = z + beta_hat (z - z0) / (alpha + r)`, `r = |z - z0|` (arXiv:1505.05770, eq. 13-14).

    `log |det df/dz| = (D - 1) log(1 + beta_hat h) + log(1 + beta_hat h + beta_hat h' r)` with `h = 1 / (alpha + r)`.
    `alpha = softplus(raw_alpha)` is positive, and `beta_hat = -alpha + softplus(beta) > -alpha` (appendix A.2) makes
    `f` invertible. The inverse solves a quadratic equation: `R = r (1 + beta_hat h(r))`, the distance after the map.

    Cost per direction and event: `O(D)`, with the log-det. Shapes: `[..., D]` to `[..., D]`; log-det `[...]`, in nats.

    The trainable variables are `center` `[D]`, `raw_alpha` `[]` and `beta` `[]`. A new flow is close to the identity.

    Args:
      event_size: Integer `D`, the size of the last axis.
      conditional_size: Size `C` of the `conditional_input` `[..., C]`, from which a network computes offsets of all variables.
      hidden_units, activation: Hidden layers of the network that reads the condition, and their activation.
      seed: Integer seed of the initial values; `keras.utils.set_random_seed` decides if `None`.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If `event_size` is not a positive integer.

    Example:
      >>> flow = tff.RadialFlow(3, seed=1)
      >>> y = flow.forward(tf.ones([5, 3]))
      >>> y.shape, flow.inverse(tf.identity(y)).shape, flow.inverse_log_det_jacobian(y).shape
      (TensorShape([5, 3]), TensorShape([5, 3]), TensorShape([5]))
    """

    def __init__(
        self,
        event_size: int,
        *,
        conditional_size: int | None = None,
        hidden_units: Sequence[int] = (64, 64),
        activation="relu",
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "radial_flow",
    ):
        size = positive_int("event_size", event_size)
        seed = resolve_seed(seed)
        rng = np.random.default_rng(seed)
        start = np.log(np.e - 1.0)  # softplus(start) = 1, so that alpha = 1 and beta_hat = 0
        variables = {"center": rng.normal(size=size), "raw_alpha": start, "beta": start + 0.01 * rng.normal()}
        super().__init__(size, variables, dtype=dtype, validate_args=validate_args, name=name)
        self._amortize(conditional_size, hidden_units, activation, seed)

    def _parts(self, x, conditional_input):
        """Return the offset from the center and its length, the center, `alpha`, and `alpha + beta_hat > 0`."""
        center, raw_alpha, beta = self._values(x, conditional_input)
        tiny = np.sqrt(np.finfo(self.dtype.as_numpy_dtype).tiny)  # keeps their product from underflowing
        alpha, reach = (tf.maximum(tf.math.softplus(t), tiny) for t in (raw_alpha, beta))
        offset = x - center
        # The gradient of a norm is undefined at zero, so the square is replaced there.
        square = tf.reduce_sum(tf.square(offset), axis=-1)
        away = square > 0
        length = tf.where(away, tf.sqrt(tf.where(away, square, tf.ones_like(square))), tf.zeros_like(square))
        return offset, length, center, alpha, reach

    def _log_det(self, r, alpha, reach):
        # With c = alpha + beta_hat: 1 + beta_hat h = (c + r) / (alpha + r), and
        # 1 + beta_hat h + beta_hat h' r = (r^2 + 2 alpha r + alpha c) / (alpha + r)^2, sums of positive terms.
        tangential = tf.math.log(reach + r) - tf.math.log(alpha + r)
        radial = tf.math.log(r * (r + 2.0 * alpha) + alpha * reach) - 2.0 * tf.math.log(alpha + r)
        return (self.event_size - 1.0) * tangential + radial

    def forward_and_log_det(self, x, conditional_input=None):
        offset, r, center, alpha, reach = self._parts(x, conditional_input)
        stretch = (reach + r) / (alpha + r)
        return center + offset * stretch[..., tf.newaxis], self._log_det(r, alpha, reach)

    def inverse_and_log_det(self, y, conditional_input=None):
        offset, distance, center, alpha, reach = self._parts(y, conditional_input)
        # Solves `r^2 + p r - R alpha = 0` by the formula that does not cancel digits.
        p = reach - distance
        root = tf.sqrt(tf.square(p) + 4.0 * distance * alpha)
        positive = p > 0
        denominator = tf.where(positive, p + root, tf.ones_like(p))
        r = tf.where(positive, 2.0 * distance * alpha / denominator, 0.5 * (root - p))
        stretch = (alpha + r) / (reach + r)
        return center + offset * stretch[..., tf.newaxis], -self._log_det(r, alpha, reach)
