"""Masks of coupling layers for images: 1 where a value stays and is read, 0 where it is transformed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.checks import one_of, positive_int

MASK_TYPES = ("checkerboard", "channel")


def check_orientation(orientation: int) -> int:
    """Return `orientation`, or raise a `ValueError`."""
    if orientation not in (0, 1):
        raise ValueError(f"`orientation` must be 0 or 1, got {orientation!r}.")
    return int(orientation)


def checkerboard_binary_mask(shape: Sequence[int], orientation: int = 0) -> tf.Tensor:
    """Return a checkerboard mask `[H, W, 1]`, float32 (Dinh et al. 2016, arXiv:1605.08803, section 3.4).

    Args:
      shape: Height and width; further sizes are ignored.
      orientation: 0 for a 0 in the upper left corner, 1 for the complement.

    Raises:
      ValueError: If `shape` has fewer than two sizes, or `orientation` is neither 0 nor 1.

    Example:
      >>> print(tff.checkerboard_binary_mask((2, 4))[..., 0].numpy().astype(int))
      [[0 1 0 1]
       [1 0 1 0]]
    """
    if len(shape) < 2:
        raise ValueError(f"`shape` must hold height and width, got {shape!r}.")
    height, width = (positive_int(f"shape[{i}]", size) for i, size in enumerate(tuple(shape)[:2]))
    board = np.add.outer(np.arange(height), np.arange(width)) + check_orientation(orientation)
    return tf.constant(board % 2, tf.float32)[..., tf.newaxis]


def channel_binary_mask(num_channels: int, orientation: int = 0) -> tf.Tensor:
    """Return a channel mask `[1, 1, C]`, float32, whose first half is 0 (Dinh et al. 2016, arXiv:1605.08803, section 3.4).

    Args:
      num_channels: Number `C` of channels, at least 2.
      orientation: 1 for the complement.

    Raises:
      ValueError: If there are fewer than two channels, or `orientation` is neither 0 nor 1.

    Example:
      >>> print(tff.channel_binary_mask(4, orientation=1).numpy().astype(int))
      [[[1 1 0 0]]]
    """
    channels = positive_int("num_channels", num_channels, 2)
    second = np.arange(channels) >= channels // 2
    return tf.constant(second != bool(check_orientation(orientation)), tf.float32)[tf.newaxis, tf.newaxis]


def image_mask(mask_type: str, event_shape: Sequence[int], orientation: int) -> tf.Tensor:
    """Return the mask of a type for events `[H, W, C]`."""
    one_of("mask_type", mask_type, MASK_TYPES)
    if mask_type == "checkerboard":
        return checkerboard_binary_mask(event_shape, orientation)
    return channel_binary_mask(event_shape[-1], orientation)
