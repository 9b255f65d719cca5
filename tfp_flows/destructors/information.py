"""Entropy, total correlation and mutual information of samples, by Gaussianization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import MarginalGaussianization
from tfp_flows.checks import positive_int
from tfp_flows.destructors.rbig import rbig
from tfp_flows.distribution import FlowDistribution
from tfp_flows.seeds import resolve_seed, split_seed
from tfp_flows.training.validation import check_events


class Estimate(NamedTuple):
    """Value in nats and its standard error, which reflects the number of scored samples, not the fit."""

    value: float
    standard_error: float


def _over_folds(x: np.ndarray, folds: int, seed: int | None, score: Callable) -> Estimate:
    """Return the mean of `score(rest, part, seed)`, which scores the rows of each fold given the others."""
    folds, seed = positive_int("folds", folds, 2), resolve_seed(seed)
    if len(x) < 20 * folds:
        raise ValueError(f"`x` must have at least {20 * folds} rows for {folds} folds, got {len(x)}.")
    fold = np.random.default_rng(seed).permutation(len(x)) % folds
    scores = np.empty(len(x))
    for k, s in enumerate(split_seed(seed, folds)):
        scores[fold == k] = score(x[fold != k], x[fold == k], s)
    return Estimate(float(np.mean(scores)), float(np.std(scores) / np.sqrt(len(scores))))


def _gaussianized(x: np.ndarray, seed: int, options: dict) -> FlowDistribution:
    return rbig(x.shape[1], **{"dtype": tf.float64, **options, "seed": seed}).fit(x, verbose=0)


def _log_prob(flow: Any, x: np.ndarray) -> np.ndarray:
    return np.concatenate([flow.log_prob(x[i : i + 65536]).numpy() for i in range(0, len(x), 65536)])


def _checked(name: str, x: Any) -> np.ndarray:
    size = np.shape(x)[1] if np.ndim(x) == 2 else None
    return check_events(name, x, (size,), tf.float64)


def entropy(x, *, folds: int = 2, seed: int | None = None, **options) -> Estimate:
    """Estimate the differential entropy of samples, in nats (Laparra et al. 2020, arXiv:2010.03807).

    The estimate is the mean NLL of each fold under an RBIG flow fitted to the others. On average it is never too low,
    and too high by what the flow does not capture.

    Args:
      x: Samples `[N, D]`.
      folds: Number of parts of the data. Each is scored by a fit to the others.
      seed: Integer seed.
      options: Keywords of `rbig`, such as `rotation` and `num_bins`.

    Raises:
      ValueError: If `x` has another shape, a value that is not finite, or fewer than 20 rows per fold.

    Example:
      >>> x = np.random.default_rng(1).normal(size=[4000, 2])  # the entropy is log(2 pi e) = 2.838
      >>> found = tff.destructors.entropy(x, seed=1)
      >>> bool(abs(found.value - 2.838) < 0.1)
      True
    """

    def score(rest, part, seed):
        return -_log_prob(_gaussianized(rest, seed, options), part)

    return _over_folds(_checked("x", x), folds, seed, score)


def total_correlation(x, *, folds: int = 2, seed: int | None = None, **options) -> Estimate:
    """Estimate the total correlation (multi-information) of samples, in nats (Laparra et al. 2020, arXiv:2010.03807).

    The estimate is the mean log-density of each fold under an RBIG flow fitted to the others, minus that of the flow's
    first layer, which models only the marginals. It is too low by what the flow does not capture, and too high by what
    the first layer misses of the marginals, which can be much for heavy tails.

    Args:
      x: Samples `[N, D]`.
      folds: Number of parts of the data. Each is scored by a fit to the others.
      seed: Integer seed.
      options: Keywords of `rbig`, such as `rotation` and `num_bins`.

    Example:
      >>> x = np.random.default_rng(1).normal(size=[4000, 2])
      >>> x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]  # -log(1 - 0.8^2) / 2 = 0.511
      >>> found = tff.destructors.total_correlation(x, seed=1)
      >>> bool(abs(found.value - 0.511) < 0.1)
      True
    """

    def score(rest, part, seed):
        flow = _gaussianized(rest, seed, options)
        layers = list(flow.bijector.bijectors)
        first = next(i for i, layer in enumerate(layers) if isinstance(layer, MarginalGaussianization))
        marginals = FlowDistribution(flow.distribution, tfp.bijectors.Chain(layers[: first + 1]))
        return _log_prob(flow, part) - _log_prob(marginals, part)

    return _over_folds(_checked("x", x), folds, seed, score)


def mutual_information(x, y, *, folds: int = 2, seed: int | None = None, **options) -> Estimate:
    """Estimate the mutual information of two groups of variables, in nats (Laparra et al. 2020, arXiv:2010.03807).

    Each group is Gaussianized on its own, which preserves mutual information, and then both jointly. The estimate is
    the mean log-density of the pair minus those of the groups. It may be negative for few rows.

    Args:
      x, y: Samples `[N, D]` and `[N, E]`, in matching rows.
      folds: Number of parts of the data. Each is scored by a fit to the others.
      seed: Integer seed.
      options: Keywords of `rbig`, such as `rotation` and `num_bins`.

    Example:
      >>> x = np.random.default_rng(1).normal(size=[4000, 1])
      >>> y = 0.8 * x + 0.6 * np.random.default_rng(2).normal(size=[4000, 1])  # -log(1 - 0.8^2) / 2 = 0.511
      >>> found = tff.destructors.mutual_information(x, y, seed=1)
      >>> bool(abs(found.value - 0.511) < 0.1)
      True
    """
    x, y = _checked("x", x), _checked("y", y)
    if len(x) != len(y):
        raise ValueError(f"`x` has {len(x)} rows, `y` has {len(y)}.")
    size = x.shape[1]

    def score(rest, part, seed):
        alone = [slice(None, size), slice(size, None)]
        seeds = split_seed(seed, 3)
        flows = [_gaussianized(rest[:, group], s, options) for group, s in zip(alone, seeds, strict=False)]

        def latent(rows):
            parts = zip(flows, alone, strict=True)
            return np.concatenate([flow.bijector.inverse(rows[:, group]).numpy() for flow, group in parts], axis=1)

        joint = _gaussianized(latent(rest), seeds[2], options)
        z = latent(part)
        return _log_prob(joint, z) - joint.distribution.log_prob(z).numpy()

    return _over_folds(np.concatenate([x, y], axis=1), folds, seed, score)
