"""Multilayer perceptron that also reads cosines and sines of its inputs."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.networks.dense import DenseNetwork
from tfp_flows.registry import serializable


@serializable
@keras.saving.register_keras_serializable(package="tfp_flows")
class FourierNetwork(DenseNetwork):
    """`DenseNetwork` of a velocity, with Fourier features of points and times (Tancik et al. 2020, arXiv:2006.10739).

    A perceptron learns fine structure slowly. With the cosines and sines of `2**k x` and `pi (k + 1) t` for `k` below
    `num_frequencies`, it learns it in a few thousand steps. `x` should be standardized.

    Args:
      hidden_units, output_units, input_units, conditional_size, kwargs: Arguments of `DenseNetwork`.
      num_frequencies: Number `K` of frequencies: `2 K` more inputs for each dimension of `x`, and for the time.

    Call arguments: `x` of shape `[..., inputs]`, and `conditional_input` of shape `[..., conditions]`, whose last column is
    the time in [0, 1]. Returns shape `[..., output_units]`.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> network = tff.FourierNetwork([8], 2, num_frequencies=3, input_units=2, conditional_size=1, seed=1)
      >>> network(tf.ones([5, 2]), tf.fill([5, 1], 0.5)).shape
      TensorShape([5, 2])
    """

    def __init__(
        self,
        hidden_units,
        output_units: int | None = None,
        *,
        num_frequencies: int,
        input_units: int | None = None,
        conditional_size: int | None = None,
        **kwargs,
    ):
        self.num_frequencies = positive_int("num_frequencies", num_frequencies)
        sizes = {"input_units": input_units, "conditional_size": conditional_size}
        super().__init__(hidden_units, output_units, **sizes, **kwargs)

    def build_sizes(self, input_units: int, output_units: int | None, conditional_size: int | None = None) -> None:
        count = 2 * self.num_frequencies
        super().build_sizes(
            (1 + count) * input_units, output_units, count + positive_int("conditional_size", conditional_size)
        )

    def call(self, x, conditional_input=None):
        powers = np.arange(self.num_frequencies)
        x = self._with_waves(x, x, 2.0**powers)
        given = self._with_waves(conditional_input, conditional_input[..., -1:], np.pi * (powers + 1))
        return super().call(x, given)

    def _with_waves(self, inputs: tf.Tensor, values: tf.Tensor, frequencies: np.ndarray) -> tf.Tensor:
        angles = [values * tf.cast(frequency, values.dtype) for frequency in frequencies]
        return tf.concat([inputs, *map(tf.cos, angles), *map(tf.sin, angles)], axis=-1)
