"""The recipe of planar flows."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import PlanarFlow
from tfp_flows.distribution import FlowDistribution
from tfp_flows.flows.recipe import assemble, recipe, sizes
from tfp_flows.seeds import split_seed

tfb = tfp.bijectors
tfd = tfp.distributions


@recipe
def planar_flow(
    event_size: int,
    *,
    num_layers: int = 16,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    base: tfd.Distribution | None = None,
    preprocess: tfb.Bijector | None = None,
    conditional_size: int | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "planar_flow",
) -> FlowDistribution:
    """A composition of planar flows (Rezende and Mohamed 2015), which can be sampled and scored.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of layers.
      hidden_units, activation: Of the networks that compute `u`, `w` and `b` from a condition; unused without one.
      base: Distribution of the latent values, with event shape `[D]`; a standard `MultivariateNormalDiag` if `None`.
      preprocess: A bijector on the data's side, such as `standardize(x_train)`.
      conditional_size: Size `C` of the `conditional_input` of a conditional flow, which `log_prob` and `sample` then need.
      seed: Integer seed of the initial weights.
      dtype: `tf.float32` or `tf.float64`.
      name: Name of the distribution.

    Returns:
      A transformed distribution. Cost for each event and layer: sampling `O(D)`; `log_prob` `O(D)` and a scalar solve.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = planar_flow(2, num_layers=4, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])

    References:
      D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv:1505.05770.
    """
    event_size, num_layers = sizes(event_size, num_layers)
    dtype = tf.as_dtype(dtype)
    layers = [
        PlanarFlow(
            event_size,
            conditional_size=conditional_size,
            hidden_units=hidden_units,
            activation=activation,
            seed=s,
            dtype=dtype,
            name=f"planar_{i}",
        )
        for i, s in enumerate(split_seed(seed, num_layers))
    ]
    return assemble(layers, event_size, base, preprocess, dtype, name)
