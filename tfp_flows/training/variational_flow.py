"""`VariationalFlow`: a flow trained against an unnormalized density."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.checks import positive_int
from tfp_flows.evaluation.posterior import PosteriorDiagnostics, posterior_diagnostics, wide_normal
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.annealing import Beta, check_beta, current_beta
from tfp_flows.training.base import TrainedModel
from tfp_flows.training.batch_order import Order, without_autotuning
from tfp_flows.training.distribution_checks import check_distribution, warn_of_shared_networks
from tfp_flows.training.model_target import as_target
from tfp_flows.training.objectives import Objective, check_objective, forward_kl, renyi_bound
from tfp_flows.training.surrogate import options_of, surrogate_posterior

tfd = tfp.distributions


class VariationalFlow(TrainedModel):
    """A Keras 3 model that fits a flow `q` to an unnormalized density `p`, by default by the reverse KL divergence.

    `fit(steps_per_epoch=..., epochs=...)` needs no data. Each step draws `sample_size` points `z` from the flow and
    minimizes the mean of `log q(z) - beta log p(z)` with any Keras optimizer and callbacks (Rezende and Mohamed 2015,
    arXiv:1505.05770). With `beta = 1` its negative is the evidence lower bound (ELBO). The ELBO is at most `log Z`, the
    log of the integral of `p`, and `log Z - ELBO` is the reverse KL divergence. Training changes `flow` in place: draw
    samples with `flow.sample(n)`, and evaluate densities with `flow.log_prob(z)`.

    The progress bar and `history.history` show, in nats: `loss` (with `beta` and the networks' regularization losses),
    `elbo` (with `beta = 1`), and `kl` if `log_normalizer` is known.

    Args:
      flow: A flow, or any distribution of one tensor with reparameterized samples.
      target_log_prob_fn: Callable from `[n, *event_shape]` to `[n]`: `log p`, up to a constant, in TensorFlow. A target
        of `tff.data.targets` sets `log_normalizer`. A pinned joint distribution or a pair `(prior, log_likelihood)` is allowed
        too (see `ModelTarget`, and `from_model`).
      objective: The divergence that training minimizes.

        - `"reverse_kl"`: `E_q[log q - log p]`. It may lose modes of `p`.
        - `"importance_weighted"`: minus the bound `E_q[log 1/K sum_k p(z_k) / q(z_k)]` on `log Z` (Burda et al. 2015,
          arXiv:1509.00519), for `q` as the proposal of importance sampling.
        - A number `alpha >= 0`: minus the Renyi bound `1 / (1 - alpha) E_q[log 1/K sum_k (p(z_k) / q(z_k))^(1 - alpha)]` (Li
          and Turner 2016, arXiv:1602.02311). It is the bound above for 0 and the ELBO for 1.
        - `"forward_kl"`: `E_p[log p - log q]`, with self-normalized importance weights of the samples (Bornschein and
          Bengio 2014, arXiv:1406.2751). It covers all modes that `proposal` reaches.
      proposal: Distribution from which `"forward_kl"` draws a quarter of its samples; it should reach all of the target. By
        default, a normal distribution with the mean and three times the standard deviations of the untrained flow.
      num_importance_samples: Number `K` of samples in each term of a bound; it must divide `sample_size`.
      sample_size: Number of samples that each replica draws in a step. Each costs one pass through the flow with its log-det,
        and one evaluation of the target; with `"forward_kl"`, a `log_prob` of the flow in addition.
      beta: Inverse temperature of the target: a number, or a function of the step such as `linear_annealing()`. Small
        initial values help to keep a flow from collapsing to one mode.
      path_derivative: Whether to use the gradient without its score term, which has expectation zero for the ELBO ("sticking
        the landing", Roeder et al. 2017, arXiv:1703.09194) and is reparameterized for the bounds (Tucker et al. 2018,
        arXiv:1810.04152). With `beta = 1`, the
        gradient's variance then vanishes as `q` approaches the normalized `p`. Each step costs an additional
        `log_prob` of the samples, in the inverse direction.
      log_normalizer: `log Z` in nats, if known.
      seed: Seed of the samples. The noise of a step depends only on the seed, the step's number and the replica.
      name: Name of the model.

    Raises:
      ValueError: If the flow is conditional, cannot be reparameterized or has no trainable variable, or for an argument
        out of range.

    Example:
      >>> flow = tff.planar_flow(2, num_layers=4, base="trainable", seed=1)
      >>> model = tff.VariationalFlow(flow, tff.data.targets.u1(), sample_size=64, seed=1)
      >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
      >>> history = model.fit(steps_per_epoch=5, epochs=2, verbose=0)
      >>> sorted(history.history)
      ['elbo', 'kl', 'loss']
    """

    def __init__(
        self,
        flow: tfd.Distribution,
        target_log_prob_fn: Callable[[tf.Tensor], tf.Tensor],
        *,
        objective: Objective = "reverse_kl",
        proposal: tfd.Distribution | None = None,
        num_importance_samples: int = 16,
        sample_size: int = 256,
        beta: Beta = 1.0,
        path_derivative: bool = False,
        log_normalizer: float | None = None,
        seed: int | None = None,
        name: str = "variational_flow",
    ):
        check_distribution("flow", flow)
        if flow.reparameterization_type is not tfd.FULLY_REPARAMETERIZED:
            raise ValueError(f"`flow` must have reparameterized samples, which gradients pass, got {flow}.")
        if getattr(flow, "conditional_size", None) is not None:
            raise ValueError("`flow` must not be conditional: VariationalFlow passes no `conditional_input`.")
        target_log_prob_fn = as_target(target_log_prob_fn)
        if not callable(target_log_prob_fn):
            raise ValueError(f"`target_log_prob_fn` must be callable, got {target_log_prob_fn!r}.")
        size = getattr(target_log_prob_fn, "event_size", None)
        if size is not None and flow.event_shape.as_list() != [size]:
            raise ValueError(f"`target_log_prob_fn` has events of size {size}, `flow` has {flow.event_shape}.")
        super().__init__(name=name, dtype=tf.as_dtype(flow.dtype).name)
        self.flow = flow
        self.target_log_prob_fn = target_log_prob_fn
        self.sample_size = positive_int("sample_size", sample_size)
        self.alpha = check_objective(objective, path_derivative)
        self.objective = objective
        self.num_importance_samples = positive_int("num_importance_samples", num_importance_samples)
        if self.alpha not in (None, 1.0) and self.sample_size % self.num_importance_samples:
            raise ValueError(
                f"`num_importance_samples` must divide `sample_size`, got {num_importance_samples} and {sample_size}."
            )
        self.beta = check_beta(beta)
        self.path_derivative = bool(path_derivative)
        if log_normalizer is None:
            log_normalizer = getattr(target_log_prob_fn, "log_normalizer", None)
        self.log_normalizer = None if log_normalizer is None else float(log_normalizer)
        self.seed = resolve_seed(seed)
        flow.sample(1, seed=(0, 0))  # builds what is built at the first call
        warn_of_shared_networks(flow)
        if proposal is not None and (self.alpha is not None or proposal.event_shape != flow.event_shape):
            raise ValueError(
                f'`proposal` must have the event shape {flow.event_shape} of the flow, and needs `objective="forward_kl"`, got '
                f"{proposal}."
            )
        self._proposal, self._untrained = proposal, None
        found = tracking.find(flow)
        if not found.trainable_variables:
            raise ValueError(f"{flow} has no trainable variable, so there is nothing to train.")
        self._adopt(found)
        self._log_means("elbo", *([] if self.log_normalizer is None else ["kl"]))
        self.built = True
        if proposal is None and self.alpha is None:
            self._proposal = wide_normal(flow)
        elif proposal is None:
            self._untrained = [weight.numpy() for weight in self._adopted]

    @classmethod
    def from_model(
        cls, model, recipe: Callable | None = None, *, seed: int | None = None, **options
    ) -> VariationalFlow:
        """Return a `VariationalFlow` for the posterior of a probabilistic model.

        The attribute `posterior` is the distribution of the unknown parts; its draws have the names and shapes of that model
        (see `surrogate_posterior`).

        Args:
          model: A pinned joint distribution, or a pair `(prior, log_likelihood)` (see `ModelTarget`).
          recipe: The recipe of the flow; by default as in `surrogate_posterior`.
          seed: Seed of the flow and of the samples.
          options: Options of `VariationalFlow`, and of the recipe.

        Raises:
          ValueError: If a part of the model is discrete, improper or of unknown shape, or for an argument out of range.

        Example:
          >>> joint = tfd.JointDistributionNamedAutoBatched({
          ...     "mean": tfd.Normal(0.0, 10.0), "scale": tfd.LogNormal(0.0, 1.0),
          ...     "y": lambda mean, scale: tfd.Sample(tfd.Normal(mean, scale), 8)})
          >>> model = tff.VariationalFlow.from_model(joint.experimental_pin(y=tf.range(8.0)), sample_size=32, seed=1)
          >>> model.compile(optimizer=keras.optimizers.Adam(1e-2))
          >>> history = model.fit(steps_per_epoch=20, epochs=2, verbose=0)
          >>> draws = model.posterior.sample(1000)
          >>> sorted(draws), bool(tf.reduce_all(draws["scale"] > 0))
          (['mean', 'scale'], True)
        """
        own, of_recipe = options_of(cls.__init__, options)
        posterior = surrogate_posterior(model, recipe, seed=seed, **of_recipe)
        made = cls(posterior.distribution, posterior.target, seed=seed, **own)
        made.posterior = posterior
        return made

    @property
    def proposal(self) -> tfd.Distribution:
        """The proposal of `"forward_kl"` and `diagnose`. Without one, it is made at its first use, from the untrained flow."""
        if self._proposal is None:
            trained = [weight.numpy() for weight in self._adopted]
            self._assign(self._untrained)
            try:
                self._proposal = wide_normal(self.flow)
            finally:
                self._assign(trained)
            self._untrained = None
        return self._proposal

    def _assign(self, values: list) -> None:
        for weight, value in zip(self._adopted, values, strict=True):
            weight.assign(value)

    def call(self, seed, training=None):
        """Return samples and their log-density. Keras passes `training` to the networks through its call context."""
        del training
        return self.flow.experimental_sample_and_log_prob(self.sample_size, seed=seed)

    def _log_target(self, z: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
        """Return `log p`, `[n]`."""
        log_p = self.target_log_prob_fn(z)
        if not log_p.shape.is_compatible_with(log_q.shape):
            raise ValueError(f"`target_log_prob_fn` must return shape {log_q.shape} for {z.shape}, got {log_p.shape}.")
        return tf.ensure_shape(tf.cast(log_p, log_q.dtype), log_q.shape)

    def loss_terms(self, batch, seed, training):
        del batch
        beta = current_beta(self, training)
        if self.alpha is None and training:
            return self._forward_terms(beta, seed)
        z, log_q = self(seed, training=training)
        alpha, group = 1.0 if self.alpha is None else self.alpha, self.num_importance_samples
        if training and self.path_derivative:
            points = tf.stop_gradient(z)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                log_q = self.flow.log_prob(points)
                log_p = self._log_target(points, log_q)
                log_weight = beta * log_p - log_q
            slope = tf.stop_gradient(tape.gradient(log_weight, points))
            moved = tf.reduce_sum(slope * z, axis=list(range(1, z.shape.rank)))
            loss = renyi_bound(log_weight, alpha, group, moved)
        else:
            log_p = self._log_target(z, log_q)
            loss = renyi_bound(beta * log_p - log_q, alpha, group)
        return self._terms(loss, log_p - log_q)

    def _forward_terms(self, beta: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        others = max(1, self.sample_size // 4)
        z = self.flow.sample(self.sample_size - others, seed=seeds[0])
        z = tf.stop_gradient(tf.concat([z, self.proposal.sample(others, seed=seeds[1])], axis=0))
        log_q = self.flow.log_prob(z)
        log_p = self._log_target(z, log_q)
        share = others / self.sample_size
        mixed = [log_q + math.log1p(-share), tf.cast(self.proposal.log_prob(z), log_q.dtype) + math.log(share)]
        loss = forward_kl(log_q, beta * log_p - tf.reduce_logsumexp(mixed, axis=0))
        own = tf.range(self.sample_size) < self.sample_size - others
        mean = tf.reduce_mean((log_p - log_q)[: self.sample_size - others])
        return self._terms(loss, tf.where(own, log_p - log_q, mean))

    def _terms(self, loss: tf.Tensor, elbo: tf.Tensor) -> dict[str, tf.Tensor]:
        terms = {"loss": loss, "elbo": elbo}
        if self.log_normalizer is not None:
            terms["kl"] = self.log_normalizer - elbo
        return terms

    def fit(self, x=None, *, steps_per_epoch: int = 100, epochs: int = 1, verbose="auto", callbacks=None, **kwargs):
        """Minimize the objective, without data. Return the Keras `History`; its values are in nats.

        Args:
          steps_per_epoch: Number of steps in an epoch.
          epochs, verbose, callbacks, kwargs: Options of `keras.Model.fit`, except those for data and `shuffle`.

        Raises:
          ValueError: If data is given.
          FloatingPointError: If the loss, its gradient or the updated weights are not finite. The weights keep their values
            from before that step.
        """
        data = (
            "x",
            "y",
            "validation_data",
            "validation_split",
            "batch_size",
            "sample_weight",
            "class_weight",
            "shuffle",
        )
        given = {key: x if key == "x" else kwargs.pop(key, None) for key in data}
        for key, value in given.items():
            if value is not None:
                raise ValueError(f"`{key}` must be left out: a VariationalFlow trains on samples of the flow.")
        order = Order(positive_int("steps_per_epoch", steps_per_epoch))
        steps = order.batches(lambda seed, skip: self._numbers(steps_per_epoch).skip(skip))
        return self._fit(steps, callbacks, order, epochs=epochs, verbose=verbose, shuffle=False, **kwargs)

    def evaluate(self, *, steps: int = 10, verbose="auto", **kwargs):
        """Return loss and ELBO with `beta = 1`, in nats, over `steps` draws of `sample_size`."""
        numbers = without_autotuning(self._numbers(positive_int("steps", steps)))
        return super().evaluate(numbers, verbose=verbose, **kwargs)

    def diagnose(self, num_samples: int = 10_000, seed: int | None = None) -> PosteriorDiagnostics:
        """Return the `PosteriorDiagnostics` of the flow: bounds, weights, coverage and moments; `print` shows a table.

        Args:
          num_samples: Number of samples.
          seed: Integer seed of the samples.

        Raises:
          ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).
        """
        return posterior_diagnostics(
            self.flow, self.target_log_prob_fn, proposal=self.proposal, num_samples=num_samples, seed=seed
        )

    def _numbers(self, steps: int) -> tf.data.Dataset:
        replicas = self.distribute_strategy.num_replicas_in_sync
        return tf.data.Dataset.range(steps).map(lambda i: tf.fill([replicas], i))

    def predict(self, *args, **kwargs):
        """Raise a `NotImplementedError`: use `flow.sample(n)` and `flow.log_prob(z)`."""
        raise NotImplementedError("A VariationalFlow predicts nothing: use flow.sample(n) and flow.log_prob(z).")

    def get_config(self) -> dict:
        raise ValueError(
            "A VariationalFlow cannot be described in a .keras file, because its target is a function. Keep the flow: "
            "tff.FlowModel(flow).save('flow.keras'), or the weights: model.save_weights('x.weights.h5')."
        )
