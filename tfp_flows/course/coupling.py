"""Masked coupling of the course notebooks: functions, networks and blocks of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import AffineCouplingLayer, BatchNormalization, Squeeze
from tfp_flows.checks import positive_int

tfb = tfp.bijectors


def forward(x: tf.Tensor, b: tf.Tensor, shift_and_log_scale_fn: Callable) -> tf.Tensor:
    """Return `b x + (1 - b) (x exp(log_scale) + shift)`, with `(shift, log_scale) = shift_and_log_scale_fn(b x)`.

    Args:
      x: Events `[N, ...]`, with one batch axis.
      b: Mask of zeros and ones, which broadcasts to the events.
      shift_and_log_scale_fn: Network from masked events to `(shift, log_scale)`.

    Example:
      >>> double = lambda x: (tf.ones_like(x), tf.fill(tf.shape(x), np.log(2.0).astype("float32")))
      >>> tff.course.forward(tf.constant([[1.0, 3.0]]), tf.constant([1.0, 0.0]), double).numpy()
      array([[1., 7.]], dtype=float32)
    """
    b = tf.cast(b, x.dtype)
    shift, log_scale = shift_and_log_scale_fn(b * x)
    return b * x + (1 - b) * (x * tf.exp(log_scale) + shift)


def inverse(y: tf.Tensor, b: tf.Tensor, shift_and_log_scale_fn: Callable) -> tf.Tensor:
    """Return the inverse of `forward`: `b y + (1 - b) (y - shift) exp(-log_scale)`.

    Example:
      >>> double = lambda x: (tf.ones_like(x), tf.fill(tf.shape(x), np.log(2.0).astype("float32")))
      >>> tff.course.inverse(tf.constant([[1.0, 7.0]]), tf.constant([1.0, 0.0]), double).numpy()
      array([[1., 3.]], dtype=float32)
    """
    b = tf.cast(b, y.dtype)
    shift, log_scale = shift_and_log_scale_fn(b * y)
    return b * y + (1 - b) * (y - shift) * tf.exp(-log_scale)


def forward_log_det_jacobian(x: tf.Tensor, b: tf.Tensor, shift_and_log_scale_fn: Callable) -> tf.Tensor:
    """Return the log-det of `forward`, `[N]`, in nats: the sum of `(1 - b) log_scale` over all axes but the first.

    Example:
      >>> double = lambda x: (x, tf.ones_like(x))
      >>> tff.course.forward_log_det_jacobian(tf.ones([3, 2]), tf.constant([1.0, 0.0]), double).numpy()
      array([1., 1., 1.], dtype=float32)
    """
    b = tf.cast(b, x.dtype)
    _, log_scale = shift_and_log_scale_fn(b * x)
    moved = (1 - b) * log_scale
    return tf.reduce_sum(moved, axis=list(range(1, moved.shape.rank)))


def inverse_log_det_jacobian(y: tf.Tensor, b: tf.Tensor, shift_and_log_scale_fn: Callable) -> tf.Tensor:
    """Return the log-det of `inverse`, `[N]`, in nats: the sum of `-(1 - b) log_scale` over all axes but the first.

    Example:
      >>> double = lambda x: (x, tf.ones_like(x))
      >>> tff.course.inverse_log_det_jacobian(tf.ones([3, 2]), tf.constant([1.0, 0.0]), double).numpy()
      array([-1., -1., -1.], dtype=float32)
    """
    return -forward_log_det_jacobian(y, b, shift_and_log_scale_fn)


def get_shift_and_log_scale_fn(
    input_size: int, hidden_units: Sequence[int] = (32, 32), activation: str = "relu"
) -> keras.Model:
    """Return two dense networks from vectors `[N, input_size]` to `[shift, log_scale]`, the latter through tanh.

    Example:
      >>> shift, log_scale = tff.course.get_shift_and_log_scale_fn(2)(tf.ones([5, 2]))
      >>> shift.shape, log_scale.shape
      (TensorShape([5, 2]), TensorShape([5, 2]))
    """
    size = positive_int("input_size", input_size)
    inputs = keras.Input((size,))
    outputs = []
    for last in (None, "tanh"):
        h = inputs
        for units in hidden_units:
            h = keras.layers.Dense(positive_int("hidden_units", units), activation)(h)
        outputs.append(keras.layers.Dense(size, last)(h))
    return keras.Model(inputs, outputs)


@keras.saving.register_keras_serializable(package="tfp_flows")
class Conv2DResidualBlock(keras.layers.Layer):
    """Residual block of two convolutions (ReLU), each followed by batch normalization.

    Args:
      num_filters: Channels of the first convolution. The second has the channels of the input.
      kernel_size: Side of the kernels.
      l2reg_coeff: Coefficient of the kernels' L2 regularization.
      **kwargs: Options of `keras.layers.Layer`.

    Example:
      >>> tff.course.Conv2DResidualBlock(8, 3, 5e-5)(tf.ones([5, 4, 4, 2])).shape
      TensorShape([5, 4, 4, 2])
    """

    def __init__(self, num_filters: int, kernel_size: int, l2reg_coeff: float, **kwargs):
        super().__init__(**kwargs)
        self.num_filters, self.kernel_size = positive_int("num_filters", num_filters), kernel_size
        self.l2reg_coeff = float(l2reg_coeff)
        self.first = self._convolution(self.num_filters)
        self.norms = [keras.layers.BatchNormalization(dtype=self.dtype_policy) for _ in range(2)]

    def _convolution(self, filters):
        options = {"padding": "same", "activation": "relu", "dtype": self.dtype_policy}
        regularizer = keras.regularizers.L2(self.l2reg_coeff)
        return keras.layers.Conv2D(filters, self.kernel_size, kernel_regularizer=regularizer, **options)

    def build(self, input_shape):
        hidden = (*input_shape[:-1], self.num_filters)
        self.second = self._convolution(input_shape[-1])
        for layer in (self.first, self.norms[1]):
            layer.build(input_shape)
        for layer in (self.norms[0], self.second):
            layer.build(hidden)
        self.built = True

    def call(self, x, training=None):
        h = self.norms[0](self.first(x), training=training)
        return x + self.norms[1](self.second(h), training=training)

    def get_config(self):
        own = {key: getattr(self, key) for key in ("num_filters", "kernel_size", "l2reg_coeff")}
        return {**super().get_config(), **own}


def get_shift_and_log_scale_resnet(
    input_shape: Sequence[int], kernel_size: int, l2reg_coeff: float, residual_blocks: Sequence[int | keras.Layer]
) -> keras.Model:
    """Return a residual network from images `[N, H, W, C]` to `[shift, log_scale]`, the latter through tanh.

    Args:
      input_shape: `(H, W, C)`.
      kernel_size, l2reg_coeff: Kernel size and L2 coefficient of the blocks and of the last convolution.
      residual_blocks: Layers that keep the shape, or numbers of filters, each for a `Conv2DResidualBlock`.

    Example:
      >>> shift, log_scale = tff.course.get_shift_and_log_scale_resnet((4, 4, 2), 3, 5e-5, [8, 8])(tf.ones([5, 4, 4, 2]))
      >>> shift.shape, log_scale.shape
      (TensorShape([5, 4, 4, 2]), TensorShape([5, 4, 4, 2]))
    """
    channels = positive_int("input_shape[2]", tuple(input_shape)[-1])
    inputs = h = keras.Input(tuple(input_shape))
    for block in residual_blocks:
        h = (block if callable(block) else Conv2DResidualBlock(block, kernel_size, l2reg_coeff))(h)
    regularizer = keras.regularizers.L2(l2reg_coeff)
    h = keras.layers.Conv2D(2 * channels, kernel_size, padding="same", kernel_regularizer=regularizer)(h)
    shift, log_scale = keras.ops.split(h, 2, axis=-1)
    return keras.Model(inputs, [shift, keras.ops.tanh(log_scale)])


def affine_coupling_layer_block(shift_and_log_scale_fns: Sequence[Callable], mask: tf.Tensor) -> tfb.Bijector:
    """Return a chain of couplings with the masks `mask`, `1 - mask`, `mask`, and so on.

    Args:
      shift_and_log_scale_fns: At least one network. The first acts first in `forward`.
      mask: Mask of zeros and ones, of the rank of the events.

    Example:
      >>> fns = [tff.course.get_shift_and_log_scale_fn(2) for _ in range(3)]
      >>> block = tff.course.affine_coupling_layer_block(fns, tf.constant([1.0, 0.0]))
      >>> block.forward(tf.ones([5, 2])).shape
      TensorShape([5, 2])
    """
    mask = tf.cast(mask, tf.float32)
    if not shift_and_log_scale_fns:
        raise ValueError("`shift_and_log_scale_fns` must hold at least one network.")
    layers = [AffineCouplingLayer(fn, mask if i % 2 == 0 else 1 - mask) for i, fn in enumerate(shift_and_log_scale_fns)]
    return tfb.Chain(layers[::-1])


def realnvp_block(shift_and_log_scale_fns: Sequence[keras.Model], squeeze: tfb.Bijector | None = None) -> tfb.Bijector:
    """Return three checkerboard couplings, a squeeze and three channel couplings, with batch normalization after each three.

    Forward maps images to latent values. The orientations of the masks are 0, 1, 0.

    Args:
      shift_and_log_scale_fns: Six Keras networks with known input shapes, such as those of `get_conv_resnet`. The last
        three read squeezed images.
      squeeze: Bijector between the two halves; `Squeeze()` if `None`.

    Example:
      >>> fns = [tff.get_conv_resnet((4, 4, 1), 4) for _ in range(3)] + [tff.get_conv_resnet((2, 2, 4), 4) for _ in range(3)]
      >>> tff.course.realnvp_block(fns, tff.Squeeze()).forward(tf.ones([5, 4, 4, 1])).shape
      TensorShape([5, 2, 2, 4])
    """
    fns = list(shift_and_log_scale_fns)
    if len(fns) != 6:
        raise ValueError(f"`shift_and_log_scale_fns` must hold 6 networks, got {len(fns)}.")
    sizes = [getattr(fn, "input_shape", (None,))[-1] for fn in (fns[0], fns[3])]
    if None in sizes:
        raise ValueError("`shift_and_log_scale_fns` must be Keras models with a known input shape.")
    layers: list[tfb.Bijector] = []
    for half, (mask_type, size) in enumerate(zip(("checkerboard", "channel"), sizes, strict=True)):
        couplings = enumerate(fns[3 * half : 3 * half + 3])
        layers += [AffineCouplingLayer(fn, mask_type, i % 2, name=f"{mask_type}_{i}") for i, fn in couplings]
        # Unlike TFP's layer, this package's maps latent values to data, and its density does not depend on the batch.
        layers.append(tfb.Invert(BatchNormalization(size, name=f"normalize_{mask_type}")))
        if half == 0:
            layers.append(Squeeze() if squeeze is None else squeeze)
    return tfb.Chain(layers[::-1])
