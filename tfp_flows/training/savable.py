"""Models that can be saved to a `.keras` file and exported."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.saving import describe, from_description
from tfp_flows.saving.export import export
from tfp_flows.saving.writer import without_values
from tfp_flows.training.base import TrainedModel
from tfp_flows.training.weights import freeze_weights, frozen_weights


class SavableModel(TrainedModel):
    """Model whose configuration is the description of its `distribution`.

    Further arguments of a subclass's constructor are saved too, if the model keeps them as attributes of the same names.
    """

    _checked: str | None = None  # the last description that was checked with a copy
    _read_back: str | None = None  # the last description that was read back from a file
    _described: tuple[str, ...] = ("distribution", "dequantize")
    _kept: tuple[str, ...] | None = None  # the other arguments that are saved; `None` for all

    def export(self, filepath, format: str = "tf_saved_model") -> None:
        """Write a SavedModel that `tf.saved_model.load` runs without this package, for any number of rows. The write is atomic.

        `loaded.log_prob(x)` returns `{"log_prob": [N]}`, in nats (with `dequantize`, the density over events in [0,
        1]), and `loaded.sample(n, seed)`, with a seed of two int32, returns `{"samples": [n, *event_shape]}`. Both are
        signatures too. A conditional model takes `conditional_input` `[N, C]` as the last argument.

        Raises:
          ValueError: If the directory `filepath` exists and is not empty.
        """
        if format != "tf_saved_model":
            raise ValueError(f'`format` must be "tf_saved_model", got {format!r}.')
        variables = [weight.value for weight in self.weights]
        export(filepath, self.distribution, self.conditional_size, self, self._draw, variables)

    def get_config(self) -> dict:
        """Return the description of the distribution, after a check that a copy can be made from it.

        Raises:
          ValueError: If a part cannot be described, such as a function; the message names the part.
        """
        state = random.getstate()  # Keras' initializers draw their seeds from it
        try:
            config = {**self._arguments(), **self._parts(), "frozen": frozen_weights(self)}
            plain = {k: without_values(v) if k in self._described else v for k, v in config.items()}
            structure = json.dumps(plain, default=repr)
            if structure not in (self._checked, self._read_back):
                self._check_copy(lambda: type(self).from_config(config))
                self._checked = structure
            return config
        finally:
            random.setstate(state)

    def _check_file(self, path: str) -> None:
        """Load the file and compare it with this model, once for each structure: Keras may not have written all weights."""
        if self._read_back == self._checked:
            return
        state = random.getstate()
        try:
            self._check_copy(lambda: keras.models.load_model(path, compile=False), with_weights=True)
            self._read_back = self._checked
        finally:
            random.setstate(state)

    def _parts(self) -> dict[str, Any]:
        parts = {"distribution": self.distribution, "dequantize": self.dequantize}
        return {key: describe(part) for key, part in parts.items() if part is not None}

    def _check_copy(self, make: Callable[[], SavableModel], with_weights: bool = False) -> None:
        """Raise a `ValueError` unless a copy gives the same log-densities, with its own or with this model's weights."""
        try:
            copy = make()
        except Exception as error:  # whatever a constructor raises
            problem = f"it cannot be built again ({str(error)[:500]})"
        else:
            problem = self._difference(copy, with_weights)
        if problem is not None:
            raise ValueError(
                f"{self.distribution} cannot be described in a .keras file: {problem}. Keep the weights with "
                "model.save_weights('x.weights.h5'), and load them into a model that the same code has built."
            )

    def _difference(self, copy: SavableModel, with_weights: bool) -> str | None:
        mine, theirs = ([(tuple(w.shape), w.dtype) for w in model.weights] for model in (self, copy))
        if mine != theirs:
            return (
                f"a copy has {len(theirs)} weights of {len(mine)}, or of other shapes; a weight shared by two parts may have "
                "been duplicated, or a constructor is random"
            )
        if frozen_weights(self) != frozen_weights(copy):
            return "in a copy other weights are trained"
        if not with_weights:
            copy.set_weights(self.get_weights())
        wrong = [w.path for w, v in zip(self.weights, copy.weights, strict=True) if not _same(w.numpy(), v.numpy())]
        if wrong:
            return f"Keras {keras.__version__} did not save {len(wrong)} of {len(self.weights)} weights, such as {wrong[0]}"
        if self.distribution.event_shape.is_fully_defined():
            condition = self._condition(tf.zeros([3, self.conditional_size or 0], self._event_dtype))
            try:
                x = self.distribution.sample(3, seed=(1, 2), **condition)
            except NotImplementedError:  # a bijector without a forward direction
                x = tf.zeros([3, *self.distribution.event_shape], self._event_dtype)
            mine, theirs = (d.log_prob(tf.identity(x), **condition) for d in (self.distribution, copy.distribution))
            if not np.allclose(mine, theirs, rtol=1e-5, atol=1e-5, equal_nan=True):  # a GPU may round otherwise
                return f"the log-density of a copy with the same weights differs: {mine.numpy()} and {theirs.numpy()}"
        return None

    def _arguments(self) -> dict[str, Any]:
        names = self._names_of_arguments()
        missing = [name for name in names if self._kept is None and not hasattr(self, name)]
        if missing:
            raise ValueError(
                f"{type(self).__name__} must keep its argument `{missing[0]}` as the attribute `self.{missing[0]}`, so that "
                "files and copies can hold it."
            )
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    @classmethod
    def _names_of_arguments(cls) -> list[str]:
        if cls._kept is not None:
            return list(cls._kept)
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return [name for name in dict.fromkeys([*named, "name"]) if name not in cls._described]

    @classmethod
    def from_config(cls, config: dict) -> SavableModel:
        parts = {key: from_description(config[key]) for key in cls._described if key in config}
        model = cls(**parts, **{key: config[key] for key in cls._names_of_arguments() if key in config})
        freeze_weights(model, config.get("frozen", ()))
        return model


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
