"""Squeezing of images, and their preprocessing."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable


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
      >>> tff.Squeeze().forward(tf.ones([5, 4, 4, 3])).shape
      TensorShape([5, 2, 2, 12])
    """

    is_affine = True

    def __init__(self, factor: int = 2, *, validate_args: bool = False, name: str = "squeeze", **kwargs):
        self._factor = positive_int("factor", factor, 2)
        kwargs.setdefault("dtype", None)
        super().__init__(event_ndims=3, constant_log_det=True, validate_args=validate_args, name=name, **kwargs)

    def _squeezed(self, shape: list) -> list:
        """Return the shape after squeezing. Sizes may be unknown, or tensors, which are not checked."""
        f = self._factor
        height, width, channels = shape
        for name, size in (("height", height), ("width", width)):
            if isinstance(size, int) and size % f:
                raise ValueError(f"Squeeze needs a {name} that is a multiple of {f}, got events of shape {shape}.")
        return [_scaled(height, 1, f), _scaled(width, 1, f), _scaled(channels, f * f, 1)]

    def _unsqueezed(self, shape: list) -> list:
        f = self._factor
        height, width, channels = shape
        if isinstance(channels, int) and channels % (f * f):
            raise ValueError(f"Squeeze needs a multiple of {f * f} channels, got events of shape {shape}.")
        return [_scaled(height, f, 1), _scaled(width, f, 1), _scaled(channels, 1, f * f)]

    def forward_and_log_det(self, x):
        f, (h, w, c) = self._factor, tf.unstack(tf.shape(x)[-3:])
        return _swap_axes(x, [h // f, f, w // f, f, c], self._squeezed)

    def inverse_and_log_det(self, y):
        f, (h, w, c) = self._factor, tf.unstack(tf.shape(y)[-3:])
        return _swap_axes(y, [h, w, f, f, c // (f * f)], self._unsqueezed)

    def _forward_event_shape(self, shape):
        return tf.TensorShape(self._squeezed(shape.as_list()) if shape.rank else None)

    def _inverse_event_shape(self, shape):
        return tf.TensorShape(self._unsqueezed(shape.as_list()) if shape.rank else None)

    def _forward_event_shape_tensor(self, shape):
        return tf.stack(self._squeezed(tf.unstack(shape)))

    def _inverse_event_shape_tensor(self, shape):
        return tf.stack(self._unsqueezed(tf.unstack(shape)))


def _scaled(size, factor: int, divisor: int):
    return None if size is None else size * factor // divisor


def _swap_axes(images: tf.Tensor, blocks: list, shape_after: Callable) -> tuple[tf.Tensor, tf.Tensor]:
    """Split images `[..., H, W, C]` into axes `blocks`, and swap the second and the third. Return them and the log-det."""
    static = images.shape[:-3].concatenate(shape_after(images.shape[-3:].as_list()))
    shape = tf.shape(images)
    swapped = tf.transpose(tf.reshape(images, tf.stack([-1, *blocks])), [0, 1, 3, 2, 4, 5])
    result = tf.reshape(swapped, tf.concat([shape[:-3], shape_after(tf.unstack(shape[-3:]))], axis=0))
    return tf.ensure_shape(result, static), tf.zeros([], images.dtype)


def get_preprocess_bijector(alpha: float, dtype: tf.DType = tf.float32) -> tfb.Bijector:
    """Return `logit(alpha + (1 - 2 alpha) x)`, from [0, 1] to the real line (Dinh et al. 2016, arXiv:1605.08803, section 4.1).

    Forward preprocesses; a flow from latent values to images ends with `tfb.Invert` of it.

    Args:
      alpha: Distance to keep from 0 and 1, in [0, 1/2).
      dtype: Dtype of the values.

    Raises:
      ValueError: If `alpha` is out of range.

    Example:
      >>> print(tff.get_preprocess_bijector(0.05).forward(tf.constant([0.0, 0.5, 1.0])).numpy().round(2) + 0.0)
      [-2.94  0.    2.94]
    """
    if not 0 <= alpha < 0.5:
        raise ValueError(f"`alpha` must be in [0, 1/2), got {alpha!r}.")
    shift, scale = tf.constant(alpha, dtype), tf.constant(1.0 - 2.0 * alpha, dtype)
    return tfb.Chain([tfb.Invert(tfb.Sigmoid()), tfb.Shift(shift), tfb.Scale(scale)], name="preprocess")
