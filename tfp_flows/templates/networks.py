"""The conditioner networks: Keras 3 layers that return raw parameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.checks import hidden_sizes, one_of, positive_int
from tfp_flows.seeds import resolve_seed, split_seed


def spread_biases() -> keras.initializers.Initializer:
    """The default for hidden biases: uniform on (-1, 1), the range of standardized data.

    With Keras' zeros, the kinks of all units of a first ReLU layer lie at 0, and what a network of one or two inputs can
    express at the start, and mostly later too, is one kink: on two moons a MAF of five layers then stays above 1.6 nats
    instead of 1.15 (3000 steps; the floor is 1.131).
    """
    return keras.initializers.RandomUniform(-1.0, 1.0)


def seeded_initializers(initializer: Any, seed: int, count: int) -> list:
    """`count` independent, reproducible copies of a Keras initializer given by name, config or object.

    An initializer that takes a `seed` gets one of its own for each use; a plain function or a constant is returned as is.
    """
    copies = []
    for s in split_seed(seed, count):
        copy = keras.initializers.get(initializer)
        if isinstance(copy, keras.initializers.Initializer) and "seed" in (config := copy.get_config()):
            copy = type(copy).from_config({**config, "seed": s})
        copies.append(copy)
    return copies


@keras.saving.register_keras_serializable(package="tfp_flows")
class DenseNetwork(keras.layers.Layer):
    """A multilayer perceptron whose last layer starts at zero, so that the flow starts as the identity.

    Args:
      hidden_units: Sizes of the hidden layers.
      output_units: Size of the output; may be set later, before the network is built.
      activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer: As in
        `keras.layers.Dense`, for the hidden layers; the regularizers and `use_bias` hold for the last layer too.
        `bias_initializer=None` is `spread_biases`.
      seed: Integer seed of the initial weights.

    Call arguments: `x` of shape `[..., inputs]`, and `conditional_input` of shape `[..., conditions]`, which is
    appended to `x`. Returns shape `[..., output_units]`.
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        output_units: int | None = None,
        *,
        activation="relu",
        use_bias: bool = True,
        kernel_initializer="he_uniform",
        bias_initializer=None,
        kernel_regularizer=None,
        bias_regularizer=None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_units = hidden_sizes(hidden_units)
        self.output_units = output_units
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = spread_biases() if bias_initializer is None else bias_initializer
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.seed = resolve_seed(seed)
        self._dense: list = []

    def build(self, x_shape, conditional_input_shape=None):
        if self.output_units is None:
            raise ValueError("`output_units` must be set before the network is built.")
        size = x_shape[-1] + (conditional_input_shape[-1] if conditional_input_shape is not None else 0)
        common = {
            "use_bias": self.use_bias,
            "kernel_regularizer": self.kernel_regularizer,
            "bias_regularizer": self.bias_regularizer,
            "dtype": self.dtype_policy,
        }
        kernel_seed, bias_seed = split_seed(self.seed, 2)
        kernels = seeded_initializers(self.kernel_initializer, kernel_seed, len(self.hidden_units))
        biases = seeded_initializers(self.bias_initializer, bias_seed, len(self.hidden_units))
        for units, kernel, bias in zip(self.hidden_units, kernels, biases, strict=True):
            start = {"kernel_initializer": kernel, "bias_initializer": bias}
            self._dense.append(keras.layers.Dense(units, activation=self.activation, **start, **common))
        self._dense.append(keras.layers.Dense(self.output_units, kernel_initializer="zeros", **common))
        for layer in self._dense:
            layer.build((None, size))
            size = layer.units
        self.built = True

    def call(self, x, conditional_input=None):
        if conditional_input is not None:
            x = tf.concat([x, tf.cast(conditional_input, x.dtype)], axis=-1)
        for layer in self._dense:
            x = layer(x)
        return x


def made_degrees(event_size: int, hidden_units: Sequence[int], input_order: str = "left-to-right") -> list[np.ndarray]:
    """Degrees of inputs and hidden units of a MADE (Germain et al. 2015, arXiv:1502.03509, eq. 12), hidden ones sorted.

    A hidden unit of degree `d` sees the inputs of degree up to `d`; an output sees the hidden units below its degree.
    Hidden degrees cover `1 .. event_size - 1` evenly, and are sorted: that keeps the units which one step of sequential
    sampling has to compute next to each other.

    Returns:
      One integer array for the inputs and one for each hidden layer.
    """
    one_of("input_order", input_order, ("left-to-right", "right-to-left"))
    inputs = np.arange(1, event_size + 1)
    if input_order == "right-to-left":
        inputs = inputs[::-1]
    top = max(1, event_size - 1)
    return [inputs] + [np.ceil(np.arange(1, n + 1) * top / (n + 1)).astype(int).clip(1, top) for n in hidden_units]


