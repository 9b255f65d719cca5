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

_BOUND = 7.0  # bound of the logarithms of the increments


@serializable
@dataclasses.dataclass(frozen=True)
class BernsteinTransformer(Transformer):
    """Bernstein polynomial `x = sum_i c_i C(M, i) t^i (1 - t)^(M - i)`, `t = (y / bound + 1) / 2` (Sick et al. 2020, eq. 5).

    `dx/dy = M / (2 bound) sum_i (c_{i+1} - c_i) C(M - 1, i) t^i (1 - t)^(M - 1 - i)` (arXiv:2004.00464). The coefficients
    increase, so the map does too. Outside of `[-bound, bound]` it goes on linearly, with the slope of that end. The `M + 1`
    parameters are the shift of `c_0` and the logarithms of the `M` increments, each bounded to 7. Zero parameters give the
    identity. `inverse` (data to latent) evaluates the polynomial. `forward` solves a bracketed scalar equation to machine
    precision, with gradients by the implicit function theorem. Cost: `O(M)`, times the solver's steps in `forward`.

    Args:
      order: Degree `M` of the polynomial, from 1 to 100.
      bound: Half the width of the interval, in the units of the input: use standardized data.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> bernstein = tff.BernsteinTransformer(order=10)
      >>> bernstein.params
      11
      >>> x, log_slope = bernstein.inverse(tf.constant([0.5, 7.0]), tf.zeros([2, 11]))
      >>> print(np.round(x, 4), abs(np.round(log_slope, 4)))
      [0.5 7. ] [0. 0.]
    """

    order: int = 10
    bound: float = 5.0

    def __post_init__(self):
        positive_int("order", self.order)
        if self.order > 100:
            raise ValueError(f"`order` must be at most 100, got {self.order}.")
        if not (self.bound > 0 and math.isfinite(self.bound)):
            raise ValueError(f"`bound` must be positive and finite, got {self.bound!r}.")

    @property
    def params(self) -> int:
        return self.order + 1

    def to_latent(self, y, params):
        """Return the polynomial at `y`, and its derivative."""
        within = tf.clip_by_value(y, -self.bound, self.bound)
        t = 0.5 * (within / self.bound + 1.0)
        first, steps = self.coefficients(params)
        basis = _basis(t, self.order - 1)
        slope = self.order / (2.0 * self.bound) * tf.reduce_sum(steps * basis, axis=-1)
        # The share of a step is the probability of more than `i` of `M` draws, a sum of the basis of degree `M`.
        more = tf.cumsum(_basis(t, self.order)[..., 1:], axis=-1, reverse=True)
        return first + tf.reduce_sum(steps * more, axis=-1) + (y - within) * slope, slope

    def coefficients(self, params):
        """Return the first coefficient and the increments."""
        shift, logs = params[..., 0], bound_log_scale(params[..., 1:], _BOUND)
        return shift - self.bound, 2.0 * self.bound / self.order * tf.exp(logs)

    def inverse(self, y, params):
        x, slope = self.to_latent(y, params)
        return x, tf.math.log(slope)

    def forward(self, x, params):
        shape = tf.broadcast_static_shape(x.shape, params.shape[:-1])
        y = tf.ensure_shape(solve_increasing(_residual(self), _bracket(self), [x, params]), shape)
        return y, -self.inverse(y, params)[1]


def _basis(t, order: int):
    """Return the Bernstein polynomials of a degree, `[..., order + 1]`."""
    powers, rest = [tf.ones_like(t)], [tf.ones_like(t)]
    for _ in range(order):
        powers.append(powers[-1] * t)
        rest.append(rest[-1] * (1.0 - t))
    binomials = np.array([math.comb(order, i) for i in range(order + 1)], t.dtype.as_numpy_dtype)
    return binomials * tf.stack(powers, axis=-1) * tf.stack(rest[::-1], axis=-1)


@functools.lru_cache(maxsize=128)
def _residual(transformer: BernsteinTransformer):
    def residual(y, x, params):
        value, slope = transformer.to_latent(y, params)
        return value - x, slope

    return residual


@functools.lru_cache(maxsize=128)
def _bracket(transformer: BernsteinTransformer):
    def bracket(x, params):
        first, steps = transformer.coefficients(params)
        last, bound = first + tf.reduce_sum(steps, axis=-1), transformer.bound
        unit = transformer.order / (2.0 * bound)
        lower = -bound + tf.minimum(x - first, 0.0) / (unit * steps[..., 0])
        upper = bound + tf.maximum(x - last, 0.0) / (unit * steps[..., -1])
        room = 1e-6 * (tf.abs(lower) + tf.abs(upper))
        inside = bound * (2.0 * (x - first) / (last - first) - 1.0)
        start = tf.where(x < first, lower, tf.where(x > last, upper, inside))
        return lower - room, upper + room, start

    return bracket
