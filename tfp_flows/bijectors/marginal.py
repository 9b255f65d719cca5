"""Elementwise maps that start from the marginal distributions of data."""

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
    """Map of each dimension by a univariate transformer that makes the marginals of the data normal.

    `log |det dy/dx|` is the sum of the logarithms of the derivatives. `adapt(batch)` fits the transformers to a batch on
    the data's side. Until then the transformers have zero parameters. `FlowModel.fit` calls `adapt` with its first batch, and
    `FlowModel.adapt` with all of the data.

    With `conditional_size`, a network computes offsets of the parameters from the `conditional_input` of a call. They start at
    zero.

    Cost per direction and event: that of `D` transformers, without a network.

    Args:
      event_size: Integer `D`.
      transformer: A `Transformer` with a method `adapt`: `QuantileSplineTransformer()`, the default, or a
        `GaussianMixtureTransformer`.
      conditional_size: Size `C` of the `conditional_input` `[..., C]` that every call then needs, or `None`.
      hidden_units: Sizes of the hidden layers of the network that reads the condition.
      activation: Activation of the hidden layers.
      seed: Integer seed of the initial values. If `None`, `keras.utils.set_random_seed` determines them.
      dtype: `tf.float32` or `tf.float64`.
      validate_args: Whether to check arguments at run time, at some cost.
      name: Name of the bijector.

    Attributes:
      params: Trainable variable `[D, P]`: the transformers' parameters.
      adapted: Whether `adapt` was called. It is saved with the weights.

    Raises:
      ValueError: If `event_size` is not a positive integer, or the transformer cannot be fitted.

    Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[...]` and is in nats.

    Example:
      >>> layer = MarginalGaussianization(2)
      >>> y = np.random.default_rng(1).uniform(-1.0, 1.0, size=[1000, 2]).astype("float32")
      >>> layer.adapt(y)
      >>> print(np.round(np.std(layer.inverse(y), axis=0), 1))
      [1. 1.]

    References:
      S. S. Chen and R. A. Gopinath, Gaussianization, 2000.
      V. Laparra, G. Camps-Valls and J. Malo, Iterative Gaussianization: from ICA to Random Rotations, 2011, arXiv:1602.00229.
    """

    # Flows have dozens of these layers, each of many operations: XLA compilation takes more time than it saves.
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
        super().__init__(
            event_size,
            {"params": np.zeros([positive_int("event_size", event_size), self.transformer.params])},
            conditional_size=conditional_size,
            hidden_units=hidden_units,
            activation=activation,
            seed=resolve_seed(seed),
            dtype=dtype,
            validate_args=validate_args,
            name=name,
        )

    def adapt(self, data) -> None:
        """Fit the transformers to a batch `[..., D]` on the data's side, or to an iterator of such batches.

        Raises:
          ValueError: If a batch has the wrong shape or a non-finite value, or if there are fewer than two rows.
        """
        self.params.assign(self.transformer.adapt(rows_of(f"`data` of {self.name}", data, self.event_size)))
        self._set_adapted()

    def forward_and_log_det(self, x, conditional_input=None):
        y, log_slope = self.transformer.forward(x, *self._values(x, conditional_input))
        return y, tf.reduce_sum(log_slope, axis=-1)

    def inverse_and_log_det(self, y, conditional_input=None):
        x, log_slope = self.transformer.inverse(y, *self._values(y, conditional_input))
        return x, tf.reduce_sum(log_slope, axis=-1)
