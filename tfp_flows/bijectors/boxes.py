"""Piecewise constant densities on boxes, as bijectors of normal variables."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import positive_int
from tfp_flows.numerics import log_normal_tails, normal_quantile
from tfp_flows.registry import serializable


@serializable
class BoxBijector(FlowBijector):
    """Map between two partitions of the unit cube into boxes, seen through the normal CDF.

    With `u = Phi(y)`, the box that contains `u` is stretched onto its partner in the space of `Phi(x)`, coordinate by
    coordinate. If `x` is standard normal, the density of `y` is `N(y; 0, 1)` times the ratio of the two volumes, which
    is constant on each box. This is the density of a tree with normal tails (Inouye and Ravikumar, Deep Density
    Destructors, ICML 2018). Beyond the outermost faces the map scales the logarithms of the tail probabilities, so that
    outliers stay finite. The density is discontinuous where boxes meet. The non-trainable variable `boxes` `[4, B, D]`
    holds lower and upper corners in data space, then in latent space, as probabilities.

    Cost per direction and event: `O(B D)` for `B` boxes. Shapes: `[..., D]` to `[..., D]`; log-det `[...]`, in nats.

    Args:
      event_size: Integer `D`.
      num_boxes: Integer `B`. A new map is the identity until `set_boxes` is called.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Example:
      >>> half = tff.BoxBijector(1, num_boxes=2)
      >>> half.set_boxes([[0.0], [0.5]], [[0.5], [1.0]], [[0.0], [0.9]], [[0.9], [1.0]])
      >>> y = half.forward(tf.random.stateless_normal([1000, 1], seed=[1, 2]))  # nine of ten are negative
      >>> print(np.round(np.mean(y < 0.0), 1))
      0.9
    """

    def __init__(
        self,
        event_size: int,
        num_boxes: int,
        *,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "box_map",
    ):
        super().__init__(event_size, dtype=dtype, validate_args=validate_args, name=name)
        self.num_boxes = positive_int("num_boxes", num_boxes)
        corners = np.zeros([4, num_boxes, event_size])
        corners[[1, 3], 0] = 1.0  # all boxes but the first are empty
        self.boxes = tf.Variable(corners, trainable=False, dtype=self.dtype, name="boxes")

    def set_boxes(self, lower, upper, latent_lower, latent_upper) -> None:
        """Set the corners, each `[B, D]`, in both spaces. Each set must fill the unit cube, and partners touch the same faces.

        Raises:
          ValueError: If a shape is wrong, the volumes do not sum to 1, or partners touch different faces.
        """
        boxes = np.stack([np.asarray(c, np.float64) for c in (lower, upper, latent_lower, latent_upper)])
        if boxes.shape != tuple(self.boxes.shape):
            raise ValueError(f"Corners must have shape {list(self.boxes.shape[1:])}, got {list(boxes.shape[1:])}.")
        volumes = np.prod(boxes[1::2] - boxes[::2], axis=-1)
        if np.any(volumes < 0) or not np.allclose(volumes.sum(axis=-1), 1.0, atol=1e-6):
            raise ValueError(f"Boxes must fill the unit cube, got volumes that sum to {volumes.sum(axis=-1)}.")
        if np.any((boxes[0] == 0) != (boxes[2] == 0)) or np.any((boxes[1] == 1) != (boxes[3] == 1)):
            raise ValueError("Each box must touch the same faces of the unit cube as its partner.")
        self.boxes.assign(boxes)

    def _stretch(self, value, boxes):
        log_lower, log_upper = log_normal_tails(value)
        u = tf.exp(log_lower)
        each = u[..., tf.newaxis, :]
        within = (each >= boxes[0]) & ((each < boxes[1]) | (boxes[1] == 1.0))
        chosen = tf.cast(tf.reduce_all(within, axis=-1), value.dtype)
        low, high, new_low, new_high = (tf.tensordot(chosen, side, 1) for side in tf.unstack(boxes))
        found = high > low  # false for NaN
        ratio = (new_high - new_low) / tf.where(found, high - low, tf.ones_like(low))
        log_ratio = tf.math.log(tf.where(found, ratio, tf.cast(math.nan, value.dtype)))
        # A face of the cube lies at infinity in data space, where only the logarithms are exact.
        first, last = low == 0.0, high == 1.0
        inner_low = tf.where(first, tf.ones_like(low), new_low + (u - low) * ratio)
        inner_high = tf.where(last, tf.ones_like(low), (1.0 - new_high) + (high - u) * ratio)
        result = normal_quantile(
            tf.where(first, log_lower + log_ratio, tf.math.log(inner_low)),
            tf.where(last, log_upper + log_ratio, tf.math.log(inner_high)),
        )
        log_slope = log_ratio + 0.5 * (tf.square(result) - tf.square(value))
        return result, tf.reduce_sum(log_slope, axis=-1)

    def forward_and_log_det(self, x):
        boxes = tf.convert_to_tensor(self.boxes)
        return self._stretch(x, tf.concat([boxes[2:], boxes[:2]], axis=0))

    def inverse_and_log_det(self, y):
        return self._stretch(y, tf.convert_to_tensor(self.boxes))
