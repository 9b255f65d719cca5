"""Eager calls that run as a graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._compat_tfp import could_record_gradients
from tfp_flows.bijectors.composition import layers_of
from tfp_flows.graphs import Graphs
from tfp_flows.tracking import Mirror

# Tracing takes about as long as this many calls of a small flow.
CALLS_BEFORE_TRACING = 8


class EagerCalls:
    """Function of tensors that TensorFlow runs as a graph from the ninth eager call on.

    The first calls run eagerly, because tracing takes as long as several of them. So do all calls while a gradient tape is
    open, and all calls of a function that `is_traceable()` excludes. In a graph, such as a training step, the function is
    part of that graph. Numbers agree to rounding.

    Args:
      function: Callable of tensors, and of dictionaries of tensors.
      event_ndims: Number of last axes of each argument that are an event.
      is_traceable: Callable that decides, when the first graph is needed.
    """

    def __init__(self, function: Callable, event_ndims: Sequence[int], is_traceable: Callable[[], bool]):
        self.function, self._is_traceable = function, is_traceable
        self.graphs = Graphs(function, event_ndims)
        self._num_calls = 0
        self._traceable: bool | None = None

    def __call__(self, *args):
        if not tf.executing_eagerly() or could_record_gradients():
            return self.function(*args)
        self._num_calls += 1
        if self._num_calls <= CALLS_BEFORE_TRACING:
            return self.function(*args)
        if self._traceable is None:
            self._traceable = self._is_traceable()
        return (self.graphs if self._traceable else self.function)(*args)


def is_traceable(*bijectors: tfp.bijectors.Bijector | None) -> bool:
    """Return whether a graph of the bijectors computes what their Python code does, now and later.

    This is the case for bijectors and networks of this package, and for TFP's bijectors without functions as arguments.
    Other code may have side effects, or read values that change, and networks with a `training` argument, such as those
    with batch normalization, may be called in training: these run eagerly.
    """
    layers = [layer for bijector in bijectors if bijector is not None for layer in layers_of(bijector)]
    mirrors = [part for layer in layers for part in (layer, *layer.submodules) if isinstance(part, Mirror)]
    return all(map(_is_known, layers)) and all(_is_pure(mirror.fn) for mirror in mirrors)


def _is_known(bijector: tfp.bijectors.Bijector) -> bool:
    package = _package(bijector)
    if package != "tensorflow_probability":
        return package == "tfp_flows"
    arguments = tf.nest.flatten(list(bijector.parameters.values()))
    return not any(callable(a) and not isinstance(a, (tfp.bijectors.Bijector, tf.DType)) for a in arguments)


def _is_pure(network) -> bool:
    if isinstance(network, Mirror):
        return True  # itself one of the mirrors
    if not isinstance(network, keras.Layer) or _package(network) != "tfp_flows":
        return False
    activation = getattr(getattr(network, "activation", None), "__module__", "keras")
    known = activation.split(".")[0] in ("keras", "tensorflow", "tfp_flows")
    return known and "training" not in inspect.signature(network.call).parameters


def _package(part) -> str:
    return type(part).__module__.split(".")[0]
