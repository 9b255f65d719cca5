"""The scalar equation of planar and Sylvester flows, and the constraint under which it has one root."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flows.numerics import sech_squared, solve_increasing


def constrained_u(u: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The `u_hat` that makes `z + u_hat tanh(w.z + b)` invertible (arXiv:1505.05770, appendix A.1).

    `u_hat = u + (m(w.u) - w.u) w / |w|^2` with `m(x) = -1 + softplus(x)`, so that `w.u_hat = m(w.u) > -1`.

    Args:
      u: Tensor of shape `[..., D]`.
      w: Tensor of shape `[..., D]`. Where it is zero the map is a translation by `u tanh(b)`, and `u_hat = u`.

    Returns:
      `u_hat` of shape `[..., D]`, and `1 + w.u_hat = softplus(w.u) > 0` of shape `[...]`, which keeps its relative
      precision where `w.u_hat` comes close to -1.
    """
    wu = tf.reduce_sum(w * u, axis=-1)
    norm2 = tf.reduce_sum(w * w, axis=-1)
    moves = norm2 > 0
    tiny = np.finfo(wu.dtype.as_numpy_dtype).tiny
    slope = tf.where(moves, tf.maximum(tf.math.softplus(wu), tiny), tf.ones_like(wu))
    # At w = 0 the quotient is replaced before it is formed, so that its gradient is finite as well.
    step = tf.where(moves, slope - 1.0 - wu, tf.zeros_like(wu)) / tf.where(moves, norm2, tf.ones_like(wu))
    return u + step[..., tf.newaxis] * w, slope


_K = float(1.0 - np.exp(-1.0))
# Of log(1 + K (exp(t) - 1)) / t at 0: the cumulants of a Bernoulli variable, over factorials.
_SERIES = (
    _K,
    _K * (1 - _K) / 2,
    _K * (1 - _K) * (1 - 2 * _K) / 6,
    _K * (1 - _K) * (1 - 6 * _K * (1 - _K)) / 24,
    _K * (1 - _K) * (1 - 2 * _K) * (1 - 12 * _K * (1 - _K)) / 120,
)


def constrained_factor(u: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For single numbers: a `u_hat` with `w u_hat > -1` that is smooth everywhere, and zero where `u` is.

    `constrained_u` divides by `w`. A vector hardly comes near zero, but a number that is trained may cross it, and `u_hat`
    would then be infinite. Here `w u_hat = m(w u)` with `m(t) = -1 + softplus(t + log(e - 1))`, which is zero at zero, so
    that `u_hat = u m(t) / t` at `t = w u` needs no division by `w`.

    Args:
      u, w: Tensors of one shape.

    Returns:
      `u_hat`, and `1 + w u_hat > 0`, both of that shape.
    """
    t = u * w
    tiny = np.finfo(t.dtype.as_numpy_dtype).tiny
    slope = tf.maximum(tf.math.softplus(t + np.log(np.e - 1.0)), tiny)
    near, large = tf.abs(t) < 1e-3, t > 1.0
    m = tf.where(large, slope - 1.0, tf.math.log1p(_K * tf.math.expm1(tf.where(large, tf.ones_like(t), t))))
    series = tf.zeros_like(t)
    for coefficient in reversed(_SERIES):
        series = series * t + coefficient
    ratio = tf.where(near, series, m / tf.where(near, tf.ones_like(t), t))
    return u * ratio, slope


def _bracket(r: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Bracket of the root of `s + c tanh(s) = r`, `c = slope - 1`, and a start on one side of it.

    With `|r|` for `r` (the equation is odd): for `c >= 0` the left side is concave, and `tanh(s) <= min(s, 1)` gives a
    lower bound of the root; for `c < 0` it is convex, and `tanh(s) <= s`, `tanh(s) <= 1` and, up to `s = 1`,
    `tanh(s) <= s - s^3 / 5` give upper bounds. From there Newton's method runs to the root without crossing it.
    """
    c = slope - 1.0
    size = tf.abs(r)
    below = tf.maximum(size - c, size / slope)
    a = tf.maximum(-c, 0.5)  # used only where c < -1/2; for larger c the other bounds are as good
    cubic = tf.where((c < -0.5) & (size <= 1.0 - 0.7615 * a), (5.0 * size / a) ** (1.0 / 3.0), np.inf)
    above = tf.minimum(tf.minimum(size - c, size / slope), cubic)
    reach = tf.abs(c)
    return r - reach, r + reach, tf.sign(r) * tf.where(c >= 0, below, above)


def _residual(s, r, slope):
    """`s + (slope - 1) tanh(s) - r` and its derivative `tanh(s)^2 + slope sech(s)^2`, a sum of positive terms."""
    t = tf.tanh(s)
    return s + (slope - 1.0) * t - r, t * t + slope * sech_squared(s)


def solve_tanh(r: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """The root `s` of `s + (slope - 1) tanh(s) = r`, for `slope > 0`, of the shape to which both broadcast."""
    r, slope = r + tf.zeros_like(slope), slope + tf.zeros_like(r)
    return tf.ensure_shape(solve_increasing(_residual, _bracket, [r, slope]), r.shape)


def log_slope(s: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Log of the derivative `1 + (slope - 1) (1 - tanh(s)^2)`, without cancellation."""
    return tf.math.log(tf.square(tf.tanh(s)) + slope * sech_squared(s))
