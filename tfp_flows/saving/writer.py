"""Descriptions of objects."""

from __future__ import annotations

import base64
import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.registry import KERAS_KINDS, Record, public_classes

# The version increases when an old description would no longer build the same object.
FORMAT = 5
_WAY_OUT = (
    "Keep the weights with model.save_weights('x.weights.h5') and load them into a model that the same code has built, or "
    "make it in a class or function with the decorator tff.serializable."
)


def describe(item: Any) -> str:
    """Return a JSON description of the constructor calls that created an object, for `from_description`.

    Variables are described with their current values, and so is state set from data, such as the moments of
    `Standardize`. The weights of Keras layers are not included.

    Args:
      item: A bijector, a distribution, or another object of TFP, a `serializable` class or a `serializable` factory.

    Raises:
      ValueError: If a part cannot be described, such as a function; the message names the part.

    Example:
      >>> text = tff.describe(tfb.Chain([tfb.Shift([1.0, 2.0]), tfb.Exp()]))
      >>> print(tff.from_description(text).forward([0.0, 0.0]).numpy())
      [2. 3.]
    """
    writer = _Writer()
    try:
        root = writer.value(item, type(item).__name__.lstrip("_"))
    except RecursionError as error:
        raise ValueError(f"{item!r} contains itself, or is nested too deeply to be described.") from error
    state = [_array(variable.numpy(), "state") for variable in state_of(item)]
    return json.dumps({"format": FORMAT, "objects": writer.nodes, "root": root, "state": state})


def without_values(text: str) -> str:
    """Return a description without the values of its variables, which is constant in training."""
    described = json.loads(text)
    for node in described["objects"]:
        if "variable" in node:
            node["variable"].pop("data")
    for array in described["state"]:
        array.pop("data")
    return json.dumps(described)


def state_of(item: Any) -> list[tf.Variable]:
    """Return the variables set from data, in a fixed order. Without their values, a copy would have another density.

    They belong to modules with a method `adapt`, or are non-trained weights of networks, such as those of `Normalization`.
    """
    modules = [item, *item.submodules] if isinstance(item, tf.Module) else []
    variables = [v for m in modules if getattr(m, "can_adapt", hasattr(type(m), "adapt")) for v in _own_variables(m)]
    networks = tracking.find(item).layers if modules else []
    # Weights of frozen layers are not included. They are saved as weights.
    weights = [w for network in networks for w in network.variables]
    variables += [w.value for w in weights if not w.value.trainable and w.dtype.startswith("float")]
    return list({id(v): v for v in variables}.values())


def _own_variables(module: tf.Module) -> list[tf.Variable]:
    return [v for _, v in sorted(vars(module).items()) if isinstance(v, tf.Variable)]


