"""Training progress, saved with the weights so that an interrupted run resumes exactly, and seeds of training steps."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import _compat_keras
from tfp_flows.training.batch_order import Order
from tfp_flows.training.workers import agree, of_the_first, workers


class Progress(keras.callbacks.Callback):
    """Callback that counts epochs and their steps. Must be the first callback, before those that write files."""

    def __init__(self, model: keras.Model, order: Order | None):
        super().__init__()
        self._of, self.order = model, order
        self._epoch = self._begun = self._skip = 0
        self.restored: np.ndarray | None = None  # a saved `state` that a callback has read

    @property
    def state(self) -> np.ndarray:
        """Seed of the order, epoch, completed steps of the epoch, seed of the noise, and the structure number."""
        seed = 0 if self.order is None else int(self.order.seed.numpy())
        done = self._steps() - self._begun
        return np.array([seed, self._epoch, done, self._of.seed, self._of._drawn()], np.int64)

    def _steps(self) -> int:
        return int(self._of._guard.steps.numpy())  # the optimizer may also count earlier runs

    def on_train_begin(self, logs=None):
        self._of._guard.reset()
        self._begun = 0
        self.restored = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._begun = epoch, self._steps() - self._skip
        if self.order is not None:
            self.order.begin(epoch, self._skip)
        self._skip = 0

    def on_epoch_end(self, epoch, logs=None):
        self._epoch, self._begun = epoch + 1, self._steps()

    def resume(self, logs=None) -> None:
        """Resume from the state that a callback has read at the beginning of this run, if any."""
        strategy, resumed = self._of.distribute_strategy, self.restored is not None
        state = self.restored if resumed else self.state
        if workers(strategy):
            # Weights, order and starting point of the workers may differ, so all take those of the first.
            agree(strategy, [v.value for v in [*self._of.weights, *self._of.generators, *self._of.optimizer.variables]])
            resumed, *state = of_the_first(strategy, [tf.constant([resumed, *state], tf.int64)])[0].numpy()
        seed, epoch, step, noise, drawn = map(int, state)
        if drawn != self._of._drawn():
            other = "the one in the file" if resumed else "that of the first worker"
            raise ValueError(
                f"The flow has other permutations or variable orders than {other}, so its weights do not apply. Pass the same "
                "`seed`."
            )
        self._of.seed = noise
        if self.order is not None:
            self.order.seed.assign(seed)
        if not resumed:
            return
        if self.order is not None:
            if step >= self.order.per_epoch:
                epoch, step = epoch + 1, 0
            self._skip = step
            if step:  # a resumed epoch is shorter, and Keras would warn
                warnings.filterwarnings("ignore", message="Your input ran out of data")
        _compat_keras.start_at_epoch(self._of, epoch)


def step_seed(seed: int, step) -> tf.Tensor:
    """Return a stateless seed `[2]` that depends on seed, step and replica only, so a resumed run draws the same noise."""
    parts = tf.stack([tf.constant(seed % 2**31, tf.int32), tf.cast(step, tf.int32)])
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return parts
    return tf.random.experimental.stateless_fold_in(parts, context.replica_id_in_sync_group)
