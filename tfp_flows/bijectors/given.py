"""The bijector of a conditional flow for one fixed condition."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.composition import has_constant_log_det, is_affine, walk


class GivenBijector(FlowBijector):
    """Bijector of a conditional flow whose condition is fixed, `[C]`. `GivenFlow` makes one."""

    def __init__(self, flow, conditional_input: np.ndarray, name: str = "given"):
        self._flow, self._conditional_input = flow, conditional_input
        self.is_affine = is_affine(flow.bijector)
        ranks = {"event_ndims": flow.distribution.event_shape.rank, "inverse_event_ndims": flow.event_shape.rank}
        super().__init__(constant_log_det=has_constant_log_det(flow.bijector), dtype=flow.dtype, name=name, **ranks)

    def _transform(self, direction: str, value: tf.Tensor, condition_kwargs: dict) -> tuple[tf.Tensor, tf.Tensor]:
        kwargs = self._flow.bijector_kwargs(self._conditional_input)
        ndims = self.forward_min_event_ndims if direction == "forward" else self.inverse_min_event_ndims
        return walk(self._flow.bijector, value, ndims, direction == "inverse", kwargs)[:2]
