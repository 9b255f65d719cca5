"""Scalar equation of planar and Sylvester flows, and the constraint under which it has one root."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flows.numerics import sech_squared, solve_increasing


def constrained_u(u: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the `u_hat` `[..., D]` that makes `z + u_hat tanh(w.z + b)` invertible (arXiv:1505.05770, appendix A.1).

    `u_hat = u + (m(w.u) - w.u) w / |w|^2` with `m(x) = -1 + softplus(x)`, so that `w.u_hat = m(w.u) > -1`. Where `w` is
    zero, `u_hat = u`. The second result, `1 + w.u_hat = softplus(w.u)` `[...]`, is precise near 0.
    """
    wu = tf.reduce_sum(w * u, axis=-1)
    norm2 = tf.reduce_sum(w * w, axis=-1)
    moves = norm2 > 0
    tiny = np.finfo(wu.dtype.as_numpy_dtype).tiny
    slope = tf.where(moves, tf.maximum(tf.math.softplus(wu), tiny), tf.ones_like(wu))
    # At `w = 0` the divisor is replaced before the division, so that the gradient is also finite.
    step = tf.where(moves, slope - 1.0 - wu, tf.zeros_like(wu)) / tf.where(moves, norm2, tf.ones_like(wu))
    return u + step[..., tf.newaxis] * w, slope


_K = float(1.0 - np.exp(-1.0))
# Taylor series of `log(1 + K (exp(t) - 1)) / t` at 0: the cumulants of a Bernoulli variable, over factorials.
_SERIES = (
    _K,
    _K * (1 - _K) / 2,
    _K * (1 - _K) * (1 - 2 * _K) / 6,
    _K * (1 - _K) * (1 - 6 * _K * (1 - _K)) / 24,
    _K * (1 - _K) * (1 - 2 * _K) * (1 - 12 * _K * (1 - _K)) / 120,
)


def constrained_factor(u: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a `u_hat` with `w u_hat > -1` for scalars, smooth everywhere and zero where `u` is, and `1 + w u_hat`.

    `constrained_u` divides by `w`. A vector hardly comes near zero, but a trained scalar may cross it, where `u_hat`
    would be infinite. Here `w u_hat = m(w u)` with `m(t) = -1 + softplus(t + log(e - 1))`, which is zero at zero, so
    that `u_hat = u m(t) / t` at `t = w u` needs no division by `w`.
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
    """Return a bracket of the root of `s + c tanh(s) = r`, `c = slope - 1`, and a start near it for Newton's method.

    The equation is odd, so `|r|` stands for `r`. For `c >= 0` the left side is concave, and `tanh(s) <= min(s, 1)`
    gives a lower bound of the root, from which Newton's method does not overshoot. For `c < 0` it is convex. For a
    small `slope` it is nearly a cubic, on which Newton's steps shrink by a third only. The start is then the root of
    `slope s - c s^3 / 3 = |r|`, if that is below one, and otherwise a step of `s = |r| - c tanh(s)` from the upper bound.
    """
    c = slope - 1.0
    size = tf.abs(r)
    a = tf.maximum(-c, 0.5)  # for larger c the root of `slope s = |r|` is as good
    root = tf.sqrt(slope)
    tiny = np.finfo(r.dtype.as_numpy_dtype).tiny
    angle = tf.asinh(1.5 * tf.sqrt(a) * size / tf.maximum(slope * root, tiny)) / 3.0
    cubic = tf.minimum(2.0 * root / tf.sqrt(a) * tf.sinh(angle), (3.0 * size / a) ** (1.0 / 3.0))
    far = tf.minimum(size + a * tf.tanh(size + a), size / slope)
    convex = tf.where(c < -0.5, tf.where(cubic < 1.0, cubic, far), tf.minimum(size - c, size / slope))
    start = tf.sign(r) * tf.where(c >= 0, tf.maximum(size - c, size / slope), convex)
    reach = tf.sign(r) * (size + tf.abs(c))
    return tf.minimum(reach, 0.0), tf.maximum(reach, 0.0), start


# Taylor series of `(s - tanh(s)) / s^3` in `s^2`, accurate up to `|s| = 0.1`.
_TANH_SERIES = (1 / 3, -2 / 15, 17 / 315, -62 / 2835, 1382 / 155925, -21844 / 6081075)


def _residual(s, r, slope):
    """Return `s + (slope - 1) tanh(s) - r` and its derivative `tanh(s)^2 + slope sech(s)^2`, as sums of positive terms.

    For a small `s`, `s - tanh(s)` would leave only rounding errors.
    """
    t, near = tf.tanh(s), tf.abs(s) < 0.1
    small = tf.where(near, s, tf.zeros_like(s))  # the series overflows for a large `s`, which spoils the gradient
    square, series = small * small, tf.zeros_like(s)
    for coefficient in reversed(_TANH_SERIES):
        series = series * square + coefficient
    rest = tf.where(near, small * square * series, s - t)
    return slope * t + rest - r, t * t + slope * sech_squared(s)


def solve_tanh(r: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Return the root `s` of `s + (slope - 1) tanh(s) = r`, for `slope > 0`. The arguments broadcast."""
    r, slope = r + tf.zeros_like(slope), slope + tf.zeros_like(r)
    return tf.ensure_shape(solve_increasing(_residual, _bracket, [r, slope]), r.shape)


def log_slope(s: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Return the log of the derivative `1 + (slope - 1) (1 - tanh(s)^2)`, without cancellation."""
    return tf.math.log(tf.square(tf.tanh(s)) + slope * sech_squared(s))
