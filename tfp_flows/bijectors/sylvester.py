"""Sylvester flow, invertible in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.amortized import AmortizedBijector
from tfp_flows.bijectors.tanh_equation import constrained_factor, log_slope, solve_tanh
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed


@serializable
class SylvesterFlow(AmortizedBijector):
    """Sylvester flow `f(z) = z + Q R tanh(R~ Q' z + b)` (van den Berg et al. 2018, arXiv:1803.05649, eq. 8 and 14).

    `Q` `[D, M]` has orthonormal columns, `R` and `R~` `[M, M]` are upper triangular, so that
    `log |det df/dz| = sum(log(1 + r_ii r~_ii (1 - tanh(R~ Q' z + b)^2)))` (eq. 13). The map is invertible if
    `r_ii r~_ii > -1` (theorem 2): `r_ii` is scaled so that `r_ii r~_ii = -1 + softplus(t + log(e - 1))`, where `t` is
    the product of the two trainable values. With `M = 1` it is the planar flow whose `u` is a multiple of `w`.

    `Q` is a product of `num_reflections` Householder reflections: the paper's H-SNF for `M = D`, and a replacement of
    its O-SNF for `M < D`. Without reflections it is the identity (T-SNF): then put reversals between layers.

    The inverse solves for the `M` coordinates along `Q` from the last to the first, each by the planar flow's scalar equation.

    Cost per direction and event: forward and its log-det `O(D M + M^2)`, and `O(D)` per reflection; inverse adds `M`
    scalar solves in sequence. Shapes: `[..., D]` to `[..., D]`; log-det `[...]`, in nats.

    The trainable variables are `r` and `r_tilde` `[M (M + 1) / 2]` (upper triangles, see `tfp.math.fill_triangular`),
    `b` `[M]` and `reflections` `[num_reflections, D]`. A new flow is close to the identity.

    Args:
      event_size: Integer `D`, the size of the last axis.
      rank: Integer `M <= D`; `D` if `None`.
      num_reflections: Number of Householder reflections; `min(4, D)` if `None`.
      conditional_size: Size `C` of the `conditional_input` `[..., C]`, from which a network computes offsets of all variables.
      hidden_units, activation: Hidden layers of the network that reads the condition, and their activation.
      seed: Integer seed of the initial values; `keras.utils.set_random_seed` decides if `None`.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If a size is not a positive integer, or `rank` exceeds `event_size`.

    Example:
      >>> flow = tff.SylvesterFlow(4, rank=2, seed=1)
      >>> y = flow.forward(tf.ones([5, 4]))
      >>> y.shape, flow.inverse(tf.identity(y)).shape, flow.inverse_log_det_jacobian(y).shape
      (TensorShape([5, 4]), TensorShape([5, 4]), TensorShape([5]))
    """

    def __init__(
        self,
        event_size: int,
        *,
        rank: int | None = None,
        num_reflections: int | None = None,
        conditional_size: int | None = None,
        hidden_units: Sequence[int] = (64, 64),
        activation="relu",
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "sylvester_flow",
    ):
        size = positive_int("event_size", event_size)
        self.rank = positive_int("rank", size if rank is None else rank)
        if self.rank > size:
            raise ValueError(f"`rank` must not exceed `event_size` ({size}), got {self.rank}.")
        count = positive_int("num_reflections", min(4, size) if num_reflections is None else num_reflections, 0)
        seed = resolve_seed(seed)
        rng = np.random.default_rng(seed)
        start = np.diag(0.01 * rng.normal(size=self.rank))
        start_tilde = np.triu(0.01 * rng.normal(size=[self.rank, self.rank]))
        np.fill_diagonal(start_tilde, 1.0)
        r, r_tilde = (tfp.math.fill_triangular_inverse(m, upper=True).numpy() for m in (start, start_tilde))
        variables = {"r": r, "r_tilde": r_tilde, "b": rng.normal(size=self.rank)}
        if count:
            variables["reflections"] = rng.normal(size=[count, size])
        self._count = count
        super().__init__(size, variables, dtype=dtype, validate_args=validate_args, name=name)
        self._amortize(conditional_size, hidden_units, activation, seed)

    def _parts(self, x, conditional_input):
        """Return `R` with its constrained diagonal, `R~`, `b`, the reflections, and `1 + r_ii r~_ii`."""
        r, r_tilde, b, *rest = self._values(x, conditional_input)
        reflections = rest[0] if rest else None
        r, r_tilde = (tfp.math.fill_triangular(t, upper=True) for t in (r, r_tilde))
        tilde = tf.linalg.diag_part(r_tilde)
        r_hat, slope = constrained_factor(tf.linalg.diag_part(r), tilde)
        # XLA cannot compile the gradient of `tf.linalg.set_diag` for a batch whose size is not known statically.
        above = r * (1.0 - tf.eye(self.rank, dtype=r.dtype))
        return above + tf.linalg.diag(r_hat), r_tilde, b, reflections, slope

    def _reflect(self, x, reflections, order):
        for i in order:
            v = reflections[..., i, :]
            norm2 = tf.reduce_sum(tf.square(v), axis=-1, keepdims=True)
            moves = norm2 > 0  # false for a zero vector, which reflects nothing
            scale = 2.0 * tf.reduce_sum(x * v, axis=-1, keepdims=True) / tf.where(moves, norm2, tf.ones_like(norm2))
            x -= tf.where(moves, scale, tf.zeros_like(scale)) * v
        return x

    def _to_coordinates(self, x, reflections):
        return self._reflect(x, reflections, range(self._count))[..., : self.rank]

    def _from_coordinates(self, v, reflections):
        paddings = [[0, 0]] * (v.shape.rank - 1) + [[0, self.event_size - self.rank]]
        return self._reflect(tf.pad(v, paddings), reflections, reversed(range(self._count)))

    def forward_and_log_det(self, x, conditional_input=None):
        r, r_tilde, b, reflections, slope = self._parts(x, conditional_input)
        s = tf.linalg.matvec(r_tilde, self._to_coordinates(x, reflections)) + b
        moved = tf.linalg.matvec(r, tf.tanh(s))
        return x + self._from_coordinates(moved, reflections), tf.reduce_sum(log_slope(s, slope), axis=-1)

    def inverse_and_log_det(self, y, conditional_input=None):
        r, r_tilde, b, reflections, slope = self._parts(y, conditional_input)
        target = self._to_coordinates(y, reflections)
        v = tf.stop_gradient(_solve(*map(tf.stop_gradient, (target, r, r_tilde, b, slope))))
        # Two Newton steps at the solution give first and second gradients, as in `solve_increasing`.
        for _ in range(2):
            t = tf.tanh(tf.linalg.matvec(r_tilde, v) + b)
            residual = v + tf.linalg.matvec(r, t) - target
            slopes = (1.0 - tf.square(t))[..., tf.newaxis] * r_tilde
            matrix = tf.eye(self.rank, dtype=y.dtype) + r @ slopes
            v -= tf.linalg.triangular_solve(matrix, residual[..., tf.newaxis], lower=False)[..., 0]
        s = tf.linalg.matvec(r_tilde, v) + b
        moved = tf.linalg.matvec(r, tf.tanh(s))
        return y - self._from_coordinates(moved, reflections), -tf.reduce_sum(log_slope(s, slope), axis=-1)


def _solve(target, r, r_tilde, b, slope):
    """Solve `v + R tanh(R~ v + b) = target` for `v`, from the last coordinate to the first."""
    rank = target.shape[-1]
    batch = tf.broadcast_dynamic_shape(tf.shape(target)[:-1], tf.shape(b)[:-1])
    start = tf.zeros(tf.concat([batch, [rank]], axis=0), target.dtype)
    tilde = tf.linalg.diag_part(r_tilde)

    def one(step, v, t):
        i = rank - 1 - step
        # Coordinates that are not solved yet are zero in `v` and `t`.
        offset = tf.reduce_sum(r_tilde[..., i, :] * v, axis=-1) + b[..., i]
        rest = target[..., i] - tf.reduce_sum(r[..., i, :] * t, axis=-1)
        s = solve_tanh(tilde[..., i] * rest + offset, slope[..., i])
        here = tf.one_hot(i, rank, dtype=target.dtype)
        found = rest - r[..., i, i] * tf.tanh(s)
        return step + 1, v + here * found[..., tf.newaxis], t + here * tf.tanh(s)[..., tf.newaxis]

    return tf.while_loop(lambda step, v, t: step < rank, one, (tf.constant(0), start, start))[1]
