"""Markov chain Monte Carlo in the coordinates of a flow that is trained during warm-up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Standardize
from tfp_flows.bijectors.composition import forward_and_log_det, inverse_and_log_det
from tfp_flows.checks import one_of, positive_int
from tfp_flows.evaluation.arviz import inference_data, rhat_and_ess
from tfp_flows.inference.fisher import FisherModel
from tfp_flows.recipes import planar_flow, real_nvp
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.model_target import ModelTarget, is_model

tfd = tfp.distributions

__all__ = ["MCMCResult", "sample"]

_LEAPFROGS = 8  # of a warm-up step
_WARMUP_STEPS, _SAMPLING_STEPS = 25, 25  # in a compiled call
_STEP_SIZE_CALLS = 5  # with the final kernel, before the draws that count


@dataclasses.dataclass(frozen=True)
class MCMCResult:
    """Draws of Markov chains, with diagnostics. `print` shows them as a table.

    Attributes:
      draws: The unknown parts in the model's structure, `[num_samples, num_chains, ...]`; for a target that is a function, the
        vectors `[num_samples, num_chains, D]`.
      labels: Name of each parameter.
      values: The parameters as one array, `[num_chains, num_samples, P]`.
      rhat: Rank-normalized split R-hat of each parameter; below 1.01 if the chains mixed.
      ess_bulk, ess_tail: Effective sample sizes of each parameter.
      num_divergences: Number of divergent trajectories among the draws.
      num_gradients: Number of gradients of the target, `"warmup"` and `"sampling"`, summed over chains.
      acceptance: Mean acceptance probability of the draws.
    """

    draws: Any
    labels: list[str]
    values: np.ndarray
    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    num_divergences: int
    num_gradients: dict[str, int]
    acceptance: float

    @property
    def warnings(self) -> list[str]:
        """Sentences about what makes the draws unreliable; an empty list if nothing does."""
        found = []
        rhat = np.where(np.isfinite(self.rhat), self.rhat, np.inf)  # a constant parameter has none
        worst = int(np.argmax(rhat))
        if rhat[worst] >= 1.01:
            found.append(
                f"The chains did not mix: R-hat of {self.labels[worst]} is {rhat[worst]:.3f}, above 1.01. Increase "
                "`num_warmup` and `num_samples`."
            )
        if self.num_divergences:
            found.append(
                f"{self.num_divergences} trajectories diverged: the draws may miss a part of the target. Increase "
                "`num_warmup` or `target_accept`."
            )
        sizes = np.nan_to_num(np.minimum(self.ess_bulk, self.ess_tail), nan=0.0)
        least = int(np.argmin(sizes))
        size = sizes[least]
        if size < 100 * len(self.values):
            found.append(f"{self.labels[least]} has {size:.0f} effective samples, fewer than 100 for each chain.")
        return found

    def __str__(self) -> str:
        width = max(9, *map(len, self.labels))
        flat = self.values.reshape(-1, self.values.shape[-1])
        warmup, sampling = self.num_gradients["warmup"], self.num_gradients["sampling"]
        lines = [
            f"{self.values.shape[0]} chains of {self.values.shape[1]} draws, {warmup} + {sampling} gradients, acceptance "
            f"{self.acceptance:.2f}, {self.num_divergences} divergences",
            f"{'':{width}} {'mean':>10} {'deviation':>10} {'R-hat':>7} {'ESS bulk':>9} {'ESS tail':>9}",
        ]
        columns = (self.labels, flat.mean(axis=0), flat.std(axis=0), self.rhat, self.ess_bulk, self.ess_tail)
        for label, mean, deviation, rhat, bulk, tail in zip(*columns, strict=True):
            lines.append(f"{label:{width}} {mean:10.4g} {deviation:10.4g} {rhat:7.3f} {bulk:9.0f} {tail:9.0f}")
        return "\n".join([*lines, *self.warnings])

    def to_inference_data(self) -> Any:
        """Return the draws as ArviZ's container.

        Raises:
          ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).
        """
        return inference_data(self.labels, self.values)


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
    verbose: bool = False,
) -> MCMCResult:
    """Draw from the posterior of a model by Hamiltonian Monte Carlo in the coordinates of a flow.

    A good flow turns a posterior with narrow necks and correlations into nearly a standard normal distribution, in which
    chains move freely (Hoffman et al. 2019, arXiv:1903.03704). By default the flow is trained during warm-up, by the
    Fisher divergence from the points and gradients of the chains' own trajectories, and then frozen. All chains run as one
    batch under XLA.

    Args:
      model: A pinned joint distribution, a pair `(prior, log_likelihood)`, a `ModelTarget`, or a callable from `[n, D]` to
        `[n]`: `log p` up to a constant, in TensorFlow.
      flow: `"train"` for a RealNVP that warm-up trains; `None` for a diagonal affine map, as in plain NUTS; or a flow with
        events `[D]`, which warm-up trains if it has trainable variables and `training_steps` is positive.
      event_size: Size `D`, for a callable without an attribute `event_size`.
      num_chains, num_samples: Number of chains, and of draws of each chain.
      num_warmup: Number of warm-up steps of each chain, rounded up to multiples of 25; each costs 8 gradients.
      kernel, max_tree_depth: `"nuts"`, with at most `2^depth` gradients in a trajectory, or `"hmc"`, with 8, for the draws.
      target_accept: Acceptance probability that the step size aims at.
      training_steps: Number of training steps of the flow after warm-up; a sixth of it follows each part of warm-up.
      seed, verbose: Integer seed of chains and flow; whether to print a line for each part of warm-up.

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
    positive_int("num_chains", num_chains)
    positive_int("num_warmup", num_warmup)
    positive_int("num_samples", num_samples, 4)
    steps = 0 if flow is None else positive_int("training_steps", training_steps, 0)
    _check_probability("target_accept", target_accept)
    target, size, dtype = _target(model, event_size)
    seed = resolve_seed(seed) % 2**31
    chains = _Chains(target, _flow(flow, size, dtype, seed), size, num_chains, seed)
    scale = chains.flow.bijector.bijectors[0] if flow is None or isinstance(flow, str) else None
    z = chains.warm_up(target, -(-num_warmup // _WARMUP_STEPS), scale, steps, target_accept, verbose)
    warmup = chains.num_gradients
    draws = chains.draw(z, kernel, num_samples, target_accept, max_tree_depth)
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


class _Chains:
    """Chains in the coordinates of a flow, and the number of gradients of the target that they took."""

    def __init__(self, target: Callable, flow: tfd.Distribution, size: int, count: int, seed: int):
        self.target, self.flow, self.size, self.count, self.seed = target, flow, size, count, seed
        self.num_gradients, self._calls, self.step_size = 0, 0, 0.1
        self._leapfrogs = tf.function(self._warm_up_steps, jit_compile=True, autograph=False)

    def _next_seed(self) -> tf.Tensor:
        self._calls += 1
        return tf.constant([self.seed, self._calls], tf.int32)

    def latent_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        z, log_det = forward_and_log_det(self.flow.bijector, x, 1)
        return self.target(z) + log_det

    def _score(self, x: tf.Tensor):
        """Return the latent log-density and its gradient, and the point and the gradient of the target there."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            z, log_det = forward_and_log_det(self.flow.bijector, x, 1)
            point = tf.stop_gradient(z)
            log_prob, gradient = tfp.math.value_and_gradient(self.target, point)
            pulled_back = tf.reduce_sum(z * tf.stop_gradient(gradient), axis=-1) + log_det
        return log_prob + log_det, tape.gradient(pulled_back, x), point, gradient

    def _warm_up_steps(self, x, step_size, least, seed):
        """Run HMC, which TFP's kernel does not do here, since it returns no points inside of trajectories."""
        dtype = x.dtype
        calls = _WARMUP_STEPS * _LEAPFROGS
        points, gradients = (tf.TensorArray(dtype, calls, element_shape=x.shape) for _ in range(2))
        log_prob, slope, _, _ = self._score(x)

        def step(i, x, log_prob, slope, points, gradients, accepted):
            seeds = tf.unstack(
                tf.random.experimental.stateless_split(tf.random.experimental.stateless_fold_in(seed, i), 3)
            )
            momentum = start = tf.random.stateless_normal(tf.shape(x), seeds[0], dtype=dtype)
            size = step_size * tf.exp(tf.random.stateless_uniform([], seeds[1], least, 0.2, dtype=dtype))
            momentum += 0.5 * size * slope
            end = x
            for leap in range(_LEAPFROGS):
                end += size * momentum
                new, new_slope, point, gradient = self._score(end)
                points, gradients = (
                    points.write(i * _LEAPFROGS + leap, point),
                    gradients.write(i * _LEAPFROGS + leap, gradient),
                )
                momentum += (size if leap < _LEAPFROGS - 1 else 0.5 * size) * new_slope
            ratio = new - log_prob - 0.5 * tf.reduce_sum(tf.square(momentum) - tf.square(start), axis=-1)
            lost = tf.math.is_nan(ratio) | ~tf.math.is_finite(
                new
            )  # from outside of the support, any point inside is accepted
            ratio = tf.where(lost, tf.cast(-np.inf, dtype), ratio)
            keep = tf.math.log(tf.random.stateless_uniform(tf.shape(ratio), seeds[2], dtype=dtype)) < ratio
            accepted += tf.reduce_mean(tf.minimum(tf.exp(ratio), 1.0)) / _WARMUP_STEPS
            x, slope = tf.where(keep[:, tf.newaxis], end, x), tf.where(keep[:, tf.newaxis], new_slope, slope)
            return i + 1, x, tf.where(keep, new, log_prob), slope, points, gradients, accepted

        state = (0, x, log_prob, slope, points, gradients, tf.zeros([], dtype))
        _, x, _, _, points, gradients, accepted = tf.while_loop(lambda i, *_: i < _WARMUP_STEPS, step, state)
        flat = [-1, x.shape[-1]]
        return x, tf.reshape(points.stack(), flat), tf.reshape(gradients.stack(), flat), accepted

    def warm_up(self, target, parts: int, scale, training_steps: int, target_accept: float, verbose: bool) -> tf.Tensor:
        """Run warm-up, adapt scale and step size, and train the flow. Return the chains' points `[C, D]`."""
        trainer = None
        if training_steps and self.flow.trainable_variables:
            trainer = FisherModel(self.flow, seed=self.seed)
            trainer.compile(optimizer=keras.optimizers.Adam(2e-3, global_clipnorm=1.0))
        z = self._start(target)
        if scale is not None and isinstance(target, ModelTarget):
            prior = target.sample_prior(200, seed=(self.seed, 1)).numpy()
            low, high = np.quantile(prior, [0.05, 0.95], axis=0)
            scale.adapt(np.clip(prior, low, high))
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for part in range(parts):
            x = inverse_and_log_det(self.flow.bijector, z, 1)[0]
            # At first, short steps among long ones free chains that start where the target is steep.
            least = tf.cast(-4.0 if part < 2 else -0.2, x.dtype)
            step_size = tf.cast(self.step_size, x.dtype)
            x, points, gradients, accepted = self._leapfrogs(x, step_size, least, self._next_seed())
            self.num_gradients += _WARMUP_STEPS * _LEAPFROGS * self.count
            self.step_size = float(np.clip(self.step_size * np.exp(2.0 * (float(accepted) - target_accept)), 1e-4, 1.5))
            z = forward_and_log_det(self.flow.bijector, x, 1)[0]
            points, gradients = points.numpy(), gradients.numpy()
            good = np.all(np.isfinite(points) & np.isfinite(gradients), axis=1)
            kept = [*kept, (points[good], gradients[good])][-8:] if part else [(points[good], gradients[good])]
            points, gradients = (np.concatenate(column) for column in zip(*(kept[1:] or kept), strict=True))
            if scale is not None and (part < 2 or trainer is None):
                self._rescale(scale, points, gradients)
            trains = trainer is not None and part > 0  # the first points are those of the start
            loss = trainer.fit(points, gradients, steps=max(1, training_steps // 6)) if trains else np.nan
            if verbose:
                print(
                    f"warm-up {part + 1}/{parts}: acceptance {float(accepted):.2f}, step {self.step_size:.3f}, loss {loss:.2f}"
                )
        if trainer:
            for rate in (1e-3, 5e-4, 2e-4, 1e-4):
                trainer.optimizer.learning_rate = rate
                loss = trainer.fit(points, gradients, steps=max(1, training_steps // 4))
            if verbose:
                print(f"flow trained: loss {loss:.2f}")
        return z

    def _start(self, target) -> tf.Tensor:
        if isinstance(target, ModelTarget):
            z = target.sample_prior(self.count, seed=(self.seed, 0))
            center = np.median(target.sample_prior(200, seed=(self.seed, 1)), axis=0)
            return center + 0.5 * (tf.cast(z, self.flow.dtype) - center)
        z = self.flow.sample(50 * self.count, seed=(self.seed, 0))
        log_prob, gradient = tfp.math.value_and_gradient(target, z)
        inside = tf.math.is_finite(log_prob) & tf.reduce_all(tf.math.is_finite(gradient), axis=-1)
        z = tf.boolean_mask(z, inside)[: self.count]
        if len(z) < self.count:
            raise ValueError(
                f"`model` is finite at {len(z)} of {50 * self.count} starting points, fewer than `num_chains`: map its "
                "parameters to the real line, as ModelTarget does."
            )
        return z

    @staticmethod
    def _rescale(scale: Standardize, points: np.ndarray, gradients: np.ndarray) -> None:
        """Set the scale to `sqrt(std(z) / std(gradient))`, which is exact for a normal target (Seyboldt et al. 2026)."""
        low, high = np.quantile(points, [0.01, 0.99], axis=0)
        spread = np.std(np.clip(points, low, high), axis=0)
        low, high = np.quantile(gradients, [0.01, 0.99], axis=0)
        steep = np.std(np.clip(gradients, low, high), axis=0)
        scale.shift.assign(np.median(points, axis=0))
        scale.scale.assign(np.sqrt((spread + 1e-12) / (steep + 1e-12)))

    def draw(self, z, kernel: str, num_samples: int, target_accept: float, max_tree_depth: int):
        """Return draws `[num_samples, C, D]`, their acceptance probability, and the number of divergences."""

        def steps(x, step_size, seed):
            if kernel == "nuts":
                made = tfp.mcmc.NoUTurnSampler(self.latent_log_prob, step_size, max_tree_depth=max_tree_depth)
                trace = lambda _, r: (r.log_accept_ratio, r.leapfrogs_taken, r.has_divergence)  # noqa: E731
            else:
                made = tfp.mcmc.HamiltonianMonteCarlo(self.latent_log_prob, step_size, num_leapfrog_steps=_LEAPFROGS)

                def trace(_, r):
                    ratio = r.log_accept_ratio
                    return ratio, tf.fill(tf.shape(ratio), _LEAPFROGS), ~(ratio > -1000.0)

            return tfp.mcmc.sample_chain(_SAMPLING_STEPS, x, kernel=made, trace_fn=trace, seed=seed)

        run = tf.function(steps, jit_compile=True, autograph=False)
        x = inverse_and_log_det(self.flow.bijector, z, 1)[0]
        draws, accepted, divergences = [], [], 0
        calls = _STEP_SIZE_CALLS + -(-num_samples // _SAMPLING_STEPS)
        for call in range(calls):
            states, (ratio, leapfrogs, diverged) = run(x, tf.cast(self.step_size, x.dtype), self._next_seed())
            x = states[-1]
            self.num_gradients += int(tf.reduce_sum(tf.cast(leapfrogs, tf.int64)))
            probability = float(
                tf.reduce_mean(tf.minimum(tf.exp(tf.where(tf.math.is_nan(ratio), -np.inf, ratio)), 1.0))
            )
            if call < _STEP_SIZE_CALLS:
                self.step_size = float(np.clip(self.step_size * np.exp(2.0 * (probability - target_accept)), 1e-4, 1.5))
                continue
            draws.append(forward_and_log_det(self.flow.bijector, tf.reshape(states, [-1, self.size]), 1)[0])
            accepted.append(probability)
            divergences += int(tf.reduce_sum(tf.cast(diverged, tf.int32)))
        draws = tf.reshape(tf.concat(draws, axis=0), [-1, self.count, self.size])[:num_samples]
        return draws, float(np.mean(accepted)), divergences
