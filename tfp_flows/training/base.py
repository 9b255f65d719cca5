"""`TrainedModel`: the base class of all models that train."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfp_flows import tracking
from tfp_flows.training.fitting import FitsUnderKeras
from tfp_flows.training.resuming import step_seed


def mean_of_rows(values: tf.Tensor) -> tf.Tensor:
    """Return the mean, or zero for an empty batch: a replica may get no rows of the last batch."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype))


class TrainedModel(FitsUnderKeras):
    """Base class of all models that train. A new training objective is a subclass that defines `loss_terms`.

    The base class provides gradients and optimizer steps, penalties of networks, replicas, logs, non-finite checks,
    compilation, and resuming. A subclass

    - finds its variables with `self._adopt(tracking.find(...))` in `__init__`, and sets `self.built = True`;
    - MUST define `loss_terms(batch, seed, training)`, and CAN define `total_loss` and `after_step`;
    - names the means to log beside the loss with `self._log_means(...)`;
    - trains with `self._fit(data, callbacks, order, **options)`.
    """

    def __init__(self, *, name: str, dtype: str):
        super().__init__(name=name, dtype=dtype)
        self._legacy_layers: list[tf.Module] = []
        self._frozen_by_layers: frozenset[int] = frozenset()  # ids of variables frozen by their own layers
        self._adopted: list[keras.Variable] = []
        self._means: list[keras.metrics.Mean] = []
        self.seed = 0

    def _adopt(self, found: tracking.Found, variables: list[tf.Variable] | None = None) -> None:
        self._networks = [*self._networks, *found.layers]
        self._legacy_layers = [*self._legacy_layers, *found.legacy_layers]
        self._adopted = [*self._adopted, *tracking.adopt(found, variables)]
        self._frozen_by_layers |= found.frozen

    def _before_compile(self) -> None:
        """Update the trainable flags of Keras 2 layers. Keras updates those of Keras 3 layers."""
        frozen = tracking.find(*self._legacy_layers).frozen
        legacy = {id(w) for layer in self._legacy_layers for w in layer.weights}
        for weight in self._adopted:
            key = id(weight.value)
            if key in legacy and (key in frozen) != (key in self._frozen_by_layers):
                weight.trainable = weight.value.trainable and key not in frozen
        self._frozen_by_layers = (self._frozen_by_layers - legacy) | frozen

    def loss_terms(self, batch, seed: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        """Return the loss terms of each row of a batch, `[N]`, in nats.

        Args:
          batch: An element of the dataset.
          seed: Stateless seed `[2]` for the noise of this step, a function of the model's seed, the step and the replica.
          training: Whether this is a training step. In evaluation, the noise of a batch is always the same.

        Returns:
          A dictionary of `"loss"`, whose mean is minimized; optionally `"weight"`, the weights of the rows; and the
          terms to log.
        """
        raise NotImplementedError

    def total_loss(self, terms: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Return the loss of a batch, without penalties: the weighted mean of `terms["loss"]`."""
        del training
        return mean_of_rows(terms["loss"] * terms["weight"] if "weight" in terms else terms["loss"])

    def after_step(self) -> None:
        """Update variables that are not weights, such as moving statistics. Runs after each training step."""

    def _log_means(self, *names: str) -> None:
        self._means = [*self._means, *(keras.metrics.Mean(name=name) for name in names)]

    def _training_step(self, data):
        before = [(w, tf.identity(w.value)) for w in self.non_trainable_weights]
        with tf.GradientTape() as tape:
            terms = self.loss_terms(data, step_seed(self.seed, self.optimizer.iterations.value), training=True)
            loss = self.total_loss(terms, training=True)
            loss += self._penalty(loss.dtype)
        self._update(tape, loss, tf.shape(terms["loss"])[0])
        self.after_step()
        for weight, old in before:  # they change unless this step, or an earlier one, was not finite
            weight.assign(tf.where(self._guard.failed, old, weight.value))
        return self._logs(loss, terms)

    def _evaluation_step(self, data):
        # The loss metric counts rows, so noise differs between batches but is equal in every evaluation.
        terms = self.loss_terms(data, step_seed(self.seed + 1, self._loss_metric().count.value), training=False)
        return self._logs(self.total_loss(terms, training=False), terms)

    def _logs(self, loss: tf.Tensor, terms: dict[str, tf.Tensor]) -> dict:
        self._loss_metric().update_state(loss, sample_weight=tf.shape(terms["loss"])[0])
        for metric in self._means:
            metric.update_state(terms[metric.name])
        return self.compute_metrics(None, None, -terms["loss"], sample_weight=terms.get("weight"))

    def _penalty(self, dtype: tf.DType) -> tf.Tensor:
        losses = [*self.losses, *(loss for layer in self._legacy_layers for loss in layer.losses)]
        return sum((tf.cast(loss, dtype) for loss in losses), tf.zeros([], dtype))

    def _update(self, tape: tf.GradientTape, loss: tf.Tensor, rows: tf.Tensor) -> None:
        """Make one optimizer step, unless the loss or its gradient is not finite. `loss` is the mean over `rows` rows."""
        weights = self.trainable_weights
        # Replicas sum their gradients, and may have different numbers of rows.
        share = tf.ones_like(loss)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            rows = tf.cast(rows, loss.dtype)
            share = rows / tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, rows)
        scale = self.optimizer.scale_loss(share)
        self._guard.apply(self.optimizer, tape.gradient(loss, weights, output_gradients=scale), weights, loss)

    def _loss_metric(self) -> keras.metrics.Mean:
        return next(metric for metric in self.metrics if metric.name == "loss")
