"""Convolutional velocity of continuous flows of images."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.checks import image_sizes, positive_int
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, split_seed

_TIME_FREQUENCIES = 4


@serializable
@keras.saving.register_keras_serializable(package="tfp_flows")
class VelocityUNet(keras.layers.Layer):
    """Small U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for the `network` of a `ContinuousFlow` of images.

    Each scale has one residual block of two 3x3 convolutions on the way down and one on the way up, which also reads the
    block of its scale on the way down. The next scale has half the height and width, and twice the filters. Cosines and
    sines of the time, and the condition, are added in each block. The output starts at zero.

    Args:
      image_shape: `(H, W, C)`; height and width must be multiples of `2 ** (num_scales - 1)`.
      filters: Channels of the first scale.
      num_scales: Number of scales.
      conditional_size: Size of the condition, or `None`.
      seed: Integer seed of the initial weights.

    Call arguments: flattened images `[N, H W C]`, and the condition and then the time, `[N, S + 1]` or `[1, S + 1]` for
    conditions of size `S`. Returns velocities `[N, H W C]`.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> network = tff.VelocityUNet((4, 4, 1), filters=8, seed=1)
      >>> layer = tff.ContinuousFlow(16, network=network, solver="midpoint", num_steps=5, seed=1)
      >>> layer.forward(tf.ones([3, 16])).shape
      TensorShape([3, 16])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        filters: int = 32,
        num_scales: int = 2,
        conditional_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape, factor = (
            image_sizes("image_shape", image_shape),
            2 ** (positive_int("num_scales", num_scales) - 1),
        )
        if self.image_shape[0] % factor or self.image_shape[1] % factor:
            raise ValueError(
                f"`image_shape` must have a height and width divisible by {factor}, got {self.image_shape}."
            )
        if conditional_size is not None:
            positive_int("conditional_size", conditional_size)
        self.num_scales, self._given = num_scales, 1 + (conditional_size or 0)
        self._seeds = iter(split_seed(resolve_seed(seed), 6 * num_scales + 1))
        sizes = [positive_int("filters", filters) * 2**i for i in range(num_scales)]
        read = [self.image_shape[-1], *sizes]
        # Flat lists, from the finest scale: Keras 3.10 to 3.14 do not save the layers of nested lists.
        self._down = [part for i, size in enumerate(sizes) for part in self._block(read[i], size)]
        self._up = [part for i, size in enumerate(sizes[:-1]) for part in self._block(size + sizes[i + 1], size)]
        self._last = keras.layers.Conv2D(
            self.image_shape[-1], 3, padding="same", kernel_initializer="zeros", dtype=self.dtype
        )
        self._last.build((None, None, None, sizes[0]))
        self.built = True

    def _block(self, inputs: int, filters: int) -> list[keras.layers.Layer]:
        """Return the parts of a residual block: two convolutions, and the map of time and condition."""
        initializers = [keras.initializers.HeNormal(next(self._seeds)) for _ in range(3)]
        options = {"padding": "same", "dtype": self.dtype}
        layers = [keras.layers.Conv2D(filters, 3, kernel_initializer=start, **options) for start in initializers[:2]]
        layers.append(keras.layers.Dense(filters, kernel_initializer=initializers[2], dtype=self.dtype))
        layers[0].build((None, None, None, inputs))
        layers[1].build((None, None, None, filters))
        layers[2].build((None, self._given + 2 * _TIME_FREQUENCIES))
        return layers

    def call(self, x, given):
        angles = given[..., -1:] * tf.constant(np.pi * np.arange(1, _TIME_FREQUENCIES + 1), given.dtype)
        given = tf.concat([given, tf.cos(angles), tf.sin(angles)], axis=-1)
        h, finer = tf.reshape(x, [-1, *self.image_shape]), []
        for i in range(self.num_scales):
            h = _run_block(self._down[3 * i : 3 * i + 3], h if i == 0 else tf.nn.avg_pool2d(h, 2, 2, "VALID"), given)
            finer.append(h)
        for i in reversed(range(self.num_scales - 1)):
            larger = tf.repeat(tf.repeat(h, 2, axis=1), 2, axis=2)
            h = _run_block(self._up[3 * i : 3 * i + 3], tf.concat([finer[i], larger], axis=-1), given)
        return tf.reshape(self._last(h), tf.shape(x))


def _run_block(block: list[keras.layers.Layer], x: tf.Tensor, given: tf.Tensor) -> tf.Tensor:
    first, second, of_given = block
    h = tf.nn.silu(first(x) + of_given(given)[:, tf.newaxis, tf.newaxis])
    return h + tf.nn.silu(second(h))
