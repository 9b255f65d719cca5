"""Keras callbacks: pictures while a flow trains, and backups of several workers."""

from __future__ import annotations

import contextlib
import json
import pathlib

import keras
import numpy as np

from tfp_flows.checks import positive_int
from tfp_flows.evaluation import plots
from tfp_flows.training.workers import is_chief


class SampleGrid(keras.callbacks.Callback):
    """Draws samples of an image flow into `epoch-0005.png`, ... every few epochs, always with the same noise.

    Args:
      folder: Folder of the pictures; it is made if it is not there.
      every: Number of epochs from one picture to the next.
      num_samples: Number of samples.
      conditional_input: Conditions `[num_samples, C]` of a conditional flow.
      seed: Seed of the samples.

    Raises:
      ValueError: If a number is not positive.

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
    """Keras' callback, for which the weights before the first epoch count as well.

    Training then never ends at a higher validation loss than it began with. That matters where rows are few, and for flows
    that start as a good density, such as `tff.table_flow`.

    Args:
      validation_data: Events, `(conditions, events)` or a dataset, as for `fit`.
      patience, min_delta, verbose: As in Keras. The best weights are restored.

    Example:
      >>> x = tff.data.moons().sample(200, seed=1)
      >>> stop = tff.callbacks.EarlyStopping(x[150:], patience=5)
      >>> model = tff.FlowModel(tff.table_flow(x[:150], seed=1))
      >>> model.compile(keras.optimizers.Adam(1e-3))
      >>> history = model.fit(x[:150], epochs=2, validation_data=x[150:], callbacks=[stop], verbose=0)
    """

    def __init__(self, validation_data, *, patience: int = 10, min_delta: float = 0.0, verbose: int = 0):
        super().__init__(
            monitor="val_loss",
            mode="min",
            patience=patience,
            min_delta=min_delta,
            verbose=verbose,
            restore_best_weights=True,
        )
        self._validation_data = validation_data

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        data = self._validation_data
        arrays = data if isinstance(data, (tuple, list)) else (data,)
        size = None if hasattr(arrays[0], "element_spec") else min(len(arrays[0]), 8192)
        self.best = float(self.model.evaluate(*arrays, batch_size=size, verbose=0, return_dict=True)["loss"])
        self.best_weights, self.best_epoch = self.model.get_weights(), -1


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """Keras' callback for one process and for several workers, which share `backup_dir`: the chief writes, and all read.

    Where a process was killed, the same `fit` goes on at the last backup, and ends with the weights that it would have had.
    Make the flow with a `seed`: its permutations are no weights.

    Args:
      backup_dir: Folder of the backup, for this run alone; on a disk that all workers see.
      save_freq: `"epoch"`, or a number of batches.
      double_checkpoint, delete_checkpoint: As in Keras.

    Example:
      >>> backup = tff.callbacks.BackupAndRestore("backup")  # model.fit(x, epochs=100, callbacks=[backup])
    """

    only_saves = True  # which does not keep training from running several steps in one call

    def _writes(self) -> bool:
        return is_chief(self.model.distribute_strategy)

    def on_train_begin(self, logs=None):
        # Killed while it wrote the file beside the weights: those were read before it, and say where the run was.
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
