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

    A network outputs `3 num_bins - 1` parameters for each dimension. A softmax turns them into widths and heights of the
    bins, a softplus into slopes at the inner knots. The slope at both ends is 1, so that the map is differentiable. If all
    parameters are zero, the map is the identity. `inverse` (data to latent) evaluates the spline; `forward` solves a
    quadratic equation. Pass it to `tff.autoregressive_flow` or `tff.coupling_flow`, or use a recipe such as
    `tff.spline_coupling`.

    Args:
      num_bins: Number of bins, from 1 to 500.
      bound: Half the width of the interval, in the units of the input: use standardized data.

    Example:
      >>> spline = tff.SplineTransformer(num_bins=8)
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

    def _apply(self, value, params, latent_to_data: bool):
        k = self.num_bins
        ends = tf.ones_like(params[..., :1])
        slopes = tf.concat([ends, positive_slopes(params[..., 2 * k :]), ends], axis=-1)
        x_axis, y_axis = knots(params[..., :k], self.bound), knots(params[..., k : 2 * k], self.bound)
        bins = (*x_axis, *y_axis, slopes[..., :-1], slopes[..., 1:])
        inside = tf.abs(value) < self.bound
        clipped = tf.clip_by_value(value, -self.bound, self.bound)
        result, log_slope = map_in_bin(clipped, select_bin(clipped, bins, latent_to_data), latent_to_data)
        return tf.where(inside, result, value), tf.where(inside, log_slope, tf.zeros_like(value))

    def inverse(self, y, params):
        return self._apply(y, params, latent_to_data=False)

    def forward(self, x, params):
        return self._apply(x, params, latent_to_data=True)


def knots(raw, bound: float):
    """Return left ends and widths of the bins that divide `[-bound, bound]`; equal bins for zeros."""
    widths = _MIN_BIN + (1.0 - _MIN_BIN * raw.shape[-1]) * tf.nn.softmax(raw)
    left = 2.0 * bound * tf.cumsum(widths, axis=-1, exclusive=True) - bound
    return left, 2.0 * bound * widths


def positive_slopes(raw):
    """Return slopes at the knots, 1 for zeros."""
    return _MIN_SLOPE + tf.math.softplus(raw + math.log(math.expm1(1.0 - _MIN_SLOPE)))


def select_bin(value, bins, latent_to_data: bool):
    """Return the bin of each value, which lies between the outermost knots.

    Bins are given by left ends, widths, bottoms, heights, and slopes at both ends, `[..., K]` each.
    """
    begins = bins[2 if latent_to_data else 0]
    # One-hot selection vectorizes better than a gather, since K is small. All values but NaN reach the first bin.
    reached = tf.cast(value[..., tf.newaxis] >= begins, begins.dtype)
    chosen = reached - tf.concat([reached[..., 1:], tf.zeros_like(reached[..., :1])], axis=-1)
    return [tf.reduce_sum(part * chosen, axis=-1) for part in bins]


def map_in_bin(value, selected, latent_to_data: bool):
    """Map each value by the spline in its bin. Return the result and the log of the derivative."""
    left, width, bottom, height, d0, d1 = selected
    slope = height / width
    if latent_to_data:
        t = solve_rational_quadratic(tf.clip_by_value((value - bottom) / height, 0.0, 1.0), slope, d0, d1)
        return left + width * t, -rational_quadratic(t, slope, d0, d1)[1]
    up, log_slope = rational_quadratic(tf.clip_by_value((value - left) / width, 0.0, 1.0), slope, d0, d1)
    return bottom + height * up, log_slope


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
