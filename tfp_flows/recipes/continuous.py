"""Recipe of continuous flows."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfp_flows.bijectors import ContinuousFlow
from tfp_flows.checks import positive_int
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed


@recipe(
    paper="Grathwohl et al. 2018, FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models",
    arxiv="1810.01367",
    density="20 to 100 passes, each with D backward passes (one if D > 8)",
    sampling="20 to 100 passes",
)
def continuous_flow(
    event_size: int,
    *,
    num_layers: int = 1,
    hidden_units: Sequence[int] = (64, 64),
    activation="tanh",
    num_frequencies: int = 0,
    trace: str = "auto",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    max_num_steps: int = 1000,
    solver: str = "dormand_prince",
    num_steps: int | None = None,
    conditional_size: int | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
):
    """Build a continuous normalizing flow, FFJORD (Grathwohl et al. 2018).

    `flow.bijector.bijectors[0].num_evaluations` holds the number of passes of the last call.

    Args:
      num_layers: Number of differential equations, in sequence; 0 returns the base.
      num_frequencies: Number of Fourier features of each dimension and of the time, for fine structure in standardized
        data. Flow matching gains from 3; 0 for none.
      trace: `"exact"`, `"hutchinson"` (an unbiased estimate), or `"auto"`, which is exact up to 8 dimensions.
      rtol: Relative tolerance of the solver.
      atol: Absolute tolerance of the solver.
      max_num_steps: Number of solver steps after which a call fails.
      solver: `"dormand_prince"` (adaptive steps), or `"euler"`, `"midpoint"`, `"heun"` or `"rk4"`: `num_steps` fixed steps
        of 1, 2, 2 or 4 passes. Their `log_prob` is then close to the density of the samples, not equal.
      num_steps: Number of steps of a fixed-step solver, which needs it.

    Example:
      >>> flow = tff.continuous_flow(2, hidden_units=[8], seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    options = {"hidden_units": hidden_units, "activation": activation, "trace": trace, "rtol": rtol, "atol": atol}
    options |= {"max_num_steps": max_num_steps, "solver": solver, "num_steps": num_steps}
    options |= {"num_frequencies": num_frequencies}
    options |= {"conditional_size": conditional_size, "dtype": dtype}
    seeds = split_seed(seed, positive_int("num_layers", num_layers, 0))
    return [ContinuousFlow(event_size, seed=s, name=f"continuous_{i}", **options) for i, s in enumerate(seeds)]
