"""Training steps as graphs: traced once, compiled once, and freed with their model."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from tfp_flows._compat_tfp import forgetting, unregister_gradients


def traced(function, *args):
    """Returns the concrete function of a `tf.function` that nobody differentiates, and which is freed with its model."""
    with forgetting():
        concrete = function.get_concrete_function(*args)
    unregister_gradients(concrete.graph)
    return concrete


class Step:
    """A step that is traced once, whatever `steps_per_execution` is, and compiled by XLA for full batches only.

    XLA compiles anew for each shape, and the size of an epoch's last batch changes with the number of rows: a batch that is
    smaller than the largest so far goes through the same graph without XLA.

    The graph is traced outside of XLA's context. Inside, `tf.vectorized_map` (of TFP's `...AutoBatched` distributions) is
    a function of its own, and its gradient another, which takes shapes from the first. XLA does not look into a function
    for where an output comes from: it would take all inputs of the first one, and so every weight, for constants, and
    compile anew at each step.
    """

    def __init__(self, step: Callable):
        self._traced = tf.function(functools.partial(step), reduce_retracing=True, autograph=False)
        self._compiled: dict[int, tuple] = {}
        self.largest = tf.Variable(0, trainable=False, dtype=tf.int32)

    def __call__(self, data, jit_compile: bool):
        """The logs of a step, from inside of the function that Keras makes."""
        as_it_is = traced(self._traced, data)
        flat = [t for t in tf.nest.flatten(data) if t is not None]
        if not jit_compile:
            return as_it_is(*flat)
        if id(as_it_is) not in self._compiled:
            compiled = tf.function(lambda *tensors: as_it_is(*tensors), jit_compile=True, autograph=False)
            self._compiled[id(as_it_is)] = (compiled, as_it_is)
        compiled, _ = self._compiled[id(as_it_is)]
        rows = tf.shape(flat[0])[0]
        full = rows >= self.largest
        self.largest.assign(tf.maximum(self.largest, rows))
        return tf.cond(full, lambda: compiled(*flat), lambda: as_it_is(*flat))
