"""Diagnostics of an approximate posterior: bounds, importance weights, lost modes, and a table of the parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.evaluation.arviz import inference_data, pareto_shape
from tfp_flows.evaluation.importance import importance_diagnostics
from tfp_flows.seeds import resolve_seed

tfd = tfp.distributions

_COVERED = 3.0  # nats by which the normalized target may exceed the approximation where it counts as covered
_NUM_SEARCHES = 32


@dataclasses.dataclass(frozen=True)
class PosteriorDiagnostics:
    """Diagnostics of an approximation `q` of a target `p`, in nats. `print` shows them as a table.

    Attributes:
      elbo, elbo_error: Mean of `log p - log q` over samples of `q`, a lower bound on `log Z`, and its standard error.
      iwelbo, iwelbo_error: Importance-weighted bound on `log Z`, the log of the mean weight, and its standard error.
      effective_sample_size: Fraction of the samples that the importance weights leave; 1 if `q` equals `p`.
      pareto_k: Tail shape of the weights. Above 0.7, importance weighting from `q` is unreliable.
      coverage: Estimated fraction of `p` where `q` is not smaller by a factor of 20 or more. Unlike the weights, it comes
        from samples of a wider proposal and around optima of `p`, so that it shows modes that `q` has lost.
      labels: Names of the parameters.
      mean, deviation: Moments of each parameter under `q`, `[P]`.
      weighted_mean, weighted_deviation: The same moments after importance weighting.
      draws, log_weights: Parameters of the samples `[n, P]`, and their log-weights `[n]`.
    """

    elbo: float
    elbo_error: float
    iwelbo: float
    iwelbo_error: float
    effective_sample_size: float
    pareto_k: float
    coverage: float
    labels: list[str]
    mean: np.ndarray
    deviation: np.ndarray
    weighted_mean: np.ndarray
    weighted_deviation: np.ndarray
    draws: np.ndarray
    log_weights: np.ndarray

    @property
    def warnings(self) -> list[str]:
        """Sentences about what makes the approximation unreliable; an empty list if nothing does."""
        found = []
        if self.coverage < 0.95:
            found.append(
                f"The approximation misses about {100 * (1 - self.coverage):.0f} % of the target: train with "
                'objective="forward_kl", or anneal `beta`.'
            )
        if self.pareto_k > 0.7 and self.effective_sample_size < 0.99:  # nearly equal weights have no tail to speak of
            found.append(
                f"The importance weights have a heavy tail (k = {self.pareto_k:.2f}, above 0.7): moments after weighting are "
                "unreliable. Train longer, or use a larger flow."
            )
        return found

    def __str__(self) -> str:
        width = max(9, *map(len, self.labels))
        lines = [
            f"ELBO {self.elbo:.3f} ± {self.elbo_error:.3f}   IWELBO {self.iwelbo:.3f} ± {self.iwelbo_error:.3f} nats",
            f"effective samples {100 * self.effective_sample_size:.1f} %   Pareto k {self.pareto_k:.2f}   "
            f"coverage {100 * self.coverage:.1f} %",
            f"{'':{width}} {'mean':>10} {'deviation':>10} {'weighted mean':>14} {'deviation':>10}",
        ]
        columns = (self.labels, self.mean, self.deviation, self.weighted_mean, self.weighted_deviation)
        lines += [
            f"{n:{width}} {a:10.4g} {b:10.4g} {c:14.4g} {d:10.4g}" for n, a, b, c, d in zip(*columns, strict=True)
        ]
        return "\n".join([*lines, *self.warnings])

    def to_inference_data(self) -> Any:
        """Return the draws, resampled by their weights, as ArviZ's container with one chain.

        Raises:
          ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).
        """
        weights = np.exp(self.log_weights - self.log_weights.max())
        rows = np.random.default_rng(0).choice(len(weights), size=len(weights), p=weights / weights.sum())
        return inference_data(self.labels, self.draws[np.newaxis, rows])


def posterior_diagnostics(
    distribution: tfd.Distribution,
    target_log_prob_fn: Callable[[tf.Tensor], tf.Tensor],
    *,
    proposal: tfd.Distribution | None = None,
    num_samples: int = 10_000,
    seed: int | None = None,
) -> PosteriorDiagnostics:
    """Return bounds on `log Z`, importance weights, lost modes and moments of an approximation.

    Cost: `num_samples` evaluations of `q` and of the target, twice, and a few thousand gradients of the target.

    Args:
      distribution: The approximation `q`, with events `[D]`.
      target_log_prob_fn: Callable from `[n, D]` to `[n]`: `log p` up to a constant. With a `ModelTarget`, the parameters are
        those of the model.
      proposal: Distribution of further samples, from which modes are searched; `wide_normal(distribution)` if `None`.
      num_samples: Number of samples.
      seed: Integer seed of the samples.

    Raises:
      ValueError: If `num_samples` is less than 100, or the target is NaN at a sample.
      ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).

    Example:
      >>> q = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
      >>> far = tfd.MultivariateNormalDiag([9.0, 9.0], tf.ones(2))
      >>> found = posterior_diagnostics(q, q.log_prob, seed=1)
      >>> print(round(found.elbo, 4), round(found.effective_sample_size, 4), found.coverage > 0.99)
      0.0 1.0 True
      >>> two = tfd.Mixture(tfd.Categorical(probs=[0.5, 0.5]), [q, far])
      >>> print(round(posterior_diagnostics(q, two.log_prob, seed=1).coverage, 1))
      0.5
    """
    n, seed = positive_int("num_samples", num_samples, 100), resolve_seed(seed) % 2**31
    found = importance_diagnostics(distribution, target_log_prob_fn, num_samples=n, seed=seed)
    z = found.samples
    w = np.exp(found.log_weights - np.max(found.log_weights))
    share = w / np.sum(w)
    draws = np.asarray(getattr(target_log_prob_fn, "parameters", np.asarray)(z), np.float64)
    weighted_mean = share @ draws
    return PosteriorDiagnostics(
        elbo=found.elbo,
        elbo_error=found.elbo_error,
        iwelbo=found.log_normalizer,
        iwelbo_error=found.log_normalizer_error,
        effective_sample_size=found.effective_sample_size,
        pareto_k=pareto_shape(found.log_weights),
        coverage=_coverage(distribution, target_log_prob_fn, proposal, z, n, seed),
        labels=list(getattr(target_log_prob_fn, "labels", [f"z[{i}]" for i in range(draws.shape[1])])),
        mean=draws.mean(axis=0),
        deviation=draws.std(axis=0),
        weighted_mean=weighted_mean,
        weighted_deviation=np.sqrt(share @ (draws - weighted_mean) ** 2),
        draws=draws,
        log_weights=found.log_weights,
    )


def _coverage(distribution, target_log_prob_fn, proposal, z, num_samples: int, seed: int) -> float:
    """Return the mass of the target where `q` is not much smaller, by importance sampling from a defensive mixture.

    The mixture has samples of `q`, of the proposal, and of normal distributions around optima of the target (Hesterberg
    1995, Weighted Average Importance Sampling and Defensive Mixture Distributions).
    """
    proposal = proposal or wide_normal(distribution)
    starts = tf.cast(proposal.sample(_NUM_SEARCHES, seed=(seed, 1)), z.dtype)
    optima = _optima(target_log_prob_fn, starts)
    deviation = tf.cast(np.std(z, axis=0) + 1e-6, z.dtype)
    around = tfd.MixtureSameFamily(
        tfd.Categorical(probs=tf.fill([len(optima)], tf.cast(1.0 / len(optima), z.dtype))),
        tfd.MultivariateNormalDiag(optima, tf.broadcast_to(deviation, optima.shape)),
    )
    half, quarter = num_samples // 2, num_samples // 4
    points = [z[:half], proposal.sample(quarter, seed=(seed, 2)), around.sample(quarter, seed=(seed, 3))]
    points = tf.concat([tf.cast(p, z.dtype) for p in points], axis=0)
    log_q = np.asarray(distribution.log_prob(tf.identity(points)), np.float64)
    others = [np.asarray(d.log_prob(points), np.float64) + math.log(0.25) for d in (proposal, around)]
    log_mixture = np.logaddexp.reduce([log_q + math.log(0.5), *others])
    log_p = np.asarray(target_log_prob_fn(points), np.float64)
    log_w = np.where(np.isfinite(log_p), log_p - log_mixture, -np.inf)
    top = np.max(log_w)
    w = np.exp(log_w - top)
    log_normalizer = top + np.log(np.mean(w))
    covered = log_p - log_normalizer - log_q < _COVERED
    return float(np.sum(w[covered]) / np.sum(w))


def _optima(target_log_prob_fn, starts: tf.Tensor) -> tf.Tensor:
    """Return points `[S, D]` near local optima of the target, by gradient ascent in a diagonal metric from `starts`."""

    @tf.function(autograph=False)
    def ascend(z):
        scale = tf.math.reduce_std(z, axis=0) + 1e-6

        def step(i, z, square):
            gradient = tfp.math.value_and_gradient(target_log_prob_fn, z)[1]
            gradient = tf.where(tf.math.is_finite(gradient), gradient * scale, tf.zeros_like(gradient))
            square = 0.9 * square + 0.1 * tf.square(gradient)
            rate = 0.1 * (1.0 - tf.cast(i, z.dtype) / 100.0)
            return i + 1, z + rate * scale * gradient / (tf.sqrt(square) + 1e-8), square

        return tf.while_loop(lambda i, *_: i < 100, step, (0, z, tf.zeros_like(z)))[1]

    found = ascend(starts)
    good = tf.reduce_all(tf.math.is_finite(found), axis=-1, keepdims=True)
    return tf.where(good, found, starts)


def wide_normal(distribution: tfd.Distribution) -> tfd.Distribution:
    """Return a normal distribution with the mean and three times the deviations of samples of a distribution."""
    z = np.reshape(distribution.sample(500, seed=(1, 2)), [500, -1]).astype(np.float64)
    dtype = tf.as_dtype(distribution.dtype).as_numpy_dtype
    normal = tfd.MultivariateNormalDiag(z.mean(axis=0).astype(dtype), (3.0 * z.std(axis=0)).astype(dtype))
    shape = distribution.event_shape
    return (
        normal
        if shape.rank == 1
        else tfd.TransformedDistribution(normal, tfp.bijectors.Reshape(shape, normal.event_shape))
    )
