"""`TrainedModel`: the base class of the models, in which a training objective is one method."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfp_flows import tracking
from tfp_flows.training.fitting import FitsUnderKeras
from tfp_flows.training.resuming import step_seed


def mean_of_rows(values: tf.Tensor) -> tf.Tensor:
    """Return the mean, or zero of no rows: a replica may get nothing of a last batch."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype))


class TrainedModel(FitsUnderKeras):
    """Base class of the models: a training objective is a subclass that defines `loss_terms`.

    The base class does the rest: gradients and the optimizer's step, penalties of networks, replicas, logs, weights that are
    never updated from a loss that is not finite, compilation, and runs that are resumed. A subclass

    - finds its variables with `self._adopt(tracking.find(...))` in `__init__`, and sets `self.built = True`;
    - MUST define `loss_terms(batch, seed, training)`;
    - names the means that are logged beside the loss with `self._log_means(...)`;
    - trains by `self._fit(data, callbacks, order, **options)`;
    - CAN define `total_loss` and `after_step`.
    """

    def __init__(self, *, name: str, dtype: str):
        super().__init__(name=name, dtype=dtype)
        self._legacy_layers: list[tf.Module] = []
        self._frozen_by_layers: frozenset[int] = frozenset()  # ids of the variables that their own layers had frozen
        self._adopted: list[keras.Variable] = []
        self._means: list[keras.metrics.Mean] = []
        self.seed = 0

    def _adopt(self, found: tracking.Found, variables: list[tf.Variable] | None = None) -> None:
        """Make networks and variables that were found those of this model."""
        self._networks = [*self._networks, *found.layers]
        self._legacy_layers = [*self._legacy_layers, *found.legacy_layers]
        self._adopted = [*self._adopted, *tracking.adopt(found, variables)]
        self._frozen_by_layers |= found.frozen

    def _before_compile(self) -> None:
        """Freezes what the user has frozen in a Keras 2 layer since, and the reverse; Keras 3 layers are followed by Keras."""
        frozen = tracking.find(*self._legacy_layers).frozen
        legacy = {id(w) for layer in self._legacy_layers for w in layer.weights}
        for weight in self._adopted:
            key = id(weight.value)
            if key in legacy and (key in frozen) != (key in self._frozen_by_layers):
                weight.trainable = weight.value.trainable and key not in frozen
        self._frozen_by_layers = (self._frozen_by_layers - legacy) | frozen

    # --- the objective ---

    def loss_terms(self, batch, seed: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        """Return the terms of each row of a batch, `[N]`, in nats.

        Args:
          batch: What the dataset yields.
          seed: Stateless seed `[2]` for the noise of this step: a function of the model's seed, the step and the replica.
          training: Whether this is a training step. In evaluation the noise of a batch is the same each time.

        Returns:
          `"loss"`, whose mean is minimized; `"weight"` of the rows, if they have different ones; and what is logged.
        """
        raise NotImplementedError

    def total_loss(self, terms: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Return the loss of a batch without penalties: the weighted mean of `terms["loss"]`."""
        del training
        return mean_of_rows(terms["loss"] * terms["weight"] if "weight" in terms else terms["loss"])

    def after_step(self) -> None:
        """Run after each training step, for variables that are no weights, such as moving statistics."""

    def _log_means(self, *names: str) -> None:
        """Log the means of terms under their names."""
        self._means = [*self._means, *(keras.metrics.Mean(name=name) for name in names)]

    def _training_step(self, data):
        before = self._snapshot()
        with tf.GradientTape() as tape:
            terms = self.loss_terms(data, step_seed(self.seed, self.optimizer.iterations.value), training=True)
            loss = self.total_loss(terms, training=True)
            loss += self._penalty(loss.dtype)
        self._update(tape, loss, tf.shape(terms["loss"])[0])
        self.after_step()
        self._restore(before)
        return self._logs(loss, terms)

    def _evaluation_step(self, data):
        # The same noise in every evaluation, but not in every batch of one: the loss counts them.
        terms = self.loss_terms(data, step_seed(self.seed + 1, self._loss_metric().count.value), training=False)
        return self._logs(self.total_loss(terms, training=False), terms)

    def _logs(self, loss: tf.Tensor, terms: dict[str, tf.Tensor]) -> dict:
        self._loss_metric().update_state(loss, sample_weight=tf.shape(terms["loss"])[0])
        for metric in self._means:
            metric.update_state(terms[metric.name])
        return self.compute_metrics(None, None, -terms["loss"], sample_weight=terms.get("weight"))

    def _penalty(self, dtype: tf.DType) -> tf.Tensor:
        """Return the networks' own losses, such as regularization: those of Keras 3, which are tracked, and of Keras 2."""
        losses = [*self.losses, *(loss for layer in self._legacy_layers for loss in layer.losses)]
        return sum((tf.cast(loss, dtype) for loss in losses), tf.zeros([], dtype))

    def _update(self, tape: tf.GradientTape, loss: tf.Tensor, rows: tf.Tensor) -> None:
        """One step of the optimizer, or none if the loss or its gradient is not finite.

        `rows` is how many rows of a batch `loss` is the mean of; replicas may have different numbers.
        """
        weights = self.trainable_weights
        # Replicas add their gradients up, so each gives its share.
        share = tf.ones_like(loss)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            rows = tf.cast(rows, loss.dtype)
            share = rows / tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, rows)
        scale = self.optimizer.scale_loss(share)
        self._guard.apply(self.optimizer, tape.gradient(loss, weights, output_gradients=scale), weights, loss)

    def _snapshot(self) -> list[tuple]:
        """Return the weights that are not trained, such as moving statistics, as they are at the beginning of a step."""
        return [(w, tf.identity(w.value)) for w in self.non_trainable_weights]

    def _restore(self, before: list[tuple]) -> None:
        """Take them back after a step whose loss was not finite, and after those that follow it."""
        for weight, old in before:
            weight.assign(tf.where(self._guard.failed, old, weight.value))

    def _loss_metric(self) -> keras.metrics.Mean:
        """Keras' own tracker of the loss."""
        return next(metric for metric in self.metrics if metric.name == "loss")
