"""Keras callbacks that draw while a flow trains."""

from __future__ import annotations

import pathlib

import keras
import numpy as np

from tfp_flows import plots
from tfp_flows.checks import positive_int


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
