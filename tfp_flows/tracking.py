"""Search for variables across Keras 3 and `tf.Module`, neither of which sees the variables of the other."""

from __future__ import annotations

import collections
import contextlib
import dis
import functools
import inspect
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import _compat_tfp

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfp_flows needs Keras on the TensorFlow backend, got "
        f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow before importing keras."
    )

# Objects of these packages are not searched, apart from modules, layers, variables and wrapped functions.
_LIBRARIES = ("tensorflow", "keras", "tf_keras", "numpy", "absl", "builtins")


class Found(NamedTuple):
    """Keras 3 layers, the `tf.Variable`s outside of them, and what Keras knows about those variables."""

    layers: list[keras.Layer]
    variables: list[tf.Variable]
    frozen: frozenset[int] = frozenset()  # ids of variables frozen by a Keras 2 layer or a `keras.Variable`
    # Standalone Keras 3 variables, which may have constraints and regularizers, by the ids of their `tf.Variable`s.
    keras_variables: Mapping[int, keras.Variable] = types.MappingProxyType({})
    # The outermost Keras 2 layers, whose `losses` belong to the training loss.
    legacy_layers: tuple[tf.Module, ...] = ()

    def is_trainable(self, variable: tf.Variable) -> bool:
        """Return whether to train a variable of `variables`."""
        return variable.trainable and id(variable) not in self.frozen

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """All trainable `tf.Variable`s, each once; a frozen layer contributes none."""
        own = [w.value for layer in self.layers for w in layer.trainable_variables]
        return _unique(own + [v for v in self.variables if self.is_trainable(v)])


def find(*roots: Any) -> Found:
    """Find the Keras 3 layers and the variables that an object depends on.

    Follows attributes of `tf.Module`s and other objects, containers, bound methods, `functools.partial`, and closures,
    defaults and globals of functions. Omits layers inside of another found layer, and variables that belong to a layer.
    """
    leaves = list(_walk(list(roots)))
    layers = [leaf for leaf in leaves if isinstance(leaf, keras.Layer)]
    legacy = [leaf for leaf in leaves if is_legacy_layer(leaf) and not isinstance(leaf, keras.Layer)]
    keras_variables = {id(leaf.value): leaf for leaf in leaves if isinstance(leaf, keras.Variable)}
    variables = [leaf for leaf in leaves if isinstance(leaf, (keras.Variable, tf.Variable))]
    variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    weights = [{id(w) for w in layer.variables} for layer in layers]
    layers = [layer for i, layer in enumerate(layers) if not _is_part_of_another(i, weights)]
    owned = {id(w.value) for layer in layers for w in layer.variables}
    variables = [v for v in _unique(variables) if id(v) not in owned]
    frozen = {id(w) for layer in legacy if layer.built and not layer.trainable for w in layer.weights}
    frozen |= {key for key, v in keras_variables.items() if not v.trainable}
    inner = {id(part) for layer in legacy for part in layer.submodules}
    outermost = tuple(layer for layer in legacy if id(layer) not in inner)
    return Found(layers, variables, frozenset(frozen), keras_variables, outermost)


def parts(variable: tf.Variable) -> list:
    """Return the variable and, under a `tf.distribute` strategy, its copies on each replica, which a tape records."""
    copies = variable.values if isinstance(variable, tf.distribute.DistributedValues) else ()
    return [variable, *copies]


def touched_variables(fn: Callable[[], Any]) -> list[tf.Variable]:
    """Return the trainable variables that a call of `fn` reads, according to a gradient tape."""
    with tf.GradientTape() as tape:
        fn()
    return _unique(tape.watched_variables())


class Mirror(tf.Module):
    """Callable that exposes the variables of its function to `tf.Module`.

    A bijector with a `Mirror` attribute has the right `trainable_variables`, also if `fn` is a Keras 3 layer, a
    tf_keras one, or a function with one in its closure. Weights that are built at the first call appear then.
    """

    def __init__(self, fn: Callable, name: str | None = None):
        super().__init__(name=name)
        self.fn = fn
        self._mirrored: tuple = ()
        self.refresh()

    def refresh(self) -> None:
        """Search for variables again."""
        found = find(self.fn)
        # A `tf.Variable` cannot be frozen, so those of frozen layers are left out of `trainable_variables`.
        weights = [w.value for layer in found.layers for w in layer.variables if w.trainable == w.value.trainable]
        mirrored = _unique(weights + [v for v in found.variables if v.trainable == found.is_trainable(v)])
        if [id(v) for v in mirrored] != [id(v) for v in self._mirrored]:
            self._mirrored = tuple(mirrored)

    def __call__(self, *args, **kwargs):
        result = self.fn(*args, **kwargs)
        self.refresh()
        return result


