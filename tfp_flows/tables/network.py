"""Network of a table: the parameters of each column's distribution from the values of other columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.checks import hidden_sizes
from tfp_flows.networks.autoregressive import made_degrees
from tfp_flows.networks.dense import activation_of, seeded_initializers
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed


@serializable
@keras.saving.register_keras_serializable(package="tfp_flows")
class TableNetwork(keras.layers.Layer):
    """Residual network with several features and parameters for each column. The last layer reads the features too.

    In a fixed order, masks let the parameters of a column depend on the columns before it only (MADE, Germain et al.
    2015, arXiv:1502.03509). For any order, the network reads which columns are observed instead (Uria et al. 2014,
    arXiv:1310.1757), and the features of the others must be zero.

    Args:
      features: Number of features of each column.
      params: Number of parameters of each column.
      hidden_units: Sizes of the hidden layers. Layers of equal sizes are residual.
      any_order: Whether calls take the observed columns, `[N, D]`, as a second argument.
      activation: Activation of the hidden layers.
      seed: Integer seed of the initial weights.

    Call arguments: features `[N, sum(features)]`, and `observed` `[N, D]`, 0 or 1. Returns parameters
    `[N, sum(params)]`.
    """

    def __init__(
        self,
        features: Sequence[int],
        params: Sequence[int],
        hidden_units: Sequence[int],
        *,
        any_order: bool = False,
        activation="silu",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.features, self.params, self.hidden_units = list(features), list(params), hidden_sizes(hidden_units)
        self.any_order, self.activation = any_order, activation_of(activation)
        self._seed = resolve_seed(seed)
        self._starts = np.cumsum([0, *self.params]).tolist()
        self.build()

    def build(self, *shapes):
        if self.built:
            return
        count = len(self.features)
        inputs = sum(self.features) + count * self.any_order
        sizes = [inputs, *self.hidden_units, sum(self.params)]
        self._masks = None if self.any_order else self._made_masks()
        starts = seeded_initializers("he_uniform", self._seed, len(sizes) - 1)
        starts[-1] = keras.initializers.Zeros()
        self.kernels, self.biases = [], []
        for i, (size, units) in enumerate(itertools.pairwise(sizes)):
            if 0 < i == len(self.hidden_units):
                size += inputs
            self.kernels.append(self.add_weight(name=f"kernel_{i}", shape=(size, units), initializer=starts[i]))
            self.biases.append(self.add_weight(name=f"bias_{i}", shape=(units,), initializer="zeros"))
        self.built = True

    def _made_masks(self) -> list[np.ndarray]:
        inputs, *hidden = made_degrees(len(self.features), self.hidden_units, seed=0)
        degrees = [np.repeat(inputs, self.features), *hidden]
        masks = [first[:, None] <= second for first, second in itertools.pairwise(degrees)]
        last = np.concatenate([*degrees[-1:], *degrees[:1]]) if hidden else degrees[0]
        return [*masks, last[:, None] < np.repeat(inputs, self.params)]

    def _kernel(self, i: int) -> tf.Tensor:
        kernel = tf.cast(self.kernels[i].value, self.compute_dtype)
        return kernel if self._masks is None else tf.where(tf.constant(self._masks[i]), kernel, tf.zeros_like(kernel))

    def trunk(self, features, observed=None) -> tf.Tensor:
        """Return the inputs of the last layer: the activations of the hidden layer before, and the features."""
        inputs = tf.cast(features, self.compute_dtype)
        if self.any_order:
            inputs = tf.concat([inputs, tf.cast(observed, self.compute_dtype)], axis=-1)
        h = inputs
        for i in range(len(self.hidden_units)):
            moved = tf.linalg.matmul(h if i == 0 else self.activation(h), self._kernel(i))
            moved += tf.cast(self.biases[i].value, self.compute_dtype)
            residual = i > 0 and self.hidden_units[i] == self.hidden_units[i - 1]
            h = h + moved if residual else moved
        return tf.concat([self.activation(h), inputs], axis=-1) if self.hidden_units else h

    def head(self, h: tf.Tensor, column: int) -> tf.Tensor:
        """Return the parameters `[N, P]` of one column."""
        part = slice(self._starts[column], self._starts[column + 1])
        return tf.linalg.matmul(h, self._kernel(len(self.kernels) - 1)[:, part]) + tf.cast(
            self.biases[-1].value[part], self.compute_dtype
        )

    def call(self, features, observed=None):
        h = self.trunk(features, observed)
        h = tf.linalg.matmul(h, self._kernel(len(self.kernels) - 1))
        return h + tf.cast(self.biases[-1].value, self.compute_dtype)
