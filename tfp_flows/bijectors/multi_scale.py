"""Multi-scale architecture: some channels become latent early, the rest pass through more layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import CompositeBijector
from tfp_flows.checks import image_sizes
from tfp_flows.registry import serializable

tfb = tfp.bijectors


@serializable
class MultiScale(CompositeBijector):
    """Map from one latent vector to images, through blocks that each see part of it (Dinh et al. 2016, section 3.6).

    From the image: after the first block's inverse, some channels are factored out as latent values. The rest pass through the
    second block's inverse, and so on. After the last block, all channels are latent. The latent values of all scales form one
    vector, in the order in which they were factored out, so that the base is one distribution, such as
    `MultivariateNormalDiag`.

    Cost per direction and event: each block once.

    Args:
      blocks: One bijector of images for each scale, from the image's side. Forward goes to the image, so a block that
        squeezes ends with `tfb.Invert(Squeeze())`.
      image_shape: `[H, W, C]` of the events.
      fraction: Fraction of the channels that is factored out after each block but the last, in (0, 1).
      validate_args: Whether to check arguments at run time, at some cost.
      name: Name of the bijector.

    Attributes:
      bijectors: The blocks.
      latent_shapes: Shapes of the latent values of each scale, in the order of the vector.

    Raises:
      ValueError: If the sizes do not fit, or a scale would factor out no channel, or all.

    Shapes: `[..., H W C]` to `[..., H, W, C]`; the log-det has shape `[...]` and is in nats.

    Example:
      >>> blocks = [tfb.Invert(tff.Squeeze(name="squeeze_0")), tfb.Invert(tff.Squeeze(name="squeeze_1"))]
      >>> bijector = MultiScale(blocks, (4, 4, 1))
      >>> bijector.latent_shapes, bijector.forward(tf.ones([5, 16])).shape
      (((2, 2, 2), (1, 1, 8)), TensorShape([5, 4, 4, 1]))

    References:
      L. Dinh, J. Sohl-Dickstein and S. Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.
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
            raise ValueError("`blocks` must have different names, because conditions are passed by name.")
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
                    f"`fraction` {fraction} of {shape[-1]} channels at scale {i} is {out}: some must go out, and some stay."
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
        """Evaluate one direction with `run(block, value, event_ndims)` for each block. Returns the value and the log-det."""
        total = tf.zeros([], value.dtype)
        if inverse:
            latents = []
            for i, block in enumerate(self.bijectors):
                value, log_det = run(block, value, 3)
                total += log_det
                kept = self._kept[i] if i < len(self._kept) else 0
                batch = tf.shape(value)[:-3]  # a condition may have broadcast it
                latents.append(tf.reshape(value[..., kept:], tf.concat([batch, [self._sizes[i]]], axis=0)))
                value = value[..., :kept]
            rows = tf.shape(latents[-1])[:-1]
            latents = [
                tf.broadcast_to(z, tf.concat([rows, [n]], axis=0)) for z, n in zip(latents, self._sizes, strict=True)
            ]
            return tf.concat(latents, axis=-1), total
        batch = tf.shape(value)[:-1]
        latents = [
            tf.reshape(part, tf.concat([batch, np.array(shape, np.int32)], axis=0))
            for part, shape in zip(tf.split(value, self._sizes, axis=-1), self.latent_shapes, strict=True)
        ]
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
        del shape
        return tf.TensorShape(self.image_shape)

    def _inverse_event_shape(self, shape):
        del shape
        return tf.TensorShape([sum(self._sizes)])

    def _forward_event_shape_tensor(self, shape):
        del shape
        return tf.constant(self.image_shape, tf.int32)

    def _inverse_event_shape_tensor(self, shape):
        del shape
        return tf.constant([sum(self._sizes)], tf.int32)
