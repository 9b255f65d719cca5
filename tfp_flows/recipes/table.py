"""Default flow and training settings for a table of numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfp_flows.bases import MultivariateStudentT, UniformAngles
from tfp_flows.bijectors import Support, standardize
from tfp_flows.checks import positive_int
from tfp_flows.data.arrays import to_array
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import real_dtype
from tfp_flows.recipes.autoregressive import spline_autoregressive


class TableTraining(NamedTuple):
    """Training settings, as returned by `table_training`."""

    batch_size: int
    epochs: int
    learning_rate: float
    patience: int


def table_training(rows: int) -> TableTraining:
    """Return settings for a table of `rows` training rows: about 3200 steps, or 800 for few rows.

    They suit `table_flow` on tables of 80 to 19,020 rows. Use them with a cosine decay of the learning rate to zero,
    `global_clipnorm=1` and early stopping on validation rows, as `tff.fit_table` does.

    Raises:
      ValueError: If `rows` is not a positive integer.

    Example:
      >>> tff.table_training(500)
      TableTraining(batch_size=125, epochs=200, learning_rate=0.001, patience=50)
    """
    return settings_for(rows)


def settings_for(
    rows: int, epochs: int | None = None, batch_size: int | None = None, learning_rate: float | None = None
) -> TableTraining:
    """Return the settings of `table_training`, with given values in their place."""
    rows = positive_int("rows", rows)
    size = min(256, max(1, rows // 4))  # at least four steps per epoch
    if batch_size is not None:
        size = min(positive_int("batch_size", batch_size), size)
    if epochs is None:
        epochs = max(20, min(200, -(-3200 // (rows // size))))
    if learning_rate is None:
        learning_rate = 3e-3 if rows >= 1000 else 1e-3  # large steps overfit few rows
    return TableTraining(size, positive_int("epochs", epochs), learning_rate, max(10, epochs // 4))


def table_flow(
    x, *, support="real", seed: int | None = None, dtype: tf.DType = tf.float32, name: str = "table_flow"
) -> FlowDistribution:
    """Return the default flow for a table: autoregressive splines over a base that is fitted to the rows.

    Columns, or with `support` their unconstrained values, are standardized. The base is the maximum-likelihood
    `MultivariateStudentT`, so that the untrained flow is a full-covariance Gaussian or has heavier tails (Jaini et al.
    2020, arXiv:1907.04481). Outside of the splines'
    interval (Durkan et al. 2019, arXiv:1906.04032), the flow keeps the tails of the base. Cost: as for
    `spline_autoregressive`, `log_prob` takes one pass of each network, and sampling about one pass, in `D` steps.

    Args:
      x: Training rows `[N, D]`: array or data frame.
      support: Support of the columns: one entry for all, a list with one for each, or a `Support` (see there).
      seed, dtype, name: Integer seed of the initial weights, dtype of weights and computation, and name of the distribution.

    Raises:
      ValueError: If `x` has another shape, a constant column or a value that is not finite.

    Example:
      >>> x = tff.data.moons().sample(500, seed=1)
      >>> flow = tff.table_flow(x, seed=1)
      >>> scale_tril = np.linalg.cholesky(np.cov(x.T, bias=True)).astype("float32")
      >>> gaussian = tfd.MultivariateNormalTriL(x.mean(axis=0), scale_tril)
      >>> print(np.allclose(tf.reduce_mean(flow.log_prob(x)), tf.reduce_mean(gaussian.log_prob(x)), atol=1e-3))
      True
    """
    dtype = real_dtype(dtype)
    rows = to_array("x", x)
    preprocess = standardize(rows, dtype=dtype)
    size = rows.shape[1]
    support = Support.of(support, size, dtype)
    if not support.is_identity:
        support.adapt(rows)
    num_others = support.latent_size - len(support.circles)
    base = MultivariateStudentT(num_others, dtype=dtype) if num_others else None
    if support.circles:
        base = UniformAngles(support.latent_size, support.circles, base, dtype=dtype)
    options = {"base": base, "support": support, "preprocess": preprocess, "seed": seed, "dtype": dtype}
    flow = spline_autoregressive(size, **options, name=name)
    adapt_table_flow(flow, rows)
    return flow


def adapt_table_flow(flow: FlowDistribution, rows: np.ndarray) -> None:
    """Fit the base of an untrained flow to rows. Its layers are still permutations and identities."""
    chunks = [flow.bijector.inverse(tf.cast(rows[i : i + 8192], flow.dtype)).numpy() for i in range(0, len(rows), 8192)]
    flow.distribution.adapt(np.concatenate(chunks))
