"""Where Keras weights and `tf.Module` variables meet.

`tf.Module` (every TFP bijector and distribution is one) does not see the weights of a Keras 3 layer, and Keras does not
see `tf.Variable`s. This module finds both in any graph of Python objects, and mirrors each side to the other.
"""

from __future__ import annotations

import collections
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

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfp_flows needs Keras on the TensorFlow backend, got "
        f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow before importing keras."
    )

# Objects of these packages are never walked into through a global name of a function: what a user's function refers to
# there is the library itself. (tf.Module, Keras layers and variables are recognized before this is asked.)
_LIBRARIES = ("tensorflow", "keras", "tf_keras", "numpy", "absl", "builtins")


class Found(NamedTuple):
    """Keras 3 layers, the `tf.Variable`s that belong to none of them, and what Keras hangs on those variables."""

    layers: list[keras.Layer]
    variables: list[tf.Variable]
    frozen: frozenset[int] = frozenset()  # ids of variables that a Keras 2 layer or a `keras.Variable` has frozen
    # Keras 3 variables that stand alone, by the ids of their `tf.Variable`s: they may have constraints and regularizers.
    keras_variables: Mapping[int, keras.Variable] = types.MappingProxyType({})
    legacy_layers: tuple[
        tf.Module, ...
    ] = ()  # the outermost Keras 2 layers, whose `losses` belong to the training loss

    def is_trainable(self, variable: tf.Variable) -> bool:
        """Return whether a variable of `variables` is to be trained."""
        return variable.trainable and id(variable) not in self.frozen

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """All trainable `tf.Variable`s, each once; a frozen layer contributes none."""
        own = [w.value for layer in self.layers for w in layer.trainable_variables]
        return _unique(own + [v for v in self.variables if self.is_trainable(v)])


def find(*roots: Any) -> Found:
    """Find the Keras 3 layers and the variables that an object depends on.

    Walks attributes of `tf.Module`s (hence bijectors and distributions) and of other objects, containers, bound
    methods, `functools.partial`, and of functions the closure, the defaults and the globals that their code names.

    Args:
      *roots: Any objects.

    Returns:
      A `Found`. Layers that are part of another found layer, and variables that belong to a layer, are left out.
    """
    layers: list[keras.Layer] = []
    variables: list[tf.Variable] = []
    keras_variables: dict[int, keras.Variable] = {}
    legacy: list[tf.Module] = []
    for leaf in _walk(list(roots)):
        if isinstance(leaf, keras.Layer):
            layers.append(leaf)
        elif isinstance(leaf, keras.Variable):
            keras_variables[id(leaf.value)] = leaf
            variables.append(leaf.value)
        elif isinstance(leaf, tf.Variable):
            variables.append(leaf)
        else:
            legacy.append(leaf)
    layers = [layer for i, layer in enumerate(layers) if not _is_part_of_another(i, layers)]
    owned = {id(w.value) for layer in layers for w in layer.variables}
    variables = [v for v in _unique(variables) if id(v) not in owned]
    frozen = {id(w) for layer in legacy if layer.built and not layer.trainable for w in layer.weights}
    frozen |= {key for key, v in keras_variables.items() if not v.trainable}
    inner = {id(part) for layer in legacy for part in layer.submodules}
    outermost = tuple(layer for layer in legacy if id(layer) not in inner)
    return Found(layers, variables, frozenset(frozen), keras_variables, outermost)


def parts(variable: tf.Variable) -> list:
    """Return the variable and, under a `tf.distribute` strategy, its copies on each replica, which are what a tape sees."""
    copies = variable.values if isinstance(variable, tf.distribute.DistributedValues) else ()
    return [variable, *copies]


def touched_variables(fn: Callable[[], Any]) -> list[tf.Variable]:
    """Trainable variables that a call of `fn` reads, wherever they are hidden: a gradient tape sees them all."""
    with tf.GradientTape() as tape:
        fn()
    return _unique(tape.watched_variables())


class Mirror(tf.Module):
    """A callable that shows `tf.Module` the variables of what it calls.

    A bijector that keeps a `Mirror` as an attribute has the right `trainable_variables`, also where the callable is a
    Keras 3 layer, or a function that holds one in its closure. Weights that are built at the first call appear then.

    Args:
      fn: A Keras 3 layer or model, a tf_keras one, or any callable.
    """

    def __init__(self, fn: Callable, name: str | None = None):
        super().__init__(name=name)
        self.fn = fn
        self._mirrored: tuple = ()
        self.refresh()

    def refresh(self) -> None:
        """Look again for variables; cheap if nothing is new."""
        found = find(self.fn)
        # A variable whose layer was frozen must not reach `trainable_variables`, and a tf.Variable cannot be frozen.
        weights = [w.value for layer in found.layers for w in layer.variables if w.trainable == w.value.trainable]
        mirrored = _unique(weights + [v for v in found.variables if v.trainable == found.is_trainable(v)])
        if [id(v) for v in mirrored] != [id(v) for v in self._mirrored]:
            self._mirrored = tuple(mirrored)

    def __call__(self, *args, **kwargs):
        result = self.fn(*args, **kwargs)
        self.refresh()
        return result


