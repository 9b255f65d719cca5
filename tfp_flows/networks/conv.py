"""Convolutional conditioners of coupling layers for images."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfp_flows.checks import image_sizes, keras_3_inputs, one_of, positive_int
from tfp_flows.networks.dense import policy_for
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, split_seed

NORMALIZATIONS = ("weight", "batch")


@keras.saving.register_keras_serializable(package="tfp_flows")
class WeightNormalizedConv2D(keras.layers.Layer):
    """Convolution whose kernel is `gain v / |v|` per output channel (Salimans and Kingma 2016, arXiv:1602.07868).

    With an initial `gain` of zero, the layer starts at zero.
    """

    def __init__(self, filters: int, kernel_size: int, *, gain: float = 1.0, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size = positive_int("filters", filters), positive_int("kernel_size", kernel_size)
        self._gain, self._seed = float(gain), resolve_seed(seed)

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        start = keras.initializers.RandomNormal(stddev=0.05, seed=self._seed)
        self.direction = self.add_weight(name="direction", shape=shape, initializer=start)
        gain = keras.initializers.Constant(self._gain)
        self.gain = self.add_weight(name="gain", shape=(self.filters,), initializer=gain)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        self.built = True

    def call(self, x):
        direction = tf.cast(self.direction.value, self.compute_dtype)
        norm = tf.math.rsqrt(tf.reduce_sum(tf.square(direction), axis=[0, 1, 2]) + 1e-12)
        kernel = direction * (tf.cast(self.gain.value, self.compute_dtype) * norm)
        return keras.ops.conv(x, kernel, padding="same") + tf.cast(self.bias.value, self.compute_dtype)


class _ConvNetwork(keras.layers.Layer):
    """Base class with convolutions of one kind, a condition, and an output that starts at zero.

    With `normalization="batch"`, batch normalization precedes activations; its moving statistics, learned in `fit`, are
    used outside of training. A linear map of `conditional_input` `[N, C]` is added to the first hidden layer.
    `num_layers` is the maximal number of layers that need a seed. Maps `x` `[N, H, W, C]` to `[N, H, W, output_channels]`.
    """

    def __init__(self, filters, output_channels, normalization, conditional_size, seed, *, num_layers, **kwargs):
        super().__init__(**kwargs)
        one_of("normalization", normalization, NORMALIZATIONS)
        self.filters = positive_int("filters", filters)
        self.output_channels = positive_int("output_channels", output_channels)
        self.normalization = normalization
        self.conditional_size = None if conditional_size is None else positive_int("conditional_size", conditional_size)
        self._seeds = iter(split_seed(resolve_seed(seed), 2 * num_layers + 1))  # including one more seed per block
        self._first = self._convolution(self.filters, 3)
        self._condition = None

    def _make_condition(self):
        if self.conditional_size is not None:
            options = {"use_bias": False, "kernel_initializer": keras.initializers.GlorotUniform(next(self._seeds))}
            self._condition = keras.layers.Dense(self.filters, dtype=self.dtype_policy, **options)

    def _convolution(self, filters, size, zero=False):
        if self.normalization == "weight":
            gain, seed = 0.0 if zero else 1.0, next(self._seeds)
            return WeightNormalizedConv2D(filters, size, gain=gain, seed=seed, dtype=self.dtype_policy)
        start = "zeros" if zero else keras.initializers.HeNormal(next(self._seeds))
        return keras.layers.Conv2D(filters, size, padding="same", kernel_initializer=start, dtype=self.dtype_policy)

    def _normalizers(self, count):
        if self.normalization == "weight":
            return []
        return [keras.layers.BatchNormalization(dtype=self.dtype_policy) for _ in range(count)]

    def _build(self, x_shape, hidden_layers):
        self._first.build(x_shape)
        for layer in hidden_layers:
            layer.build((None, *x_shape[1:-1], self.filters))
        if self._condition is not None:
            self._condition.build((None, self.conditional_size))
        self.built = True

    def _start(self, x, conditional_input):
        keras_3_inputs(self, x=x, conditional_input=conditional_input)
        h = self._first(x)
        if self._condition is not None:
            h += self._condition(conditional_input)[:, tf.newaxis, tf.newaxis]
        return h


@serializable
@keras.saving.register_keras_serializable(package="tfp_flows")
class ConvResNet(_ConvNetwork):
    """Residual network of convolutions whose output starts at zero, so that the flow starts as the identity.

    The output is the sum of the activations of all blocks, each through its own 1x1 convolution (Dinh et al. 2016,
    section 3.6, "skip connections"). Each of the `num_blocks` blocks has two 3x3 convolutions.
    """

    def __init__(
        self,
        filters: int,
        num_blocks: int,
        output_channels: int,
        *,
        normalization: str = "weight",
        conditional_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        self.num_blocks = positive_int("num_blocks", num_blocks, 0)
        layers = 3 * num_blocks + 2
        super().__init__(filters, output_channels, normalization, conditional_size, seed, num_layers=layers, **kwargs)
        # Two of each per block, in flat lists: Keras 3.10 to 3.14 do not save the layers of nested lists.
        self._convolutions = [self._convolution(self.filters, 3) for _ in range(2 * self.num_blocks)]
        self._norms = self._normalizers(2 * self.num_blocks)
        self._skips = [self._convolution(self.output_channels, 1, zero=True) for _ in range(self.num_blocks + 1)]
        self._make_condition()

    def build(self, x_shape, conditional_input_shape=None):
        self._build(x_shape, [*self._convolutions, *self._norms, *self._skips])

    def call(self, x, conditional_input=None, training=None):
        h = self._start(x, conditional_input)
        total = self._skips[0](tf.nn.relu(h))
        for i, skip in enumerate(self._skips[1:]):
            r = h
            for j in (2 * i, 2 * i + 1):
                if self._norms:
                    r = self._norms[j](r, training=training)
                r = self._convolutions[j](tf.nn.relu(r))
            h += r
            total += skip(tf.nn.relu(h))
        return total


@serializable
@keras.saving.register_keras_serializable(package="tfp_flows")
class GlowNetwork(_ConvNetwork):
    """Convolutions of sizes 3, 1 and 3, the last of which starts at zero (Kingma and Dhariwal 2018, section 4)."""

    def __init__(
        self,
        filters: int,
        output_channels: int,
        *,
        normalization: str = "weight",
        conditional_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(filters, output_channels, normalization, conditional_size, seed, num_layers=3, **kwargs)
        self._second = self._convolution(self.filters, 1)
        self._last = self._convolution(self.output_channels, 3, zero=True)
        self._norms = self._normalizers(2)
        self._make_condition()

    def build(self, x_shape, conditional_input_shape=None):
        self._build(x_shape, [self._second, self._last, *self._norms])

    def call(self, x, conditional_input=None, training=None):
        h = self._start(x, conditional_input)
        for i, convolution in enumerate((self._second, self._last)):
            if self._norms:
                h = self._norms[i](h, training=training)
            h = convolution(tf.nn.relu(h))
        return h


def conv_resnet_template(
    filters: int = 64,
    num_blocks: int = 2,
    *,
    image_shape: Sequence[int],
    params: int = 2,
    normalization: str = "weight",
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "conv_resnet",
) -> ConvResNet:
    """Build a residual convolutional conditioner for `AffineCouplingLayer` (Dinh et al. 2016, arXiv:1605.08803). It is
    a built Keras 3 layer from `[N, H, W, C]` to `[N, H, W, params C]`, whose output starts at zero.

    Args:
      filters: Channels of the hidden layers.
      num_blocks: Number of residual blocks.
      image_shape: `[H, W, C]` of the events of the layer; `H` and `W` may be `None`.
      params: Parameters per channel: 2 for affine coupling, 1 for additive coupling, otherwise `transformer.params`.
      normalization: `"weight"`, or `"batch"`, which uses batch statistics in training and moving ones otherwise.
      conditional_size: Size of the `conditional_input` of conditional flows, such as the number of one-hot classes.
      seed, dtype, name: Integer seed of the weights, dtype of weights and computation, and name of the network.

    Raises:
      ValueError: If a size is out of range, or `normalization` is unknown.

    Example:
      >>> network = tff.conv_resnet_template(8, 1, image_shape=(4, 4, 3))
      >>> network(tf.ones([5, 4, 4, 3])).shape
      TensorShape([5, 4, 4, 6])
    """
    options = {"normalization": normalization, "conditional_size": conditional_size, "seed": seed, "name": name}
    return _built(ConvResNet, (filters, num_blocks), image_shape, params, dtype, options)


def glow_template(
    filters: int = 64,
    *,
    image_shape: Sequence[int],
    params: int = 2,
    normalization: str = "weight",
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "glow_network",
) -> GlowNetwork:
    """Build the convolutional conditioner of Glow: convolutions of sizes 3, 1 and 3 (Kingma and Dhariwal 2018,
    arXiv:1807.03039). It is a built Keras 3 layer from `[N, H, W, C]` to `[N, H, W, params C]`, whose output starts at zero.

    Args:
      filters: Channels of the hidden layers.
      image_shape: `[H, W, C]` of the events of the layer; `H` and `W` may be `None`.
      params: Parameters per channel: 2 for affine coupling, 1 for additive coupling, otherwise `transformer.params`.
      normalization: `"weight"`, or `"batch"`, which uses batch statistics in training and moving ones otherwise.
      conditional_size: Size of the `conditional_input` of conditional flows, such as the number of one-hot classes.
      seed, dtype, name: Integer seed of the weights, dtype of weights and computation, and name of the network.

    Raises:
      ValueError: If a size is out of range, or `normalization` is unknown.

    Example:
      >>> network = tff.glow_template(8, image_shape=(4, 4, 3))
      >>> network(tf.ones([5, 4, 4, 3])).shape
      TensorShape([5, 4, 4, 6])
    """
    options = {"normalization": normalization, "conditional_size": conditional_size, "seed": seed, "name": name}
    return _built(GlowNetwork, (filters,), image_shape, params, dtype, options)


def _built(kind: type, sizes: tuple, image_shape: Sequence[int], params: int, dtype: tf.DType, options: dict):
    if len(image_shape) != 3:
        raise ValueError(f"`image_shape` must be (H, W, C), got {image_shape!r}.")
    channels = positive_int("image_shape[2]", image_shape[2])
    network = kind(*sizes, positive_int("params", params) * channels, dtype=policy_for(dtype), **options)
    network.build((None, *image_shape))
    return network


def get_conv_resnet(input_shape: Sequence[int], filters: int) -> keras.Model:
    """Build the convolutional residual network of the RealNVP course assignment, with outputs `[shift, log_scale]`.

    It has two residual blocks of two 3x3 convolutions, each with ReLU and batch normalization, and a final 3x3
    convolution to shift and log-scale, the latter through tanh. Kernels have L2 regularization of 5e-5.

    Args:
      input_shape: `(H, W, C)`.
      filters: Channels of the hidden convolutions.

    Raises:
      ValueError: If `input_shape` does not have three sizes, or `filters` is not positive.

    Example:
      >>> shift, log_scale = tff.get_conv_resnet((8, 8, 2), filters=16)(tf.ones([5, 8, 8, 2]))
      >>> shift.shape, log_scale.shape
      (TensorShape([5, 8, 8, 2]), TensorShape([5, 8, 8, 2]))
    """
    input_shape, filters = image_sizes("input_shape", input_shape), positive_int("filters", filters)
    channels = input_shape[-1]

    def convolution(units, activation=None):
        return keras.layers.Conv2D(
            units, 3, padding="same", activation=activation, kernel_regularizer=keras.regularizers.L2(5e-5)
        )

    inputs = h = keras.Input(input_shape)
    for _ in range(2):
        r = keras.layers.BatchNormalization()(convolution(filters, "relu")(h))
        r = keras.layers.BatchNormalization()(convolution(channels, "relu")(r))
        h = keras.layers.Add()([h, r])
    out = convolution(2 * channels)(h)
    shift, log_scale = out[..., :channels], keras.ops.tanh(out[..., channels:])
    return keras.Model(inputs, [shift, log_scale])
