"""`VariationalFlow`: a flow trained against an unnormalized density."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.checks import positive_int
from tfp_flows.distribution import dummy_condition
from tfp_flows.evaluation.posterior import PosteriorDiagnostics, posterior_diagnostics, wide_normal
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.amortized import DEFAULT_SAMPLES, ObservedTarget, TrainsOnObservations
from tfp_flows.training.annealing import Beta, check_beta, current_beta
from tfp_flows.training.base import TrainedModel
from tfp_flows.training.batch_order import Order, without_autotuning
from tfp_flows.training.distribution_checks import check_distribution, warn_of_shared_networks
from tfp_flows.training.model_target import as_target
from tfp_flows.training.objectives import Objective, check_objective, forward_kl, renyi_bound
from tfp_flows.training.surrogate import SurrogatePosterior, flow_over, options_of, surrogate_posterior

tfd = tfp.distributions


class VariationalFlow(TrainsOnObservations, TrainedModel):
    """A Keras 3 model that fits a flow `q` to an unnormalized density `p`, by default by the reverse KL divergence.

    `fit(steps_per_epoch=..., epochs=...)` needs no data. With the default objective, each step draws `sample_size` points
    `z` from the flow and minimizes the mean of `log q(z) - log p(z)` with any Keras optimizer and callbacks (Rezende and
    Mohamed 2015, arXiv:1505.05770). Minus this mean is the evidence lower bound (ELBO). The ELBO is at most `log Z`, the
    log of the integral of `p`, and `log Z - ELBO` is the reverse KL divergence. Training changes `flow` in place: draw
    samples with `flow.sample(n)`, and evaluate densities with `flow.log_prob(z)`.

    With a conditional flow, inference is amortized: `fit(observations)` maximizes the mean ELBO of `q(z | x)` over many
    observations `x`, and `flow.given(x)` is then the posterior of any of them (Kingma and Welling 2013, arXiv:1312.6114;
    Rezende and Mohamed 2015).

    The progress bar and `history.history` show, in nats: `loss` (with `beta` and the networks' regularization losses),
    `elbo` (with `beta = 1`), and `kl` if `log_normalizer` is known.

    Args:
      flow: A flow, or any distribution of one tensor with reparameterized samples. A conditional flow has observations as
        conditions.
      target_log_prob_fn: Callable from `[n, *event_shape]` to `[n]`: `log p`, up to a constant, in TensorFlow. A target
        of `tff.data.targets` sets `log_normalizer`. A joint distribution with fixed data,
        `joint.experimental_pin(y=data)`, or a pair `(prior, log_likelihood)` is allowed too (see `from_model`). For a
        conditional flow, a callable from `[n, D]` and observations `[n, C]` to `log p(z, x)`, `[n]`.
      objective: The divergence that training minimizes.

        - `"reverse_kl"`: `E_q[log q - log p]`. It may lose modes of `p`.
        - `"importance_weighted"`: minus the bound `E_q[log((1/K) sum_k p(z_k) / q(z_k))]` on `log Z` (Burda et al. 2015,
          arXiv:1509.00519). Use it if you will correct the samples of `q` by importance weights.
        - A number `alpha >= 0`: minus the Renyi bound `1 / (1 - alpha) E_q[log((1/K) sum_k (p(z_k) / q(z_k))^(1 - alpha))]`
          (Li and Turner 2016, arXiv:1602.02311). 0 gives `"importance_weighted"`, and the limit 1 `"reverse_kl"`.
        - `"forward_kl"`: `E_p[log p - log q]`, estimated from samples of the flow and of `proposal`, with importance weights
          that are scaled to sum to one (Bornschein and Bengio 2014, arXiv:1406.2751). It covers all modes that
          `proposal` reaches.
      proposal: Distribution from which `"forward_kl"` draws a quarter of its samples; it should reach all of the target. By
        default, a normal distribution with the mean and three times the standard deviations of the untrained flow.
      num_importance_samples: Number `K` of samples in each term of a bound; it must divide `sample_size`.
      sample_size: Number of samples in a step, on each device: 256 by default. For a conditional flow, the number of samples
        for each observation: 16 by default. Each costs one pass through the flow with its log-det, and one evaluation of
        the target; with `"forward_kl"`, a `log_prob` of the flow in addition.
      beta: Factor of `log p` in the loss: a number, or a function of the step such as `linear_annealing()`. Values below 1
        flatten the target. Small initial values help to keep a flow from collapsing to one mode.
      path_derivative: Whether to leave out the score term of the gradient. For the ELBO its mean is zero, so it only adds
        noise (Roeder et al. 2017, arXiv:1703.09194). For the bounds, it is rewritten instead (Tucker et al. 2018,
        arXiv:1810.04152). With `beta = 1`, the noise of the gradient then vanishes as `q` approaches the normalized `p`.
        Each step costs an additional `log_prob` of the samples, which is slow for `iaf`.
      log_normalizer: `log Z` in nats, if known.
      seed: Seed of the samples. The noise of a step depends only on the seed, the step's number and the replica.
      name: Name of the model.

    Raises:
      ValueError: If the flow cannot be reparameterized or has no trainable variable, for an argument out of range, or an
        option that a conditional flow does not have.

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
        sample_size: int | None = None,
        beta: Beta = 1.0,
        path_derivative: bool = False,
        log_normalizer: float | None = None,
        seed: int | None = None,
        name: str = "variational_flow",
    ):
        check_distribution("flow", flow)
        if flow.reparameterization_type is not tfd.FULLY_REPARAMETERIZED:
            raise ValueError(f"`flow` must have reparameterized samples, which gradients pass, got {flow}.")
        self.conditional_size = getattr(flow, "conditional_size", None)
        if sample_size is None:
            sample_size = 256 if self.conditional_size is None else DEFAULT_SAMPLES
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
        self._check_amortized()
        flow.sample(1, seed=(0, 0), **dummy_condition(flow))  # builds what is built at the first call
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
        cls,
        model,
        recipe: Callable | None = None,
        *,
        observed: str | None = None,
        seed: int | None = None,
        **options,
    ) -> VariationalFlow:
        """Return a `VariationalFlow` for the posterior of a probabilistic model.

        The attribute `posterior` is the distribution of the unknown parts. Its samples have their names and shapes (see
        `surrogate_posterior`). With `observed`, there is one for each observation, `given(x)`.

        Args:
          model: A pinned joint distribution, or a pair `(prior, log_likelihood)` (see `ModelTarget`).
          recipe: The recipe of the flow; by default an `iaf` with three layers, as in `surrogate_posterior`.
          observed: Name of the observed part of a joint distribution that is not pinned, for amortized inference:
            `fit(observations)`, and then `given(x)` is the posterior of one observation.
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
        if observed is not None:
            target = ObservedTarget(model, observed)
            of_recipe = {"conditional_size": target.observation_size, **of_recipe}
            return cls(flow_over(target.unknown, recipe, seed=seed, **of_recipe), target, seed=seed, **own)
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
                flow = self.flow if self.conditional_size is None else self.flow.given([0.0] * self.conditional_size)
                self._proposal = wide_normal(flow)
            finally:
                self._assign(trained)
            self._untrained = None
        return self._proposal

    def _assign(self, values: list) -> None:
        for weight, value in zip(self._adopted, values, strict=True):
            weight.assign(value)

    def call(self, seed, training=None, **condition):
        """Return samples and their log-density. Keras passes `training` to the networks through its call context."""
        del training
        count = tf.shape(condition["conditional_input"])[0] if condition else self.sample_size
        return self.flow.experimental_sample_and_log_prob(count, seed=seed, **condition)

    def _log_target(self, z: tf.Tensor, log_q: tf.Tensor, **condition) -> tf.Tensor:
        """Return `log p`, `[n]`."""
        log_p = self.target_log_prob_fn(z, *condition.values())
        if not log_p.shape.is_compatible_with(log_q.shape):
            raise ValueError(f"`target_log_prob_fn` must return shape {log_q.shape} for {z.shape}, got {log_p.shape}.")
        return tf.ensure_shape(tf.cast(log_p, log_q.dtype), log_q.shape)

    def loss_terms(self, batch, seed, training):
        condition = self._condition(batch)
        beta = current_beta(self, training)
        if self.alpha is None and training:
            return self._forward_terms(beta, seed)
        z, log_q = self(seed, training=training, **condition)
        alpha, group = 1.0 if self.alpha is None else self.alpha, self.num_importance_samples
        if training and self.path_derivative:
            points = tf.stop_gradient(z)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                log_q = self.flow.log_prob(points, **condition)
                log_p = self._log_target(points, log_q, **condition)
                log_weight = beta * log_p - log_q
            slope = tf.stop_gradient(tape.gradient(log_weight, points))
            moved = tf.reduce_sum(slope * z, axis=list(range(1, z.shape.rank)))
            loss = renyi_bound(log_weight, alpha, group, moved)
        else:
            log_p = self._log_target(z, log_q, **condition)
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
        if self.conditional_size is not None:  # a row is an observation
            return {
                key: tf.reduce_mean(tf.reshape(value, [-1, self.sample_size]), axis=1) for key, value in terms.items()
            }
        if self.log_normalizer is not None:
            terms["kl"] = self.log_normalizer - elbo
        return terms

    def fit(
        self,
        x=None,
        *,
        steps_per_epoch: int | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose="auto",
        callbacks=None,
        **kwargs,
    ):
        """Minimize the objective, without data unless the flow is conditional. Return the Keras `History`, in nats.

        Args:
          x: Observations of a conditional flow: an array `[N, C]` or `[N, ...]`, which is flattened, or a `tf.data.Dataset` of
            batches `[n, C]`.
          steps_per_epoch: Number of steps in an epoch; 100 if `None`, and for a conditional flow one pass through `x`.
          batch_size: Observations in a step, for a conditional flow; 32 if `None`.
          epochs, verbose, callbacks, kwargs: Options of `keras.Model.fit`; those for data and `shuffle` only for a conditional
            flow, whose `validation_data` is observations.

        Raises:
          ValueError: If data is given, or, for a conditional flow, cannot be trained on.
          FloatingPointError: If the loss, its gradient or the updated weights are not finite. The weights keep their values
            from before that step.
        """
        options = {"epochs": epochs, "verbose": verbose}
        if self.conditional_size is not None:
            options |= kwargs if steps_per_epoch is None else {"steps_per_epoch": steps_per_epoch, **kwargs}
            return self._fit_observations(x, batch_size, callbacks, options)
        kwargs["batch_size"] = batch_size
        steps_per_epoch = 100 if steps_per_epoch is None else steps_per_epoch
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
        return self._fit(steps, callbacks, order, shuffle=False, **options, **kwargs)

    def evaluate(self, x=None, *, steps: int | None = None, batch_size: int | None = None, verbose="auto", **kwargs):
        """Return loss and ELBO with `beta = 1`, in nats, over `steps` (10) draws of `sample_size`, or over observations `x`."""
        if self.conditional_size is not None:
            rows = self._inputs.dataset(self._rows(x), None, batch_size)
            return super().evaluate(rows, steps=steps, verbose=verbose, **kwargs)
        if x is not None or batch_size is not None:
            raise ValueError("`x` and `batch_size` must be left out: a VariationalFlow draws samples of the flow.")
        numbers = without_autotuning(self._numbers(10 if steps is None else positive_int("steps", steps)))
        return super().evaluate(numbers, verbose=verbose, **kwargs)

    def given(self, x) -> tfd.Distribution:
        """Return the posterior of one observation, for a conditional flow, in the structure of the model that it was made from.

        Raises:
          ValueError: If the flow is not conditional, or `x` has another size.
        """
        if self.conditional_size is None:
            raise ValueError("`given` needs a conditional flow: this one has one posterior, `flow`.")
        flow, target = self.flow.given(self._one(x)), self.target_log_prob_fn
        return SurrogatePosterior(flow, target.unknown) if isinstance(target, ObservedTarget) else flow

    def diagnose(self, num_samples: int = 10_000, seed: int | None = None, *, x=None) -> PosteriorDiagnostics:
        """Return the `PosteriorDiagnostics` of the flow: bounds, weights, coverage and moments; `print` shows a table.

        Args:
          num_samples: Number of samples.
          seed: Integer seed of the samples.
          x: One observation, for a conditional flow.

        Raises:
          ValueError: If `x` does not fit.
          ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).
        """
        flow, target = self.flow, self.target_log_prob_fn
        if self.conditional_size is not None:
            x = self._one(x)
            flow, target = flow.given(x), self._target_of(x)
        elif x is not None:
            raise ValueError("`x` must be left out: this flow has no conditions.")
        return posterior_diagnostics(flow, target, proposal=self.proposal, num_samples=num_samples, seed=seed)

    def _numbers(self, steps: int) -> tf.data.Dataset:
        replicas = self.distribute_strategy.num_replicas_in_sync
        return tf.data.Dataset.range(steps).map(lambda i: tf.fill([replicas], i))

    def predict(self, *args, **kwargs):
        """Raise a `NotImplementedError`: use `flow.sample(n)` and `flow.log_prob(z)`."""
        raise NotImplementedError("A VariationalFlow predicts nothing: use flow.sample(n) and flow.log_prob(z).")

    def get_config(self) -> dict:
        raise ValueError(
            "A VariationalFlow cannot be saved to a .keras file as a whole, because its target is code. Save the flow: "
            "tff.FlowModel(model.flow).save('flow.keras'). After loading, "
            "flow = keras.models.load_model('flow.keras').distribution is the flow, and "
            "tff.SurrogatePosterior(flow, tff.ModelTarget(pinned)) the posterior of a model. To train further, build this "
            "model with the same code, and use model.save_weights('x.weights.h5') and load_weights."
        )
