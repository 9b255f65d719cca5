"""Markov chains in the coordinates of a flow: warm-up, training of the flow, and draws."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Standardize
from tfp_flows.bijectors.composition import forward_and_log_det, inverse_and_log_det
from tfp_flows.inference.fisher import FisherModel
from tfp_flows.training.model_target import ModelTarget

tfd = tfp.distributions

_LEAPFROGS = 8  # of a warm-up step, and of a draw by "hmc"
WARMUP_STEPS, _SAMPLING_STEPS = 25, 25  # in a compiled call
_STEP_SIZE_CALLS = 5  # with the final kernel, before the draws that count


class _JitteredHMC(tfp.mcmc.TransitionKernel):
    """Hamiltonian Monte Carlo whose step size varies by 20 % between draws, so that no trajectory is a whole period."""

    def __init__(self, target_log_prob_fn: Callable, step_size: tf.Tensor):
        self._target, self._step_size = target_log_prob_fn, step_size
        self.parameters = {"target_log_prob_fn": target_log_prob_fn, "step_size": step_size}

    is_calibrated = True

    def _kernel(self, factor) -> tfp.mcmc.HamiltonianMonteCarlo:
        return tfp.mcmc.HamiltonianMonteCarlo(self._target, factor * self._step_size, num_leapfrog_steps=_LEAPFROGS)

    def one_step(self, current_state, previous_kernel_results, seed=None):
        seeds = tf.unstack(tf.random.experimental.stateless_split(tfp.random.sanitize_seed(seed), 2))
        factor = tf.random.stateless_uniform([], seeds[0], 0.8, 1.2, dtype=self._step_size.dtype)
        return self._kernel(factor).one_step(current_state, previous_kernel_results, seed=seeds[1])

    def bootstrap_results(self, init_state):
        return self._kernel(1.0).bootstrap_results(init_state)


class Progress:
    """Shows the progress of a run: nothing (`verbose` 0), a Keras progress bar (1), or a line for each part (2)."""

    def __init__(self, verbose: int, warmup_parts: int, num_samples: int):
        self._verbose, self._warmup, self._done = int(verbose), warmup_parts, 0
        self._draws = _STEP_SIZE_CALLS - (-num_samples // _SAMPLING_STEPS)
        if self._verbose == 1:
            names = ["acceptance", "step", "loss", "divergences"]
            self._bar = keras.utils.Progbar(warmup_parts + self._draws, stateful_metrics=names, unit_name="part")

    def part(self, **values: float) -> None:
        """Show the end of a part. `loss` is that of the flow."""
        self._done += 1
        shown = [(name, value) for name, value in values.items() if np.isfinite(value)]
        if self._verbose == 1:
            self._bar.update(self._done, shown)
        elif self._verbose == 2:
            warms = self._done <= self._warmup
            name, count = ("warm-up", self._warmup) if warms else ("sampling", self._draws)
            text = ", ".join(f"{key} {value:.3g}" for key, value in shown)
            print(f"{name} {self._done if warms else self._done - self._warmup}/{count}: {text}")


class Chains:
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
        calls = WARMUP_STEPS * _LEAPFROGS
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
            accepted += tf.reduce_mean(tf.minimum(tf.exp(ratio), 1.0)) / WARMUP_STEPS
            x, slope = tf.where(keep[:, tf.newaxis], end, x), tf.where(keep[:, tf.newaxis], new_slope, slope)
            return i + 1, x, tf.where(keep, new, log_prob), slope, points, gradients, accepted

        state = (0, x, log_prob, slope, points, gradients, tf.zeros([], dtype))
        _, x, _, _, points, gradients, accepted = tf.while_loop(lambda i, *_: i < WARMUP_STEPS, step, state)
        flat = [-1, x.shape[-1]]
        return x, tf.reshape(points.stack(), flat), tf.reshape(gradients.stack(), flat), accepted

    def warm_up(self, target, parts: int, scale, training_steps: int, target_accept: float, progress) -> tf.Tensor:
        """Run warm-up, adapt scale and step size, and train the flow. Return the chains' points `[C, D]`."""
        trainer, trains = None, bool(training_steps and self.flow.trainable_variables)
        if trains:
            trainer = FisherModel(self.flow, seed=self.seed)
            trainer.compile(optimizer=keras.optimizers.Adam(2e-3, global_clipnorm=1.0))
        z = self._start(target, scale is None and not trains)
        if scale is not None and isinstance(target, ModelTarget):
            scale.adapt(target.typical_prior())
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for part in range(parts):
            x = inverse_and_log_det(self.flow.bijector, z, 1)[0]
            # At first, short steps among long ones free chains that start where the target is steep.
            least = tf.cast(-4.0 if part < 2 else -0.2, x.dtype)
            step_size = tf.cast(self.step_size, x.dtype)
            x, points, gradients, accepted = self._leapfrogs(x, step_size, least, self._next_seed())
            self.num_gradients += WARMUP_STEPS * _LEAPFROGS * self.count
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
            progress.part(acceptance=float(accepted), step=self.step_size, loss=loss)
        if trainer:
            for rate in (1e-3, 5e-4, 2e-4, 1e-4):
                trainer.optimizer.learning_rate = rate
                trainer.fit(points, gradients, steps=max(1, training_steps // 4))
        return z

    def _start(self, target, fitted: bool) -> tf.Tensor:
        if isinstance(target, ModelTarget) and not fitted:
            z = target.sample_prior(self.count, seed=(self.seed, 0))
            center = np.median(target.typical_prior(), axis=0).astype(self.flow.dtype.as_numpy_dtype)
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

    def draw(self, z, kernel: str, num_samples: int, target_accept: float, max_tree_depth: int, progress: Progress):
        """Return draws `[num_samples, C, D]`, their acceptance probability, and the number of divergences."""

        def steps(x, step_size, seed):
            if kernel == "nuts":
                made = tfp.mcmc.NoUTurnSampler(self.latent_log_prob, step_size, max_tree_depth=max_tree_depth)
                trace = lambda _, r: (r.log_accept_ratio, r.leapfrogs_taken, r.has_divergence)  # noqa: E731
            else:
                made = _JitteredHMC(self.latent_log_prob, step_size)

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
            if call >= _STEP_SIZE_CALLS:
                divergences += int(tf.reduce_sum(tf.cast(diverged, tf.int32)))
            progress.part(acceptance=probability, step=self.step_size, divergences=divergences)
            if call < _STEP_SIZE_CALLS:
                self.step_size = float(np.clip(self.step_size * np.exp(2.0 * (probability - target_accept)), 1e-4, 1.5))
                continue
            draws.append(forward_and_log_det(self.flow.bijector, tf.reshape(states, [-1, self.size]), 1)[0])
            accepted.append(probability)
        draws = tf.reshape(tf.concat(draws, axis=0), [-1, self.count, self.size])[:num_samples]
        return draws, float(np.mean(accepted)), divergences
