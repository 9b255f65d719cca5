"""Coupling for `tfb.Glow` over a Keras 3 network."""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.checks import one_of
from tfp_flows.registry import serializable
from tfp_flows.tracking import Mirror

SCALES = {"sigmoid": tf.sigmoid, "exp": tf.exp}


@serializable
class GlowCoupling(Mirror):
    """A `bijector_fn` for `tfb.Glow`: `y = scale(h[..., :c] + 2) x + h[..., c:]` for the network's output `h`.

    Args:
      network: Keras 3 network of the channels that stay. It returns a shift, or scale and shift, per channel that moves.
      target_channels: Number of channels that move.
      scale: `"sigmoid"` (within a block of Glow) or `"exp"` (where channels leave it).
    """

    def __init__(self, network: keras.Layer, target_channels: int, scale: str = "sigmoid", name: str | None = None):
        self.target_channels, self.scale = target_channels, one_of("scale", scale, tuple(SCALES))
        super().__init__(network, name=name)

    def __call__(self, x: tf.Tensor, output_units: int | None = None) -> tfb.Bijector:
        out = super().__call__(x)
        split = x.shape[-1]
        if out.shape[-1] == self.target_channels:
            return tfb.Shift(out[..., :split])
        return tfb.Chain([tfb.Shift(out[..., split:]), tfb.Scale(SCALES[self.scale](out[..., :split] + 2.0))])
