"""Descriptions of bijectors and distributions: JSON that names classes and their arguments, and holds no code.

`describe` writes down what an object was made from, `from_description` makes it again. TFP's own classes know their
arguments (`parameters`); `serializable` teaches it to classes and factories of this package, and of users.
"""

from __future__ import annotations

import base64
import functools
import importlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.seeds import resolve_seed

# Rises when a description would no longer build the same object.
FORMAT = 4
_REGISTRY: dict[str, Callable] = {}
# What registers the names of this package; loaded when a description is read, which may be before anything else is.
_HOMES = ("tfp_flows.flows", "tfp_flows.models", "tfp_flows.course")
_WAY_OUT = (
    "Keep the weights with model.save_weights('x.weights.h5') and load them into a model that the same code has built, or "
    "make it in a class or function with the decorator tff.serializable."
)


class _Record:
    """By which call an object was made. Without a `__dict__`, so that no search for variables looks into it."""

    __slots__ = ("arguments", "name")

    def __init__(self, name: str, arguments: dict[str, Any]):
        self.name, self.arguments = name, arguments


def serializable(target: Callable) -> Callable:
    """Lets objects of a class, or those that a function makes, be written into a `.keras` file: a class decorator.

    The call is noted: the name, and the arguments. They may be numbers, strings, lists, arrays, variables, Keras layers,
    TFP's bijectors and distributions, and other serializable objects. An argument `seed` is a
    non-negative integer; `None` is replaced by a random one first.
    Where the file is loaded, the same name must be registered before, as with Keras' custom objects.

    Args:
      target: A class, or a function that returns an object of one.

    Returns:
      The class itself, or the function that notes its calls.

    Raises:
      ValueError: If another class or function has the name.

    Example:
      >>> @serializable
      ... class Twice(tfb.Chain):
      ...     def __init__(self, bijector, name="twice"):
      ...         super().__init__([bijector, bijector], name=name)
      >>> copy = from_description(describe(Twice(tfb.Shift([1.0, 2.0]))))
      >>> print(copy.forward([0.0, 0.0]).numpy())
      [2. 4.]
    """
    known = _REGISTRY.get(target.__name__)
    # A notebook cell that is run again defines the same name again.
    if known is not None and (known.__module__, known.__qualname__) != (target.__module__, target.__qualname__):
        raise ValueError(f"{known.__module__}.{known.__qualname__} is registered as {target.__name__!r} already.")
    function = target.__init__ if isinstance(target, type) else target
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if "seed" in bound.arguments:
            bound.arguments["seed"] = resolve_seed(bound.arguments["seed"])
        result = function(*bound.args, **bound.kwargs)
        arguments = dict(bound.arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name))
        if isinstance(target, type):
            made = arguments.pop(next(iter(signature.parameters)))
            if type(made) is not target:  # the constructor of a subclass knows its own arguments
                return result
        else:
            made = result
        object.__setattr__(made, "_record", _Record(target.__name__, arguments))  # unseen by TensorFlow's tracking
        return result

    call.__signature__ = signature  # Keras asks for the names of arguments without looking behind wrappers
    if isinstance(target, type):
        target.__init__ = call
        _REGISTRY[target.__name__] = target
        return target
    _REGISTRY[target.__name__] = call
    return call


@functools.cache
def _public_classes() -> dict[type, str]:
    """TFP's bijectors and distributions by class, with the private classes of which public ones make instances."""
    classes: dict[type, str] = {}
    for room, base in (("bijectors", tfp.bijectors.Bijector), ("distributions", tfp.distributions.Distribution)):
        for name in dir(getattr(tfp, room)):
            member = getattr(getattr(tfp, room), name)
            if isinstance(member, type) and issubclass(member, base):
                for cls in (member, *(b for b in member.__bases__ if b.__name__ == f"_{name}")):
                    classes.setdefault(cls, f"{room}.{name}")
    classes[tfp.bijectors.AutoregressiveNetwork] = "bijectors.AutoregressiveNetwork"
    return classes


def describe(item: Any) -> str:
    """What an object was made from, as JSON text.

    Args:
      item: A bijector, a distribution, or another object of TFP's or of a `serializable` class or factory.

    Returns:
      The text, for `from_description`. Variables are described with their present values; the weights of Keras layers
      are not part of it.

    Raises:
      ValueError: If a part cannot be described, such as a function; the message says where it is.

    Example:
      >>> text = describe(tfb.Chain([tfb.Shift([1.0, 2.0]), tfb.Exp()]))
      >>> print(from_description(text).forward([0.0, 0.0]).numpy())
      [2. 3.]
    """
    writer = _Writer()
    root = writer.value(item, type(item).__name__.lstrip("_"))
    return json.dumps({"format": FORMAT, "objects": writer.nodes, "root": root})


def from_description(text: str) -> Any:
    """Makes the object that `describe` has described. It runs no code but constructors of known names.

    Raises:
      ValueError: If the text is not a description, is of another version, or names what is not registered here.

    Example:
      >>> flow = from_description(describe(tff.maf(2, num_layers=1, seed=1)))
      >>> flow.name
      'maf'
    """
    try:
        described = json.loads(text)
        form, nodes, root = (described[key] for key in ("format", "objects", "root"))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"Not a description by tfp_flows: {str(text)[:200]!r}.") from error
    if form != FORMAT:
        raise ValueError(f"The description has format {form!r}, this version of tfp_flows reads format {FORMAT}.")
    for home in _HOMES:
        importlib.import_module(home)
    reader = _Reader()
    try:
        for node in nodes:
            reader.made.append(reader.make(node))
        return reader.value(root)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"The description does not fit this version of tfp_flows ({error!r}).") from error


