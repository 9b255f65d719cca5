"""The recipe of continuous flows."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import ContinuousFlow
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import real_dtype
from tfp_flows.recipes.recipe import assemble, recipe, sizes
from tfp_flows.seeds import split_seed

tfb = tfp.bijectors
tfd = tfp.distributions


@recipe
def continuous_flow(
    event_size: int,
    *,
    num_layers: int = 1,
    hidden_units: Sequence[int] = (64, 64),
    activation="tanh",
    trace: str = "auto",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    max_num_steps: int = 1000,
    base: tfd.Distribution | str | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "continuous_flow",
) -> FlowDistribution:
    """A continuous normalizing flow, FFJORD (Grathwohl et al. 2018): free-form dynamics, solved in both directions.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of differential equations, one after the other; none leaves the base.
      hidden_units, activation, trace, rtol, atol, max_num_steps: As in `ContinuousFlow`.
      base, preprocess, conditional_size, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost for each event and layer, in both directions: some twenty to a hundred passes of the
      network and of its derivative; `flow.bijector.bijectors[0].num_evaluations` tells how many the last call took.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = continuous_flow(2, hidden_units=[8], seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])

    References:
      W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, FFJORD, 2018, arXiv:1810.01367.
    """
    event_size, num_layers = sizes(event_size, num_layers, minimum_layers=0)
    dtype = real_dtype(dtype)
    layers = [
        ContinuousFlow(
            event_size,
            hidden_units=hidden_units,
            activation=activation,
            trace=trace,
            rtol=rtol,
            atol=atol,
            max_num_steps=max_num_steps,
            conditional_size=conditional_size,
            seed=s,
            dtype=dtype,
            name=f"continuous_{i}",
        )
        for i, s in enumerate(split_seed(seed, num_layers))
    ]
    return assemble(layers, event_size, base, preprocess, dtype, name)
