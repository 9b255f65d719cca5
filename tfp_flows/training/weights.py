"""Saving and loading: files that appear whole, and weights that are only loaded where they mean the same."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.saving.files import check_weights_file, written_whole
from tfp_flows.training.resuming import Progress


def structure_number(modules: Iterable[tf.Module], networks: Iterable[keras.Layer]) -> int:
    """Return a number for what was drawn when a flow was made, and is no weight: permutations, and orders of networks."""
    number = 0
    for part in [*modules, *networks]:
        for key in ("_permutation", "permutation", "degrees"):
            for value in tf.nest.flatten(getattr(part, key, None)):
                if value is not None:
                    number = zlib.crc32(np.asarray(value, np.int64).tobytes(), number)
    return number


class StructureError(ValueError):
    """Weights in a file belong to a flow with other permutations or orders."""


class KnowsStructure:
    """A mixin in front of a Keras layer or model: its file holds a number for the structure that the weights belong to.

    Subclasses define `_drawn`, that number.
    """

    def save_own_variables(self, store) -> None:
        super().save_own_variables(store)
        store["drawn"] = np.int64(self._drawn())

    def load_own_variables(self, store) -> None:
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118 (a group of a file is no mapping)
        drawn = own.pop("drawn", None)
        if drawn is not None and int(np.asarray(drawn)) != self._drawn():
            raise StructureError(
                "The weights belong to a flow whose permutations or orders of variables differ from those of this one, so they "
                "would mean something else here. Make both flows with the same `seed`."
            )
        super().load_own_variables(own)


def frozen_weights(layer: keras.Layer) -> list[int]:
    """Return the positions of the weights that are not trained."""
    trained = {id(weight) for weight in layer.trainable_weights}
    return [i for i, weight in enumerate(layer.weights) if id(weight) not in trained]


def freeze_weights(layer: keras.Layer, positions: Iterable[int]) -> None:
    """Freeze the weights at some positions."""
    for i in positions:
        layer.weights[i].trainable = False


class KeepsWeights(KnowsStructure, keras.Model):
    """A Keras model whose files are written whole, and which knows for which structure its weights are.

    Subclasses have `_networks`, the Keras layers that they train, and `_build_optimizer`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._networks: list[keras.Layer] = []
        self._progress: Progress | None = None
        self._refused: ValueError | None = None  # by `load_own_variables`, since Keras may only warn of it

    def save(self, filepath, overwrite: bool = True, **kwargs) -> None:
        """Save like `keras.Model.save`. The file appears whole or not at all; an old one stays until the new one is whole."""
        path = pathlib.Path(filepath)
        if path.suffix != ".keras":
            raise ValueError(f"`filepath` must end in .keras, got {str(filepath)!r}.")
        if path.exists() and not overwrite:
            raise ValueError(f"`filepath` exists: {path}. Pass overwrite=True to replace it.")
        self.get_config()
        self._build_optimizer()  # the file has its variables, and who loads it makes them
        with written_whole(path) as part:
            super().save(part, **kwargs)
            self._check_file(part)

    def _check_file(self, path: str) -> None:
        """Raise a `ValueError` unless the file at `path` gives this model back; for models that can be saved."""

    def save_weights(self, filepath, overwrite: bool = True, max_shard_size=None) -> None:
        """Save like `keras.Model.save_weights`. A file appears whole or not at all, unless there are several."""
        if max_shard_size is not None or not overwrite or not str(filepath).endswith(".weights.h5"):
            super().save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
        else:
            with written_whole(filepath) as part:
                super().save_weights(part)
                check_weights_file(part, self.weights)

    def load_weights(self, filepath, skip_mismatch: bool = False, **kwargs) -> None:
        """Like `keras.Model.load_weights`. Where the file does not fit, all weights stay as they are.

        Raises:
          ValueError: If the file does not fit, or belongs to a flow with other permutations or orders.
        """
        optimizer = getattr(self, "optimizer", None)
        before = [(w, w.numpy()) for w in (*self.weights, *(() if optimizer is None else optimizer.variables))]
        self._refused = None
        try:
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
            if self._refused is not None:  # Keras collects errors, and may only warn of them
                raise self._refused
        except Exception:
            for weight, value in before:
                weight.assign(value)
            if self._refused is not None:
                raise self._refused from None
            raise

    def save_own_variables(self, store) -> None:
        """Return the variables, a number for the structure that they belong to, and in `fit` the training progress."""
        super().save_own_variables(store)
        if self._progress is not None:
            store["progress"] = self._progress.state
            for i, state in enumerate(self.generators):
                store[f"generator_{i}"] = state

    def load_own_variables(self, store) -> None:
        """Return the variables; in `fit`, the training progress of the model that wrote the file as well.

        Raises:
          ValueError: If the file belongs to a flow with other permutations or orders. No weight has been changed by then.
        """
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118 (a group of a file is no mapping)
        state = own.pop("progress", None)
        generators = {key: own.pop(key) for key in list(own) if key.startswith("generator_")}
        try:
            super().load_own_variables(own)
        except StructureError as error:
            self._refused = error
            raise
        if state is not None and self._progress is not None:
            self._progress.note(state)
            for i, generator in enumerate(self.generators):
                generator.assign(generators[f"generator_{i}"])

    def _drawn(self) -> int:
        return structure_number([m for root in self._modules() for m in (root, *root.submodules)], self._networks)

    def _modules(self) -> list[tf.Module]:
        """Return the modules that the model is made of, besides Keras layers."""
        return [root for root in vars(self).values() if isinstance(root, tf.Module)]

    @property
    def generators(self) -> list[keras.Variable]:
        """The states of the random generators of layers such as `Dropout`, which Keras keeps in no file."""
        weights = {id(w) for w in self.weights}
        return [v for v in self.variables if id(v) not in weights and v.name == "seed_generator_state"]