class _Writer:
    """Collects the nodes of a description: each object once, after its arguments."""

    def __init__(self):
        self.nodes: list[dict] = []
        self._index: dict[int, int] = {}
        self._keep: list = []  # ids are only valid while the objects live

    def value(self, item: Any, path: str) -> Any:
        if item is None or isinstance(item, (bool, str)):
            return item
        if isinstance(item, int):
            return int(item)
        if isinstance(item, float) and not isinstance(item, np.generic):
            return float(item) if math.isfinite(item) else {"float": repr(float(item))}
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            raise ValueError(f"{path} is a {type(item).__name__}, which cannot be described. {_WAY_OUT}")
        if isinstance(item, (list, tuple)):
            kind = "tuple" if isinstance(item, tuple) else "list"
            return {kind: [self.value(part, f"{path}[{i}]") for i, part in enumerate(item)]}
        if isinstance(item, Mapping):
            return {"dict": [[self.value(k, path), self.value(v, f"{path}[{k!r}]")] for k, v in item.items()]}
        if isinstance(item, tf.TensorShape):
            return {"shape": None if item.rank is None else item.as_list()}
        if isinstance(item, (tf.DType, np.dtype)) or (isinstance(item, type) and issubclass(item, np.generic)):
            kind = "tf" if isinstance(item, tf.DType) else "numpy" if isinstance(item, np.dtype) else "class"
            return {"dtype": [kind, tf.as_dtype(item).name]}
        if isinstance(item, np.generic):
            return {"scalar": _array(np.asarray(item), path)}
        if id(item) not in self._index:
            node = self._node(item, path)
            self._index[id(item)] = len(self.nodes)
            self._keep.append(item)
            self.nodes.append(node)
        return {"ref": self._index[id(item)]}

    def _arguments(self, arguments: Mapping[str, Any], path: str) -> list:
        return [[name, self.value(argument, f"{path}.{name}")] for name, argument in arguments.items()]

    def _node(self, item: Any, path: str) -> dict:
        record = getattr(item, "_record", None)
        if isinstance(record, Record):
            node = {"call": record.name, "arguments": self._arguments(record.arguments, path)}
            if isinstance(item, keras.Layer):
                # Layers with sizes from their input must be built again to have weights.
                if item.built and (shapes := item.get_build_config()):
                    node["build"] = json.loads(json.dumps(shapes))
                if not item.trainable:
                    node["frozen"] = True
            return node
        if isinstance(item, tfp.util.TransformedVariable):
            parts = {"variable": item.pretransformed_input, "bijector": item.bijector, "name": item.name}
            return {"transformed": self._arguments(parts, path)}
        if isinstance(item, tf.Variable):
            if getattr(item, "constraint", None) is not None:
                raise ValueError(f"{path} has a constraint, {item.constraint!r}, which cannot be described. {_WAY_OUT}")
            name, aggregation = item.name.split(":")[0], item.aggregation.name
            options = {"trainable": item.trainable, "name": name, "aggregation": aggregation}
            return {"variable": _array(item.numpy(), path), "options": options}
        if isinstance(item, (np.ndarray, tf.Tensor)) and hasattr(item, "__array__"):  # excludes symbolic tensors
            return {"array": _array(np.asarray(item), path), "tensor": tf.is_tensor(item)}
        public = public_classes().get(type(item))
        if public is not None:
            return {"tfp": public, "arguments": self._arguments(_tfp_arguments(item, path), path)}
        if isinstance(item, KERAS_KINDS):
            return {"keras": _keras_config(item, path)}
        if callable(item) and _is_activation(item):
            return {"activation": keras.activations.serialize(item)}
        if inspect.isroutine(item) or isinstance(item, functools.partial):
            named = " (Keras' activations are given by their names, such as 'relu'.)"
            hint = named if path.endswith("activation") else ""
            raise ValueError(f"{path} is a function, which cannot be described in a file.{hint} {_WAY_OUT}")
        what = f"{str(item)[:200]}, of {type(item)}"
        raise ValueError(f"{path} is {what}, which cannot be described in a file. {_WAY_OUT}")


def _tfp_arguments(item: Any, path: str) -> dict[str, Any]:
    """Return the arguments of a TFP object that differ from the defaults."""
    if isinstance(item, tfp.bijectors.AutoregressiveNetwork):  # a Keras 2 layer
        return item.get_config()
    known = dict(inspect.signature(type(item).__init__).parameters)
    known.pop("self", None)
    given = {k: v for k, v in (item.parameters or {}).items() if k != "parameters"}
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        given = {k: v for k, v in given.items() if k in known and v is not known[k].default}
    required = [n for n, p in known.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if not all(name in given for name in required):
        raise ValueError(f"{path} is a {type(item).__name__}, whose arguments TFP does not keep. {_WAY_OUT}")
    return given


def _is_activation(item: Callable) -> bool:
    name = getattr(item, "__name__", None)
    ours = str(getattr(item, "__module__", "")).split(".")[0] == "keras"
    if name is None or not (ours or keras.saving.get_registered_name(item) != name):
        return False
    try:
        return keras.activations.get(keras.activations.serialize(item)) is item
    except (TypeError, ValueError, AttributeError):
        return False


def _keras_config(item: Any, path: str) -> Any:
    try:
        config = keras.saving.serialize_keras_object(item)
        keras.saving.deserialize_keras_object(json.loads(json.dumps(config)), safe_mode=True)
    except Exception as error:  # a user's layer may raise anything
        raise ValueError(f"{path}: Keras cannot serialize {item!r} ({str(error)[:300]}). {_WAY_OUT}") from error
    return config


def _array(array: np.ndarray, path: str) -> dict:
    array = array.astype(array.dtype.newbyteorder("="))
    try:
        dtype = tf.as_dtype(array.dtype).name
    except TypeError:
        dtype = "string"
    if dtype == "string" or array.dtype.hasobject:
        raise ValueError(f"{path} is an array of {array.dtype}, where numbers are expected. {_WAY_OUT}")
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": dtype, "shape": list(array.shape), "data": data}
