"""Schedules for the weight of a loss term."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import keras
import tensorflow as tf

Beta = float | Callable[[tf.Tensor], tf.Tensor]


def linear_annealing(start: float = 0.01, stop: float = 1.0, steps: int = 10_000) -> Callable:
    """Return a Keras schedule that grows linearly from `start` to `stop` within `steps` training steps, then stays constant.

    The defaults follow Rezende and Mohamed (2015, arXiv:1505.05770, section 4.3): `min(1, 0.01 + t / 10000)`. Any other
    schedule of `keras.optimizers.schedules` works as `beta` too.

    Args:
      start, stop: Weights at the first step and after `steps` steps.
      steps: Number of steps.

    Raises:
      ValueError: If `steps` is not positive.

    Example:
      >>> beta = tff.linear_annealing(0.01, 1.0, steps=100)
      >>> print([round(float(beta(step)), 3) for step in (0, 50, 100, 1000)])
      [0.01, 0.505, 1.0, 1.0]
    """
    if steps < 1:
        raise ValueError(f"`steps` must be positive, got {steps!r}.")
    return keras.optimizers.schedules.PolynomialDecay(start, steps, end_learning_rate=stop)


def check_beta(beta: Beta) -> Beta:
    """Return a constant as a float and a schedule as it is. Raise a `ValueError` for anything else."""
    if callable(beta):
        return beta
    if isinstance(beta, numbers.Real) and math.isfinite(beta) and beta >= 0:
        return float(beta)
    raise ValueError(
        f"`beta` must be a finite number >= 0, or a function of the step such as linear_annealing(), got {beta!r}."
    )


def current_beta(model, training: bool) -> tf.Tensor:
    """Return the weight at the step of a model's optimizer, and 1 in evaluation."""
    if not training:
        return tf.ones([], model.dtype)
    beta = model.beta
    return tf.cast(beta(model.optimizer.iterations.value) if callable(beta) else beta, model.dtype)
