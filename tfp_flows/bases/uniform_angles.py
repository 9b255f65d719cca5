"""Uniform angles, the base of flows on circles and tori."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bases.fast_normal import log_prob_of
from tfp_flows.checks import positive_int
from tfp_flows.numerics import real_dtype
from tfp_flows.registry import serializable

tfb, tfd = tfp.bijectors, tfp.distributions


@serializable
class UniformAngles(tfd.Distribution):
    """Uniform distribution of angles on `[-pi, pi)` in some columns, independent of a distribution of the others.

    `log p(x) = -n log(2 pi) + log_prob of base(others)` for `n` angles. As in `tfd.VonMises`, the density is periodic in the
    angles, which may be any real numbers. It is the base of circular flows (Rezende et al. 2020, arXiv:2002.02428).

    Cost of `log_prob` and of a sample: `O(n)` per event, and that of `base`.

    Args:
      event_size: Integer `D`.
      angles: Indices of the columns that are angles; all if `None`.
      base: Distribution of vectors of the other columns, if there are any.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the distribution.

    Raises:
      ValueError: If `base` does not fit the number of other columns.

    Example:
      >>> base = tff.UniformAngles(3, [0], tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)))
      >>> base.sample(5).shape, base.log_prob(tf.zeros([5, 3])).shape
      (TensorShape([5, 3]), TensorShape([5]))
    """

    def __init__(
        self,
        event_size: int,
        angles: Sequence[int] | None = None,
        base: tfd.Distribution | None = None,
        *,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "uniform_angles",
    ):
        parameters = dict(locals())
        self.event_size, dtype = positive_int("event_size", event_size), real_dtype(dtype)
        self.angles = list(range(event_size)) if angles is None else sorted(map(int, angles))
        if not set(self.angles) <= set(range(event_size)):
            raise ValueError(f"`angles` must be indices of {event_size} columns, got {angles!r}.")
        self.others = [i for i in range(event_size) if i not in self.angles]
        size = 0 if base is None else base.event_shape.num_elements()
        if size != len(self.others) or (base is not None and base.dtype != dtype):
            raise ValueError(
                f"`base` must have events of size {len(self.others)} and dtype {dtype.name}, got {base!r}."
            )
        self.base = base
        kind = tfd.FULLY_REPARAMETERIZED if base is None else base.reparameterization_type
        with tf.name_scope(name) as scope:
            super().__init__(
                dtype=dtype,
                reparameterization_type=kind,
                validate_args=validate_args,
                allow_nan_stats=True,
                parameters=parameters,
                name=scope,
            )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    @property
    def adapted(self) -> bool:
        """Whether `base` is adapted to data, or needs none."""
        return getattr(self.base, "adapted", True)

    def adapt(self, rows) -> None:
        """Adapt `base` to its columns of latent rows `[N, D]`, if it has a method `adapt`."""
        if hasattr(self.base, "adapt"):
            self.base.adapt(np.asarray(rows)[:, self.others])

    def _event_shape(self):
        return tf.TensorShape([self.event_size])

    def _event_shape_tensor(self):
        return tf.constant([self.event_size])

    def _log_prob(self, x):
        angles = tf.gather(x, self.angles, axis=-1)
        constant = -len(self.angles) * math.log(2.0 * math.pi)
        # Zero times the angles is NaN for what is not finite.
        log_prob = constant + tf.reduce_sum(0.0 * angles, axis=-1)
        return log_prob if self.base is None else log_prob + log_prob_of(self.base, tf.gather(x, self.others, axis=-1))

    def _sample_n(self, n, seed=None):
        first, second = tfp.random.split_seed(seed, 2, salt="uniform_angles")
        shape = [tf.cast(n, tf.int32), len(self.angles)]
        u = tf.random.stateless_uniform(shape, tfp.random.sanitize_seed(first), dtype=self.dtype)
        angles = 2.0 * math.pi * u - math.pi
        if self.base is None:
            return angles
        parts = tf.concat([angles, self.base.sample(n, seed=second)], axis=-1)
        return tf.gather(parts, np.argsort(self.angles + self.others), axis=-1)

    def _default_event_space_bijector(self):
        return tfb.Identity(validate_args=self.validate_args)
