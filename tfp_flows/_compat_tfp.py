"""Private names of TFP and TensorFlow that this package needs, each with its reason.

`tests/test_compat.py` has a test of each, which fails when the name changes, or when the reason is gone.
"""

from __future__ import annotations

import contextlib

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.framework import ops

tfb = tfp.bijectors


# TFP's constructors return instances of these private classes if a part is not a `CompositeTensor`, and bijectors with
# networks are not. The public subclasses are `CompositeTensor`s whose components are their tensor arguments. A `tf.Module`
# that holds one would lose the variables of the bijector.
Blockwise, Chain, Invert = (cls.__bases__[0] for cls in (tfb.Blockwise, tfb.Chain, tfb.Invert))
TransformedDistribution = tfp.distributions.TransformedDistribution.__bases__[0]


def set_input_depth(real_nvp: tfb.RealNVP, size: int) -> None:
    """Set the event size of TFP's `RealNVP`, whose subclasses and tests read it from `_masked_size`."""
    real_nvp._input_depth = size


@contextlib.contextmanager
def forgetting():
    """Remove from TFP's bijector cache whatever is traced inside this context.

    `Bijector._cache` is a global table. It stores a log-det under a weak reference to the point. In a graph the log-det keeps
    the point alive, so the table would keep every graph until the process ends. Its entries are useful only while a graph is
    traced. TFP has no public way to clear it.
    """
    cached = tfb.Bijector._cache.storage
    before = set(map(id, list(cached)))
    try:
        yield
    finally:
        for key in list(cached):
            if id(key) not in before and any(map(tf.is_symbolic_tensor, tf.nest.flatten(key()))):
                cached.pop(key, None)


def unregister_gradients(graph: tf.Graph) -> None:
    """Unregister the custom gradients of a graph that nobody differentiates.

    TensorFlow registers the gradient of each call of a `tf.custom_gradient` in a global table, which keeps the graph alive
    forever. Keras' optimizers add one in each step to sum gradients over replicas, even if there is only one.
    """
    registered = ops.gradient_registry._registry
    for op in graph.get_operations():
        if op.type == "IdentityN":
            registered.pop(_gradient_name(op), None)


def _gradient_name(op: tf.Operation) -> str | None:
    """Return the name of the gradient that was registered for this operation, if any."""
    try:
        name = op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return None
    return name if name.startswith("CustomGradient-") else None
