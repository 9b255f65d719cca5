"""Squeezing of images, and their preprocessing."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable

tfb = tfp.bijectors


@serializable
class Squeeze(FlowBijector):
    """Map from blocks of `factor x factor` pixels to channels (Dinh et al. 2016, arXiv:1605.08803, section 3.6).

    The new channels are ordered by the position in the block, row by row, then by the old channel. Forward squeezes, so
    a flow from latent values to images contains `tfb.Invert(Squeeze())`.

    Cost per direction: a copy. Shapes: `[..., H, W, C]` to `[..., H / f, W / f, f f C]`; the log-det is zero.

    Args:
      factor: Side `f` of a block.
      validate_args, name: Whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If `factor` is less than 2; at a call, if height or width is not a multiple of it.

    Example:
      >>> Squeeze().forward(tf.ones([5, 4, 4, 3])).shape
      TensorShape([5, 2, 2, 12])
    """

    is_affine = True

    def __init__(self, factor: int = 2, *, validate_args: bool = False, name: str = "squeeze", **kwargs):
        self._factor = positive_int("factor", factor, 2)
        super().__init__(
            event_ndims=3, constant_log_det=True, **{"dtype": None, **kwargs}, validate_args=validate_args, name=name
        )

    def _squeezed(self, shape: list) -> list:
        height, width, channels = shape
        f = self._factor
        for name, size in (("height", height), ("width", width)):
            if size is not None and size % f:
                raise ValueError(f"Squeeze needs a {name} that is a multiple of {f}, got events of shape {shape}.")
        return [
            None if height is None else height // f,
            None if width is None else width // f,
            None if channels is None else channels * f * f,
        ]

    def _unsqueezed(self, shape: list) -> list:
        height, width, channels = shape
        f = self._factor
        if channels is not None and channels % (f * f):
            raise ValueError(f"Squeeze needs a multiple of {f * f} channels, got events of shape {shape}.")
        return [
            None if height is None else height * f,
            None if width is None else width * f,
            None if channels is None else channels // (f * f),
        ]

    def forward_and_log_det(self, x):
        f, shape = self._factor, tf.shape(x)
        static = self._squeezed(x.shape[-3:].as_list())
        batch, (h, w, c) = shape[:-3], tf.unstack(shape[-3:])
        blocks = tf.reshape(x, tf.stack([-1, h // f, f, w // f, f, c]))
        y = tf.reshape(
            tf.transpose(blocks, [0, 1, 3, 2, 4, 5]), tf.concat([batch, [h // f, w // f, f * f * c]], axis=0)
        )
        return tf.ensure_shape(y, x.shape[:-3].concatenate(static)), tf.zeros([], x.dtype)

    def inverse_and_log_det(self, y):
        f, shape = self._factor, tf.shape(y)
        static = self._unsqueezed(y.shape[-3:].as_list())
        batch, (h, w, c) = shape[:-3], tf.unstack(shape[-3:])
        blocks = tf.reshape(y, tf.stack([-1, h, w, f, f, c // (f * f)]))
        x = tf.reshape(
            tf.transpose(blocks, [0, 1, 3, 2, 4, 5]), tf.concat([batch, [h * f, w * f, c // (f * f)]], axis=0)
        )
        return tf.ensure_shape(x, y.shape[:-3].concatenate(static)), tf.zeros([], y.dtype)

    def _forward_event_shape(self, shape):
        return tf.TensorShape(self._squeezed(shape.as_list()) if shape.rank else None)

    def _inverse_event_shape(self, shape):
        return tf.TensorShape(self._unsqueezed(shape.as_list()) if shape.rank else None)

    def _forward_event_shape_tensor(self, shape):
        f = self._factor
        return tf.stack([shape[0] // f, shape[1] // f, shape[2] * f * f])

    def _inverse_event_shape_tensor(self, shape):
        f = self._factor
        return tf.stack([shape[0] * f, shape[1] * f, shape[2] // (f * f)])


def get_preprocess_bijector(alpha: float, dtype: tf.DType = tf.float32) -> tfb.Bijector:
    """Return `logit(alpha + (1 - 2 alpha) x)`, from [0, 1] to the real line (Dinh et al. 2016, arXiv:1605.08803, section 4.1).

    Forward preprocesses; a flow from latent values to images ends with `tfb.Invert` of it.

    Args:
      alpha: Distance to keep from 0 and 1, in [0, 1/2).
      dtype: Dtype of the values.

    Raises:
      ValueError: If `alpha` is out of range.

    Example:
      >>> print(get_preprocess_bijector(0.05).forward(tf.constant([0.0, 0.5, 1.0])).numpy().round(2) + 0.0)
      [-2.94  0.    2.94]
    """
    if not 0 <= alpha < 0.5:
        raise ValueError(f"`alpha` must be in [0, 1/2), got {alpha!r}.")
    shift, scale = tf.constant(alpha, dtype), tf.constant(1.0 - 2.0 * alpha, dtype)
    return tfb.Chain([tfb.Invert(tfb.Sigmoid()), tfb.Shift(shift), tfb.Scale(scale)], name="preprocess")
