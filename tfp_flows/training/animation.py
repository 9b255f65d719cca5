"""Animation of the density during training, one frame per epoch."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import keras
import numpy as np

from tfp_flows.checks import positive_int
from tfp_flows.evaluation.plots.drawing import (
    DATA_COLOR,
    box_aspect,
    check_points,
    density_image,
    density_on_grid,
    frame,
    limits_of,
    log_prob,
    scatter,
)

_SHOWN, _SCORED = 500, 5000  # data points of a frame, and those whose mean NLL is its title


class TrainingAnimation(keras.callbacks.Callback):
    """Writes a GIF of a two-dimensional density during training: before the first epoch, and after every few epochs.

    Each frame shows the density, some of the data, and the NLL of the data in nats. The file is replaced after each
    frame, so an interrupted run leaves a complete animation. If `fit` resumes at a later epoch, as with
    `BackupAndRestore`, the animation continues after the frames in the file. Several calls of `fit` with the same
    callback continue one animation. Otherwise, an existing file is replaced.

    Args:
      path: The `.gif` file.
      data: Points `[N, 2]`, such as the validation data. They also choose the limits.
      every: Number of epochs between frames.
      max_frames: Maximal number of frames, apart from the last epoch. When it is exceeded, every second frame is dropped
        and `every` doubles, so that the files of long runs stay small.
      conditional_input: The condition `[C]` for the density of a conditional flow.
      fps: Frames per second.
      resolution: Number of pixels of the density along each axis.
      dpi: Pixels per inch. A frame is 4 inches wide.

    Raises:
      ValueError: If `path` does not end in .gif, data have another shape, or a number is not positive. At the start of
        `fit`, if the model has no density of events of shape `[2]`.

    Example:
      >>> x = tff.data.moons().sample(500, seed=1)
      >>> model = tff.FlowModel(tff.maf(2, num_layers=2, seed=1))
      >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
      >>> movie = tff.callbacks.TrainingAnimation("training.gif", x, resolution=30)
      >>> history = model.fit(x, epochs=2, callbacks=[movie], verbose=0)
      >>> movie.epochs
      [0, 1, 2]
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        data: Any,
        *,
        every: int = 1,
        max_frames: int = 100,
        conditional_input: Any = None,
        fps: float = 10,
        resolution: int = 100,
        dpi: int = 80,
    ):
        super().__init__()
        self.path = pathlib.Path(path)
        if self.path.suffix != ".gif":
            raise ValueError(f"`path` must end in .gif, got {str(path)!r}.")
        if not fps > 0:
            raise ValueError(f"`fps` must be positive, got {fps!r}.")
        self.data = check_points("data", data, 2)
        self.every, self.max_frames = positive_int("every", every), positive_int("max_frames", max_frames, 2)
        self.conditional_input, self.fps = conditional_input, fps
        self.resolution, self.dpi = positive_int("resolution", resolution, 2), positive_int("dpi", dpi)
        self.epochs: list[int] = []  # number of epochs before each frame
        self._frames: list = []
        self._limits = limits_of(self.data)
        self._before: int | None = None  # epochs of earlier calls of `fit`; `None` until the first epoch begins
        self._done = 0

    def on_train_begin(self, logs=None):
        self._before = None
        distribution = getattr(self.model, "distribution", getattr(self.model, "flow", None))
        event_shape = getattr(distribution, "event_shape", None)
        if event_shape != [2]:
            raise ValueError(
                "TrainingAnimation needs a model with a density of events of shape [2], such as tff.FlowModel(tff.maf(2)), "
                f"got {type(self.model).__name__} with events of shape {event_shape}."
            )

    def on_epoch_begin(self, epoch, logs=None):
        if self._before is not None or not self._writes():
            return
        self._before = 0
        if epoch > 0:
            self._resume(epoch)
        elif self.epochs:
            self._before = self._done
        if not self.epochs:
            self._add(epoch)

    def on_epoch_end(self, epoch, logs=None):
        if self._before is None:
            return
        self._done = self._before + epoch + 1
        if (self._done - self.epochs[0]) % self.every == 0:
            self._add(self._done)

    def on_train_end(self, logs=None):
        # The animation ends with the last epoch, whatever `every` is.
        if self._before is not None and self.epochs[-1] < self._done:
            self._add(self._done, last=True)

    def _writes(self) -> bool:
        return self.model.distribute_strategy.extended.should_checkpoint  # false in workers other than the chief

    def _resume(self, epoch: int) -> None:
        """Continue with the frames in the file up to `epoch`, unless this object has them."""
        from tfp_flows.evaluation.plots.gifs import read_gif

        if not self.epochs and self.path.exists():
            frames, comment = read_gif(self.path)
            try:
                saved = json.loads(comment)
                epochs, every = list(saved["epochs"]), int(saved["every"])
            except (ValueError, KeyError, TypeError):  # another program wrote the file
                return
            if len(epochs) == len(frames):
                self.epochs, self._frames, self.every = epochs, frames, max(every, self.every)
        count = sum(done <= epoch for done in self.epochs)
        self.epochs, self._frames = self.epochs[:count], self._frames[:count]

    def _add(self, epoch: int, last: bool = False) -> None:
        """Draw a frame, and replace the file."""
        from tfp_flows.evaluation.plots.gifs import write_gif

        self.epochs.append(epoch)
        self._frames.append(self._draw(epoch))
        if len(self.epochs) > self.max_frames and not last:
            self.epochs, self._frames = self.epochs[::2], self._frames[::2]
            self.every *= 2
        comment = json.dumps({"epochs": self.epochs, "every": self.every}).encode()
        write_gif(self.path, self._frames, self.fps, comment)

    def _draw(self, epoch: int):
        from matplotlib.figure import Figure

        from tfp_flows.evaluation.plots.gifs import picture

        model = self.model if hasattr(self.model, "log_prob") else self.model.flow
        condition = {} if self.conditional_input is None else {"conditional_input": self.conditional_input}
        nll = -np.mean(log_prob(model, self.data[:_SCORED], **condition))
        height = 3.5 * box_aspect(self._limits) + 0.6
        figure = Figure(figsize=(4.0, height))
        # The same in all frames.
        figure.subplots_adjust(left=0.11, right=0.985, bottom=0.3 / height, top=1.0 - 0.3 / height)
        ax = figure.subplots()
        density_image(ax, *density_on_grid(model, self._limits, self.resolution, **condition))
        scatter(ax, self.data[:_SHOWN], DATA_COLOR, alpha=0.25, count=4 * _SHOWN)
        frame(ax, self._limits, None)
        ax.set_title(f"epoch {epoch}, NLL {nll:.2f} nats", fontsize=10)
        ax.set_box_aspect(box_aspect(self._limits))
        ax.tick_params(labelsize=8)
        return picture(figure, self.dpi)
