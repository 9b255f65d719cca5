"""What the maps of variational inference share: few variables, to which a network may add what it reads in a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.numerics import real_dtype
from tfp_flows.templates import DenseNetwork
from tfp_flows.templates.batches import check_condition
from tfp_flows.templates.dense_network import policy_for
from tfp_flows.tracking import Mirror

tfb = tfp.bijectors


class AmortizedBijector(tfb.Bijector):
    """A map of vectors with named variables, each an attribute.

    With `conditional_size`, a network adds to every variable what it computes from the `conditional_input` of a call, so
    that each event has a map of its own (amortized inference). Its last layer starts at zero.

    How to make one: hand the start values to `__init__`, and define `forward_and_log_det` and `inverse_and_log_det`, which
    begin with `self._values(x, conditional_input)`.

    Args:
      event_size: Size `D` of the last axis.
      start: Start values by the names of the variables.
      conditional_size: Size of the condition, or `None`.
      hidden_units, activation: Of the network.
      seed: Integer seed of the network's weights.
      dtype, validate_args, name: As in the other bijectors.
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
        dtype = real_dtype(dtype)
        self._event_size = event_size
        self._shapes = {key: np.shape(value) for key, value in start.items()}
        for key, value in start.items():
            setattr(self, key, tf.Variable(value, dtype=dtype, name=key))
        self.conditional_size = conditional_size
        self._network = None
        if conditional_size is not None:
            positive_int("conditional_size", conditional_size)
            network = DenseNetwork(hidden_units, activation=activation, seed=seed, dtype=policy_for(dtype))
            network.build_sizes(conditional_size, sum(int(np.prod(shape)) for shape in self._shapes.values()))
            self._network = Mirror(network)
        # No `parameters`: TFP takes bijectors of equal arguments for equal, and lets them share one cache.
        super().__init__(forward_min_event_ndims=1, dtype=dtype, validate_args=validate_args, name=name)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _values(self, x: tf.Tensor, conditional_input=None) -> list[tf.Tensor]:
        """The variables in order, `[*shape]`; with a condition `[..., *shape]`, its leading axes in front."""
        if x.shape.rank is not None and x.shape.rank >= 1 and x.shape[-1] not in (None, self._event_size):
            kind = type(self).__name__
            raise ValueError(f"{kind} expects events of size {self._event_size}, got a tensor of shape {x.shape}.")
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

    def forward_and_log_det(self, x: tf.Tensor, conditional_input=None) -> tuple[tf.Tensor, tf.Tensor]:
        """`forward(x)` and its log-det, past TFP's cache."""
        raise NotImplementedError

    def inverse_and_log_det(self, y: tf.Tensor, conditional_input=None) -> tuple[tf.Tensor, tf.Tensor]:
        """`inverse(y)` and its log-det, past TFP's cache."""
        raise NotImplementedError

    def _forward(self, x, **condition_kwargs):
        return self.forward_and_log_det(x, **condition_kwargs)[0]

    def _inverse(self, y, **condition_kwargs):
        return self.inverse_and_log_det(y, **condition_kwargs)[0]

    def _forward_log_det_jacobian(self, x, **condition_kwargs):
        return self.forward_and_log_det(x, **condition_kwargs)[1]
