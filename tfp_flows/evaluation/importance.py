"""Importance weights of an approximation to an unnormalized density, and the bounds that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.seeds import resolve_seed

tfd = tfp.distributions


class ImportanceDiagnostics(NamedTuple):
    """Diagnostics from importance weights `p(z) / q(z)` of samples from `q`, in nats.

    Attributes:
      elbo: Mean of the log-weights, a lower bound of `log Z`. The gap is the reverse KL divergence.
      elbo_error: Standard error of `elbo`.
      log_normalizer: Log of the mean weight, the importance-weighted bound of `log Z` (Burda et al. 2015, arXiv:1509.00519).
      effective_sample_size: `(sum w)^2 / sum w^2 / n`, a fraction of the samples; 1 if `q` equals `p`.
      log_weights: Log-weight of each sample, `[n]`.
      samples: The samples, `[n, *event_shape]`.
      log_normalizer_error: Standard error of `log_normalizer`.
    """

    elbo: float
    elbo_error: float
    log_normalizer: float
    effective_sample_size: float
    log_weights: np.ndarray
    samples: tf.Tensor
    log_normalizer_error: float


def importance_diagnostics(
    distribution: tfd.Distribution,
    target_log_prob_fn: Callable[[tf.Tensor], tf.Tensor],
    *,
    num_samples: int = 10_000,
    seed: int | None = None,
) -> ImportanceDiagnostics:
    """Return ELBO, importance-weighted bound and effective sample size of an approximation, as `ImportanceDiagnostics`.

    Args:
      distribution: The approximation `q`.
      target_log_prob_fn: Callable from `[n, *event_shape]` to `[n]`: `log p` up to a constant.
      num_samples: Number of samples.
      seed: Seed of the samples.

    Raises:
      ValueError: If `num_samples` is less than 2, the target is NaN at a sample, or it is zero at all samples.

    Example:
      >>> q = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
      >>> found = importance_diagnostics(q, lambda z: q.log_prob(z) + 3.0, seed=1)
      >>> print(round(found.elbo, 4), round(found.log_normalizer, 4), round(found.effective_sample_size, 4))
      3.0 3.0 1.0
    """
    n = positive_int("num_samples", num_samples, 2)
    seed = tf.constant([resolve_seed(seed) % 2**31, 0], tf.int32)
    z, log_q = distribution.experimental_sample_and_log_prob(n, seed=seed)
    log_w = np.asarray(target_log_prob_fn(z), np.float64) - np.asarray(log_q, np.float64)
    if np.any(np.isnan(log_w)):
        raise ValueError(f"`target_log_prob_fn` must not be NaN, and is at {np.isnan(log_w).sum()} of {n} samples.")
    top = np.max(log_w)
    if not np.isfinite(top):
        raise ValueError(
            f"`target_log_prob_fn` must be finite somewhere, and is {top} at all {n} samples or the best of them."
        )
    w = np.exp(log_w - top)
    return ImportanceDiagnostics(
        elbo=float(np.mean(log_w)),
        elbo_error=float(np.std(log_w, ddof=1) / np.sqrt(n)) if np.all(np.isfinite(log_w)) else math.inf,
        log_normalizer=float(top + np.log(np.mean(w))),
        log_normalizer_error=float(np.std(w, ddof=1) / np.mean(w) / np.sqrt(n)),
        effective_sample_size=float(np.sum(w) ** 2 / np.sum(w**2) / n),
        log_weights=log_w,
        samples=z,
    )
