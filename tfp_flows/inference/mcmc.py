"""Markov chain Monte Carlo in the coordinates of a flow that is trained during warm-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Standardize
from tfp_flows.checks import one_of, positive_int
from tfp_flows.evaluation.arviz import rhat_and_ess
from tfp_flows.inference.chains import WARMUP_STEPS, Chains, Progress
from tfp_flows.inference.mcmc_result import MCMCResult
from tfp_flows.recipes import planar_flow, real_nvp
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.model_target import ModelTarget, is_model

tfd = tfp.distributions

__all__ = ["MCMCResult", "sample"]


def sample(
    model: Any,
    flow: tfd.Distribution | str | None = "train",
    *,
    event_size: int | None = None,
    num_chains: int = 8,
    num_samples: int = 500,
    num_warmup: int = 200,
    kernel: str = "nuts",
    target_accept: float = 0.8,
    max_tree_depth: int = 8,
    training_steps: int = 2000,
    seed: int | None = None,
    verbose: int = 0,
) -> MCMCResult:
    """Draw from the posterior of a model by Markov chains (Hamiltonian Monte Carlo) that move in the latent space of a flow.

    A good flow turns a posterior with narrow necks and correlations into nearly a standard normal distribution, in which
    chains move freely (Hoffman et al. 2019, arXiv:1903.03704). By default, warm-up trains the flow. Let
    `p` be the posterior density. Training minimizes the Fisher divergence, the mean squared difference, in latent space,
    between the gradients of the flow's log-density and of `log p` at the points that the chains visit. The draws come
    from the flow after this training. All chains run as one batch under XLA.

    Args:
      model: A density, not a Keras model: a joint distribution with data fixed by `experimental_pin`, a pair
        `(prior, log_likelihood)`, a `ModelTarget`, or a callable from `[n, D]` to `[n]`: `log p` up to a constant, in
        TensorFlow.
      flow: `"train"` for a RealNVP that warm-up trains; `None` for a diagonal affine map, as in plain NUTS; or a flow with
        events `[D]`, which warm-up trains if it has trainable variables and `training_steps` is positive.
      event_size: Size `D`, for a callable without an attribute `event_size`.
      num_chains: Number of chains.
      num_samples: Number of draws of each chain.
      num_warmup: Number of warm-up steps of each chain, rounded up to a multiple of 25. Each costs 8 evaluations of the
        gradient of `log p`, with any `kernel`.
      kernel: How the draws are made after warm-up: `"hmc"`, Hamiltonian Monte Carlo with 8 gradients for each draw, or
        `"nuts"`, the No-U-Turn Sampler, which chooses their number itself.
      max_tree_depth: A draw of `"nuts"` takes at most `2^max_tree_depth` gradients.
      target_accept: Acceptance probability that the step size aims at.
      training_steps: Number of steps of the last training of the flow, at the end of warm-up. Before that, it is trained for
        `training_steps / 6` steps after every 25 steps of the chains, but not after the first 25.
      seed: Integer seed of chains and flow.
      verbose: `1` shows a progress bar over the parts of 25 steps, with acceptance, step size, loss of the flow and
        number of divergences (trajectories that failed numerically); `2` prints a line for each part; `0` is silent.

    Returns:
      An `MCMCResult`: `draws` with the structure of the model, `values` `[num_chains, num_samples, P]`, their `labels`, and
      diagnostics, which `print(result)` shows.

    Raises:
      ValueError: If the model is refused by `ModelTarget`, or for an argument out of range.
      ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).

    Example:
      >>> target = tfd.MultivariateNormalTriL([1.0, -2.0], [[1.0, 0.0], [3.0, 0.1]])
      >>> result = tff.mcmc.sample(
      ...     target.log_prob, None, event_size=2, num_chains=4, num_samples=100, num_warmup=100, kernel="hmc", seed=1)
      >>> result.values.shape, result.labels
      ((4, 100, 2), ['z[0]', 'z[1]'])
    """
    one_of("kernel", kernel, ("nuts", "hmc"))
    one_of("verbose", verbose, (0, 1, 2))
    positive_int("num_chains", num_chains)
    positive_int("num_warmup", num_warmup)
    positive_int("num_samples", num_samples, 4)
    steps = 0 if flow is None else positive_int("training_steps", training_steps, 0)
    _check_probability("target_accept", target_accept)
    target, size, dtype = _target(model, event_size)
    seed = resolve_seed(seed) % 2**31
    parts = -(-num_warmup // WARMUP_STEPS)
    progress = Progress(verbose, parts, num_samples)
    chains = Chains(target, _flow(flow, size, dtype, seed), size, num_chains, seed)
    scale = chains.flow.bijector.bijectors[0] if flow is None or isinstance(flow, str) else None
    z = chains.warm_up(target, parts, scale, steps, target_accept, progress)
    warmup = chains.num_gradients
    draws = chains.draw(z, kernel, num_samples, target_accept, max_tree_depth, progress)
    return _result(target, *draws, {"warmup": warmup, "sampling": chains.num_gradients - warmup})


def _check_probability(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"`{name}` must be between 0 and 1, got {value!r}.")


def _result(target: Callable, draws: tf.Tensor, acceptance: float, divergences: int, gradients: dict) -> MCMCResult:
    samples, chains, size = draws.shape
    flat, parts, labels = tf.reshape(draws, [-1, size]), draws, [f"z[{i}]" for i in range(size)]
    values = flat.numpy()
    if isinstance(target, ModelTarget):
        values, parts, labels = target.parameters(flat), target.bijector.forward(draws), target.labels
    values = np.swapaxes(values.reshape([samples, chains, -1]), 0, 1).astype(np.float64)
    return MCMCResult(parts, labels, values, *rhat_and_ess(values), divergences, gradients, acceptance)


def _target(model: Any, event_size: int | None) -> tuple[Callable, int, tf.DType]:
    target = ModelTarget(model) if is_model(model) else model
    if not callable(target):
        raise ValueError(f"`model` must be a model or a callable, got {model!r}.")
    size = getattr(target, "event_size", event_size)
    if size is None:
        raise ValueError("`event_size` must be given for a callable.")
    return target, positive_int("event_size", size), getattr(target, "dtype", tf.float32)


def _flow(flow: Any, size: int, dtype: tf.DType, seed: int) -> tfd.Distribution:
    if isinstance(flow, tfd.Distribution):
        if flow.event_shape.as_list() != [size] or not hasattr(flow, "bijector"):
            raise ValueError(f"`flow` must be a flow with event shape [{size}], got {flow}.")
        return flow
    scale = Standardize(size, dtype=dtype)
    if flow is None or size == 1:
        return planar_flow(size, num_layers=0, preprocess=scale, dtype=dtype)
    if flow != "train":
        raise ValueError(f'`flow` must be "train", None or a flow, got {flow!r}.')
    return real_nvp(size, num_layers=6, hidden_units=[64, 64], preprocess=scale, seed=seed, dtype=dtype)
