"""Rational-quadratic splines with free knots and linear tails, which can be fitted to quantiles of data."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.numerics import bound_log_scale, unbound_log_scale
from tfp_flows.registry import serializable
from tfp_flows.transformers.base import Transformer
from tfp_flows.transformers.spline import map_in_bin, select_bin

_REACH = 3.0  # the knots lie on [-3, 3] for zero parameters
_BOUND = 7.0  # bound of the logarithms of widths, heights and slopes


@serializable
@dataclasses.dataclass(frozen=True)
class QuantileSplineTransformer(Transformer):
    """Rational-quadratic spline (Gregory and Delbourgo 1982) with free knots, linear beyond the outermost ones.

    Unlike `SplineTransformer`, it moves its knots on both axes, so that it can map any continuous distribution to a
    normal one. `adapt` sets the knots to pairs of quantiles of the data and of the standard normal distribution
    (marginal Gaussianization, Laparra et al. 2011, arXiv:1602.00229). The linear ends give normal tails. The
    `3 num_bins + 3` parameters are the first knot (2), the logarithms of widths and heights of the bins, and of the
    slopes at the knots, each bounded to 7. Zero parameters give the identity. `inverse` (data to latent) evaluates the
    spline; `forward` solves a quadratic equation.

    Args:
      num_bins: Number of bins, at least 1.

    Example:
      >>> spline = tff.QuantileSplineTransformer(num_bins=8)
      >>> x = np.random.default_rng(1).gamma(2.0, size=[5000, 1])
      >>> z, _ = spline.inverse(tf.constant(x), tf.constant(spline.adapt(x)))
      >>> print(abs(np.mean(z)) < 0.02, abs(np.std(z) - 1.0) < 0.02)
      True True
    """

    num_bins: int = 30

    def __post_init__(self):
        positive_int("num_bins", self.num_bins)

    @property
    def params(self) -> int:
        return 3 * self.num_bins + 3

    def _apply(self, value, params, latent_to_data: bool):
        k = self.num_bins
        first, logs = tf.split(params, [2, 3 * k + 1], axis=-1)
        widths, heights, slopes = tf.split(tf.exp(bound_log_scale(logs, _BOUND)), [k, k, k + 1], axis=-1)
        scale = 2.0 * _REACH / k
        widths, heights = scale * widths, scale * heights
        left = first[..., :1] - _REACH + tf.cumsum(widths, axis=-1, exclusive=True)
        bottom = first[..., 1:] - _REACH + tf.cumsum(heights, axis=-1, exclusive=True)
        begins, sizes = (bottom, heights) if latent_to_data else (left, widths)
        low, high = begins[..., 0], begins[..., -1] + sizes[..., -1]
        inside = (value > low) & (value < high)
        within = tf.clip_by_value(value, low, high)
        bins = (left, widths, bottom, heights, slopes[..., :-1], slopes[..., 1:])
        selected = select_bin(within, bins, latent_to_data)
        result, log_slope = map_in_bin(within, selected, latent_to_data)
        # The spline is linear beyond the ends; `value - within` is zero inside.
        end = tf.where(value < low, *selected[-2:])
        if latent_to_data:
            return result + (value - within) / end, tf.where(inside, log_slope, -tf.math.log(end))
        return result + (value - within) * end, tf.where(inside, log_slope, tf.math.log(end))

    def inverse(self, y, params):
        return self._apply(y, params, latent_to_data=False)

    def forward(self, x, params):
        return self._apply(x, params, latent_to_data=True)

    def adapt(self, data: np.ndarray) -> np.ndarray:
        """Return parameters `[D, 3 num_bins + 3]` that map the columns of roughly standardized `data` `[N, D]` to normal ones.

        The knots are quantiles from about the fifth smallest value to the fifth largest, denser where the density is
        high. Slopes are weighted geometric means of those of the two bins.
        """
        data = np.asarray(data, np.float64)
        z = _knots(self.num_bins, len(data))
        y = np.quantile(data, _phi(z), axis=0).T
        scale = 2.0 * _REACH / self.num_bins
        # Equal values give an empty bin, which is replaced by the narrowest one allowed.
        widths = np.maximum(np.diff(y, axis=1), 1.01 * scale * math.exp(-_BOUND))
        heights = np.broadcast_to(np.diff(z), widths.shape)
        log_secant = np.log(heights / widths)
        before, after = widths[:, :-1], widths[:, 1:]
        inner = (after * log_secant[:, :-1] + before * log_secant[:, 1:]) / (before + after)
        slopes = np.concatenate([log_secant[:, :1], inner, log_secant[:, -1:]], axis=1)
        first = np.stack([y[:, 0], np.full(len(y), z[0])], axis=1) + _REACH
        logs = np.concatenate([np.log(widths / scale), np.log(heights / scale), slopes], axis=1)
        return np.concatenate([first, unbound_log_scale(logs, _BOUND)], axis=1)


def _knots(num_bins: int, rows: int) -> np.ndarray:
    """Return knots of the latent axis, whose density is the square root of the normal one."""
    tail = min(0.5 / (num_bins + 1), 5.0 / rows)
    end = -float(tf.math.ndtri(tf.constant(tail, tf.float64)))
    # `exp(-z^2 / 4)` is proportional to the density of a normal distribution of variance 2.
    reach = float(_phi(end / math.sqrt(2.0)))
    p = tf.constant(np.linspace(1.0 - reach, reach, num_bins + 1))
    return math.sqrt(2.0) * tf.math.ndtri(p).numpy()


def _phi(z) -> np.ndarray:
    return 0.5 * tf.math.erfc(-tf.constant(z, tf.float64) / math.sqrt(2.0)).numpy()
