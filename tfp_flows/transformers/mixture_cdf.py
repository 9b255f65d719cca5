"""Base class of transformers through a mixture of CDFs."""

from __future__ import annotations

import abc
import functools

import tensorflow as tf

from tfp_flows.numerics import solve_increasing
from tfp_flows.transformers.base import Transformer


class MixtureCdfTransformer(Transformer):
    """Map `x = Q(sum_k weight_k F(scale_k y + shift_k))` for a CDF `F` with quantile function `Q`.

    The value lies between the smallest and the largest of `scale_k y + shift_k`, which brackets the inverse.
    Computations use logarithms of `F` and `1 - F`, so that neither tail saturates.
    """

    @abc.abstractmethod
    def split(self, params: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return `(log_weight, log_scale, shift)`, each `[..., K]`, from the parameters of one layer."""

    @abc.abstractmethod
    def _log_tails(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return `log F(u)`, `log(1 - F(u))` and `log F'(u)`."""

    @abc.abstractmethod
    def _quantile(self, log_lower: tf.Tensor, log_upper: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `Q(p)` and `log F'` there, given `log p` and `log(1 - p)`."""

    def to_latent(self, y, params):
        log_weight, log_scale, shift = self.split(params)
        lower, upper, density = self._log_tails(tf.exp(log_scale) * y[..., tf.newaxis] + shift)
        x, log_density_at_x = self._quantile(
            tf.reduce_logsumexp(log_weight + lower, axis=-1), tf.reduce_logsumexp(log_weight + upper, axis=-1)
        )
        return x, tf.reduce_logsumexp(log_weight + log_scale + density, axis=-1) - log_density_at_x

    def to_data(self, x, params):
        shape = tf.broadcast_static_shape(x.shape, params.shape[:-1])
        return tf.ensure_shape(solve_increasing(_residual(self), _bracket(self), [x, params]), shape)


@functools.lru_cache(maxsize=128)
def _residual(transformer: MixtureCdfTransformer):
    def residual(y, x, params):
        value, log_slope = transformer.to_latent(y, params)
        return value - x, tf.exp(log_slope)

    return residual


@functools.lru_cache(maxsize=128)
def _bracket(transformer: MixtureCdfTransformer):
    def bracket(x, params):
        log_weight, log_scale, shift = transformer.split(params)
        roots = (x[..., tf.newaxis] - shift) * tf.exp(-log_scale)
        lower, upper = tf.reduce_min(roots, axis=-1), tf.reduce_max(roots, axis=-1)
        room = 1e-6 * (tf.abs(lower) + tf.abs(upper)) + 1e-6
        return lower - room, upper + room, tf.reduce_sum(tf.exp(log_weight) * roots, axis=-1)

    return bracket
