"""What can be named in a description: classes and factories that note their calls, and TFP's public classes."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.seeds import resolve_seed

PACKAGE = __name__.split(".")[0]
REGISTRY: dict[str, Callable] = {}
KERAS_KINDS = (
    keras.Layer,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
)


class Record:
    """By which call an object was made. Without a `__dict__`, so that no search for variables looks into it."""

    __slots__ = ("arguments", "name", "number")
    count = itertools.count()

    def __init__(self, name: str, arguments: dict[str, Any]):
        self.name, self.number = name, next(self.count)
        self.arguments = {key: _snapshot(value) for key, value in arguments.items()}


def _snapshot(value: Any) -> Any:
    """Return a copy of lists, dicts and arrays, which may change after the call."""
    if type(value) in (list, tuple):
        return type(value)(map(_snapshot, value))
    if type(value) is dict:
        return {key: _snapshot(part) for key, part in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def serializable(target: Callable) -> Callable:
    """Lets objects of a class, or those that a function makes, be written into a `.keras` file: a class decorator.

    The call is noted: the name, and the arguments. They may be numbers, strings, lists, arrays, variables, Keras layers,
    TFP's bijectors and distributions, and other serializable objects. An argument `seed` is a
    non-negative integer; `None` is replaced by a random one first. All of it is in the file: give a factory numbers, and
    not the data that they come from. Where the file is loaded, the same name must be registered before, as with Keras'
    custom objects.

    Args:
      target: A class, or a function that returns an object of one.

    Returns:
      The class itself, or the function that notes its calls.

    Raises:
      ValueError: If another class or function has the name, or if it takes `*args`.

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
        name = f"{PACKAGE}>{name}"  # a user's class may have the name of one of ours
    known = REGISTRY.get(name)
    if known is not None:
        # A notebook cell that is run again defines the same name again, and a script may also be imported.
        modules = {known.__module__, target.__module__}
        if known.__qualname__ != target.__qualname__ or (len(modules) > 1 and "__main__" not in modules):
            raise ValueError(f"{known.__module__}.{known.__qualname__} is registered as {name!r} already.")
    function = target.__init__ if isinstance(target, type) else target
    signature = inspect.signature(function)
    if any(p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY) for p in signature.parameters.values()):
        raise ValueError(f"{name} must take its arguments by names, not as *args, got {name}{signature}.")

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
            if type(made) is not target:  # the constructor of a subclass knows its own arguments
                return result
        else:
            made = result
            # What was there before the call, such as an argument, was not made by it.
            if any(made is value for value in arguments.values()) or _number_of(made) < before:
                return result
        object.__setattr__(made, "_record", Record(name, arguments))  # unseen by TensorFlow's tracking
        return result

    call.__signature__ = signature  # Keras asks for the names of arguments without looking behind wrappers
    if isinstance(target, type):
        target.__init__ = call
        if issubclass(target, tf.Module):
            target.__reduce__ = _reduce
    REGISTRY[name] = target if isinstance(target, type) else call
    return REGISTRY[name]


# How pickles and deep copies are made: `saving.copies`, which needs this module, puts its function here.
REDUCERS: list[Callable] = []


def _reduce(self):
    return REDUCERS[-1](self)


def _number_of(item: Any) -> float:
    """When the record of an object was made; the end of time if it has none."""
    record = getattr(item, "_record", None)
    return record.number if isinstance(record, Record) else math.inf


@functools.cache
def public_classes() -> dict[type, str]:
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