def adopt(found: Found, variables: list[tf.Variable] | None = None) -> list[keras.Variable]:
    """Wrap each variable of `found` in a `keras.Variable` that shares its storage, with a unique name.

    Constraint, aggregation, synchronization and trainability are kept. (TFP's MADE networks depend on constraints for
    their masks.) Existing Keras variables are returned unchanged.
    """
    adopted, count = [], {}
    for v in found.variables if variables is None else variables:
        known = found.keras_variables.get(id(v))
        if known is None:
            known = getattr(v, "_keras_variable", lambda: None)()
        if known is not None and (id(v) in found.keras_variables or known.trainable == found.is_trainable(v)):
            adopted.append(known)
            continue
        name = v.name.split(":")[0].strip("/").replace("/", "_") or "variable"  # Keras forbids "/"
        count[name] = count.get(name, 0) + 1
        if count[name] > 1:
            name = f"{name}_{count[name] - 1}"
        replicas = {"aggregation": v.aggregation.name.lower(), "synchronization": v.synchronization.name.lower()}
        wrapped = keras.Variable(v, trainable=found.is_trainable(v), name=name, **replicas)
        if wrapped.value is not v:  # Keras before 3.10 copies it
            raise RuntimeError(f"Keras {keras.__version__} copies tf.Variables; tfp_flows needs Keras 3.10 or newer.")
        if getattr(v, "constraint", None) is not None:
            wrapped.constraint = _Constraint(v.constraint)
        v._keras_variable = weakref.ref(wrapped)  # so that two layers over one variable update it once
        adopted.append(wrapped)
    return adopted


class _Constraint(keras.constraints.Constraint):
    def __init__(self, fn: Callable):
        self.fn = fn

    def __call__(self, w):
        return self.fn(tf.convert_to_tensor(w))


def _unique(variables: Iterable) -> list:
    return list({id(v): v for v in variables}.values())


def _is_part_of_another(index: int, weights: list[set[int]]) -> bool:
    """Return whether another layer contains all weights of a layer. Of layers with equal weights, the first stays."""
    own = weights[index]
    return bool(own) and any(own < other or (own == other and i < index) for i, other in enumerate(weights))


_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType, np.ndarray, np.generic, type(None))


def _walk(roots: list) -> Iterator[keras.Layer | keras.Variable | tf.Variable | tf.Module]:
    """Yield the Keras 3 layers, the variables and the Keras 2 layers reachable from `roots`.

    Keras 3 layers are not entered. Keras 2 layers are, since TFP's hold other modules.
    """
    seen: set[int] = set()
    queue = collections.deque(roots)
    keep = []  # ids are valid only while the objects live
    while queue:
        item = queue.popleft()
        if isinstance(item, _LEAVES) or id(item) in seen:
            continue
        seen.add(id(item))
        keep.append(item)
        if isinstance(item, (keras.Layer, keras.Variable, tf.Variable)):
            yield item
        else:
            if is_legacy_layer(item):
                yield item
            queue.extend(_children(item))


def is_legacy_layer(item: Any) -> bool:
    """Return whether `item` is a Keras 2 layer (of tf_keras, or of tf.keras in legacy mode), which is a `tf.Module`."""
    # Checks the class, since reading the weights of a Keras 2 model that is not built raises an error.
    return isinstance(item, tf.Module) and all(hasattr(type(item), key) for key in ("call", "weights", "losses"))


def _children(item: Any) -> list:
    if tf.is_tensor(item) and not isinstance(item, tf.Module):
        return []
    if isinstance(item, tf.Module):
        return _compat_tfp.module_children(item)
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, (list, tuple, set, frozenset)):
        return list(item)
    if isinstance(item, functools.partial):
        return [item.func, item.args, item.keywords]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, types.FunctionType):
        return _function_children(item)
    if type(item).__module__.split(".")[0] in _LIBRARIES:
        return _library_children(item)
    return list(getattr(item, "__dict__", {}).values())


def _library_children(item: Any) -> list:
    """Return the user's function inside a library object (`tf.function`), or its variables (`tf.compat.v1.Template`)."""
    inner = getattr(item, "python_function", None) or getattr(item, "__wrapped__", None)
    variables = getattr(item, "variables", ()) if callable(item) else ()
    return [inner] * callable(inner) + list(variables)


def _function_children(fn: types.FunctionType) -> list:
    found = [inspect.unwrap(fn)] if hasattr(fn, "__wrapped__") else []
    for cell in fn.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            found.append(cell.cell_contents)
    found += list(fn.__defaults__ or ()) + list((fn.__kwdefaults__ or {}).values())
    if (fn.__module__ or "").split(".")[0] not in (*_LIBRARIES, "tensorflow_probability"):
        found += [fn.__globals__[name] for name in sorted(_global_names(fn.__code__)) if name in fn.__globals__]
    return found


@functools.lru_cache(maxsize=1024)
def _global_names(code: types.CodeType) -> set[str]:
    """Return the names that the code of a function, or of one inside it, loads from its globals."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names
