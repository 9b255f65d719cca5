"""Base class of bijectors with few variables, which a network can shift per event (amortized inference)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import positive_int
from tfp_flows.networks import DenseNetwork
from tfp_flows.networks.broadcasting import check_condition, unflatten
from tfp_flows.networks.dense import policy_for
from tfp_flows.tracking import Mirror


class AmortizedBijector(FlowBijector):
    """Bijector of vectors whose variables, given by name and initial value in `start`, are attributes.

    With `conditional_size`, a network computes an offset for every variable from `conditional_input`, so that each
    event has its own map. The last layer of the network starts at zero. The constructor of a subclass ends with
    `self._amortize(...)`, and its `forward_and_log_det` and `inverse_and_log_det` begin with `self._values(...)`.
    """

    def __init__(self, event_size: int, start: Mapping[str, np.ndarray], **kwargs):
        super().__init__(event_size, **kwargs)
        self._shapes = {key: np.shape(value) for key, value in start.items()}
        self._sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        for key, value in start.items():
            setattr(self, key, tf.Variable(value, dtype=self.dtype, name=key))

    def _amortize(self, conditional_size: int | None, hidden_units: Sequence[int], activation, seed: int) -> None:
        self.conditional_size = conditional_size
        self._network = None
        if conditional_size is not None:
            positive_int("conditional_size", conditional_size)
            network = DenseNetwork(hidden_units, activation=activation, seed=seed, dtype=policy_for(self.dtype))
            network.build_sizes(conditional_size, sum(self._sizes))
            self._network = Mirror(network)

    def _values(self, x: tf.Tensor, conditional_input=None) -> list[tf.Tensor]:
        """Return the variables in order, `[*shape]`, or `[..., *shape]` with a condition, whose leading axes come first."""
        self.check_events(x)
        check_condition(conditional_input, self.conditional_size)
        values = [tf.convert_to_tensor(getattr(self, key)) for key in self._shapes]
        if self._network is None:
            return values
        offsets = tf.cast(self._network(tf.cast(tf.convert_to_tensor(conditional_input), self.dtype)), self.dtype)
        parts = zip(values, tf.split(offsets, self._sizes, axis=-1), self._shapes.values(), strict=True)
        return [value + unflatten(part, tf.shape(offsets)[:-1], shape) for value, part, shape in parts]
