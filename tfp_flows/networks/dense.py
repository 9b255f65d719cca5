"""Multilayer perceptron of coupling layers, and helpers shared by conditioner networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flows.checks import hidden_sizes, keras_3_inputs, positive_int
from tfp_flows.networks.angles import angle_inputs, read_angles
from tfp_flows.networks.broadcasting import check_condition, flatten_batch, unflatten
from tfp_flows.numerics import real_dtype
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, split_seed


def spread_biases() -> keras.initializers.Initializer:
    """Return the default initializer of hidden biases: uniform on (-1, 1), the range of standardized data.

    With zeros, all kinks of a first ReLU layer lie at 0, and mostly stay there for networks of one or two inputs.
    """
    return keras.initializers.RandomUniform(-1.0, 1.0)


def policy_for(dtype: tf.DType) -> Any:
    """Return Keras' global policy if it is a mixed one whose variables have `dtype`, otherwise the name of `dtype`.

    For networks that both directions of a flow call with the same values, so that both round alike.
    """
    dtype, policy = real_dtype(dtype), keras.config.dtype_policy()
    mixed = policy.compute_dtype != policy.variable_dtype
    return policy if mixed and policy.variable_dtype == dtype.name else dtype.name


def activation_of(activation: Any) -> Any:
    """Return a Keras activation as a function, or `None`."""
    try:
        return keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`activation` must be a function or the name of one in Keras, got {activation!r}.") from error


def seeded_initializers(initializer: Any, seed: int, count: int) -> list:
    """Return `count` independent, reproducible copies of a Keras initializer given by name, config or object.

    An initializer that takes a `seed` gets a different one for each copy. Functions and constants are returned unchanged.
    """
    copies = []
    for s in split_seed(seed, count):
        copy = keras.initializers.get(initializer)
        if isinstance(copy, keras.initializers.Initializer) and "seed" in (config := copy.get_config()):
            copy = type(copy).from_config({**config, "seed": s})
        copies.append(copy)
    return copies


@serializable
@keras.saving.register_keras_serializable(package="tfp_flows")
class DenseNetwork(keras.layers.Layer):
    """Multilayer perceptron whose last layer starts at zero, so that the flow starts as the identity.

    Args:
      hidden_units: Sizes of the hidden layers.
      output_units: Size of the output; may be set later, before the network is built.
      input_units: Size of `x`. With it and `output_units`, the weights are created at once.
      conditional_size: Size of the `conditional_input`, needed only together with the sizes.
      activation, kernel_initializer: Activation and initializer of the hidden layers.
      bias_initializer: Initializer of the hidden biases; uniform on (-1, 1) if `None`.
      use_bias, kernel_regularizer, bias_regularizer: Whether layers have biases, and Keras regularizers, for all layers.
      circular_inputs: Indices of the inputs that are angles. The network reads their cosines and sines, so it is periodic.
      seed: Integer seed of the initial weights.

    Call arguments: `x` of shape `[..., inputs]`, and `conditional_input` of shape `[..., conditions]`, which is
    appended to `x`; its leading axes broadcast against those of `x`. Returns shape `[..., output_units]`.
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        output_units: int | None = None,
        *,
        input_units: int | None = None,
        conditional_size: int | None = None,
        activation="relu",
        use_bias: bool = True,
        kernel_initializer="he_uniform",
        bias_initializer=None,
        kernel_regularizer=None,
        bias_regularizer=None,
        circular_inputs: Sequence[int] = (),
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_units = hidden_sizes(hidden_units)
        self.output_units = output_units
        self.activation = activation_of(activation)
        self.use_bias = use_bias
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = spread_biases() if bias_initializer is None else bias_initializer
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.circular_inputs = list(circular_inputs)
        self.seed = resolve_seed(seed)
        self.conditional_size: int | None = None
        self._dense: list = []
        if input_units is not None:
            self.build_sizes(input_units, output_units, conditional_size)

    def build(self, x_shape, conditional_input_shape=None):
        condition = None if conditional_input_shape is None else conditional_input_shape[-1]
        self.build_sizes(x_shape[-1], self.output_units, condition)

    def build_sizes(self, input_units: int, output_units: int | None, conditional_size: int | None = None) -> None:
        """Create the weights for given sizes."""
        if output_units is None:
            raise ValueError("`output_units` must be set before the network is built.")
        self.output_units = positive_int("output_units", output_units)
        self.conditional_size = conditional_size
        size = positive_int("input_units", input_units)
        self.circular_inputs = angle_inputs(self.circular_inputs, size)
        size += len(self.circular_inputs)  # a cosine and a sine for each angle
        if conditional_size is not None:
            size += positive_int("conditional_size", conditional_size)
        common = {"kernel_regularizer": self.kernel_regularizer, "bias_regularizer": self.bias_regularizer}
        common |= {"use_bias": self.use_bias, "dtype": self.dtype_policy}
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
        keras_3_inputs(self, x=x, conditional_input=conditional_input)
        check_condition(conditional_input, self.conditional_size)
        x, conditional_input, batch_shape = flatten_batch(x, conditional_input)
        x = read_angles(x, self.circular_inputs)
        if conditional_input is not None:
            rows = tf.concat([tf.shape(x)[:1], tf.shape(conditional_input)[1:]], axis=0)
            x = tf.concat([x, tf.broadcast_to(conditional_input, rows)], axis=-1)
        for layer in self._dense:
            x = layer(x)
        return unflatten(x, batch_shape, [self.output_units])
