"""Diagnostics of approximations to unnormalized densities, and of the calibration of forecasts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.data.targets import Target
from tfp_flows.evaluation.arviz import pareto_shape
from tfp_flows.evaluation.importance import ImportanceDiagnostics, importance_diagnostics
from tfp_flows.evaluation.levels import density_level
from tfp_flows.evaluation.posterior import PosteriorDiagnostics, posterior_diagnostics
from tfp_flows.graphs import Graphs
from tfp_flows.seeds import resolve_seed

tfd = tfp.distributions

__all__ = [
    "ImportanceDiagnostics",
    "PosteriorDiagnostics",
    "QuadratureKL",
    "density_level",
    "energy_score",
    "importance_diagnostics",
    "pareto_k",
    "posterior_diagnostics",
    "probability_integral_transform",
    "reverse_kl",
]


def pareto_k(log_weights) -> float:
    """Return the shape `k` of a generalized Pareto distribution fitted to the largest importance weights (arXiv:1507.02646).

    Importance sampling from the approximation is reliable for `k` below 0.7.

    Args:
      log_weights: Array `[n]`, such as those of `importance_diagnostics`.

    Raises:
      ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).

    Example:
      >>> k = pareto_k(0.1 * np.random.default_rng(0).normal(size=2000))  # nearly equal weights
      >>> k < 0.7
      True
    """
    return pareto_shape(np.asarray(log_weights, np.float64))


class QuadratureKL(NamedTuple):
    """A reverse KL divergence `kl`, in nats, and the `mass` of the approximation within the square, which should be 1."""

    kl: float
    mass: float


def reverse_kl(
    distribution: tfd.Distribution, target: Target, *, reach: float = 8.0, resolution: int | None = None
) -> QuadratureKL:
    """Return `KL(q || p)` in two dimensions by quadrature over a square, without Monte Carlo error, as `QuadratureKL`.

    Args:
      distribution: The approximation `q`, with event shape `[2]`.
      target: One of `tff.data.targets`, with its normalizer.
      reach: Half the side of the square.
      resolution: Least number of points along each axis, for a faster result with less accuracy. `None` takes 6 in each
        panel of length 0.1: 960 for the default `reach`, and `log_prob` of 920,000 points.

    Raises:
      ValueError: If the event shapes are not `[2]`, or `resolution` is not positive.

    Example:
      >>> q = tfd.MultivariateNormalDiag(tf.zeros(2, tf.float64), tf.ones(2, tf.float64))
      >>> found = reverse_kl(q, tff.data.targets.Target("normal", 2, lambda z: q.log_prob(z) + 1.0, log_normalizer=1.0))
      >>> print(round(abs(found.kl), 6), round(found.mass, 6))
      0.0 1.0
    """
    if distribution.event_shape.as_list() != [2] or target.event_size != 2:
        raise ValueError(f"Quadrature needs event shape [2], got {distribution.event_shape} and {target}.")
    points, log_weights = target.quadrature(reach, resolution)
    log_prob = Graphs(
        lambda z: distribution.log_prob(z), [1]
    )  # one graph for chunks of different sizes, freed on return
    kl = mass = 0.0
    chunks = -(-len(points) // 32_768)
    for z, log_w in zip(np.array_split(points, chunks), np.array_split(log_weights, chunks), strict=True):
        z = tf.constant(z, distribution.dtype)
        log_q = log_prob(z).numpy().astype(np.float64)
        weight = np.exp(log_q + log_w)
        log_p = target.log_prob(z).numpy().astype(np.float64) - target.log_normalizer
        mass += float(np.sum(weight))
        # The integrand is zero if q is, even if log p is infinite.
        kl += float(np.sum(np.where(weight > 0, weight * (log_q - np.where(weight > 0, log_p, 0.0)), 0.0)))
    return QuadratureKL(kl, mass)


def _samples_and_values(samples, y) -> tuple[np.ndarray, np.ndarray]:
    samples, y = np.asarray(samples, np.float64), np.asarray(y, np.float64)
    if samples.ndim != y.ndim + 1 or samples.shape[1:] != y.shape or y.ndim < 1 or len(samples) < 2:
        got = f"{list(samples.shape)} and {list(y.shape)}"
        raise ValueError(f"`samples` must have shape [n, ..., D] with n >= 2 for `y` of shape [..., D], got {got}.")
    return samples, y


def energy_score(samples, y) -> np.ndarray:
    """Return the energy score `[...]` of sampled forecasts, a proper score for vectors, in the units of `y` (lower is better).

    The score is the mean distance of the samples to the outcome, minus half the mean distance between two samples
    (Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, 2007). It is unbiased for any `n`.
    Cost: `O(n log n)` for `D = 1`, else `O(n^2)`.

    Args:
      samples: Array `[n, ..., D]`: `n` samples for each outcome.
      y: Outcomes `[..., D]`.

    Raises:
      ValueError: If the shapes do not fit.

    Example:
      >>> samples = np.random.default_rng(1).normal(size=[500, 100, 2])
      >>> y = np.random.default_rng(2).normal(size=[100, 2])
      >>> bool(np.mean(energy_score(samples, y)) < np.mean(energy_score(samples + 1.0, y)))
      True
    """
    samples, y = _samples_and_values(samples, y)
    n = len(samples)
    distance = np.mean(np.linalg.norm(samples - y, axis=-1), axis=0)
    if y.shape[-1] == 1:
        ordered = np.sort(samples[..., 0], axis=0)
        rank = (2.0 * np.arange(1, n + 1) - n - 1).reshape([n] + [1] * (ordered.ndim - 1))
        return distance - np.sum(rank * ordered, axis=0) / (n * (n - 1))
    between = sum(np.sum(np.linalg.norm(samples[k + 1 :] - samples[k], axis=-1), axis=0) for k in range(n - 1))
    return distance - between / (n * (n - 1))


def probability_integral_transform(samples, y, *, seed: int | None = None) -> np.ndarray:
    """Return the rank of each entry of `y` among the samples, scaled to (0, 1): uniform if the forecasts are calibrated.

    A U-shaped histogram indicates forecasts that are too narrow, a hump-shaped one forecasts that are too wide (A. P.
    Dawid, Statistical Theory: The Prequential Approach, 1984).

    Args:
      samples: Array `[n, ..., D]`: `n` samples for each outcome.
      y: Outcomes `[..., D]`.
      seed: Integer seed of the random position within the rank and among ties.

    Raises:
      ValueError: If the shapes do not fit.

    Example:
      >>> samples = np.random.default_rng(1).normal(size=[200, 1000, 2])
      >>> u = probability_integral_transform(samples, np.random.default_rng(2).normal(size=[1000, 2]), seed=3)
      >>> print(np.round(np.mean(u), 1), np.round(np.std(u), 1))
      0.5 0.3
    """
    samples, y = _samples_and_values(samples, y)
    below, equal = np.sum(samples < y, axis=0), np.sum(samples == y, axis=0)
    drawn = np.random.default_rng(resolve_seed(seed)).uniform(size=y.shape)
    return (below + drawn * (equal + 1)) / (len(samples) + 1)
