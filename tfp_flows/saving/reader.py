"""Objects from their descriptions."""

from __future__ import annotations

import base64
import importlib
import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.registry import KERAS_KINDS, REGISTRY, public_classes
from tfp_flows.saving.writer import FORMAT, state_of

# Modules that register this package's names. A description may be read before they are imported.
_HOMES = ("recipes", "training", "dynamics", "course", "training.layers")
# Errors of a constructor that is called with the arguments of a damaged description.
_DAMAGED = (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError, tf.errors.OpError)


def from_description(text: str) -> Any:
    """Create an object from a description by `describe`. Only constructors of known names are run, no other code.

    Raises:
      ValueError: If the text is not a description, has another version, or contains an unregistered name.

    Example:
      >>> flow = tff.from_description(tff.describe(tff.maf(2, num_layers=1, seed=1)))
      >>> flow.name
      'maf'
    """
    try:
        described = json.loads(text)
        form, nodes, root, state = (described[key] for key in ("format", "objects", "root", "state"))
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"Not a description by tfp_flows: {str(text)[:200]!r}.") from error
    if form != FORMAT:
        raise ValueError(f"The description has format {form!r}, this version of tfp_flows reads format {FORMAT}.")
    for home in _HOMES:
        importlib.import_module(f"tfp_flows.{home}")
    reader, node = _Reader(), None
    try:
        for node in nodes:
            reader.made.append(reader.make(node))
        node = None
        made = reader.value(root)
        variables, values = state_of(made), [_read(array) for array in state]
        if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
            raise ValueError(
                f"The description has {len(values)} arrays of state, {made!r} takes {len(variables)} or others."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        finalize_layers(made)
        return made
    except _DAMAGED as error:
        where = "its root" if node is None else f"object {len(reader.made)}, {str(node)[:80]}"
        raise ValueError(f"The description cannot be read at {where}: {error!r}."[:1000]) from error


def finalize_layers(module: Any) -> None:
    """Update copies of the state that Keras layers such as `Normalization` keep besides their variables."""
    for layer in tracking.find(module).layers:
        for part in _with_inner(layer):
            if hasattr(part, "finalize_state"):
                part.finalize_state()


def _with_inner(layer: keras.Layer) -> list[keras.Layer]:
    return [layer, *(part for inner in getattr(layer, "layers", ()) for part in _with_inner(inner))]


class _Reader:
    def __init__(self):
        self.made: list = []

    def value(self, item: Any) -> Any:
        if isinstance(item, list):
            raise ValueError("The description holds a list where a value should be.")
        if not isinstance(item, dict):
            return item
        if len(item) != 1:
            raise KeyError(f"{len(item)} kinds of value in one")
        ((kind, content),) = item.items()
        if kind == "ref":
            if not isinstance(content, int) or not 0 <= content < len(self.made):
                raise IndexError(f"no object {content!r}")
            return self.made[content]
        if kind == "float":
            return float(content)
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](self.value(part) for part in content)
        if kind == "dict":
            return {self.value(k): self.value(v) for k, v in content}
        if kind == "shape":
            return tf.TensorShape(content)
        if kind == "dtype":
            dtype = tf.as_dtype(content[1])
            numpy_class = dtype.as_numpy_dtype
            return {"tf": dtype, "numpy": np.dtype(numpy_class), "class": numpy_class}[content[0]]
        if kind == "scalar":
            return _read(content)[()]
        raise KeyError(kind)

    def make(self, node: dict) -> Any:
        if "call" in node:
            if node["call"] not in REGISTRY:
                raise ValueError(
                    f"The description names {node['call']!r}, which is not registered here: import or define the class or "
                    "function that has the decorator tff.serializable."
                )
            made = REGISTRY[node["call"]](**self._arguments(node["arguments"]))
            if node.get("build") and not made.built:
                made.build_from_config(node["build"])
            if node.get("frozen"):
                made.trainable = False
            return made
        if "tfp" in node:
            path = node["tfp"]
            if path not in public_classes().values():
                raise ValueError(f"The description names {path!r}, which is not a bijector or distribution of TFP.")
            room, name = path.split(".")
            return getattr(getattr(tfp, room), name)(**self._arguments(node["arguments"]))
        if "transformed" in node:
            parts = self._arguments(node["transformed"])
            variable = parts.pop("variable")
            return tfp.util.TransformedVariable(None, **parts, pretransformed_input=variable)
        if "variable" in node:
            options = dict(node["options"])
            options["aggregation"] = tf.VariableAggregation[options["aggregation"]]
            return tf.Variable(_read(node["variable"]), **options)
        if "array" in node:
            return tf.constant(_read(node["array"])) if node["tensor"] else _read(node["array"])
        if "activation" in node:
            _refuse_functions(node)
            return keras.activations.get(node["activation"])
        if "keras" in node:
            _refuse_functions(node["keras"])
            made = keras.saving.deserialize_keras_object(node["keras"], safe_mode=True)
            if not isinstance(made, KERAS_KINDS):
                raise TypeError(f"{made!r} is not a layer, initializer, regularizer or constraint")
            return made
        raise KeyError(next(iter(node), None))

    def _arguments(self, arguments: list) -> dict[str, Any]:
        return {name: self.value(argument) for name, argument in arguments}


def _refuse_functions(config: Any) -> None:
    """Raise a `ValueError` for an unregistered function in a Keras config, because Keras would import it."""
    if isinstance(config, dict):
        if config.get("class_name") == "function" and (
            keras.saving.get_registered_object(str(config.get("registered_name"))) is None
        ):
            raise ValueError(f"The description names the function {config.get('config')!r}, which is not registered.")
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            _refuse_functions(part)


def _read(array: dict) -> np.ndarray:
    dtype = tf.as_dtype(array["dtype"]).as_numpy_dtype
    return np.frombuffer(base64.b64decode(array["data"]), dtype).reshape(array["shape"]).copy()
