"""Monotone rational-quadratic splines."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable
from tfp_flows.transformers.base import Transformer

_MIN_BIN = 1e-3  # as a fraction of the interval; keeps bins from collapsing
_MIN_SLOPE = 1e-3


@serializable
@dataclasses.dataclass(frozen=True)
class SplineTransformer(Transformer):
    """Rational-quadratic spline on `[-bound, bound]`, the identity outside (Durkan et al. 2019, arXiv:1906.04032, eq. 4-8).

    The `3 num_bins - 1` parameters are widths and heights of the bins, by a softmax, and the slopes at the inner knots,
    by a softplus. The slope at both ends is 1, so that the map is differentiable. Zero parameters give the identity.
    `inverse` (data to latent) evaluates the spline; `forward` solves a quadratic equation.

    Args:
      num_bins: Number of bins, from 1 to 500.
      bound: Half the width of the interval, in the units of the input: use standardized data.

    Example:
      >>> spline = SplineTransformer(num_bins=8)
      >>> spline.params
      23
      >>> print(spline(tf.zeros([2, 23])).forward(tf.constant([0.5, 7.0])).numpy())
      [0.5 7. ]
    """

    num_bins: int = 8
    bound: float = 5.0

    def __post_init__(self):
        positive_int("num_bins", self.num_bins)
        if self.num_bins > 500:
            raise ValueError(f"`num_bins` must be at most 500, got {self.num_bins}.")
        if not (self.bound > 0 and math.isfinite(self.bound)):
            raise ValueError(f"`bound` must be positive and finite, got {self.bound!r}.")

    @property
    def params(self) -> int:
        return 3 * self.num_bins - 1

    def _knots(self, raw):
        """Return left ends and widths of the bins on one axis, `[..., K]` each."""
        widths = _MIN_BIN + (1.0 - _MIN_BIN * self.num_bins) * tf.nn.softmax(raw)
        left = 2.0 * self.bound * tf.cumsum(widths, axis=-1, exclusive=True) - self.bound
        return left, 2.0 * self.bound * widths

    def _bin_of(self, value, params, by_height: bool):
        """Return left end, width, bottom, height and the two slopes of the bin of each value, which lies in the interval."""
        k = self.num_bins
        left, width = self._knots(params[..., :k])
        bottom, height = self._knots(params[..., k : 2 * k])
        # softplus(raw + offset) = 1 - _MIN_SLOPE at raw = 0
        slopes = _MIN_SLOPE + tf.math.softplus(params[..., 2 * k :] + math.log(math.expm1(1.0 - _MIN_SLOPE)))
        ends = tf.ones_like(params[..., :1])
        slopes = tf.concat([ends, slopes, ends], axis=-1)
        # One-hot selection vectorizes better than a gather, since K is small.
        reached = tf.cast(value[..., tf.newaxis] >= (bottom if by_height else left)[..., 1:], params.dtype)
        chosen = tf.concat([ends, reached], axis=-1) - tf.concat([reached, tf.zeros_like(ends)], axis=-1)
        parts = (left, width, bottom, height, slopes[..., :-1], slopes[..., 1:])
        return [tf.reduce_sum(part * chosen, axis=-1) for part in parts]

    def _evaluate(self, y, params):
        inside = tf.abs(y) < self.bound
        clipped = tf.clip_by_value(y, -self.bound, self.bound)
        left, width, bottom, height, d0, d1 = self._bin_of(clipped, params, by_height=False)
        slope = height / width
        t = tf.clip_by_value((clipped - left) / width, 0.0, 1.0)
        x, log_slope = rational_quadratic(t, slope, d0, d1)
        return tf.where(inside, bottom + height * x, y), tf.where(inside, log_slope, tf.zeros_like(y))

    def inverse(self, y, params):
        return self._evaluate(y, params)

    def forward(self, x, params):
        inside = tf.abs(x) < self.bound
        clipped = tf.clip_by_value(x, -self.bound, self.bound)
        left, width, bottom, height, d0, d1 = self._bin_of(clipped, params, by_height=True)
        slope = height / width
        up = tf.clip_by_value((clipped - bottom) / height, 0.0, 1.0)
        t = solve_rational_quadratic(up, slope, d0, d1)
        _, log_slope = rational_quadratic(t, slope, d0, d1)
        return tf.where(inside, left + width * t, x), tf.where(inside, -log_slope, tf.zeros_like(x))


def rational_quadratic(t, slope, d0, d1):
    """Return the relative height at the relative position `t` in the bin, and the log of the derivative (eq. 4-5)."""
    u = t * (1.0 - t)
    denominator = slope + (d0 + d1 - 2.0 * slope) * u
    y = (slope * t * t + d0 * u) / denominator
    derivative = d1 * t * t + 2.0 * slope * u + d0 * tf.square(1.0 - t)
    return y, 2.0 * tf.math.log(slope) + tf.math.log(derivative) - 2.0 * tf.math.log(denominator)


def solve_rational_quadratic(up, slope, d0, d1):
    """Return the relative position `t` at which the relative height is `up` (eq. 6-8, divided by the height)."""
    bend = d0 + d1 - 2.0 * slope
    a = slope - d0 + up * bend
    b = d0 - up * bend
    c = -slope * up
    # This form of the root avoids cancellation.
    root = tf.sqrt(tf.maximum(b * b - 4.0 * a * c, 1e-20))
    rises = b >= 0
    top, bottom = tf.where(rises, -2.0 * c, root - b), tf.where(rises, b + root, 2.0 * a)
    return tf.clip_by_value(top / tf.where(bottom > 0, bottom, tf.ones_like(bottom)), 0.0, 1.0)
