"""Private names of Keras that this package needs, each with its reason.

`tests/test_compat.py` has a test of each, which fails when the name changes, or when the reason is gone.
"""

from __future__ import annotations

import contextlib

import keras
import tensorflow as tf


@contextlib.contextmanager
def open_to_new_weights(layer: keras.Layer):
    """Lets a layer that was built take more weights: a network inside may learn its sizes in the first call."""
    tracker = layer._tracker
    locked, tracker.locked = tracker.locked, False
    try:
        yield
    finally:
        tracker.locked = locked


def start_at_epoch(model: keras.Model, epoch: int | None) -> None:
    """Lets a `fit` that has begun start at another epoch, as Keras' own `BackupAndRestore` does; `None` takes it back."""
    model._initial_epoch = epoch


def set_cardinality(data: tf.distribute.DistributedDataset, batches: int) -> None:
    """Tells Keras the length of a distributed dataset, for which TensorFlow has no public way."""
    data._cardinality = batches


def is_validation_in_fit(options: dict) -> bool:
    """Whether keywords of `evaluate` are those of the validation in `fit`, which keeps its dataset."""
    return bool(options.get("_use_cached_eval_dataset"))


def forget_functions(model: keras.Model) -> None:
    """Lets Keras make its functions of the training, evaluation and prediction steps anew."""
    model.train_function = model.test_function = model.predict_function = None


class NoSymbolicBuild:
    """A mixin in front of `keras.Model`, for models that are built when they are made.

    Under a strategy Keras would add the replicas' parts of a batch, of sizes that may differ.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Nothing."""
