"""Keras callbacks for sample grids, animations, early stopping and backups."""

from __future__ import annotations

import contextlib
import json
import pathlib

import keras
import numpy as np

from tfp_flows.checks import positive_int
from tfp_flows.evaluation import plots
from tfp_flows.training.animation import TrainingAnimation

__all__ = ["BackupAndRestore", "EarlyStopping", "SampleGrid", "TrainingAnimation"]


class SampleGrid(keras.callbacks.Callback):
    """Saves samples of an image flow as `epoch-0005.png`, ... every few epochs, always from the same seed.

    Args:
      folder: Folder for the pictures; created if missing.
      every: Number of epochs between pictures.
      num_samples: Number of samples.
      conditional_input: Conditions `[num_samples, C]` of a conditional flow.
      seed: Seed of the samples.

    Raises:
      ValueError: If `every` or `num_samples` is not positive.

    Example:
      >>> grid = tff.callbacks.SampleGrid("samples", every=5)  # model.fit(images, callbacks=[grid])
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        every: int = 5,
        *,
        num_samples: int = 25,
        conditional_input=None,
        seed: int = 0,
    ):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.every, self.num_samples = positive_int("every", every), positive_int("num_samples", num_samples)
        self.conditional_input, self.seed = conditional_input, seed

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        condition = {} if self.conditional_input is None else {"conditional_input": self.conditional_input}
        samples = self.model.sample(self.num_samples, seed=self.seed, **condition)
        self.folder.mkdir(parents=True, exist_ok=True)
        figure = plots.image_grid(np.asarray(samples))
        figure.savefig(self.folder / f"epoch-{epoch + 1:04d}.png", dpi=100)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras' `EarlyStopping`, which also counts the weights before the first epoch, and always restores the best weights.

    Training then never ends with a higher validation loss than it started with. This matters for small data sets, and
    for flows that start as a good density, such as `tff.table_flow`.

    Args:
      validation_data: Events, `(conditions, events)` or a dataset, the same as for `fit`.
      patience: Number of epochs without improvement before training stops.
      min_delta: Smallest decrease of the validation loss, in nats, that counts as an improvement.
      verbose: 1 prints when training stops; 0 is silent.

    Example:
      >>> x = tff.data.moons().sample(200, seed=1)
      >>> stop = tff.callbacks.EarlyStopping(x[150:], patience=5)
      >>> model = tff.FlowModel(tff.table_flow(x[:150], seed=1))
      >>> model.compile(keras.optimizers.Adam(1e-3))
      >>> history = model.fit(x[:150], epochs=2, validation_data=x[150:], callbacks=[stop], verbose=0)
    """

    def __init__(self, validation_data, *, patience: int = 10, min_delta: float = 0.0, verbose: int = 0):
        super().__init__(mode="min", patience=patience, min_delta=min_delta, verbose=verbose, restore_best_weights=True)
        self._validation_data = validation_data

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        data = self._validation_data
        arrays = data if isinstance(data, (tuple, list)) else (data,)
        size = None if hasattr(arrays[0], "element_spec") else min(len(arrays[0]), 8192)
        self.best = float(self.model.evaluate(*arrays, batch_size=size, verbose=0, return_dict=True)["loss"])
        self.best_weights, self.best_epoch = self.model.get_weights(), -1


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """Keras' `BackupAndRestore` for one process or several workers: the chief writes the backup, and all workers read it.

    After an interruption, the same `fit` resumes at the last backup, and ends with the weights of an uninterrupted run.
    Give the flow a `seed`, because permutations are not weights.

    Args:
      backup_dir: Folder of the backup, for this run alone, on a disk that all workers can read.
      save_freq: `"epoch"`, or a number of batches.
      double_checkpoint: Whether to keep the previous backup too.
      delete_checkpoint: Whether to delete the backup at the end of training.

    Example:
      >>> backup = tff.callbacks.BackupAndRestore("backup")  # model.fit(x, epochs=100, callbacks=[backup])
    """

    only_saves = True  # so training may still run several steps per call

    def _writes(self) -> bool:
        return self.model.distribute_strategy.extended.should_checkpoint  # false in workers other than the chief

    def on_train_begin(self, logs=None):
        # A process killed in mid-write leaves broken metadata. The weights, which hold the progress, were already read.
        with contextlib.suppress(json.JSONDecodeError):
            super().on_train_begin(logs)
        if self._writes():
            pathlib.Path(self.backup_dir).mkdir(parents=True, exist_ok=True)

    def on_train_batch_end(self, batch, logs=None):
        if self._writes():
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self._writes():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        if self._writes():
            super().on_train_end(logs)
