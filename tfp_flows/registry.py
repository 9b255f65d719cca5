"""Registry of serializable classes and factories, which record their constructor calls, and of TFP's public classes."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.seeds import resolve_seed

PACKAGE = __name__.split(".")[0]
REGISTRY: dict[str, Callable] = {}
KERAS_KINDS = (keras.Layer, keras.Initializer, keras.Regularizer, keras.constraints.Constraint)


class Record:
    """Constructor call that created an object. Uses `__slots__`, so that variable search skips it."""

    __slots__ = ("arguments", "name", "number")
    count = itertools.count()

    def __init__(self, name: str, arguments: dict[str, Any]):
        self.name, self.number = name, next(self.count)
        self.arguments = {key: _snapshot(value) for key, value in arguments.items()}


def _snapshot(value: Any) -> Any:
    """Copy what may change after the call."""
    if type(value) in (list, tuple):
        return type(value)(map(_snapshot, value))
    if type(value) is dict:
        return {key: _snapshot(part) for key, part in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def serializable(target: Callable) -> Callable:
    """Make objects of a class, or those returned by a function, storable in a `.keras` file. Used as a decorator.

    The decorator records name and arguments of each call. Arguments may be numbers, strings, lists, arrays, variables,
    Keras layers, TFP's bijectors and distributions, and other serializable objects. An argument `seed` is a
    non-negative integer; `None` is replaced by a random one. All arguments are stored in the file, so pass numbers to a
    factory, not the data that they come from. The name must be registered before loading, as with Keras' custom objects.

    Args:
      target: A class, or a function that returns an object of one.

    Returns:
      The class itself, or the function that records its calls.

    Raises:
      ValueError: If another class or function has the same name, or `target` takes `*args`.

    Example:
      >>> @tff.serializable
      ... class Twice(tfb.Chain):
      ...     def __init__(self, bijector, name="twice"):
      ...         super().__init__([bijector, bijector], name=name)
      >>> copy = tff.from_description(tff.describe(Twice(tfb.Shift([1.0, 2.0]))))
      >>> print(copy.forward([0.0, 0.0]).numpy())
      [2. 4.]
    """
    name = target.__name__
    if (target.__module__ or "").split(".")[0] == PACKAGE:
        name = f"{PACKAGE}>{name}"  # a user's class may have the same name as ours
    known = REGISTRY.get(name)
    if known is not None:
        # Running a notebook cell again redefines a name, and a script may also be imported.
        modules = {known.__module__, target.__module__}
        if known.__qualname__ != target.__qualname__ or (len(modules) > 1 and "__main__" not in modules):
            raise ValueError(f"{known.__module__}.{known.__qualname__} is registered as {name!r} already.")
    call = _recording(name, target)
    if isinstance(target, type):
        target.__init__ = call
        if issubclass(target, tf.Module):
            target.__reduce__ = _reduce
    REGISTRY[name] = target if isinstance(target, type) else call
    return REGISTRY[name]


def _recording(name: str, target: Callable) -> Callable:
    """Return a function, or the constructor of a class, that records its calls."""
    function = target.__init__ if isinstance(target, type) else target
    signature = inspect.signature(function)
    if any(p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY) for p in signature.parameters.values()):
        raise ValueError(f"{name} must take named arguments, not *args, got {name}{signature}.")

    @functools.wraps(function)
    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if "seed" in bound.arguments:
            bound.arguments["seed"] = resolve_seed(bound.arguments["seed"])
        before, arguments = next(Record.count), dict(bound.arguments)
        result = function(*bound.args, **bound.kwargs)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name))
        if isinstance(target, type):
            made = arguments.pop(next(iter(signature.parameters)))
            if type(made) is not target:  # the subclass records its own arguments
                return result
        else:
            made = result
            # The call did not create what existed before it, such as an argument.
            record = getattr(made, "_record", None)
            is_older = isinstance(record, Record) and record.number < before
            if is_older or any(made is value for value in arguments.values()):
                return result
        object.__setattr__(made, "_record", Record(name, arguments))  # bypasses TensorFlow's tracking
        return result

    call.__signature__ = signature  # Keras reads argument names without unwrapping
    return call


# `saving.copies`, which imports this module, registers the function behind pickles and deep copies here.
REDUCERS: list[Callable] = []


def _reduce(self):
    return REDUCERS[-1](self)


@functools.cache
def public_classes() -> dict[type, str]:
    """Return the names of TFP's bijectors and distributions by class, including the private classes behind public ones."""
    classes: dict[type, str] = {}
    for room, base in (("bijectors", tfp.bijectors.Bijector), ("distributions", tfp.distributions.Distribution)):
        for name in dir(getattr(tfp, room)):
            member = getattr(getattr(tfp, room), name)
            if isinstance(member, type) and issubclass(member, base):
                for cls in (member, *(b for b in member.__bases__ if b.__name__ == f"_{name}")):
                    classes.setdefault(cls, f"{room}.{name}")
    classes[tfp.bijectors.AutoregressiveNetwork] = "bijectors.AutoregressiveNetwork"
    return classes
