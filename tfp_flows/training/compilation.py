"""Training steps as graphs: traced once, compiled once, freed with their model."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flows._compat_tfp import could_record_gradients, forgetting
from tfp_flows.graphs import traced


def own_graph(function: Callable, *signature: tf.TensorSpec) -> Callable:
    """Return a graph for one model. TensorFlow counts the traces of a shared function, and warns at the fifth.

    With a `signature`, the function is traced once.
    """
    return tf.function(functools.partial(forgetting()(function)), signature or None, reduce_retracing=True)


# XLA halves the time of large calls, and takes about as long to compile as the evaluation of some hundred thousand rows.
LEAST_ROWS_TO_COMPILE = 100_000
FEWEST_ROWS_IN_A_CALL = 1000
MOST_COMPILED_SIZES = 4


class RecurringSizes:
    """Graph of a function of rows, which XLA compiles for numbers of rows that recur.

    XLA compiles for each shape. So a shape is compiled after 100,000 rows in calls of that shape, and at most four are.
    Numbers agree to rounding. While a gradient tape is open, and in other graphs, the plain graph runs.

    Args:
      function: Callable of rows `[N, ...]`, and of keywords with tensors.
      gains: Callable that returns whether XLA can compile the function and speeds it up.
    """

    def __init__(self, function: Callable, gains: Callable[[], bool]):
        self.graph, self._function, self._gains = own_graph(function), function, gains
        self._rows: collections.Counter = collections.Counter()
        self._compiled: dict[tuple, Callable] = {}

    def __call__(self, rows: tf.Tensor, **kwargs) -> tf.Tensor:
        if not tf.executing_eagerly() or could_record_gradients() or rows.shape[0] < FEWEST_ROWS_IN_A_CALL:
            return self.graph(rows, **kwargs)
        key = tuple(tuple(tensor.shape) for tensor in (rows, *kwargs.values()))
        self._rows[key] += rows.shape[0]
        if key not in self._compiled:
            full = self._rows[key] <= LEAST_ROWS_TO_COMPILE or len(self._compiled) == MOST_COMPILED_SIZES
            if full or not self._gains():
                return self.graph(rows, **kwargs)
            self._compiled[key] = self._compile(rows, kwargs)
        try:
            return self._compiled[key](rows, *kwargs.values())
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError):
            self._compiled, self._gains = {}, lambda: False  # XLA cannot compile an operation
            return self.graph(rows, **kwargs)

    def _compile(self, rows: tf.Tensor, kwargs: dict) -> Callable:
        def call(rows, *values):
            return self._function(rows, **dict(zip(kwargs, values, strict=True)))

        # As in `Step`, the trace is outside of XLA's context.
        plain = traced(tf.function(call, autograph=False), rows, *kwargs.values())
        return tf.function(lambda *tensors: plain(*tensors), jit_compile=True, autograph=False)


# The overhead of Keras around a step is about as long as a step of a small flow.
MOST_STEPS_PER_EXECUTION = 16
_BATCH_HOOKS = tuple(f"on_{kind}batch_{end}" for kind in ("", "train_", "test_") for end in ("begin", "end"))


class Step:
    """A step that is traced once for all values of `steps_per_execution`, and compiled by XLA for full batches only.

    XLA recompiles for each shape, so batches smaller than the largest so far run through the same graph without XLA.
    The trace is outside XLA's context. Inside, XLA would take every weight that `tf.vectorized_map` reads (in TFP's
    `...AutoBatched` distributions) for a constant, and recompile at each step.
    """

    def __init__(self, step: Callable):
        self._traced = tf.function(functools.partial(step), reduce_retracing=True, autograph=False)
        self._compiled: dict[int, tuple] = {}
        self.largest = tf.Variable(0, trainable=False, dtype=tf.int32)

    def __call__(self, data, jit_compile: bool):
        """Return the logs of a step. Called inside the function that Keras traces."""
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


def _looks_at_batches(callback: keras.callbacks.Callback) -> bool:
    """Return whether a callback needs each batch to be a separate call."""
    kind, plain = type(callback), keras.callbacks.Callback
    saves = kind in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)
    if (saves or getattr(kind, "only_saves", False)) and callback.save_freq == "epoch":
        return False
    return any(name in vars(callback) or getattr(kind, name) is not getattr(plain, name) for name in _BATCH_HOOKS)


def steps_per_execution(data: Any, callbacks: Sequence[keras.callbacks.Callback], limits: Sequence[int | None]) -> int:
    """Return the number of steps per call: 1 if a callback needs each batch, else a number up to 16 that fits the epoch."""
    if not isinstance(data, tf.data.Dataset) or any(map(_looks_at_batches, callbacks)):
        return 1
    # Keras would overrun an epoch whose length is not a multiple.
    limit = math.gcd(*[n for n in limits if n])  # 0 if there is none
    if limit:
        return max(n for n in range(1, MOST_STEPS_PER_EXECUTION + 1) if limit % n == 0)
    batches = int(data.cardinality())
    if batches < 1:  # unknown
        return MOST_STEPS_PER_EXECUTION
    # The last call ends with the data, but the progress bar counts all of its steps.
    most = min(MOST_STEPS_PER_EXECUTION, batches)
    return min(range(most, most // 2, -1), key=lambda n: -batches % n)
