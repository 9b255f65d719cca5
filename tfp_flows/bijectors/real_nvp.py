"""Affine coupling (RealNVP, NICE) whose network is tracked."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows import _compat_tfp
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.networks.broadcasting import broadcast_events
from tfp_flows.networks.conditioner import conditioner_of
from tfp_flows.registry import serializable


@serializable
class RealNVP(FlowBijector, tfb.RealNVP):
    """Coupling layer `y[:k] = x[:k]`, `y[k:] = x[k:] exp(log_scale(x[:k])) + shift(x[:k])` (arXiv:1605.08803, eq. 4-5).

    `log |det dy/dx| = sum(log_scale(x[:k]))` (eq. 6). A drop-in replacement for `tfb.RealNVP`, with the same arguments.
    `shift_and_log_scale_fn` may also be a Keras 3 or tf_keras network, or a function that calls one (see `as_template`), and
    `bijector_fn` a function that calls one, such as `real_nvp_template(..., transformer=...)`. Their weights are in
    `trainable_variables` of the bijector, and of any `Chain`, `Invert` or `TransformedDistribution` that holds it.

    Cost per direction and event: one pass of the network. Shapes: `[..., D]` to `[..., D]`; log-det `[...]`, in nats.

    Args:
      num_masked: Number `k` of leading dimensions that stay and condition the others. If negative, the last `|k|` dimensions
        stay instead; read `x[:k]` here as these, and `x[k:]` as the rest.
      fraction_masked: `k` as a fraction of the event size, in (-1, 1), rounded to the nearest integer; instead of `num_masked`.
      shift_and_log_scale_fn: Network or callable `(x[:k], output_units, **condition_kwargs)` that returns
        `(shift, log_scale)`, or one tensor of shifts and then log-scales on its last axis.
      bijector_fn: Callable `(x[:k], output_units, **condition_kwargs)` that returns a bijector for the rest.
      is_constant_jacobian: Whether the log-det is the same for all events, as for additive couplings (NICE, arXiv:1410.8516).
      validate_args, name: Whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If neither or both of the functions, or of `num_masked` and `fraction_masked`, are given.

    Example:
      >>> net = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
      >>> bijector = tff.RealNVP(num_masked=1, shift_and_log_scale_fn=net)
      >>> bijector.forward(tf.ones([5, 2])).shape, len(bijector.trainable_variables)
      (TensorShape([5, 2]), 4)
    """

    def __init__(
        self,
        num_masked: int | None = None,
        fraction_masked: float | None = None,
        shift_and_log_scale_fn: Callable | None = None,
        bijector_fn: Callable | None = None,
        is_constant_jacobian: bool = False,
        validate_args: bool = False,
        name: str | None = None,
    ):
        """Create the bijector; the arguments are described in the class."""
        if num_masked is None and fraction_masked is None:
            raise ValueError("Give `num_masked` or `fraction_masked`, got neither.")
        self._conditioner = conditioner_of(shift_and_log_scale_fn, bijector_fn, largest_rank=1)
        self._num_kept, self._fraction_kept = num_masked, fraction_masked
        # Not passed on: TFP treats a map with a constant Jacobian as affine, and returns wrong moments.
        self.constant_log_det = bool(is_constant_jacobian)
        options = {"bijector_fn": self._conditioner, "validate_args": validate_args, "name": name}
        tfb.RealNVP.__init__(self, num_masked, fraction_masked, **options)

    @property
    def conditional_size(self) -> int | None:
        return getattr(self._conditioner, "conditional_size", None)

    def _transform(self, direction: str, value: tf.Tensor, condition_kwargs) -> tuple[tf.Tensor, tf.Tensor]:
        value = broadcast_events(value, condition_kwargs.get("conditional_input"))
        size = tf.compat.dimension_value(value.shape[-1])
        if size is None:
            raise NotImplementedError("Rightmost dimension must be known prior to graph execution.")
        kept = self._num_kept if self._num_kept is not None else round(size * self._fraction_kept)
        if abs(kept) >= size:
            raise ValueError(f"Number of masked units {kept} must be smaller than the event size {size}.")
        _compat_tfp.set_input_depth(self, size)
        first, last = value[..., :kept], value[..., kept:]
        given, moved = (first, last) if kept >= 0 else (last, first)
        moved, log_det = self._conditioner.transform(direction, moved, given, size - abs(kept), **condition_kwargs)
        return tf.concat([given, moved] if kept >= 0 else [moved, given], axis=-1), log_det
