"""Objectives of variational inference: the reverse KL divergence, Renyi and importance-weighted bounds, the forward KL."""

from __future__ import annotations

import math
import numbers

import tensorflow as tf

Objective = str | float
_LEAST_EFFECTIVE = 0.25  # fraction of the samples
_ALPHAS = {"reverse_kl": 1.0, "importance_weighted": 0.0, "forward_kl": None}


def check_objective(objective: Objective, path_derivative: bool) -> float | None:
    """Return the order `alpha` of the bound, and `None` for the forward KL divergence.

    Raises:
      ValueError: If the objective is unknown, or has no path derivative.
    """
    if isinstance(objective, numbers.Real) and not isinstance(objective, bool) and 0 <= objective < math.inf:
        return float(objective)
    if objective not in _ALPHAS:
        names = ", ".join(f'"{name}"' for name in _ALPHAS)
        raise ValueError(
            f"`objective` must be {names} or a finite number >= 0, the order of a Renyi bound, got {objective!r}."
        )
    if objective == "forward_kl" and path_derivative:
        raise ValueError(
            '`path_derivative` must be false for `objective="forward_kl"`, which passes no gradient to samples.'
        )
    return _ALPHAS[objective]


def renyi_bound(log_weight: tf.Tensor, alpha: float, group: int, moved: tf.Tensor | None = None) -> tf.Tensor:
    """Return minus the Renyi bound of order `alpha` of each group of `group` samples, repeated for each sample, `[n]`.

    Args:
      log_weight: `log p - log q` of the samples, `[n]`, in nats.
      alpha: Order of the bound; 1 is the ELBO.
      group: Number of samples in each term.
      moved: If given, the sum over axes of `z` times the constant gradient of `log_weight` with respect to `z`: gradients
        then flow through the samples only, with the weights of Tucker et al. (2018, arXiv:1810.04152).
    """
    if alpha == 1.0:
        loss, share = -log_weight, tf.ones_like(log_weight)
    else:
        exponents = (1.0 - alpha) * tf.reshape(log_weight, [-1, group])
        bound = (tf.reduce_logsumexp(exponents, axis=-1, keepdims=True) - math.log(group)) / (1.0 - alpha)
        loss = tf.reshape(-bound + tf.zeros_like(exponents), [-1])
        share = tf.nn.softmax(exponents)
        share = group * tf.reshape(alpha * share + (1.0 - alpha) * tf.square(share), [-1])
    if moved is None:
        return loss
    moved = -tf.stop_gradient(share) * moved
    return moved + tf.stop_gradient(loss - moved)


def forward_kl(log_q: tf.Tensor, log_weight: tf.Tensor) -> tf.Tensor:
    """Return the terms of the forward cross-entropy, `-n w log q` with self-normalized weights `w`, `[n]`.

    While `q` is far from `p`, a few samples would have all of the weight. The weights are then raised to a power below 1,
    so that their effective sample size is a quarter of the samples. `q = p` stays the optimum for each power.
    """
    share = tf.stop_gradient(_tempered_weights(log_weight))
    return -tf.cast(tf.size(share), share.dtype) * share * log_q


def _tempered_weights(log_weight: tf.Tensor) -> tf.Tensor:
    """Return normalized weights to the largest power up to 1 that leaves the wanted effective sample size."""
    outside = tf.equal(log_weight, -math.inf)  # of the target's support; NaN stays and is noticed
    inside = tf.where(outside, tf.zeros_like(log_weight), log_weight)
    wanted = _LEAST_EFFECTIVE * tf.reduce_sum(tf.cast(~outside, log_weight.dtype))

    def weights(power):
        return tf.nn.softmax(tf.where(outside, tf.cast(-1e30, log_weight.dtype), power * inside))

    def is_enough(power):
        return 1.0 / tf.reduce_sum(tf.square(weights(power))) >= wanted

    low, high = tf.zeros([], log_weight.dtype), tf.ones([], log_weight.dtype)
    whole = is_enough(high)
    for _ in range(20):  # bisection
        middle = 0.5 * (low + high)
        enough = is_enough(middle)
        low, high = tf.where(enough, middle, low), tf.where(enough, high, middle)
    return weights(tf.where(whole, tf.ones_like(low), low))
