"""Multi-scale architecture for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors.composition import CompositeBijector
from tfp_flows.checks import image_sizes
from tfp_flows.networks.broadcasting import unflatten
from tfp_flows.registry import serializable


@serializable
class MultiScale(CompositeBijector):
    """Map from a latent vector to images, by blocks at several scales (Dinh et al. 2016, arXiv:1605.08803, section 3.6).

    In the inverse direction, each block is followed by a split: part of the channels becomes latent (is factored out),
    and the rest enters the next block. After the last block, all channels are latent. The vector holds the latent
    values of all scales, of shapes `latent_shapes`, those factored out first in front.

    Cost per direction and event: each block once. Shapes: `[..., H W C]` to `[..., H, W, C]`; log-det `[...]`, in nats.

    Args:
      blocks: One bijector of images per scale, from the image inwards. Forward maps to the image, so that a block that
        squeezes ends with `tfb.Invert(Squeeze())`.
      image_shape: `[H, W, C]` of the events.
      fraction: Fraction of the channels, in (0, 1), that is factored out after each block but the last.
      validate_args, name: Whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If the sizes do not fit, or a scale would factor out no channel or all of them.

    Example:
      >>> blocks = [tfb.Invert(tff.Squeeze(name="squeeze_0")), tfb.Invert(tff.Squeeze(name="squeeze_1"))]
      >>> bijector = tff.MultiScale(blocks, (4, 4, 1))
      >>> bijector.latent_shapes, bijector.forward(tf.ones([5, 16])).shape
      (((2, 2, 2), (1, 1, 8)), TensorShape([5, 4, 4, 1]))
    """

    def __init__(
        self,
        blocks: Sequence[tfb.Bijector],
        image_shape: Sequence[int],
        *,
        fraction: float = 0.5,
        validate_args: bool = False,
        name: str = "multi_scale",
    ):
        self.bijectors = list(blocks)
        if not self.bijectors or not all(isinstance(block, tfb.Bijector) for block in self.bijectors):
            raise ValueError(f"`blocks` must be a list of bijectors, got {blocks!r}.")
        if len({block.name for block in self.bijectors}) < len(self.bijectors):
            raise ValueError("`blocks` must have different names: conditions go by them.")
        self.image_shape = image_sizes("image_shape", image_shape)
        if not 0.0 < fraction < 1.0:
            raise ValueError(f"`fraction` must be in (0, 1), got {fraction!r}.")
        self._kept: list[int] = []
        shapes, shape = [], self.image_shape
        for i, block in enumerate(self.bijectors):
            shape = tuple(block.inverse_event_shape(tf.TensorShape(shape)).as_list())
            if i == len(self.bijectors) - 1:
                shapes.append(shape)
                break
            out = round(fraction * shape[-1])
            if not 0 < out < shape[-1]:
                raise ValueError(
                    f"`fraction` {fraction} of {shape[-1]} channels at scale {i} is {out}: at least one channel must be "
                    "factored out and one must stay."
                )
            shapes.append((*shape[:-1], out))
            shape = (*shape[:-1], shape[-1] - out)
            self._kept.append(shape[-1])
        self.latent_shapes = tuple(shapes)
        self._sizes = [int(np.prod(s)) for s in shapes]
        if sum(self._sizes) != np.prod(self.image_shape):
            raise ValueError(f"`blocks` change the size of events: {self.image_shape} to {self.latent_shapes}.")
        super().__init__(inverse_event_ndims=3, dtype=None, validate_args=validate_args, name=name)

    def walk(self, value: tf.Tensor, inverse: bool, run: Callable) -> tuple[tf.Tensor, tf.Tensor]:
        total = tf.zeros([], value.dtype)
        if inverse:
            latents = []
            for block, kept, size in zip(self.bijectors, [*self._kept, 0], self._sizes, strict=True):
                value, log_det = run(block, value, 3)
                total += log_det
                batch = tf.shape(value)[:-3]  # a condition may have broadcast it
                latents.append(unflatten(value[..., kept:], batch, [size]))
                value = value[..., :kept]
            rows = tf.shape(latents[-1])[:-1]
            latents = [tf.broadcast_to(z, tf.concat([rows, tf.shape(z)[-1:]], axis=0)) for z in latents]
            return tf.concat(latents, axis=-1), total
        parts = zip(tf.split(value, self._sizes, axis=-1), self.latent_shapes, strict=True)
        latents = [unflatten(part, tf.shape(value)[:-1], shape) for part, shape in parts]
        value = latents.pop()
        for i in reversed(range(len(self.bijectors))):
            value, log_det = run(self.bijectors[i], value, 3)
            total += log_det
            if i:
                latent = latents.pop()
                rows = tf.concat([tf.shape(value)[:-3], tf.shape(latent)[-3:]], axis=0)
                value = tf.concat([value, tf.broadcast_to(latent, rows)], axis=-1)
        return value, total

    def _forward_event_shape(self, shape):
        return tf.TensorShape(self.image_shape)

    def _inverse_event_shape(self, shape):
        return tf.TensorShape([sum(self._sizes)])

    def _forward_event_shape_tensor(self, shape):
        return tf.constant(self.image_shape, tf.int32)

    def _inverse_event_shape_tensor(self, shape):
        return tf.constant([sum(self._sizes)], tf.int32)
