"""Independent Student t columns with trainable degrees of freedom, as a base for heavy tails."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bases.base import AdaptiveDistribution
from tfp_flows.bases.multivariate_student_t import fit_student_t
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable

_START = 10.0  # degrees of freedom of a new distribution


@serializable
class StudentT(AdaptiveDistribution):
    """Independent Student t columns with trainable degrees of freedom, for the base of a flow.

    `log p(x) = sum_i c(df_i) - log scale_i - (df_i + 1) / 2 log(1 + z_i^2 / df_i)` with `z = (x - loc) / scale`. A flow
    whose layers are Lipschitz keeps the tail index of its base, so heavy tails must come from there (Jaini et al. 2020,
    arXiv:1907.04481). Degrees of freedom for each column let light and heavy tails differ (Laszkiewicz et al. 2022,
    arXiv:2206.10311). The first `FlowModel.fit` sets all parameters by maximum likelihood of the latent rows, column by
    column, and then trains them. The trainable variables are `loc`, `log_scale` and `log_df`, each `[D]`.

    Cost of `log_prob` and of a sample: `O(D)` per event.

    Args:
      event_size: Integer `D`.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the distribution.

    Raises:
      ValueError: If `event_size` is not a positive integer.

    Example:
      >>> base = tff.StudentT(2)
      >>> base.adapt(np.random.default_rng(0).standard_t(3.0, size=[2000, 2]))
      >>> print(np.round(np.exp(base.log_df)))
      [3. 3.]
    """

    def __init__(
        self,
        event_size: int,
        *,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "student_t",
    ):
        parameters = dict(locals())
        zeros = np.zeros(positive_int("event_size", event_size))
        variables = {"loc": zeros, "log_scale": zeros, "log_df": zeros + math.log(_START)}
        options = {"dtype": dtype, "validate_args": validate_args, "name": name}
        super().__init__(event_size, variables, parameters=parameters, **options)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _fit(self, rows):
        fits = [fit_student_t(rows[:, j : j + 1]) for j in range(self.event_size)]
        self.loc.assign([loc[0] for loc, _, _ in fits])
        self.log_scale.assign([math.log(scale[0, 0]) for _, scale, _ in fits])
        self.log_df.assign([-math.log(max(inverse_df, 0.02)) for _, _, inverse_df in fits])  # of a normal column, 50

    def _log_prob(self, x):
        df, z = tf.exp(self.log_df), tf.abs(x - self.loc) * tf.exp(-self.log_scale)
        far = z > 1e6  # where the square may overflow
        near = tf.math.log1p(tf.square(tf.where(far, tf.ones_like(z), z)) / df)
        log_square = 2.0 * tf.math.log(tf.where(far, z, tf.ones_like(z))) - self.log_df
        constant = tf.math.lgamma(0.5 * (df + 1.0)) - tf.math.lgamma(0.5 * df) - 0.5 * (self.log_df + math.log(math.pi))
        log_prob = constant - self.log_scale - 0.5 * (df + 1.0) * tf.where(far, log_square, near)
        return tf.reduce_sum(log_prob, axis=-1)

    def _sample_n(self, n, seed=None):
        first, second = tfp.random.split_seed(seed, 2, salt="student_t")
        shape = [tf.cast(n, tf.int32), self.event_size]
        z = tf.random.stateless_normal(shape, tfp.random.sanitize_seed(first), dtype=self.dtype)
        half = 0.5 * tf.exp(self.log_df)
        gamma = tf.random.stateless_gamma(shape, tfp.random.sanitize_seed(second), half, dtype=self.dtype)
        return self.loc + tf.exp(self.log_scale) * z * tf.math.rsqrt(gamma / half)

    def _mode(self):
        return tf.identity(self.loc)