def made_masks(degrees: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The boolean masks `[inputs, outputs]` of each layer of a MADE; the last one is strict."""
    hidden = [a[:, None] <= b for a, b in itertools.pairwise(degrees)]
    return [*hidden, degrees[-1][:, None] < degrees[0]]


@keras.saving.register_keras_serializable(package="tfp_flows")
class AutoregressiveNetwork(keras.layers.Layer):
    """MADE (Germain et al. 2015): a masked network whose parameters for dimension i depend on the dimensions before i.

    The masks multiply the weights in every call, so that no optimizer, initializer or loaded weight can break the
    autoregressive property. The last layer starts at zero.

    Args:
      params: Number of parameters for each dimension.
      event_size: Size of the last axis.
      hidden_units, activation, use_bias, seed: As in `DenseNetwork`.
      kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer: As in `DenseNetwork`.
      input_order: `"left-to-right"` or `"right-to-left"`: the order in which dimensions depend on each other.
      conditional_size: Size of `conditional_input`, or `None`. Conditions reach every unit of the first layer.

    Call arguments: `x` of shape `[..., event_size]`. Returns shape `[..., event_size, params]`.
    """

    def __init__(
        self,
        params: int,
        event_size: int,
        hidden_units: Sequence[int] = (),
        *,
        input_order: str = "left-to-right",
        activation="relu",
        use_bias: bool = True,
        kernel_initializer="he_uniform",
        bias_initializer=None,
        kernel_regularizer=None,
        bias_regularizer=None,
        conditional_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.params = positive_int("params", params)
        self.event_size = positive_int("event_size", event_size)
        self.hidden_units = hidden_sizes(hidden_units)
        self.activation = keras.activations.get(activation)
        self.degrees = made_degrees(self.event_size, self.hidden_units, input_order)
        self.conditional_size = conditional_size
        masks = made_masks(self.degrees)
        masks[-1] = np.repeat(masks[-1], self.params, axis=1)
        self._masks = [m.astype(self.compute_dtype) for m in masks]

        kernel_seed, bias_seed = split_seed(resolve_seed(seed), 2)
        starts = seeded_initializers(kernel_initializer, kernel_seed, len(masks) + 1)
        bias_initializer = spread_biases() if bias_initializer is None else bias_initializer
        bias_starts = seeded_initializers(bias_initializer, bias_seed, len(masks))
        kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernels, self.biases = [], []
        for i, mask in enumerate(masks):
            last = i == len(masks) - 1
            self.kernels.append(
                self.add_weight(
                    shape=mask.shape,
                    initializer="zeros" if last else starts[i],
                    regularizer=kernel_regularizer,
                    name=f"kernel_{i}",
                )
            )
            if use_bias:
                bias = "zeros" if last else bias_starts[i]
                self.biases.append(
                    self.add_weight(
                        shape=mask.shape[1:], initializer=bias, regularizer=bias_regularizer, name=f"bias_{i}"
                    )
                )
        if conditional_size is not None:
            shape = (positive_int("conditional_size", conditional_size), masks[0].shape[1])
            start = starts[-1] if self.hidden_units else "zeros"
            self.conditional_kernel = self.add_weight(
                shape=shape, initializer=start, regularizer=kernel_regularizer, name="conditional_kernel"
            )
        self.built = True

    def call(self, x, conditional_input=None):
        if x.shape[-1] is not None and x.shape[-1] != self.event_size:
            raise ValueError(f"The network was built for events of size {self.event_size}, got shape {x.shape}.")
        if (conditional_input is None) != (self.conditional_size is None):
            raise ValueError(
                f"`conditional_input` was {'not ' if conditional_input is None else ''}given to a network "
                f"with conditional_size={self.conditional_size}."
            )
        h = x
        for i, (kernel, mask) in enumerate(zip(self.kernels, self._masks, strict=True)):
            if i > 0:
                h = self.activation(h)
            h = tf.linalg.matmul(h, tf.convert_to_tensor(kernel) * mask)
            if self.biases:
                h = h + self.biases[i]
            if i == 0 and conditional_input is not None:
                h = h + tf.linalg.matmul(tf.cast(conditional_input, h.dtype), self.conditional_kernel)
        return tf.reshape(h, tf.concat([tf.shape(x)[:-1], [self.event_size, self.params]], axis=0))
