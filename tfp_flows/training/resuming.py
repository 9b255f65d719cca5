"""Training progress, saved with the weights so that an interrupted run resumes exactly, and the seeds of its steps."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import _compat_keras
from tfp_flows.training.batch_order import Order
from tfp_flows.training.workers import agree, of_the_first, workers


class Progress(keras.callbacks.Callback):
    """Counts epochs and the steps in one. Must be the first of the callbacks, before those that write files.

    Args:
      order: Order of the batches, if it is known.
    """

    def __init__(self, model: keras.Model, order: Order | None):
        super().__init__()
        self._of, self.order = model, order
        self._epoch = self._begun = self._skip = 0
        self._restored: np.ndarray | None = None

    @property
    def state(self) -> np.ndarray:
        """Seed of the order, epoch, steps of it that are done, seed of the noise, and a number for what was drawn."""
        seed = 0 if self.order is None else int(self.order.seed.numpy())
        noise = int(getattr(self._of, "seed", 0))
        return np.array([seed, self._epoch, self._steps() - self._begun, noise, self._of._drawn()], np.int64)

    def _steps(self) -> int:
        return int(self._of._guard.steps.numpy())  # of this run; an optimizer may count others

    def note(self, state: np.ndarray) -> None:
        """Take the state of a file that was read."""
        self._restored = np.asarray(state)

    def on_train_begin(self, logs=None):
        self._of._guard.reset()
        self._begun = 0
        self._restored = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._begun = epoch, self._steps() - self._skip
        if self.order is not None:
            self.order.begin(epoch, self._skip)
        self._skip = 0

    def on_epoch_end(self, epoch, logs=None):
        self._epoch, self._begun = epoch + 1, self._steps()

    def resume(self) -> None:
        """Goes on where the file was written that a callback has read at the beginning of this run, if one did."""
        strategy, resumed = self._of.distribute_strategy, self._restored is not None
        state = self._restored if resumed else self.state
        if workers(strategy):
            # The first one's: of weights that it has read or made from its data, of the order, and of where to begin.
            agree(strategy, [v.value for v in [*self._of.weights, *self._of.generators, *self._of.optimizer.variables]])
            resumed, *state = of_the_first(strategy, [tf.constant([resumed, *state], tf.int64)])[0].numpy()
        seed, epoch, step, noise, drawn = map(int, state)
        if drawn != self._of._drawn():
            where = "in the run that is resumed" if resumed else "in the first worker"
            raise ValueError(
                f"The flow was made with another permutation or order of variables {where}, so that its weights mean something "
                "else here. Give the recipe, or the layers, a `seed`."
            )
        if hasattr(self._of, "seed"):
            self._of.seed = noise
        if self.order is not None:
            self.order.seed.assign(seed)
        if not resumed:
            return
        if self.order is not None:
            if step >= self.order.per_epoch:
                epoch, step = epoch + 1, 0
            self._skip = step
            if step:  # Keras would say that the data ran out, since that epoch is shorter
                warnings.filterwarnings("ignore", message="Your input ran out of data")
        _compat_keras.start_at_epoch(self._of, epoch)


class Resume(keras.callbacks.Callback):
    """The last of the callbacks: by now one of them has read a backup, or none does."""

    def __init__(self, progress: Progress):
        super().__init__()
        self._progress = progress

    def on_train_begin(self, logs=None):
        self._progress.resume()


def step_seed(seed: int, step) -> tf.Tensor:
    """Return a stateless seed `[2]`. A run that is resumed at a step draws what the uninterrupted one would have drawn."""
    parts = tf.stack([tf.constant(seed % 2**31, tf.int32), tf.cast(step, tf.int32)])
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return parts
    return tf.random.experimental.stateless_fold_in(parts, context.replica_id_in_sync_group)
