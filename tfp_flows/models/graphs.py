"""Graphs that can be freed when nobody needs them any more."""

from __future__ import annotations

import contextlib

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.framework import ops


@contextlib.contextmanager
def forgetting():
    """Takes what is traced meanwhile out of TFP's cache of bijectors.

    That is a global table, which holds a log-det by a weak reference to the point: but in a graph the log-det keeps the point
    alive, so the table would keep every graph for ever. Its entries are of use while a graph is traced, and not after.
    """
    cached = tfp.bijectors.Bijector._cache.storage
    before = set(map(id, list(cached)))
    try:
        yield
    finally:
        for key in list(cached):
            if id(key) not in before and any(map(tf.is_symbolic_tensor, tf.nest.flatten(key()))):
                cached.pop(key, None)


def traced(function, *args):
    """The concrete function of a `tf.function` that nobody differentiates, and which is freed with its model.

    TensorFlow registers the gradient of each call of a `tf.custom_gradient` in a global table, and with it the graph; and Keras'
    optimizers sum gradients over replicas, even if there is only one, by such a function.
    """
    with forgetting():
        concrete = function.get_concrete_function(*args)
    registered = ops.gradient_registry._registry
    for op in concrete.graph.get_operations():
        if op.type == "IdentityN":
            registered.pop(_gradient_name(op), None)
    return concrete


def _gradient_name(op: tf.Operation) -> str | None:
    """The name of a gradient that was registered for this one operation."""
    try:
        name = op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return None
    return name if name.startswith("CustomGradient-") else None
