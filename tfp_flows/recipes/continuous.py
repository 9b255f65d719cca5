"""Recipes of continuous flows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import ContinuousFlow, get_preprocess_bijector
from tfp_flows.bijectors.composition import members_of, without_invert
from tfp_flows.checks import image_sizes, positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.networks import VelocityUNet
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed


@recipe(
    paper="Grathwohl et al. 2018, FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models",
    arxiv="1810.01367",
    density="20 to 100 passes, each with D backward passes for the log-det (one for an estimate if D > 8)",
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


@recipe(
    density="one U-Net pass per evaluation, each with one backward pass",
    sampling="one U-Net pass per evaluation",
)
def image_continuous_flow(
    image_shape: Sequence[int],
    *,
    num_scales: int = 2,
    filters: int = 32,
    trace: str = "hutchinson",
    rtol: float = 1e-3,
    atol: float = 1e-3,
    max_num_steps: int = 1000,
    solver: str = "dormand_prince",
    num_steps: int | None = None,
    alpha: float | None = 0.05,
    conditional_size: int | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
):
    """Build a continuous flow of images, whose velocity is a small U-Net (see `VelocityUNet`).

    Train it with `FlowMatchingModel` (Lipman et al. 2022, arXiv:2210.02747). Maximum likelihood would solve a differential
    equation in each step.

    Args:
      image_shape: `(H, W, C)`; height and width must be multiples of `2 ** (num_scales - 1)`.
      num_scales: Number of scales of the U-Net.
      filters: Channels of its first scale, doubled at each further one.

    Example:
      >>> flow = tff.image_continuous_flow((4, 4, 1), filters=4, solver="midpoint", num_steps=2)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    shape, size = image_sizes("image_shape", image_shape), int(np.prod(image_shape))
    sizes = {"filters": filters, "num_scales": num_scales, "conditional_size": conditional_size}
    network = VelocityUNet(shape, seed=seed, dtype=dtype.name, **sizes)
    options = {"trace": trace, "rtol": rtol, "atol": atol, "max_num_steps": max_num_steps, "solver": solver}
    options |= {"num_steps": num_steps, "conditional_size": conditional_size, "seed": seed, "dtype": dtype}
    layers = [ContinuousFlow(size, network=network, name="continuous", **options), tfb.Reshape(shape, [size])]
    if alpha is not None:
        layers.append(tfb.Invert(get_preprocess_bijector(alpha, dtype), name="pixels"))
    return layers


def with_solver(flow: FlowDistribution, solver: str, num_steps: int | None = None, *, rtol=None, atol=None):
    """Return a continuous flow with another solver, which shares base, layers and weights with `flow`.

    Cost per sample: `num_steps` times 1, 2, 2 or 4 passes for `"euler"`, `"midpoint"`, `"heun"` and `"rk4"`. Keep the
    original flow for densities: with fixed steps, `log_prob` is close to the density of the samples, not equal.

    Args:
      flow: A flow with at least one `ContinuousFlow`, such as those of `continuous_flow` and `image_continuous_flow`.
      solver: `"dormand_prince"`, `"euler"`, `"midpoint"`, `"heun"` or `"rk4"`.
      num_steps: Number of steps; `None` for `"dormand_prince"`.
      rtol, atol: Tolerances of `"dormand_prince"`; those of the layers if `None`.

    Returns:
      A `FlowDistribution`.

    Raises:
      ValueError: If the flow has no `ContinuousFlow`, or an argument is out of range.

    Example:
      >>> flow = tff.continuous_flow(2, hidden_units=[8], seed=1)
      >>> fast = tff.with_solver(flow, "midpoint", 8)
      >>> fast.sample(3).shape, int(fast.bijector.bijectors[0].num_evaluations)
      (TensorShape([3, 2]), 16)
    """
    members = members_of(flow.bijector) if hasattr(flow, "bijector") else []
    if not any(isinstance(without_invert(layer), ContinuousFlow) for layer in members):
        raise ValueError(f"`flow` must have a ContinuousFlow, such as tff.continuous_flow(2), got {flow}.")

    def changed(layer):
        if isinstance(layer, ContinuousFlow):
            return layer.with_solver(solver, num_steps, rtol=rtol, atol=atol)
        inner = without_invert(layer)
        if inner is not layer and isinstance(inner, ContinuousFlow):
            return tfb.Invert(changed(layer.bijector), name=layer.name)
        return layer

    layers = [changed(layer) for layer in members]
    condition = getattr(flow, "preprocess_condition", None)
    return FlowDistribution(flow.distribution, tfb.Chain(layers), preprocess_condition=condition, name=flow.name)
