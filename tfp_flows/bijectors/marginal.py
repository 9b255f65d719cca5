"""Elementwise maps with parameters of their own, which start from the marginal distributions of data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.amortized import AmortizedBijector
from tfp_flows.bijectors.batch import StartsFromData, rows_of
from tfp_flows.checks import positive_int
from tfp_flows.description import serializable
from tfp_flows.numerics import real_dtype
from tfp_flows.seeds import resolve_seed
from tfp_flows.transformers import QuantileSplineTransformer, Transformer


@serializable
class MarginalGaussianization(StartsFromData, AmortizedBijector):
    """A univariate transformer for each dimension, which maps the marginals of data to normal ones.

    `log |det dy/dx|` is the sum of the logarithms of the derivatives. `initialize(batch)` fits the transformers to a batch on
    the data's side; before, the map is what the transformer is at zero parameters. `FlowModel.fit` calls it with its first
    batch, and `FlowModel.initialize_layers` with all of the data.

    With `conditional_size`, a network adds to the parameters what it computes from the `conditional_input` of a call; it starts
    at zero.

    Cost per direction and event: that of `D` transformers, without a network.

    Args:
      event_size: Integer `D`.
      transformer: A `Transformer` with a method `fit`: `QuantileSplineTransformer()`, the default, or a
        `GaussianMixtureTransformer`.
      conditional_size, hidden_units, activation, seed, dtype, validate_args, name: As in `PlanarFlow`.

    Attributes:
      params: Trainable variable `[D, P]`: the transformers' parameters.
      initialized: Whether `initialize` was called. It is saved with the weights.

    Raises:
      ValueError: If `event_size` is not a positive integer, or the transformer cannot be fitted.

    Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[...]` and is in nats.

    Example:
      >>> layer = MarginalGaussianization(2)
      >>> y = np.random.default_rng(1).uniform(-1.0, 1.0, size=[1000, 2]).astype("float32")
      >>> layer.initialize(y)
      >>> print(np.round(np.std(layer.inverse(y), axis=0), 1))
      [1. 1.]

    References:
      S. S. Chen and R. A. Gopinath, Gaussianization, 2000.
      V. Laparra, G. Camps-Valls and J. Malo, Iterative Gaussianization: from ICA to Random Rotations, 2011, arXiv:1602.00229.
    """

    # Dozens of layers of many operations each: XLA compiles for longer than it saves.
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
        size, dtype = positive_int("event_size", event_size), real_dtype(dtype)
        self.transformer = QuantileSplineTransformer() if transformer is None else transformer
        if not isinstance(self.transformer, Transformer) or not hasattr(self.transformer, "fit"):
            raise ValueError(f"`transformer` must be a Transformer with a method `fit`, got {transformer!r}.")
        self._make_initialized(dtype)
        super().__init__(
            size,
            {"params": np.zeros([size, self.transformer.params])},
            conditional_size=conditional_size,
            hidden_units=hidden_units,
            activation=activation,
            seed=resolve_seed(seed),
            dtype=dtype,
            validate_args=validate_args,
            name=name,
        )

    def initialize(self, batch) -> None:
        """Fits the transformers to `batch`, of shape `[..., D]` on the data's side, or to an iterator of such batches.

        Raises:
          ValueError: If a batch has another shape or a value that is not finite, or if there are fewer than two rows.
        """
        self.params.assign(self.transformer.fit(rows_of(f"`batch` of {self.name}", batch, self._event_size)))
        self._initialized.assign(1.0)

    def forward_and_log_det(self, x: tf.Tensor, conditional_input=None) -> tuple[tf.Tensor, tf.Tensor]:
        """`forward(x)` and its log-det, past TFP's cache."""
        y, log_slope = self.transformer.forward(x, *self._values(x, conditional_input))
        return y, tf.reduce_sum(log_slope, axis=-1)

    def inverse_and_log_det(self, y: tf.Tensor, conditional_input=None) -> tuple[tf.Tensor, tf.Tensor]:
        """`inverse(y)` and its log-det, past TFP's cache."""
        x, log_slope = self.transformer.inverse(y, *self._values(y, conditional_input))
        return x, tf.reduce_sum(log_slope, axis=-1)
