"""Base distribution that is fitted to rows: a normal distribution, or one with heavier tails."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.data.arrays import to_array
from tfp_flows.numerics import real_dtype
from tfp_flows.registry import serializable

tfb, tfd = tfp.bijectors, tfp.distributions

DEGREES_OF_FREEDOM = (50.0, 20.0, 10.0, 6.0, 4.0, 3.0, 2.0)  # candidates for `adapt`
_MARGIN = 2.0  # nats by which a Student t must be likelier, for its additional parameter
_RIDGE = 1e-6  # fraction of the variances, so that dependent columns have a density


@serializable
class MultivariateStudentT(tfd.Distribution):
    """Multivariate Student t distribution with parameters fitted by `adapt` (Lange et al. 1989), for the base of a flow.

    `log p(x) = c - log |L| - (df + D) / 2 log(1 + |L^-1 (x - loc)|^2 / df)`. With infinite degrees of freedom it is the
    normal distribution with mean `loc` and covariance `L L'`. A new one is standard normal. The parameters are
    non-trainable variables, saved with a flow: `loc` `[D]`, `scale_tril` `[D, D]`, and `inverse_df` `[]`, the inverse
    of the degrees of freedom. A flow that starts as the identity then starts with that density, whose tails fit those
    of the data (Jaini et al. 2020, arXiv:1907.04481).

    Cost of `log_prob` and of a sample: `O(D^2)` per event.

    Args:
      event_size: Integer `D`.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the distribution.

    Raises:
      ValueError: If `event_size` is not a positive integer.

    Example:
      >>> base = tff.MultivariateStudentT(2)
      >>> base.adapt(np.random.default_rng(0).standard_t(2.0, size=[1000, 2]))
      >>> 1.0 / float(base.inverse_df) < 5.0, base.log_prob(tf.zeros([5, 2])).shape
      (True, TensorShape([5]))
    """

    def __init__(
        self,
        event_size: int,
        *,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "multivariate_student_t",
    ):
        parameters = dict(locals())
        size, dtype = positive_int("event_size", event_size), real_dtype(dtype)
        self.event_size = size
        with tf.name_scope(name) as scope:
            self.loc = tf.Variable(tf.zeros([size], dtype), trainable=False, name="loc")
            self.scale_tril = tf.Variable(tf.eye(size, dtype=dtype), trainable=False, name="scale_tril")
            self.inverse_df = tf.Variable(tf.zeros([], dtype), trainable=False, name="inverse_df")
            super().__init__(
                dtype=dtype,
                reparameterization_type=tfd.FULLY_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=True,
                parameters=parameters,
                name=scope,
            )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def adapt(self, rows) -> None:
        """Set the parameters to those of maximum likelihood for `rows` `[N, D]`, by expectation maximization.

        The result is normal unless a Student t is likelier by more than 2 nats in total.

        Raises:
          ValueError: If `rows` has another shape, fewer than two rows, or a value that is not finite.
        """
        rows = to_array("rows", rows).astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.event_size or len(rows) < 2 or not np.all(np.isfinite(rows)):
            raise ValueError(
                f"`rows` must be finite, of shape [N, {self.event_size}] with at least 2 rows, got shape {list(rows.shape)}."
            )
        loc, scale_tril, inverse_df = fit_student_t(rows)
        self.loc.assign(loc)
        self.scale_tril.assign(scale_tril)
        self.inverse_df.assign(inverse_df)

    def copy(self, **override):
        """Return a copy with other arguments and the adapted parameters."""
        other = super().copy(**override)
        if other.event_size == self.event_size:
            for name in ("loc", "scale_tril", "inverse_df"):
                getattr(other, name).assign(tf.cast(getattr(self, name), other.dtype))
        return other

    def _event_shape(self):
        return tf.TensorShape([self.event_size])

    def _log_prob(self, x):
        scale, size = tf.convert_to_tensor(self.scale_tril), float(self.event_size)
        flat = tf.transpose(tf.reshape(x - self.loc, [-1, self.event_size]))
        white = tf.linalg.triangular_solve(scale, flat)
        # Dividing by the largest coordinate keeps squares from overflowing.
        unit = tf.maximum(tf.reduce_max(tf.abs(white), axis=0), 1.0)
        unit = tf.where(tf.math.is_finite(unit), unit, tf.ones_like(unit))
        scaled = tf.reshape(tf.reduce_sum(tf.square(white / unit), axis=0), tf.shape(x)[:-1])
        unit = tf.reshape(unit, tf.shape(x)[:-1])
        log_det = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(scale)))
        is_normal = tf.equal(self.inverse_df, 0.0)
        square = scaled * tf.square(tf.where(is_normal, unit, tf.ones_like(unit)))
        df = 1.0 / tf.where(is_normal, tf.ones_like(self.inverse_df), self.inverse_df)
        student = (
            tf.math.lgamma(0.5 * (df + size))
            - tf.math.lgamma(0.5 * df)
            - 0.5 * size * tf.math.log(df * np.pi)
            - 0.5 * (df + size) * (tf.math.log(1.0 / tf.square(unit) + scaled / df) + 2.0 * tf.math.log(unit))
        )
        log_prob = tf.where(is_normal, -0.5 * square - 0.5 * size * math.log(2.0 * np.pi), student) - log_det
        log_prob.set_shape(x.shape[:-1])
        return log_prob

    def _sample_n(self, n, seed=None):
        normal_seed, gamma_seed = tfp.random.split_seed(seed, 2, salt="multivariate_student_t")
        n = tf.cast(n, tf.int32)
        z = tf.random.stateless_normal([n, self.event_size], tfp.random.sanitize_seed(normal_seed), dtype=self.dtype)
        half = 0.5 / tf.where(tf.equal(self.inverse_df, 0.0), tf.ones_like(self.inverse_df), self.inverse_df)
        gamma = tf.random.stateless_gamma([n], tfp.random.sanitize_seed(gamma_seed), half, dtype=self.dtype)
        stretch = tf.where(tf.equal(self.inverse_df, 0.0), tf.ones_like(gamma), tf.math.rsqrt(gamma / half))
        return self.loc + tf.linalg.matmul(z, self.scale_tril, transpose_b=True) * stretch[:, tf.newaxis]

    def _mode(self):
        return tf.identity(self.loc)

    def _mean(self):
        return tf.where(self.inverse_df < 1.0, tf.identity(self.loc), tf.cast(np.nan, self.dtype))

    def _default_event_space_bijector(self):
        return tfb.Identity(validate_args=self.validate_args)


def fit_student_t(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return location, lower triangular scale and inverse degrees of freedom of maximum likelihood for `rows` `[N, D]`."""
    size = rows.shape[1]
    ridge = _RIDGE * np.diag(rows.var(axis=0) + np.finfo(np.float64).tiny)
    mean, covariance = rows.mean(axis=0), np.cov(rows, rowvar=False, bias=True).reshape(size, size) + ridge
    best = (_log_likelihood(rows, mean, covariance, np.inf) + _MARGIN, mean, covariance, np.inf)
    for df in DEGREES_OF_FREEDOM:
        loc, scatter = mean, covariance
        for _ in range(60):
            weight = (df + size) / (df + _square(rows, loc, scatter))
            loc = weight @ rows / np.sum(weight)
            new = (weight[:, None] * (rows - loc)).T @ (rows - loc) / len(rows) + ridge
            converged = np.max(np.abs(new - scatter)) < 1e-5 * np.max(np.abs(new))
            scatter = new
            if converged:
                break
        best = max(best, (_log_likelihood(rows, loc, scatter, df), loc, scatter, df), key=lambda fit: fit[0])
    return best[1], np.linalg.cholesky(best[2]), 1.0 / best[3]


def _square(rows: np.ndarray, loc: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    return np.sum(np.linalg.solve(np.linalg.cholesky(scatter), (rows - loc).T) ** 2, axis=0)


def _log_likelihood(rows: np.ndarray, loc: np.ndarray, scatter: np.ndarray, df: float) -> float:
    size, square = rows.shape[1], _square(rows, loc, scatter)
    half_log_det = np.sum(np.log(np.diag(np.linalg.cholesky(scatter))))
    if np.isinf(df):
        return float(np.sum(-0.5 * square - half_log_det - 0.5 * size * math.log(2.0 * math.pi)))
    constant = math.lgamma((df + size) / 2) - math.lgamma(df / 2) - 0.5 * size * math.log(df * math.pi) - half_log_det
    return float(np.sum(constant - 0.5 * (df + size) * np.log1p(square / df)))
