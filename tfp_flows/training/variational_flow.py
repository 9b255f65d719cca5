"""`VariationalFlow`: a flow trained against an unnormalized density."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.checks import positive_int
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.annealing import Beta, check_beta, current_beta
from tfp_flows.training.base import TrainedModel
from tfp_flows.training.batch_order import Order, without_autotuning
from tfp_flows.training.distribution_checks import check_distribution, warn_of_shared_networks
from tfp_flows.training.pinned import as_target

tfd = tfp.distributions


class VariationalFlow(TrainedModel):
    """A Keras 3 model that fits a flow `q` to an unnormalized density `p` by minimizing the reverse KL divergence.

    `fit(steps_per_epoch=..., epochs=...)` needs no data. Each step draws `sample_size` points `z` from the flow and
    minimizes the mean of `log q(z) - beta log p(z)` with any Keras optimizer and callbacks (Rezende and Mohamed 2015,
    arXiv:1505.05770). With `beta = 1` its negative is the evidence lower bound (ELBO). The ELBO is at most `log Z`, the
    log of the integral of `p`, and `log Z - ELBO` is the reverse KL divergence.

    Progress bar and `history.history` hold, in nats: `loss` (with `beta` and the networks' regularization losses),
    `elbo` (with `beta = 1`), and `kl` if `log_normalizer` is known.

    Args:
      flow: A flow, or any distribution of one tensor with reparameterized samples.
      target_log_prob_fn: Callable from `[n, *event_shape]` to `[n]`: `log p`, up to a constant, in TensorFlow. A target
        of `tff.data.targets` sets `log_normalizer`. A pinned joint distribution, `joint.experimental_pin(y=y)`, is
        allowed too. Its parts, of any shapes and constraints, are concatenated in the flow's events, and
        `model.target_log_prob_fn.bijector.forward(flow.sample(n))` are samples with the model's names and shapes.
      sample_size: Number of samples in each step, each with its log-det and one evaluation of the target.
      beta: Inverse temperature of the target: a number, or a function of the step such as `linear_annealing()`. Small
        initial values keep a flow from collapsing to one mode.
      path_derivative: Whether to drop the score term of the gradient, whose expectation is zero ("sticking the
        landing", Roeder et al. 2017, arXiv:1703.09194). The gradient's variance then vanishes as `q` approaches `p`.
        Each step costs an additional `log_prob` of the samples, in the inverse direction.
      log_normalizer: `log Z` in nats, if known.
      seed: Seed of the samples; the noise of a step depends on the seed and the step's number only.
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
        self.beta = check_beta(beta)
        self.path_derivative = bool(path_derivative)
        if log_normalizer is None:
            log_normalizer = getattr(target_log_prob_fn, "log_normalizer", None)
        self.log_normalizer = None if log_normalizer is None else float(log_normalizer)
        self.seed = resolve_seed(seed)
        flow.sample(1, seed=(0, 0))  # builds what is built at the first call
        warn_of_shared_networks(flow)
        found = tracking.find(flow)
        if not found.trainable_variables:
            raise ValueError(f"{flow} has no trainable variable, so there is nothing to train.")
        self._adopt(found)
        self._log_means("elbo", *([] if self.log_normalizer is None else ["kl"]))
        self.built = True

    def call(self, seed, training=None):
        """Return samples and their log-density. Keras passes `training` to the networks through its call context."""
        del training
        return self.flow.experimental_sample_and_log_prob(self.sample_size, seed=seed)

    def _integrand(self, z: tf.Tensor, log_q: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `log q - beta log p` and `log p - log q`, `[n]` each."""
        log_p = self.target_log_prob_fn(z)
        if not log_p.shape.is_compatible_with(log_q.shape):
            raise ValueError(f"`target_log_prob_fn` must return shape {log_q.shape} for {z.shape}, got {log_p.shape}.")
        log_p = tf.ensure_shape(tf.cast(log_p, log_q.dtype), log_q.shape)
        return log_q - beta * log_p, log_p - log_q

    def loss_terms(self, batch, seed, training):
        del batch
        beta = current_beta(self, training)
        z, log_q = self(seed, training=training)
        if training and self.path_derivative:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                points = tf.stop_gradient(z)
                tape.watch(points)
                integrand, elbo = self._integrand(points, self.flow.log_prob(points), beta)
            slope = tf.stop_gradient(tape.gradient(integrand, points))
            moved = tf.reduce_sum(slope * z, axis=list(range(1, z.shape.rank)))
            loss = moved + tf.stop_gradient(integrand - moved)
        else:
            loss, elbo = self._integrand(z, log_q, beta)
        terms = {"loss": loss, "elbo": elbo}
        if self.log_normalizer is not None:
            terms["kl"] = self.log_normalizer - elbo
        return terms

    def fit(self, *, steps_per_epoch: int = 100, epochs: int = 1, verbose="auto", callbacks=None, **kwargs):
        """Minimize the reverse KL divergence, without data. Return the Keras `History`, in nats.

        Args:
          steps_per_epoch: Number of steps in an epoch.
          epochs, verbose, callbacks, kwargs: Options of `keras.Model.fit`.

        Raises:
          ValueError: If data is given.
          FloatingPointError: If the loss turns NaN or infinite. The weights are those before that step.
        """
        for key in ("x", "y", "validation_data", "validation_split", "batch_size", "sample_weight", "class_weight"):
            if kwargs.pop(key, None) is not None:
                raise ValueError(f"`{key}` must be left out: a VariationalFlow trains on samples of the flow.")
        order = Order(positive_int("steps_per_epoch", steps_per_epoch))
        steps = order.batches(lambda seed, skip: self._numbers(steps_per_epoch).skip(skip))
        return self._fit(steps, callbacks, order, epochs=epochs, verbose=verbose, shuffle=False, **kwargs)

    def evaluate(self, *, steps: int = 10, verbose="auto", **kwargs):
        """Return loss and ELBO with `beta = 1`, in nats, over `steps` draws of `sample_size`."""
        numbers = without_autotuning(self._numbers(positive_int("steps", steps)))
        return super().evaluate(numbers, verbose=verbose, **kwargs)

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
