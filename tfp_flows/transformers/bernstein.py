"""Monotone Bernstein polynomials."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.numerics import bound_log_scale, solve_increasing
from tfp_flows.registry import serializable
from tfp_flows.transformers.base import Transformer


@serializable
@dataclasses.dataclass(frozen=True)
class BernsteinTransformer(Transformer):
    """Bernstein polynomial `x = sum_i c_i C(M, i) t^i (1 - t)^(M - i)`, `t = (y / bound + 1) / 2` (Sick et al. 2020, eq. 5).

    `dx/dy = M / (2 bound) sum_i (c_{i+1} - c_i) C(M - 1, i) t^i (1 - t)^(M - 1 - i)` (arXiv:2004.00464). The coefficients
    increase, so the map does too. Outside of `[-bound, bound]` it continues linearly, with the slope of that end. The
    `M + 1` parameters are the shift of `c_0`, and the logarithms of the `M` increments, bounded to 7; zeros give the
    identity. `inverse` (data to latent) costs `O(M)`. `forward` solves a scalar equation, with implicit gradients.

    Args:
      order: Degree `M` of the polynomial, from 1 to 100.
      bound: Half the width of the interval, in the units of the input: use standardized data.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> x, _ = tff.BernsteinTransformer(order=10).inverse(tf.constant([0.5, 7.0]), tf.zeros([2, 11]))
      >>> print(np.round(x, 4))
      [0.5 7. ]
    """

    order: int = 10
    bound: float = 5.0

    def __post_init__(self):
        if positive_int("order", self.order) > 100:
            raise ValueError(f"`order` must be at most 100, got {self.order}.")
        if not (self.bound > 0 and math.isfinite(self.bound)):
            raise ValueError(f"`bound` must be positive and finite, got {self.bound!r}.")

    @property
    def params(self) -> int:
        return self.order + 1

    def _coefficients(self, params):  # the first one, and the increments
        steps = tf.exp(bound_log_scale(params[..., 1:], 7.0))
        return params[..., 0] - self.bound, 2.0 * self.bound / self.order * steps

    def _basis(self, t, order: int):
        powers, rest = [tf.ones_like(t)], [tf.ones_like(t)]  # `tf.pow` has no derivative at 0
        for _ in range(order):
            powers.append(powers[-1] * t)
            rest.append(rest[-1] * (1.0 - t))
        binomials = np.array([math.comb(order, i) for i in range(order + 1)], t.dtype.as_numpy_dtype)
        return binomials * tf.stack(powers, axis=-1) * tf.stack(rest[::-1], axis=-1)

    def _to_latent(self, y, params):
        within = tf.clip_by_value(y, -self.bound, self.bound)
        t, (first, steps) = 0.5 * (within / self.bound + 1.0), self._coefficients(params)
        slope = self.order / (2.0 * self.bound) * tf.reduce_sum(steps * self._basis(t, self.order - 1), axis=-1)
        # Step `i` counts by the probability that more than `i` of `M` draws succeed.
        more = tf.cumsum(self._basis(t, self.order)[..., 1:], axis=-1, reverse=True)
        return first + tf.reduce_sum(steps * more, axis=-1) + (y - within) * slope, slope

    def _residual(self, y, x, params):
        value, slope = self._to_latent(y, params)
        return value - x, slope

    def _bracket(self, x, params):
        first, steps = self._coefficients(params)
        last, unit = first + tf.reduce_sum(steps, axis=-1), self.order / (2.0 * self.bound)
        lower = -self.bound + tf.minimum(x - first, 0.0) / (unit * steps[..., 0])
        upper = self.bound + tf.maximum(x - last, 0.0) / (unit * steps[..., -1])
        inside = self.bound * (2.0 * (x - first) / (last - first) - 1.0)
        room = 1e-6 * (tf.abs(lower) + tf.abs(upper))
        return lower - room, upper + room, tf.where(x < first, lower, tf.where(x > last, upper, inside))

    def inverse(self, y, params):
        x, slope = self._to_latent(y, params)
        return x, tf.math.log(slope)

    def forward(self, x, params):
        shape = tf.broadcast_static_shape(x.shape, params.shape[:-1])
        y = tf.ensure_shape(solve_increasing(*_equation(self), [x, params]), shape)
        return y, -self.inverse(y, params)[1]


@functools.lru_cache(maxsize=128)
def _equation(transformer: BernsteinTransformer):
    """Return the functions of `solve_increasing`, the same objects for equal transformers."""
    return transformer._residual, transformer._bracket
