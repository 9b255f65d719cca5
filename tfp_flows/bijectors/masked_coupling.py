"""Masked coupling layer for events of any rank, with any univariate transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.masks import MASK_TYPES, check_orientation, image_mask
from tfp_flows.checks import one_of
from tfp_flows.networks.broadcasting import check_condition, flat_rows
from tfp_flows.registry import serializable
from tfp_flows.tracking import Mirror
from tfp_flows.transformers import AffineTransformer, ShiftTransformer, Transformer


@serializable
class AffineCouplingLayer(FlowBijector):
    """Masked coupling `y = b x + (1 - b) (x exp(log_scale(b x)) + shift(b x))` (Dinh et al. 2016, arXiv:1605.08803, eq. 9).

    `log |det dy/dx| = sum((1 - b) log_scale(b x))`. Values where the mask `b` is 1 stay, and the network reads them;
    elsewhere it reads zeros. Give the mask as

    - `AffineCouplingLayer(fn, mask)`: an array of the rank of the events that broadcasts to them;
    - `AffineCouplingLayer(fn, mask_type, orientation)`: `"checkerboard"` or `"channel"`, for images `[H, W, C]`.

    Cost per direction and event: one pass of the network. Shapes: `[..., *event_shape]` to the same; log-det `[...]`, in nats.

    Args:
      shift_and_log_scale_fn: Keras network or callable of masked events `[N, *event_shape]` (and `conditional_input`).
        Returns `(shift, log_scale)`, each of the shape of the events (if `sliced`, of the half that moves), or one
        tensor whose last axis is `params` times as long: all shifts, then all log-scales. For another transformer, it
        holds the parameters of the first channel, then of the next.
      mask: Array or tensor of zeros and ones, or the type of the mask.
      orientation: 0, or 1 for the complement, if the mask is given by its type.
      mask_type: The type of the mask, by keyword.
      shift_only: Whether the network returns only the shift (NICE).
      transformer: A `Transformer`, such as `SplineTransformer()`, instead of the affine map.
      log_scale_bound: Bound of the log-scale of the affine map (see `bound_log_scale`), or `None` for no bound.
      sliced: For channel masks: whether the network reads only the channels that stay, `[N, H, W, C / 2]`, and returns
        the parameters of the others, which halves its work.
      event_ndims: Rank of the events, if it is not that of the mask.
      validate_args, name: Whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If an argument does not fit, or at a call, if the network's output does not fit.

    Example:
      >>> network = tff.get_conv_resnet((4, 4, 1), filters=8)
      >>> layer = tff.AffineCouplingLayer(network, "checkerboard", 0)
      >>> layer.forward(tf.ones([5, 4, 4, 1])).shape
      TensorShape([5, 4, 4, 1])
    """

    def __init__(
        self,
        shift_and_log_scale_fn: Callable,
        mask: Any = None,
        orientation: int = 0,
        *,
        mask_type: str | None = None,
        shift_only: bool = False,
        transformer: Transformer | None = None,
        log_scale_bound: float | None = None,
        sliced: bool = False,
        event_ndims: int | None = None,
        validate_args: bool = False,
        name: str = "affine_coupling",
        **kwargs,
    ):
        if not callable(shift_and_log_scale_fn):
            raise ValueError(f"`shift_and_log_scale_fn` must be callable, got {shift_and_log_scale_fn!r}.")
        if isinstance(mask, str):
            mask, mask_type = None, mask
        if (mask is None) == (mask_type is None):
            raise ValueError("Give either `mask` or `mask_type`.")
        if mask_type is None:
            values = np.asarray(mask)
            if values.ndim == 0 or not np.all((values == 0) | (values == 1)):
                raise ValueError(f"`mask` must be an array of zeros and ones, got {values!r}.")
            if np.all(values == values.flat[0]):
                raise ValueError("`mask` must contain both zeros and ones.")
            self.b = tf.constant(values, tf.float32)
        else:
            one_of("mask_type", mask_type, MASK_TYPES)
            check_orientation(orientation)
            if event_ndims not in (None, 3):
                raise ValueError(f"`event_ndims` must be 3 for a mask of images, got {event_ndims!r}.")
        if transformer is not None and (shift_only or not isinstance(transformer, Transformer)):
            raise ValueError(f"`transformer` must be a Transformer, without `shift_only`, got {transformer!r}.")
        if sliced and mask_type != "channel":
            raise ValueError("`sliced` is for `mask_type='channel'`: no other mask splits the channels.")
        self.mask_type, self.orientation, self.sliced = mask_type, orientation, bool(sliced)
        self._affine = transformer is None
        if transformer is None:
            transformer = ShiftTransformer() if shift_only else AffineTransformer(log_scale_bound)
        self._transformer = transformer
        self._conditioner = Mirror(shift_and_log_scale_fn)
        rank = event_ndims if event_ndims is not None else 3 if mask_type else int(values.ndim)
        kwargs.setdefault("dtype", None)
        super().__init__(event_ndims=rank, validate_args=validate_args, name=name, **kwargs)

    @property
    def conditional_size(self) -> int | None:
        return getattr(self._conditioner.fn, "conditional_size", None)

    def _get_mask(self, shape) -> tf.Tensor:
        if self.mask_type is not None:
            return image_mask(self.mask_type, list(shape), self.orientation)
        if len(shape) != self.b.shape.rank or any(m not in (1, n) for m, n in zip(self.b.shape, shape, strict=True)):
            raise ValueError(f"`mask` of shape {self.b.shape} does not broadcast to events of shape {list(shape)}.")
        return self.b

    def _params(self, x: tf.Tensor, moves: tf.Tensor, condition_kwargs: dict) -> tf.Tensor:
        if "conditional_input" in condition_kwargs or self.conditional_size is not None:
            check_condition(condition_kwargs.get("conditional_input"), self.conditional_size)
        result = tf.nest.map_structure(lambda part: tf.cast(part, x.dtype), self._conditioner(x, **condition_kwargs))
        count = self._transformer.params
        if isinstance(result, (tuple, list)):
            if not self._affine or count != 2 or len(result) != 2:
                expected = "(shift, log_scale)" if self._affine and count == 2 else "one tensor"
                raise ValueError(f"The network must return {expected}, got {len(result)} outputs.")
            parts = list(result)
            for i, part in enumerate(parts):
                try:
                    fits = tf.broadcast_static_shape(part.shape, moves.shape).is_compatible_with(moves.shape)
                except ValueError:
                    fits = False
                if not fits:
                    raise ValueError(
                        f"The network returned shape {part.shape} for values of shape {moves.shape}: shift and log-scale must "
                        "have that shape."
                    )
                parts[i] = tf.broadcast_to(part, tf.shape(moves))
        else:
            if result.shape[-1] != count * moves.shape[-1]:
                raise ValueError(
                    f"The network returned shape {result.shape} for events of shape {x.shape[1:]}: its last axis must hold "
                    f"{count} parameters for each of {moves.shape[-1]} channels."
                )
            if not self._affine:
                return tf.reshape(result, tf.concat([tf.shape(moves), [count]], axis=0))
            parts = tf.split(result, count, axis=-1)
        return tf.stack(parts, axis=-1)

    def _transform(self, direction: str, value: tf.Tensor, condition_kwargs) -> tuple[tf.Tensor, tf.Tensor]:
        rank = self.forward_min_event_ndims
        event = value.shape[-rank:]
        batch = tf.shape(value)[: tf.rank(value) - rank]
        condition = condition_kwargs.get("conditional_input")
        if condition is not None:
            condition = tf.cast(tf.convert_to_tensor(condition), value.dtype)
            batch = tf.broadcast_dynamic_shape(batch, tf.shape(condition)[:-1])
            value = tf.broadcast_to(value, tf.concat([batch, event], axis=0))
            condition_kwargs = {**condition_kwargs, "conditional_input": flat_rows(condition, batch)}
        flat = tf.reshape(value, [-1, *event])
        move = self._move_slice if self.sliced else self._move_masked
        result, log_slope = move(direction, flat, condition_kwargs)
        total = tf.reduce_sum(log_slope, axis=list(range(1, rank + 1)))
        return tf.reshape(result, tf.shape(value)), tf.reshape(total, batch)

    def _move_masked(self, direction: str, x: tf.Tensor, condition_kwargs: dict) -> tuple[tf.Tensor, tf.Tensor]:
        mask = tf.broadcast_to(tf.cast(self._get_mask(x.shape[1:]), tf.bool), x.shape[1:])
        zeros = tf.zeros_like(x)
        params = self._params(tf.where(mask, x, zeros), x, condition_kwargs)
        moved, log_slope = getattr(self._transformer, direction)(x, params)
        return tf.where(mask, x, moved), tf.where(mask, zeros, log_slope)

    def _move_slice(self, direction: str, x: tf.Tensor, condition_kwargs: dict) -> tuple[tf.Tensor, tf.Tensor]:
        """Do as `_move_masked` does with `channel_binary_mask`. The second half stays for orientation 0."""
        if x.shape[-1] < 2:
            raise ValueError(f"`sliced` needs two channels or more, got events of shape {x.shape[1:]}.")
        sizes = [x.shape[-1] // 2, x.shape[-1] - x.shape[-1] // 2]
        halves = tf.split(x, sizes, axis=-1)
        moves, stays = halves[self.orientation], halves[1 - self.orientation]
        params = self._params(stays, moves, condition_kwargs)
        halves[self.orientation], log_slope = getattr(self._transformer, direction)(moves, params)
        return tf.concat(halves, axis=-1), log_slope
