"""Atomic saving of weights, and loading with a check of the flow's structure."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.saving.files import check_weights_file, written_whole
from tfp_flows.training.resuming import Progress


class StructureError(ValueError):
    """Error for weights of a flow with other permutations or orders."""


class KnowsStructure:
    """Mixin for a Keras layer or model that saves and checks the structure of its weights. It has `_networks`, Keras layers."""

    def _drawn(self) -> int:
        """Return a number for what is drawn at construction but is not a weight: permutations, and orders of networks."""
        number = 0
        modules = [module for root in self._modules() for module in (root, *root.submodules)]
        for part in [*modules, *self._networks]:
            for key in ("_permutation", "permutation", "degrees"):
                for value in tf.nest.flatten(getattr(part, key, None)):
                    if value is not None:
                        number = zlib.crc32(np.asarray(value, np.int64).tobytes(), number)
        return number

    def _modules(self) -> list[tf.Module]:
        return [value for value in vars(self).values() if isinstance(value, tf.Module)]

    def save_own_variables(self, store) -> None:
        super().save_own_variables(store)
        store["drawn"] = np.int64(self._drawn())

    def load_own_variables(self, store) -> None:
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118 (an HDF5 group is not a mapping)
        drawn = own.pop("drawn", None)
        if drawn is not None and int(np.asarray(drawn)) != self._drawn():
            raise StructureError(
                "The flow has other permutations or variable orders than the one in the file, so its weights do not apply. "
                "Pass the same `seed`."
            )
        super().load_own_variables(own)


def frozen_weights(layer: keras.Layer) -> list[int]:
    """Return the positions of the weights that are not trained."""
    trained = {id(weight) for weight in layer.trainable_weights}
    return [i for i, weight in enumerate(layer.weights) if id(weight) not in trained]


def freeze_weights(layer: keras.Layer, positions: Iterable[int]) -> None:
    """Freeze the weights at these positions."""
    for i in positions:
        layer.weights[i].trainable = False


class KeepsWeights(KnowsStructure, keras.Model):
    """A Keras model with atomic saving and a structure check. Subclasses list their Keras layers in `_networks`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._networks: list[keras.Layer] = []
        self._progress: Progress | None = None
        self._refused: ValueError | None = None  # error of `load_own_variables`, which Keras may turn into a warning

    def save(self, filepath, overwrite: bool = True, **kwargs) -> None:
        """Save to a `.keras` file, like `keras.Model.save`. An old file stays until the new one is complete."""
        path = pathlib.Path(filepath)
        if path.suffix != ".keras":
            raise ValueError(f"`filepath` must end in .keras, got {str(filepath)!r}.")
        if path.exists() and not overwrite:
            raise ValueError(f"`filepath` exists: {path}. Pass overwrite=True to replace it.")
        self.get_config()
        self._build_optimizer()  # the file holds its variables, and loading creates them
        with written_whole(path) as part:
            super().save(part, **kwargs)
            self._check_file(part)

    def _check_file(self, path: str) -> None:
        """Raise a `ValueError` unless the file at `path` restores this model. Does nothing by default."""

    def save_weights(self, filepath, overwrite: bool = True, max_shard_size=None) -> None:
        """Save like `keras.Model.save_weights`. The write of a single `.weights.h5` file is atomic."""
        if max_shard_size is not None or not overwrite or not str(filepath).endswith(".weights.h5"):
            super().save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
        else:
            with written_whole(filepath) as part:
                super().save_weights(part)
                check_weights_file(part, self.weights)

    def load_weights(self, filepath, skip_mismatch: bool = False, **kwargs) -> None:
        """Load like `keras.Model.load_weights`.

        Raises:
          ValueError: If the file does not fit, or belongs to a flow with other permutations or orders. No weight is changed.
        """
        optimizer = getattr(self, "optimizer", None)
        before = [(w, w.numpy()) for w in self.weights + ([] if optimizer is None else optimizer.variables)]
        self._refused = None
        try:
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
            if self._refused is not None:
                raise self._refused
        except Exception:
            for weight, value in before:
                weight.assign(value)
            if self._refused is not None:
                raise self._refused from None
            raise

    def save_own_variables(self, store) -> None:
        super().save_own_variables(store)
        if self._progress is not None:
            store["progress"] = self._progress.state
            for i, state in enumerate(self.generators):
                store[f"generator_{i}"] = state

    def load_own_variables(self, store) -> None:
        """Restore variables and, in `fit`, the progress. Raise a `ValueError`, before any change, for another structure."""
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118 (an HDF5 group is not a mapping)
        state = own.pop("progress", None)
        generators = {key: own.pop(key) for key in list(own) if key.startswith("generator_")}
        try:
            super().load_own_variables(own)
        except StructureError as error:
            self._refused = error
            raise
        if state is not None and self._progress is not None:
            self._progress.restored = np.asarray(state)
            for i, generator in enumerate(self.generators):
                generator.assign(generators[f"generator_{i}"])

    @property
    def generators(self) -> list[keras.Variable]:
        """States of random generators, such as those of `Dropout`, which Keras does not save."""
        weights = {id(w) for w in self.weights}
        return [v for v in self.variables if id(v) not in weights and v.name == "seed_generator_state"]