class _Writer:
    """Nodes of a description: each object once, after those that it is made from."""

    def __init__(self):
        self.nodes: list[dict] = []
        self._index: dict[int, int] = {}
        self._keep: list = []  # ids are only valid while the objects live

    def value(self, item: Any, path: str) -> Any:
        if item is None or isinstance(item, (bool, str)):
            return item
        if isinstance(item, np.generic):
            item = item.item()
        if isinstance(item, int):
            return int(item)
        if isinstance(item, float):
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
            return {"dtype": tf.as_dtype(item).name}
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
        if isinstance(record, _Record):
            return {"call": record.name, "arguments": self._arguments(record.arguments, path)}
        if isinstance(item, tfp.util.TransformedVariable):
            parts = {"variable": item.pretransformed_input, "bijector": item.bijector, "name": item.name}
            return {"transformed": self._arguments(parts, path)}
        if isinstance(item, tf.Variable):
            return {"variable": _array(item.numpy()), "trainable": item.trainable, "name": item.name.split(":")[0]}
        if isinstance(item, (np.ndarray, tf.Tensor)) and hasattr(item, "__array__"):  # no symbolic tensor
            return {"array": _array(np.asarray(item)), "tensor": tf.is_tensor(item)}
        public = _public_classes().get(type(item))
        if public is not None:
            return {"tfp": public, "arguments": self._arguments(_tfp_arguments(item), path)}
        if isinstance(item, keras.Layer):
            return {"keras": _keras_config(item, path)}
        if callable(item) and _is_activation(item):
            return {"activation": keras.activations.serialize(item)}
        if type(item).__module__.split(".")[0] == "keras" and hasattr(item, "get_config"):
            return {"keras": _keras_config(item, path)}
        kind = "a function" if inspect.isroutine(item) or isinstance(item, functools.partial) else repr(item)
        raise ValueError(f"{path} is {kind}, which cannot be described in a file. {_WAY_OUT}")


def _tfp_arguments(item: Any) -> dict[str, Any]:
    """The arguments of an object of TFP's that differ from the defaults."""
    if isinstance(item, tfp.bijectors.AutoregressiveNetwork):  # a Keras 2 layer
        given, cls = {k: v for k, v in item.get_config().items() if k not in ("trainable", "dtype")}, type(item)
    else:
        given, cls = item.parameters, type(item)
    known = inspect.signature(cls.__init__).parameters
    return {k: v for k, v in given.items() if k in known and k != "parameters" and v is not known[k].default}


def _is_activation(item: Callable) -> bool:
    """Whether Keras knows the function by a name, its own or a registered one."""
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
    except Exception as error:  # whatever a user's layer raises
        raise ValueError(f"{path}: Keras cannot write {item!r} down ({str(error)[:300]}). {_WAY_OUT}") from error
    return config


def _array(array: np.ndarray) -> dict:
    dtype = tf.as_dtype(array.dtype).name
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": dtype, "shape": list(array.shape), "data": data}


class _Reader:
    """Objects from the nodes of a description, in their order."""

    def __init__(self):
        self.made: list = []

    def value(self, item: Any) -> Any:
        if isinstance(item, list):
            raise ValueError("The description holds a list where a value should be.")
        if not isinstance(item, dict):
            return item
        ((kind, content),) = item.items()
        if kind == "ref":
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
            return tf.as_dtype(content)
        raise KeyError(kind)

    def make(self, node: dict) -> Any:
        if "call" in node:
            if node["call"] not in _REGISTRY:
                raise ValueError(
                    f"The description names {node['call']!r}, which is not registered here: import or define the class or "
                    "function that has the decorator tff.serializable."
                )
            return _REGISTRY[node["call"]](**self._arguments(node["arguments"]))
        if "tfp" in node:
            if node["tfp"] not in _public_classes().values():
                raise ValueError(f"The description names {node['tfp']!r}, which is no bijector or distribution of TFP.")
            room, name = node["tfp"].split(".")
            return getattr(getattr(tfp, room), name)(**self._arguments(node["arguments"]))
        if "transformed" in node:
            parts = self._arguments(node["transformed"])
            initial = parts["bijector"].forward(tf.identity(parts["variable"]))
            made = tfp.util.TransformedVariable(initial, parts["bijector"], name=parts["name"])
            made.pretransformed_input.assign(parts["variable"])
            return made
        if "variable" in node:
            return tf.Variable(_read(node["variable"]), trainable=node["trainable"], name=node["name"])
        if "array" in node:
            return tf.constant(_read(node["array"])) if node["tensor"] else _read(node["array"])
        if "activation" in node:
            return keras.activations.get(node["activation"])
        if "keras" in node:
            return keras.saving.deserialize_keras_object(node["keras"], safe_mode=True)
        raise KeyError(next(iter(node), None))

    def _arguments(self, arguments: list) -> dict[str, Any]:
        return {name: self.value(argument) for name, argument in arguments}


def _read(array: dict) -> np.ndarray:
    dtype = tf.as_dtype(array["dtype"]).as_numpy_dtype
    return np.frombuffer(base64.b64decode(array["data"]), dtype).reshape(array["shape"]).copy()
