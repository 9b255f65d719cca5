"""Rational-quadratic splines of angles."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.numerics import wrap
from tfp_flows.registry import serializable
from tfp_flows.transformers.base import Transformer
from tfp_flows.transformers.spline import knots, map_in_bin, positive_slopes, select_bin


@serializable
@dataclasses.dataclass(frozen=True)
class CircularSplineTransformer(Transformer):
    """Rational-quadratic spline of an angle, and a rotation (Rezende et al. 2020, arXiv:2002.02428, section 2.3).

    `y = s(x) + phase` with `phase = period / (2 pi) atan2(b, 1 + a)`, where `s` is a spline on
    `[-period / 2, period / 2)` with equal slopes at both ends, so that density and slope agree at the seam.
    `log dy/dx = log s'(x)` (Durkan et al. 2019, arXiv:1906.04032, eq. 5). Angles are not wrapped:
    `y(x + period) = y(x) + period`, so the map is increasing and has an inverse on the whole line. `tff.Support` wraps
    them at the end of a flow, and the base is periodic.

    The `3 num_bins + 2` parameters are widths and heights by a softmax, slopes by a softplus, and `(a, b)`. As a point of
    the plane, the phase can turn once while a conditioning angle turns once, which a number cannot. Zero parameters
    give the identity. `inverse` (data to latent) evaluates the spline; `forward` solves a quadratic equation. Cost per
    direction: `O(num_bins)`.

    Flows of angles need networks that are periodic too. With `support="circle"`, recipes such as `tff.spline_coupling`
    and `tff.spline_autoregressive` use this transformer for the angles, and their networks read cosine and sine.

    Args:
      num_bins: Number of bins, from 1 to 500.
      period: Length of the circle; `2 pi` in flows with a `Support`.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> spline = tff.CircularSplineTransformer(num_bins=8)
      >>> spline.params
      26
      >>> print(spline(tf.zeros([2, 26])).forward(tf.constant([0.5, 4.0])).numpy())
      [0.5 4. ]
    """

    is_circular = True
    num_bins: int = 8
    period: float = 2.0 * math.pi

    def __post_init__(self):
        positive_int("num_bins", self.num_bins)
        if self.num_bins > 500:
            raise ValueError(f"`num_bins` must be at most 500, got {self.num_bins}.")
        if not (self.period > 0 and math.isfinite(self.period)):
            raise ValueError(f"`period` must be positive and finite, got {self.period!r}.")

    @property
    def params(self) -> int:
        return 3 * self.num_bins + 2

    def _phase(self, params):
        a, b = 1.0 + params[..., -2], params[..., -1]
        has_angle = a * a + b * b > 1e-12  # the origin has none, and no derivative
        return self.period / (2.0 * math.pi) * tf.atan2(b, tf.where(has_angle, a, tf.ones_like(a)))

    def _apply(self, value, params, latent_to_data: bool):
        k = self.num_bins
        slopes = positive_slopes(params[..., 2 * k : 3 * k])
        ends = tf.concat([slopes[..., 1:], slopes[..., :1]], axis=-1)
        axes = [knots(params[..., i * k : (i + 1) * k], 0.5 * self.period) for i in range(2)]
        within, turns = wrap(value, self.period)
        selected = select_bin(within, (*axes[0], *axes[1], slopes, ends), latent_to_data)
        result, log_slope = map_in_bin(within, selected, latent_to_data)
        return result + turns, log_slope

    def inverse(self, y, params):
        return self._apply(y - self._phase(params), params, latent_to_data=False)

    def forward(self, x, params):
        y, log_slope = self._apply(x, params, latent_to_data=True)
        return y + self._phase(params), log_slope
