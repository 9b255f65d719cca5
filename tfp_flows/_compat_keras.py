"""Private names of Keras that this package needs; `tests/test_compat.py` checks each name and its reason."""

from __future__ import annotations

import contextlib

import keras
import tensorflow as tf


@contextlib.contextmanager
def open_to_new_weights(layer: keras.Layer):
    """Allow a built layer to add weights: a network inside may learn its sizes in the first call."""
    tracker = layer._tracker
    locked, tracker.locked = tracker.locked, False
    try:
        yield
    finally:
        tracker.locked = locked


def start_at_epoch(model: keras.Model, epoch: int | None) -> None:
    """Set the epoch at which a running `fit` starts, like Keras' `BackupAndRestore`; `None` resets it."""
    model._initial_epoch = epoch


def set_cardinality(data: tf.distribute.DistributedDataset, batches: int) -> None:
    """Tell Keras the length of a distributed dataset, which has no public setter."""
    data._cardinality = batches


def is_validation_in_fit(options: dict) -> bool:
    """Return whether the keywords of `evaluate` come from the validation in `fit`, which keeps its dataset."""
    return bool(options.get("_use_cached_eval_dataset"))


def index_of_weight(optimizer: keras.optimizers.Optimizer, weight: keras.Variable) -> int:
    """Return the position of a weight among those that an optimizer was built with, in whose order its variables are."""
    return optimizer._get_variable_index(weight)


def forget_functions(model: keras.Model) -> None:
    """Make Keras rebuild its functions of the training, evaluation and prediction steps."""
    model.train_function = model.test_function = model.predict_function = None


class NoSymbolicBuild:
    """Mixin in front of `keras.Model` that skips the symbolic build, for models that are built in their constructor.

    Under a strategy Keras would concatenate the replicas' parts of a batch, whose sizes may differ.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Do nothing."""