def clean_name(name: str) -> str:
    """Return a Keras name for a variable: no ":0" and no "/" (which TFP's names have and Keras forbids)."""
    return name.split(":")[0].strip("/").replace("/", "_") or "variable"


def adopt(found: Found, variables: list[tf.Variable] | None = None) -> list[keras.Variable]:
    """Wrap each variable in a `keras.Variable` that shares its storage, with a unique name.

    Whatever hangs on a variable goes along: constraint, aggregation, synchronization, and whether it is trained. (TFP keeps
    the masks of its MADE networks by constraints alone.) A variable that is Keras' already stays as it is.

    Args:
      found: What a search found.
      variables: The `tf.Variable`s to wrap; those of `found` by default.
    """
    adopted, count = [], {}
    for v in found.variables if variables is None else variables:
        known = found.keras_variables.get(id(v)) or getattr(v, "_keras_variable", lambda: None)()
        if known is not None and (id(v) in found.keras_variables or known.trainable == found.is_trainable(v)):
            adopted.append(known)
            continue
        name = clean_name(v.name)
        count[name] = count.get(name, 0) + 1
        if count[name] > 1:
            name = f"{name}_{count[name] - 1}"
        wrapped = keras.Variable(
            v,
            trainable=found.is_trainable(v),
            aggregation=v.aggregation.name.lower(),
            synchronization=v.synchronization.name.lower(),
            name=name,
        )
        if wrapped.value is not v:  # Keras before 3.10 copied it
            raise RuntimeError(f"Keras {keras.__version__} copies tf.Variables; tfp_flows needs Keras 3.10 or newer.")
        wrapped.constraint = _constraint_of(v)
        v._keras_variable = weakref.ref(wrapped)  # two layers over one variable are to move it once
        adopted.append(wrapped)
    return adopted


def _constraint_of(variable: tf.Variable) -> Callable | None:
    """Return the constraint of a `tf.Variable` as Keras 3 calls it: its own function wants a tensor."""
    constraint = getattr(variable, "constraint", None)
    return None if constraint is None else _Constraint(constraint)


class _Constraint(keras.constraints.Constraint):
    """A function of a tensor as a constraint of Keras."""

    def __init__(self, fn: Callable):
        self.fn = fn

    def __call__(self, w):
        return self.fn(tf.convert_to_tensor(w))


def _unique(variables: Iterable) -> list:
    return list({id(v): v for v in variables}.values())


def _is_part_of_another(index: int, layers: list[keras.Layer]) -> bool:
    """Return whether the weights of a layer are all weights of another found one (of equal ones, the first stays)."""
    own = {id(w) for w in layers[index].variables}
    for i, other in enumerate(layers):
        weights = {id(w) for w in other.variables}
        if i != index and own and own <= weights and (own != weights or i < index):
            return True
    return False


_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType, np.ndarray, np.generic, type(None))


def _walk(roots: list) -> Iterator[keras.Layer | keras.Variable | tf.Variable | tf.Module]:
    """Yield the Keras 3 layers, the variables and the Keras 2 layers reachable from `roots`.

    It does not enter Keras 3 layers; Keras 2 layers are entered, since TFP's hold other modules.
    """
    seen: set[int] = set()
    queue = collections.deque(roots)
    keep = []  # ids are only valid while the objects live
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
    # Asked of the class: the weights of a Keras 2 model that is not built raise an error.
    return isinstance(item, tf.Module) and all(hasattr(type(item), key) for key in ("call", "weights", "losses"))


def _children(item: Any) -> list:
    if tf.is_tensor(item) and not isinstance(item, tf.Module):
        return []
    if isinstance(item, tf.Module):
        # The properties that tf.Module itself skips hold caches and constructor arguments: the cache of a bijector
        # would lead to everything that was ever passed through it. There is no public name for them.
        ignored = getattr(type(item), "_TF_MODULE_IGNORED_PROPERTIES", ())
        return [value for key, value in vars(item).items() if key not in ignored]
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
    attributes = vars(item) if hasattr(item, "__dict__") else {}
    return list(attributes.values())


def _library_children(item: Any) -> list:
    """Of library objects only what wraps a user's function (`tf.function`) or owns variables (`tf.compat.v1.Template`)."""
    inner = getattr(item, "python_function", None) or getattr(item, "__wrapped__", None)
    variables = getattr(item, "variables", ()) if callable(item) else ()
    return [inner] * callable(inner) + list(variables)


def _function_children(fn: types.FunctionType) -> list:
    if fn.__module__ and fn.__module__.split(".")[0] in (*_LIBRARIES, "tensorflow_probability"):
        names: set[str] = set()
    else:
        names = _global_names(fn.__code__)
    found = [inspect.unwrap(fn)] if hasattr(fn, "__wrapped__") else []
    for cell in fn.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    found += list(fn.__defaults__ or ()) + list((fn.__kwdefaults__ or {}).values())
    found += [fn.__globals__[name] for name in sorted(names) if name in fn.__globals__]
    return found


@functools.lru_cache(maxsize=1024)
def _global_names(code: types.CodeType) -> set[str]:
    """Names that the code of a function, or of one inside it, loads from its globals (not attributes of that name)."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names
