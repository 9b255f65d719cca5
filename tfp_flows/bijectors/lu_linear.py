"""A trainable linear map in LU form, to mix the dimensions between layers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.description import serializable
from tfp_flows.numerics import bound_log_scale, real_dtype
from tfp_flows.seeds import resolve_seed, structure_seed

tfb = tfp.bijectors


@serializable
class LULinear(tfb.Bijector):
    """Linear map whose inverse is `x = L U P y`, with `P` a fixed permutation (Kingma and Dhariwal 2018, section 3.2).

    `L` is lower triangular with a diagonal of ones, `U` upper triangular with a positive diagonal, whose logarithm is
    bounded by `bound_log_scale`: so the map can never become singular. `log |det dx/dy| = sum(log diag U)`. It starts as the
    random permutation `P`. The direction that training needs, data to latent, is the one of plain products.

    Cost per direction and event: `O(D^2)`, and no determinant.

    The trainable variables are `lower` and `upper` `[D, D]`, of which the strict triangles count, and `log_diagonal` `[D]`.

    Args:
      event_size: Integer `D`.
      seed: Integer seed of the permutation; without one it is the same in every process.
      dtype, validate_args, name: As in the other bijectors.

    Raises:
      ValueError: If `event_size` is not a positive integer.

    Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[]` and is in nats.

    Example:
      >>> bijector = LULinear(4, seed=1)
      >>> x = bijector.forward(tf.ones([5, 4]))
      >>> x.shape, abs(float(bijector.forward_log_det_jacobian(x)))
      (TensorShape([5, 4]), 0.0)

    References:
      D. P. Kingma and P. Dhariwal, Glow, 2018, arXiv:1807.03039.
    """

    is_affine = True

    def __init__(
        self,
        event_size: int,
        *,
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "lu_linear",
    ):
        size, dtype = positive_int("event_size", event_size), real_dtype(dtype)
        self._permutation = np.random.default_rng(structure_seed(resolve_seed(seed))).permutation(size)
        self.lower = tf.Variable(tf.zeros([size, size], dtype), name="lower")
        self.upper = tf.Variable(tf.zeros([size, size], dtype), name="upper")
        self.log_diagonal = tf.Variable(tf.zeros([size], dtype), name="log_diagonal")
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

    def _triangles(self):
        ones = tf.ones_like(self.log_diagonal)
        lower = tf.linalg.set_diag(tf.linalg.band_part(self.lower, -1, 0), ones)
        diagonal = tf.exp(bound_log_scale(self.log_diagonal))
        return lower, tf.linalg.set_diag(tf.linalg.band_part(self.upper, 0, -1), diagonal)

    def _inverse(self, y):
        lower, upper = self._triangles()
        matrix = tf.gather(tf.linalg.matmul(lower, upper), np.argsort(self._permutation), axis=1)
        # One product of all rows: `matvec` would be as many products as there are rows, or pixels.
        return tf.reshape(tf.linalg.matmul(tf.reshape(y, [-1, y.shape[-1]]), matrix, transpose_b=True), tf.shape(y))

    def _forward(self, x):
        lower, upper = self._triangles()
        columns = tf.transpose(tf.reshape(x, [-1, x.shape[-1]]))
        columns = tf.linalg.triangular_solve(lower, columns, lower=True)
        columns = tf.linalg.triangular_solve(upper, columns, lower=False)
        y = tf.gather(tf.transpose(columns), np.argsort(self._permutation), axis=-1)
        return tf.reshape(y, tf.shape(x))

    def _inverse_log_det_jacobian(self, y):
        del y
        return tf.reduce_sum(bound_log_scale(self.log_diagonal))
