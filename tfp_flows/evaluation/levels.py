"""Density levels, the p-values of anomaly scores."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.data.arrays import to_array
from tfp_flows.seeds import resolve_seed


def density_level(
    distribution, x, *, conditional_input=None, num_samples: int = 10_000, seed: int | None = None
) -> np.ndarray:
    """Return the probability that an event of the distribution has a lower density than each row of `x`, `[N]`.

    This is the p-value of the log-density as an anomaly score: for rows from the distribution it is uniform on (0, 1), and
    near zero for anomalies. One minus the level is the mass of the smallest region of highest density that contains
    the row. The error of a level `p` is about `sqrt(p (1 - p) / num_samples)`, and none is below
    `1 / (num_samples + 1)`.

    Cost: `num_samples` samples and log-densities, for each row if there are conditions.

    Args:
      distribution: A flow, a `FlowModel`, or any distribution with `sample` and `log_prob`.
      x: Events `[N, *event_shape]`; a data frame for a model that was fitted to one.
      conditional_input: Conditions `[N, C]` of a conditional flow.
      num_samples: Number of samples.
      seed: Integer seed of the samples.

    Raises:
      ValueError: If `num_samples` is not positive, or an event or condition does not fit the distribution.

    Example:
      >>> normal = tfd.MultivariateNormalDiag(tf.zeros(1), tf.ones(1))
      >>> print(np.round(tff.diagnostics.density_level(normal, [[0.0], [1.96], [9.0]], seed=1), 2))
      [1.   0.05 0.  ]
    """
    count, seed = positive_int("num_samples", num_samples), resolve_seed(seed) % 2**31
    own = hasattr(distribution, "compile")  # a model takes integer seeds
    dtype = tf.as_dtype(getattr(distribution, "distribution", distribution).dtype if own else distribution.dtype)
    if not own or conditional_input is not None:
        x = tf.cast(to_array("x", x), dtype)
    if conditional_input is None:
        samples = distribution.sample(count, seed=seed if own else (seed, 0))
        reference = np.sort(np.asarray(distribution.log_prob(samples), np.float64))
        below = np.searchsorted(reference, np.asarray(distribution.log_prob(x), np.float64), side="right")
        return (below + 1) / (count + 1)
    levels = []
    for i, (row, condition) in enumerate(zip(x, tf.cast(conditional_input, dtype), strict=True)):
        given = {"conditional_input": condition}
        samples = distribution.sample(count, seed=seed + i if own else (seed, i), **given)
        log_prob = np.asarray(distribution.log_prob(samples, **given), np.float64)
        levels.append((np.sum(log_prob <= float(distribution.log_prob(row, **given))) + 1) / (count + 1))
    return np.array(levels)
