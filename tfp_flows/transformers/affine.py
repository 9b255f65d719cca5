"""Affine maps and translations."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfp_flows.numerics import DEFAULT_LOG_SCALE_BOUND, bound_log_scale
from tfp_flows.registry import serializable
from tfp_flows.transformers.base import Transformer


@serializable
@dataclasses.dataclass(frozen=True)
class AffineTransformer(Transformer):
    """Affine map `y = x exp(log_scale) + shift` of RealNVP, MAF and IAF (Dinh et al. 2016, arXiv:1605.08803).

    The parameters are `(shift, log_scale)`. Zero parameters give the identity.

    Args:
      log_scale_bound: Positive bound of the log-scale (see `bound_log_scale`); `None` for no bound.

    Example:
      >>> bijector = tff.AffineTransformer()(tf.constant([[1.0, 0.0], [2.0, 0.0]]))
      >>> print(bijector.forward(tf.constant([0.5, 0.5])).numpy())
      [1.5 2.5]
    """

    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND

    def __post_init__(self):
        if self.log_scale_bound is not None and not self.log_scale_bound > 0:
            raise ValueError(f"`log_scale_bound` must be positive or None, got {self.log_scale_bound!r}.")

    @property
    def params(self) -> int:
        return 2

    def bounded(self, log_scale: tf.Tensor) -> tf.Tensor:
        return bound_log_scale(log_scale, self.log_scale_bound)

    def template_output(self, params):
        shift, log_scale = tf.unstack(params, num=2, axis=-1)
        return shift, self.bounded(log_scale)

    def forward(self, x, params):
        shift, log_scale = self.template_output(params)
        return x * tf.exp(log_scale) + shift, log_scale

    def inverse(self, y, params):
        shift, log_scale = self.template_output(params)
        log_slope = -log_scale
        return (y - shift) * tf.exp(log_slope), log_slope


@serializable
@dataclasses.dataclass(frozen=True)
class ShiftTransformer(Transformer):
    """Translation `y = x + shift` of NICE, with one parameter (Dinh et al. 2014, arXiv:1410.8516). It preserves volume.

    Example:
      >>> print(tff.ShiftTransformer()(tf.constant([[1.0]])).forward(tf.constant([0.5])).numpy())
      [1.5]
    """

    is_circular = True

    @property
    def params(self) -> int:
        return 1

    def template_output(self, params):
        return params[..., 0], None

    def forward(self, x, params):
        return x + params[..., 0], tf.zeros_like(x)

    def inverse(self, y, params):
        return y - params[..., 0], tf.zeros_like(y)
