"""Trainable linear map in LU form."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.numerics import bound_log_scale
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, structure_seed


@serializable
class LULinear(FlowBijector):
    """Linear map whose inverse is `x = L U P y`, with `P` a fixed permutation (Glow, arXiv:1807.03039, section 3.2).

    `L` is lower triangular with a unit diagonal. `U` is upper triangular with a positive diagonal, whose logarithm is
    bounded by `bound_log_scale`, so the map cannot become singular. `log |det dx/dy| = sum(log diag U)`. It starts as `P`.

    Cost per direction and event: `O(D^2)`. Shapes: `[..., D]` to `[..., D]`; log-det `[]`, in nats.

    The trainable variables are `lower` and `upper` `[D, D]`, of which the strict triangles are used, and `log_diagonal` `[D]`.

    Args:
      event_size: Integer `D`.
      seed: Integer seed of the permutation. The default permutation is the same in every process.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If `event_size` is not a positive integer.

    Example:
      >>> bijector = tff.LULinear(4, seed=1)
      >>> x = bijector.forward(tf.ones([5, 4]))
      >>> x.shape, abs(float(bijector.forward_log_det_jacobian(x)))
      (TensorShape([5, 4]), 0.0)
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
        super().__init__(event_size, constant_log_det=True, dtype=dtype, validate_args=validate_args, name=name)
        self._permutation = np.random.default_rng(structure_seed(resolve_seed(seed))).permutation(event_size)
        self.lower = tf.Variable(tf.zeros([event_size, event_size], self.dtype), name="lower")
        self.upper = tf.Variable(tf.zeros([event_size, event_size], self.dtype), name="upper")
        self.log_diagonal = tf.Variable(tf.zeros([event_size], self.dtype), name="log_diagonal")

    def _triangles(self):
        ones = tf.ones_like(self.log_diagonal)
        lower = tf.linalg.set_diag(tf.linalg.band_part(self.lower, -1, 0), ones)
        diagonal = tf.exp(bound_log_scale(self.log_diagonal))
        return lower, tf.linalg.set_diag(tf.linalg.band_part(self.upper, 0, -1), diagonal)

    def inverse_and_log_det(self, y):
        lower, upper = self._triangles()
        matrix = tf.gather(tf.linalg.matmul(lower, upper), np.argsort(self._permutation), axis=1)
        # `matvec` would compute a separate product for each row or pixel.
        x = tf.linalg.matmul(tf.reshape(y, [-1, y.shape[-1]]), matrix, transpose_b=True)
        return tf.reshape(x, tf.shape(y)), self._log_det()

    def forward_and_log_det(self, x):
        lower, upper = self._triangles()
        columns = tf.transpose(tf.reshape(x, [-1, x.shape[-1]]))
        columns = tf.linalg.triangular_solve(lower, columns, lower=True)
        columns = tf.linalg.triangular_solve(upper, columns, lower=False)
        y = tf.gather(tf.transpose(columns), np.argsort(self._permutation), axis=-1)
        return tf.reshape(y, tf.shape(x)), -self._log_det()

    def _log_det(self) -> tf.Tensor:
        return tf.reduce_sum(bound_log_scale(self.log_diagonal))
