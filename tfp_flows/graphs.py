"""Graphs of functions of tensors, one for each rank instead of each shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfp_flows._compat_tfp import forgetting, unregister_gradients


def traced(function, *args):
    """Return the concrete function of a `tf.function` that nobody differentiates, and which is freed with its owner."""
    with forgetting():
        concrete = function.get_concrete_function(*args)
    unregister_gradients(concrete.graph)
    return concrete


MOST_GRAPHS = 32  # a guard against events of ever new sizes


class Graphs:
    """Graphs of `function`, which nobody differentiates: one for each dtype, rank and event shape of the arguments.

    `tf.function(reduce_retracing=True)` would generalize over ranks too, and lose the sizes of events.

    Args:
      function: Callable of tensors, and of dictionaries of tensors.
      event_ndims: Number of last axes of each argument whose sizes a graph may depend on.
    """

    def __init__(self, function: Callable, event_ndims: Sequence[int]):
        self._function, self._event_ndims = function, event_ndims
        self._graphs: dict[tuple, Callable] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, *args):
        pairs = zip(args, self._event_ndims, strict=True)
        specs = [tf.nest.map_structure(functools.partial(_spec, ndims=ndims), arg) for arg, ndims in pairs]
        key = tuple((s.shape, s.dtype) for s in tf.nest.flatten(specs))
        full = len(self._graphs) >= MOST_GRAPHS and key not in self._graphs
        if full or any(shape.rank is None for shape, _ in key):
            return self._function(*args)
        if key not in self._graphs:
            self._graphs[key] = traced(tf.function(self._function, autograph=False), *specs)
        return self._graphs[key](*args)


def _spec(tensor: tf.Tensor, ndims: int) -> tf.TensorSpec:
    shape = tensor.shape
    if shape.rank is not None:
        split = max(0, shape.rank - ndims)
        shape = tf.TensorShape([None] * split + shape[split:].as_list())
    return tf.TensorSpec(shape, tensor.dtype)
