"""Standardization fitted on training data, as a bijector, so that densities stay in the data's own units."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.description import serializable

tfb = tfp.bijectors


@serializable
class Standardize(tfb.Bijector):
    """The affine map `y = x * scale + shift` from standardized values `x` to data `y`.

    `log |det dy/dx| = sum(log(scale))`. `shift` and `scale`, each `[D]`, are the mean and the standard deviation of the
    training data. They are variables, so that they are saved with a flow's weights, but are not trained. Put it
    on the data's side of a flow, or give it to a recipe as `preprocess=`.

    Cost per direction and event: `O(D)`.

    Args:
      event_size: Integer `D`. The new bijector is the identity until `adapt` is called.
      dtype, validate_args, name: As in the other bijectors.

    Example:
      >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
      >>> print(standardize(x).inverse(x).numpy())
      [[-1. -1.]
       [ 1.  1.]]
    """

    def __init__(
        self,
        event_size: int,
        *,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "standardize",
    ):
        dtype = tf.as_dtype(dtype)
        self.event_size = positive_int("event_size", event_size)
        self.shift = tf.Variable(tf.zeros([event_size], dtype), trainable=False, name="shift")
        self.scale = tf.Variable(tf.ones([event_size], dtype), trainable=False, name="scale")
        # No `parameters`: TFP takes bijectors of equal arguments for equal, and lets them share one cache.
        super().__init__(
            forward_min_event_ndims=1,
            is_constant_jacobian=True,
            dtype=dtype,
            validate_args=validate_args,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def adapt(self, data) -> None:
        """Sets `shift` and `scale` to the mean and standard deviation of `data`, of shape `[N, D]`.

        Raises:
          ValueError: If `data` has another shape, fewer than two rows, a value that is not finite, or a constant column.
        """
        data = np.asarray(data, dtype=np.float64)
        if data.ndim != 2 or data.shape[1] != self.event_size:
            raise ValueError(f"`data` must have shape [N, {self.event_size}], got {list(data.shape)}.")
        if len(data) < 2:
            raise ValueError(f"`data` must have at least 2 rows to standardize by, got {len(data)}.")
        if not np.all(np.isfinite(data)):
            row, column = np.argwhere(~np.isfinite(data))[0]
            raise ValueError(f"`data` must be finite, got {data[row, column]} in row {row}, column {column}.")
        scale = data.std(axis=0)
        # Rounding gives a constant column a tiny deviation, and float32 may underflow a true one.
        varies = (data.max(axis=0) > data.min(axis=0)) & (scale.astype(self.scale.dtype.as_numpy_dtype) > 0)
        if not np.all(varies):
            column = int(np.argmin(varies))
            raise ValueError(f"`data` is constant in column {column}, which has no density there.")
        self.shift.assign(data.mean(axis=0))
        self.scale.assign(scale)

    def _forward(self, x):
        return x * self.scale + self.shift

    def _inverse(self, y):
        return (y - self.shift) / self.scale

    def _forward_log_det_jacobian(self, x):
        del x
        return tf.reduce_sum(tf.math.log(self.scale))


def standardize(data, *, dtype: tf.DType = tf.float32, name: str = "standardize") -> Standardize:
    """Returns the `Standardize` bijector of `data`, an array of shape `[N, D]`: fit it on training data only."""
    shape = np.shape(data)
    if len(shape) != 2:
        raise ValueError(f"`data` must have shape [N, D], got {list(shape)}.")
    bijector = Standardize(shape[1], dtype=dtype, name=name)
    bijector.adapt(data)
    return bijector
