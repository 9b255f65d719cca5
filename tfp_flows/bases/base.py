"""Base class of the distributions of latent vectors that `FlowModel.fit` adapts to data."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.data.arrays import to_array
from tfp_flows.numerics import real_dtype

tfb, tfd = tfp.bijectors, tfp.distributions


class AdaptiveDistribution(tfd.Distribution):
    """Distribution of vectors with trainable variables that start from data.

    A subclass defines `_log_prob`, `_sample_n` and `_fit(rows)`, which sets the variables from finite float64 rows. The
    first `FlowModel.fit` calls `adapt` with the latent values of its rows.

    Args:
      event_size: Integer `D`.
      variables: Initial values by name; each becomes a trainable variable, kept as an attribute.
      parameters: Arguments of the subclass's constructor, for `copy`.
      reparameterized: Whether gradients pass through samples.
      dtype, validate_args, name: As in TFP.
    """

    def __init__(
        self,
        event_size: int,
        variables: dict[str, np.ndarray],
        *,
        parameters: dict[str, Any],
        reparameterized: bool = True,
        dtype: tf.DType,
        validate_args: bool,
        name: str,
    ):
        self.event_size, dtype = positive_int("event_size", event_size), real_dtype(dtype)
        self._names = tuple(variables)
        with tf.name_scope(name) as scope:
            for key, value in variables.items():
                setattr(self, key, tf.Variable(value, dtype=dtype, name=key))
            # Keras cannot save a boolean variable.
            self._adapted = tf.Variable(tf.zeros([], dtype), trainable=False, name="adapted")
            kind = tfd.FULLY_REPARAMETERIZED if reparameterized else tfd.NOT_REPARAMETERIZED
            super().__init__(
                dtype=dtype,
                reparameterization_type=kind,
                validate_args=validate_args,
                allow_nan_stats=True,
                parameters=parameters,
                name=scope,
            )

    @property
    def adapted(self) -> bool:
        """Whether the variables were set by `adapt` or by a restored checkpoint."""
        return bool(self._adapted.numpy() != 0)

    def adapt(self, rows) -> None:
        """Set the variables from latent rows `[N, D]`.

        Raises:
          ValueError: If `rows` has another shape, fewer than two rows, or a value that is not finite.
        """
        rows = to_array("rows", rows).astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.event_size or len(rows) < 2 or not np.all(np.isfinite(rows)):
            raise ValueError(
                f"`rows` must be finite, of shape [N, {self.event_size}] with at least 2 rows, got shape {list(rows.shape)}."
            )
        self._fit(rows)
        self._adapted.assign(1.0)

    def _fit(self, rows: np.ndarray) -> None:
        raise NotImplementedError

    def copy(self, **override):
        """Return a copy with other arguments and the values of the variables."""
        other = super().copy(**override)
        for name in (*self._names, "_adapted"):
            if getattr(other, name).shape == getattr(self, name).shape:
                getattr(other, name).assign(tf.cast(getattr(self, name), other.dtype))
        return other

    def _event_shape(self):
        return tf.TensorShape([self.event_size])

    def _event_shape_tensor(self):
        return tf.constant([self.event_size])

    def _default_event_space_bijector(self):
        return tfb.Identity(validate_args=self.validate_args)
