"""Mixture of Gaussians as a base, for data in several separate groups."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bases.base import AdaptiveDistribution
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed
from tfp_flows.transformers.gaussian_mixture import fit_mixture

tfd = tfp.distributions

_ROWS = 8192  # rows for expectation maximization


@serializable
class GaussianMixture(AdaptiveDistribution):
    """Mixture of Gaussians with diagonal covariances and trainable parameters, for the base of a flow.

    `log p(x) = logsumexp_k(log w_k + sum_i log N(x_i; loc_ki, scale_ki))`. A continuous map cannot tear one mode into
    several, but it can move and bend the modes of a mixture (Izmailov et al. 2020, arXiv:1912.13025). The first
    `FlowModel.fit` sets weights, means and scales by expectation maximization from a k-means++ start (Arthur and
    Vassilvitskii 2007, SODA), for at most 8192 latent rows. Before that, the means are drawn with `seed`.

    Gradients do not pass through samples. Cost of `log_prob`: `O(K D)` per event; of a sample, `O(D)`.

    Args:
      event_size: Integer `D`.
      num_components: Number `K` of Gaussians.
      seed: Integer seed of the first means, and of k-means++.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the distribution.

    Raises:
      ValueError: If a size is not a positive integer.

    Example:
      >>> base = tff.GaussianMixture(2, num_components=4, seed=1)
      >>> flow = tff.maf(2, base=base, num_layers=2)
      >>> flow.log_prob(tf.zeros([5, 2])).shape
      TensorShape([5])
    """

    def __init__(
        self,
        event_size: int,
        num_components: int = 8,
        *,
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "gaussian_mixture",
    ):
        parameters = dict(locals())
        size = [positive_int("num_components", num_components), positive_int("event_size", event_size)]
        self.seed = resolve_seed(seed)
        variables = {
            "logits": np.zeros(size[:1]),
            "loc": np.random.default_rng(self.seed).normal(size=size),
            "log_scale": np.zeros(size),
        }
        options = {"dtype": dtype, "validate_args": validate_args, "name": name}
        super().__init__(event_size, variables, parameters=parameters, reparameterized=False, **options)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _fit(self, rows):
        rows = rows[:: -(-len(rows) // _ROWS)]
        mean = _distant_rows(rows, self.loc.shape[0], np.random.default_rng(self.seed))
        deviation = np.maximum(rows.std(axis=0), np.finfo(np.float32).tiny)
        start = np.tile(deviation / len(mean) ** (1.0 / self.event_size), [len(mean), 1])
        weight, mean, scale = fit_mixture(rows, mean, start, 1e-2 * deviation, iterations=100)
        self.logits.assign(np.log(weight).reshape([-1]))
        self.loc.assign(mean)
        self.log_scale.assign(np.log(scale))

    def _log_prob(self, x):
        z = (x[..., tf.newaxis, :] - self.loc) * tf.exp(-self.log_scale)
        constant = tf.reduce_sum(self.log_scale, axis=-1) + 0.5 * self.event_size * math.log(2.0 * math.pi)
        log_parts = tf.nn.log_softmax(self.logits) - constant - 0.5 * tf.reduce_sum(tf.square(z), axis=-1)
        return tf.reduce_logsumexp(log_parts, axis=-1)

    def _sample_n(self, n, seed=None):
        first, second = tfp.random.split_seed(seed, 2, salt="gaussian_mixture")
        n = tf.cast(n, tf.int32)
        chosen = tfd.Categorical(logits=self.logits).sample(n, seed=first)
        z = tf.random.stateless_normal([n, self.event_size], tfp.random.sanitize_seed(second), dtype=self.dtype)
        return tf.gather(self.loc, chosen) + tf.exp(tf.gather(self.log_scale, chosen)) * z

    def _mean(self):
        return tf.linalg.matvec(self.loc, tf.nn.softmax(self.logits), transpose_a=True)


def _distant_rows(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` rows by k-means++: each is drawn with a probability proportional to its squared distance."""
    chosen = [rows[rng.integers(len(rows))]]
    nearest = np.sum((rows - chosen[0]) ** 2, axis=1)
    while len(chosen) < count:
        total = nearest.sum()
        chosen.append(rows[rng.choice(len(rows), p=nearest / total if total > 0 else None)])
        nearest = np.minimum(nearest, np.sum((rows - chosen[-1]) ** 2, axis=1))
    return np.stack(chosen)
