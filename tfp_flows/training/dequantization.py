"""Dequantization: noise that turns a density of images into a bound on the probability of integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import checkerboard_binary_mask
from tfp_flows.checks import image_sizes, positive_int
from tfp_flows.networks import conv_resnet_template
from tfp_flows.numerics import bound_log_scale
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, split_seed
from tfp_flows.tracking import Mirror


@serializable
class UniformDequantization(tf.Module):
    """Uniform dequantization of the integers `0 .. levels - 1`: `y = (x + u) / levels` with `u ~ U(0, 1)`.

    For events of `D` values, `log p(x) >= E[log p((x + u) / levels)] - D log(levels)` (Theis et al. 2016, arXiv:1511.01844).

    Args:
      levels: Number of levels: 256 for bytes.
      name: Name of the module.

    Example:
      >>> y, log_q = tff.UniformDequantization(256)(tf.constant([[0, 255]], tf.uint8), seed=(1, 2))
      >>> y.shape, log_q.shape
      (TensorShape([1, 2]), TensorShape([1]))
    """

    def __init__(self, levels: int, *, name: str = "dequantization"):
        super().__init__(name=name)
        self.levels = positive_int("levels", levels, 2)

    def _noise(self, x: tf.Tensor, seed) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.random.stateless_uniform(tf.shape(x), seed, dtype=x.dtype), tf.zeros(tf.shape(x)[:1], x.dtype)

    def __call__(self, x, seed, dtype: tf.DType = tf.float32) -> tuple[tf.Tensor, tf.Tensor]:
        """Dequantize the integers `x`, `[N, *event_shape]`, with noise from a stateless seed.

        Returns:
          Events `y = (x + u) / levels` in [0, 1], and the term `log q(u | x) + D log(levels)`, `[N]`, in nats. The mean
          of `log p(y)` minus this term is a lower bound on `log p(x)`.
        """
        x = tf.cast(x, dtype)
        noise, log_q = self._noise(x, seed)
        dimensions = int(np.prod(x.shape[1:]))
        return (x + noise) / self.levels, log_q + dimensions * np.log(self.levels)


@serializable
class VariationalDequantization(UniformDequantization):
    """Dequantization with noise from a small conditional flow, trained with the model.

    Two checkerboard couplings transform logistic noise, and a sigmoid maps it to (0, 1). Their networks start at zero,
    so the initial noise is uniform (Ho et al., Flow++, 2019, arXiv:1902.00275, section 3.1).

    Args:
      image_shape: `(H, W, C)`.
      levels: Number of levels.
      filters, num_blocks: Filters and number of residual blocks of each convolutional network.
      seed: Integer seed of the weights.
      name: Name of the module.

    Raises:
      ValueError: For a size out of range.

    Example:
      >>> y, log_q = tff.VariationalDequantization((4, 4, 1), 16, filters=4)(tf.ones([2, 4, 4, 1], tf.uint8), seed=(1, 2))
      >>> y.shape, log_q.shape
      (TensorShape([2, 4, 4, 1]), TensorShape([2]))
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        levels: int,
        *,
        filters: int = 32,
        num_blocks: int = 1,
        seed: int | None = None,
        name: str = "variational_dequantization",
    ):
        super().__init__(levels, name=name)
        height, width, channels = image_sizes("image_shape", image_shape)
        seeds = split_seed(resolve_seed(seed), 2)
        # Each network reads the unchanged half of the noise, and the image.
        shape = (height, width, 2 * channels)
        networks = [conv_resnet_template(filters, num_blocks, image_shape=shape, params=1, seed=s) for s in seeds]
        self.networks = [Mirror(network) for network in networks]

    def _noise(self, x, seed):
        uniform = tf.random.stateless_uniform(tf.shape(x), seed, minval=np.finfo(np.float32).tiny, dtype=x.dtype)
        u = tf.math.log(uniform) - tf.math.log1p(-uniform)
        axes = list(range(1, x.shape.rank))
        log_q = tf.reduce_sum(_log_sigmoid_slope(u), axis=axes)
        image = 2.0 * x / (self.levels - 1) - 1.0
        for orientation, network in enumerate(self.networks):
            mask = tf.cast(checkerboard_binary_mask(x.shape[1:], orientation), x.dtype)
            seen = tf.cast(tf.concat([mask * u, image], axis=-1), tf.float32)
            shift, log_scale = tf.split(tf.cast(network(seen), x.dtype), 2, axis=-1)
            log_scale = (1.0 - mask) * bound_log_scale(log_scale)
            u = u * tf.exp(log_scale) + (1.0 - mask) * shift
            log_q -= tf.reduce_sum(log_scale, axis=axes)
        return tf.sigmoid(u), log_q - tf.reduce_sum(_log_sigmoid_slope(u), axis=axes)


def _log_sigmoid_slope(u: tf.Tensor) -> tf.Tensor:
    """Return the log-derivative of the sigmoid, which is the log-density of the logistic distribution."""
    return -tf.math.softplus(u) - tf.math.softplus(-u)
