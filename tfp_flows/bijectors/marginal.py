"""Elementwise maps that are initialized from the marginal distributions of data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.adapting import rows_of
from tfp_flows.bijectors.amortized import AmortizedBijector
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed
from tfp_flows.transformers import QuantileSplineTransformer, Transformer


@serializable
class MarginalGaussianization(AmortizedBijector):
    """Map of each marginal of data to a normal one (Chen and Gopinath 2000; Laparra et al. 2011, arXiv:1602.00229).

    `adapt(batch)` fits the transformers' parameters, the trainable variable `params` `[D, P]`, to a batch on the data
    side. The log-det sums the log-derivatives. `FlowModel.fit` calls it with its first batch, and `FlowModel.adapt`
    with all data.

    Cost per direction and event: `D` transformers. Shapes: `[..., D]` to `[..., D]`; log-det `[...]`, in nats.

    Args:
      event_size: Integer `D`.
      transformer: A `Transformer` with a method `adapt`: `QuantileSplineTransformer()` (default) or another.
      conditional_size: Size `C` of the `conditional_input` `[..., C]`, from which a network computes offsets of `params`.
      hidden_units, activation: Hidden layers of the network that reads the condition, and their activation.
      seed: Integer seed of the network's weights; `keras.utils.set_random_seed` decides if `None`.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If `event_size` is not a positive integer, or the transformer cannot be fitted.

    Example:
      >>> layer = tff.MarginalGaussianization(2)
      >>> y = np.random.default_rng(1).uniform(-1.0, 1.0, size=[1000, 2]).astype("float32")
      >>> layer.adapt(y)
      >>> print(np.round(np.std(layer.inverse(y), axis=0), 1))
      [1. 1.]
    """

    # A flow has dozens of these layers, of many operations each: XLA takes longer to compile them than it saves.
    gains_by_jit = False

    def __init__(
        self,
        event_size: int,
        transformer: Transformer | None = None,
        *,
        conditional_size: int | None = None,
        hidden_units: Sequence[int] = (64, 64),
        activation="relu",
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "marginal_gaussianization",
    ):
        self.transformer = QuantileSplineTransformer() if transformer is None else transformer
        if not isinstance(self.transformer, Transformer) or not self.transformer.can_adapt:
            raise ValueError(f"`transformer` must be a Transformer with a method `adapt`, got {transformer!r}.")
        variables = {"params": np.zeros([positive_int("event_size", event_size), self.transformer.params])}
        super().__init__(event_size, variables, dtype=dtype, validate_args=validate_args, name=name)
        self._amortize(conditional_size, hidden_units, activation, resolve_seed(seed))

    def adapt(self, data) -> None:
        self.params.assign(self.transformer.adapt(rows_of(f"`data` of {self.name}", data, self.event_size)))
        self.set_adapted()

    def forward_and_log_det(self, x, conditional_input=None):
        y, log_slope = self.transformer.forward(x, *self._values(x, conditional_input))
        return y, tf.reduce_sum(log_slope, axis=-1)

    def inverse_and_log_det(self, y, conditional_input=None):
        x, log_slope = self.transformer.inverse(y, *self._values(y, conditional_input))
        return x, tf.reduce_sum(log_slope, axis=-1)
