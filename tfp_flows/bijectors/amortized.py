"""Base class of bijectors with few variables, which a network can shift per event (amortized inference)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import positive_int
from tfp_flows.networks import DenseNetwork
from tfp_flows.networks.broadcasting import check_condition
from tfp_flows.networks.dense import policy_for
from tfp_flows.tracking import Mirror


class AmortizedBijector(FlowBijector):
    """Bijector of vectors whose variables, given by name and initial value in `start`, are attributes.

    With `conditional_size`, a network computes an offset for every variable from `conditional_input`, so that each
    event has its own map. The last layer of the network starts at zero. In a subclass, `forward_and_log_det` and
    `inverse_and_log_det` begin with `self._values(x, conditional_input)`.
    """

    def __init__(
        self,
        event_size: int,
        start: Mapping[str, np.ndarray],
        *,
        conditional_size: int | None,
        hidden_units: Sequence[int],
        activation,
        seed: int,
        dtype: tf.DType,
        validate_args: bool,
        name: str,
    ):
        super().__init__(event_size, dtype=dtype, validate_args=validate_args, name=name)
        self._shapes = {key: np.shape(value) for key, value in start.items()}
        for key, value in start.items():
            setattr(self, key, tf.Variable(value, dtype=self.dtype, name=key))
        self.conditional_size = conditional_size
        self._network = None
        if conditional_size is not None:
            positive_int("conditional_size", conditional_size)
            network = DenseNetwork(hidden_units, activation=activation, seed=seed, dtype=policy_for(self.dtype))
            network.build_sizes(conditional_size, sum(int(np.prod(shape)) for shape in self._shapes.values()))
            self._network = Mirror(network)

    def _values(self, x: tf.Tensor, conditional_input=None) -> list[tf.Tensor]:
        """Return the variables in order, `[*shape]`, or `[..., *shape]` with a condition, whose leading axes come first."""
        self.check_events(x)
        check_condition(conditional_input, self.conditional_size)
        values = [tf.convert_to_tensor(getattr(self, key)) for key in self._shapes]
        if self._network is None:
            return values
        offsets = tf.cast(self._network(tf.cast(tf.convert_to_tensor(conditional_input), self.dtype)), self.dtype)
        batch = tf.shape(offsets)[:-1]
        parts = tf.split(offsets, [int(np.prod(shape)) for shape in self._shapes.values()], axis=-1)
        return [
            value + tf.reshape(part, tf.concat([batch, np.array(shape, np.int32)], axis=0))
            for value, part, shape in zip(values, parts, self._shapes.values(), strict=True)
        ]
