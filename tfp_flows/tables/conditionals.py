"""Distributions of one column given others: splines for real columns, exact probabilities for the rest."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.support import column_map
from tfp_flows.data.frames import LARGEST_INTEGER
from tfp_flows.numerics import bound_log_scale
from tfp_flows.tables.columns import Column
from tfp_flows.transformers import SplineTransformer

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class RealConditional:
    """Spline flow of one number: its parameters are shift, log-scale, and those of a spline over a standard normal."""

    def __init__(self, column: Column, num_bins: int, bound: float, dtype: tf.DType):
        self.spline, self.dtype = SplineTransformer(num_bins, bound), dtype
        self.map = column_map((column.low, column.high), dtype)
        self.shift, self.scale = column.shift, column.scale
        self.num_params, self.num_features = 2 + self.spline.params, 1

    def _latent(self, x):
        """Return the standardized unconstrained value, its log-slope, and whether `x` lies outside of the bounds."""
        outside = self.map.outside(x[..., tf.newaxis])[..., 0]
        u, log_slope = self.map.inverse(x[..., tf.newaxis])
        u, log_slope = ((tf.where(outside, tf.zeros_like(x), part[..., 0])) for part in (u, log_slope))
        return (u - self.shift) / self.scale, log_slope - math.log(self.scale), outside

    def features(self, x):
        u = self._latent(x)[0]
        return 10.0 * tf.tanh(u / 10.0)[..., tf.newaxis]

    def _normal(self, x, params):
        u, log_slope, outside = self._latent(x)
        log_scale = bound_log_scale(params[..., 1])
        z, log_det = self.spline.inverse((u - params[..., 0]) * tf.exp(-log_scale), params[..., 2:])
        return z, log_slope - log_scale + log_det, outside

    def log_prob(self, x, params):
        z, log_det, outside = self._normal(x, params)
        return tf.where(outside, tf.cast(-math.inf, x.dtype), log_det - 0.5 * tf.square(z) - _LOG_SQRT_2PI)

    def cdf(self, x, params):
        z, _, outside = self._normal(x, params)
        above = tf.cast(x >= self.map.high[0], x.dtype)
        return tf.where(outside, above, 0.5 * tf.math.erfc(-math.sqrt(0.5) * z))

    def quantile(self, q, params):
        """Return the value whose cumulative probability is `q`, which is clipped to `[eps, 1 - eps]` of the dtype."""
        tiny = np.finfo(q.dtype.as_numpy_dtype).eps
        y, _ = self.spline.forward(tf.math.ndtri(tf.clip_by_value(q, tiny, 1.0 - tiny)), params[..., 2:])
        u = self.shift + self.scale * (params[..., 0] + y * tf.exp(bound_log_scale(params[..., 1])))
        return self.map.forward(u[..., tf.newaxis])[0][..., 0]


class DiscreteConditional:
    """Probabilities of integers or codes: a softmax over bins, uniform in each bin, and geometric beyond the bins.

    This is the density of the value plus uniform noise in [0, 1), which is constant for each integer. The bound of
    uniform dequantization (Theis et al. 2016, arXiv:1511.01844) is therefore exact, and no noise is needed.
    """

    def __init__(self, column: Column, dtype: tf.DType):
        real, self.dtype = dtype.as_numpy_dtype, dtype
        edges = column.edges if column.kind == "integer" else range(len(column.categories) + 1)
        self.edges = np.asarray(edges, real)
        self.widths = np.diff(self.edges)
        self.weights = np.asarray(column.weights, real)
        self.low, self.high = (mean > 0 for mean in column.tails)
        self.log_rates = [math.log(mean / (1.0 + mean)) if mean > 0 else 0.0 for mean in column.tails]
        self.log_starts = [-math.log1p(mean) for mean in column.tails]  # log-probability of distance zero
        self.num_params = len(self.weights)
        probabilities = np.exp(np.asarray(column.weights))
        middle = np.cumsum(probabilities) - 0.5 * probabilities
        self._position = (math.sqrt(12.0) * (middle - 0.5)).astype(real) if column.kind == "integer" else None
        self.num_features = self.num_params + (self._position is not None)

    def _bin(self, x):
        """Return the index of the bin among all, the index among those with edges, and whether `x` is below or above."""
        reached = tf.reduce_sum(tf.cast(x[..., tf.newaxis] >= self.edges, tf.int32), axis=-1)
        below, above = tf.equal(reached, 0), tf.equal(reached, len(self.edges))
        inner = tf.clip_by_value(reached - 1, 0, len(self.widths) - 1)
        index = tf.clip_by_value(reached - 1 + int(self.low), 0, self.num_params - 1)
        return index, inner, below, above

    def features(self, x):
        one_hot = tf.one_hot(self._bin(x)[0], self.num_params, dtype=self.dtype)
        if self._position is None:
            return one_hot
        return tf.concat([one_hot, tf.linalg.matvec(one_hot, self._position)[..., tf.newaxis]], axis=-1)

    def _distances(self, x):
        first, last = self.edges[0] - 1.0, self.edges[-1]
        return tf.maximum(first - x, 0.0), tf.maximum(x - last, 0.0)

    def log_prob(self, x, params):
        index, inner, below, above = self._bin(x)
        log_prob = tf.nn.log_softmax(params + self.weights)
        log_prob = tf.reduce_sum(tf.one_hot(index, self.num_params, dtype=x.dtype) * log_prob, axis=-1)
        within = -tf.gather(np.log(self.widths), inner)
        for where, has, start, rate, distance in zip(
            (below, above), (self.low, self.high), self.log_starts, self.log_rates, self._distances(x), strict=True
        ):
            within = tf.where(where, start + rate * distance if has else tf.cast(-math.inf, x.dtype), within)
        return tf.where(tf.equal(x, tf.floor(x)), log_prob + within, tf.cast(-math.inf, x.dtype))

    def cdf(self, x, params):
        """Return the probability of values below `x`, plus half of that of `x`."""
        index, inner, below, above = self._bin(x)
        probabilities = tf.nn.softmax(params + self.weights)
        here = tf.one_hot(index, self.num_params, dtype=x.dtype)
        own = tf.reduce_sum(here * probabilities, axis=-1)
        before = tf.reduce_sum(here * tf.cumsum(probabilities, axis=-1, exclusive=True), axis=-1)
        share = (x + 0.5 - tf.gather(self.edges, inner)) / tf.gather(self.widths, inner)
        down, up = self._distances(x)
        for where, distance, rate, lower in (
            (below, down, self.log_rates[0], True),
            (above, up, self.log_rates[1], False),
        ):
            tail = 0.5 * (tf.exp(rate * distance) + tf.exp(rate * (distance + 1.0)))
            share = tf.where(where, tail if lower else 1.0 - tail, share)
        result = before + own * share
        result = result if self.low else tf.where(below, tf.zeros_like(x), result)
        return result if self.high else tf.where(above, tf.ones_like(x), result)

    def quantile(self, q, params):
        """Return the least value whose cumulative probability reaches `q`."""
        probabilities = tf.nn.softmax(params + self.weights)
        cumulative = tf.cumsum(probabilities, axis=-1)
        index = tf.reduce_sum(tf.cast(q[..., tf.newaxis] > cumulative[..., :-1], tf.int32), axis=-1)
        here = tf.one_hot(index, self.num_params, dtype=q.dtype)
        own = tf.reduce_sum(here * probabilities, axis=-1)
        before = tf.reduce_sum(here * (cumulative - probabilities), axis=-1)
        tiny = np.finfo(q.dtype.as_numpy_dtype).tiny
        share = tf.clip_by_value((q - before) / tf.maximum(own, tiny), 0.0, 1.0)
        inner = tf.clip_by_value(index - int(self.low), 0, len(self.widths) - 1)
        width = tf.gather(self.widths, inner)
        value = tf.gather(self.edges, inner) + tf.clip_by_value(tf.math.ceil(share * width) - 1.0, 0.0, width - 1.0)
        eps = np.finfo(q.dtype.as_numpy_dtype).eps
        if self.low:
            distance = tf.floor(tf.math.log(tf.maximum(share, eps)) / self.log_rates[0])
            value = tf.where(tf.equal(index, 0), self.edges[0] - 1.0 - distance, value)
        if self.high:
            distance = tf.maximum(
                tf.math.ceil(tf.math.log(tf.maximum(1.0 - share, eps)) / self.log_rates[1]) - 1.0, 0.0
            )
            value = tf.where(tf.equal(index, self.num_params - 1), self.edges[-1] + distance, value)
        return tf.clip_by_value(value, -float(LARGEST_INTEGER), float(LARGEST_INTEGER))


def conditional_of(
    column: Column, num_bins: int, bound: float, dtype: tf.DType
) -> RealConditional | DiscreteConditional:
    """Return the conditional distribution of a column."""
    if column.kind == "real":
        return RealConditional(column, num_bins, bound, dtype)
    return DiscreteConditional(column, dtype)
