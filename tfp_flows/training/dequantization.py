"""Dequantization: noise that turns the density of images into a bound on the probability of their integers."""

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
    """`u ~ U(0, 1)` is added to each of the integers `0 .. levels - 1`, and the sum divided by `levels`.

    With `D` values in an event, `log p(x) >= E[log p((x + u) / levels)] - D log(levels)` (Theis et al. 2016,
    arXiv:1511.01844).

    Args:
      levels: Number of levels: 256 for bytes.
      name: Name of the module.

    Example:
      >>> y, log_q = UniformDequantization(256)(tf.constant([[0, 255]], tf.uint8), seed=(1, 2))
      >>> y.shape, log_q.shape
      (TensorShape([1, 2]), TensorShape([1]))
    """

    def __init__(self, levels: int, *, name: str = "dequantization"):
        super().__init__(name=name)
        self.levels = positive_int("levels", levels, 2)

    def _noise(self, x: tf.Tensor, seed) -> tuple[tf.Tensor, tf.Tensor]:
        """Noise in (0, 1) for the integers `x` (floating point by now), and its log-density."""
        return tf.random.stateless_uniform(tf.shape(x), seed, dtype=x.dtype), tf.zeros(tf.shape(x)[:1], x.dtype)

    def __call__(self, x, seed, dtype: tf.DType = tf.float32) -> tuple[tf.Tensor, tf.Tensor]:
        """Events in [0, 1], and what their log-density exceeds the bound by.

        Args:
          x: Integers `[N, *event_shape]`.
          seed: Stateless seed.
          dtype: Of the result.

        Returns:
          `y = (x + u) / levels`, and `log q(u | x) + D log(levels)`, `[N]`: `log p(y)` minus it bounds `log p(x)`.
        """
        x = tf.cast(x, dtype)
        noise, log_q = self._noise(x, seed)
        dimensions = int(np.prod(x.shape[1:]))
        return (x + noise) / self.levels, log_q + dimensions * np.log(self.levels)


@serializable
class VariationalDequantization(UniformDequantization):
    """The noise is drawn from a small flow that reads the image, trained with the rest (Ho et al. 2019, section 3.1).

    Two checkerboard couplings map logistic noise, which a sigmoid then takes to (0, 1); their networks start at zero, so that
    the noise starts as uniform.

    Args:
      image_shape: `(H, W, C)`.
      levels: Number of levels.
      filters, num_blocks: Of the convolutional networks.
      seed: Integer seed of the weights.
      name: Name of the module.

    Raises:
      ValueError: For a size out of range.

    Example:
      >>> y, log_q = VariationalDequantization((4, 4, 1), 16, filters=4)(tf.ones([2, 4, 4, 1], tf.uint8), seed=(1, 2))
      >>> y.shape, log_q.shape
      (TensorShape([2, 4, 4, 1]), TensorShape([2]))

    References:
      J. Ho et al., Flow++: Improving Flow-Based Generative Models with Variational Dequantization, 2019, arXiv:1902.00275.
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
        # Each network sees the noise that stays, and the image.
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
            seen = tf.cast(tf.concat([mask * u, image], axis=-1), tf.float32)  # of the networks
            shift, log_scale = tf.split(tf.cast(network(seen), x.dtype), 2, axis=-1)
            log_scale = (1.0 - mask) * bound_log_scale(log_scale)
            u = u * tf.exp(log_scale) + (1.0 - mask) * shift
            log_q -= tf.reduce_sum(log_scale, axis=axes)
        return tf.sigmoid(u), log_q - tf.reduce_sum(_log_sigmoid_slope(u), axis=axes)


def _log_sigmoid_slope(u: tf.Tensor) -> tf.Tensor:
    """Log of the derivative of the sigmoid: also the log-density of the logistic distribution."""
    return -tf.math.softplus(u) - tf.math.softplus(-u)
