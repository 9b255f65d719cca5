"""Private names of TFP and TensorFlow that this package needs; `tests/test_compat.py` checks each name and its reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.eager import record
from tensorflow.python.framework import ops

tfb = tfp.bijectors


# TFP's constructors return these private classes if a part is no `CompositeTensor`, like every bijector with a network.
# The public subclasses are `CompositeTensor`s of their tensor arguments: a `tf.Module` would lose their variables.
Blockwise, Chain, Invert = (cls.__bases__[0] for cls in (tfb.Blockwise, tfb.Chain, tfb.Invert))
AnyTransformedDistribution = tfp.distributions.TransformedDistribution.__bases__[0]


class TransformedDistribution(AnyTransformedDistribution):
    """TFP's distribution with a public hook for sampling."""

    def draw(self, sample_shape, seed, **kwargs):
        """Return samples as TFP draws them."""
        return super()._call_sample_n(sample_shape, seed, **kwargs)

    def _call_sample_n(self, sample_shape, seed, **kwargs):
        return self.draw(sample_shape, seed, **kwargs)


def is_injective(bijector: tfb.Bijector) -> bool:
    """Return whether each value has one preimage. For others, such as `tfb.AbsoluteValue`, TFP sums densities."""
    return bijector._is_injective


def set_input_depth(real_nvp: tfb.RealNVP, size: int) -> None:
    """Set the event size of TFP's `RealNVP`, whose subclasses and tests read it as `_masked_size`."""
    real_nvp._input_depth = size


def part_names(model: Any) -> list[str]:
    """Return the names of the parts of a joint distribution, pinned or not; a list or tuple of parts has them nowhere else."""
    return list(model._flat_resolve_names())


@contextlib.contextmanager
def forgetting():
    """Remove what is traced in this context from TFP's global cache of bijectors.

    The cache holds a log-det by a weak reference to the point. In a graph the log-det keeps the point alive, so the
    cache would keep every graph. Its entries are useful only during tracing, and TFP has no public way to clear it.
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

    TensorFlow registers the gradient of each call of a `tf.custom_gradient` globally, which keeps its graph forever.
    Keras' optimizers create one in each step, to sum gradients over replicas.
    """
    registered = ops.gradient_registry._registry
    for op in graph.get_operations():
        if op.type == "IdentityN":
            name = op.node_def.attr["_gradient_op_type"].s.decode()  # empty if the operation has no such attribute
            if name.startswith("CustomGradient-"):
                registered.pop(name, None)


def could_record_gradients() -> bool:
    """Return whether a gradient tape or a forward accumulator is open, which has no public test."""
    return record.could_possibly_record()


def module_children(module: tf.Module) -> list:
    """Return the attributes of a module to search for variables.

    Attributes that `tf.Module` skips hold caches and constructor arguments: a cache leads to all that passed through it.
    """
    ignored = getattr(type(module), "_TF_MODULE_IGNORED_PROPERTIES", ())
    return [value for key, value in vars(module).items() if key not in ignored]


# Private attributes of TFP's layers that `saving.from_tfp` reads.


def actnorm_state(item) -> tuple[np.ndarray, np.ndarray] | None:
    """Return `s` and `m` of `y = x / s - m` of TFP's `ActivationNormalization`, or `None` if it is not initialized."""
    return (item._s.numpy(), item._m.numpy()) if bool(item._initialized.numpy()) else None


def one_by_one_conv(item) -> tfb.ScaleMatvecLU:
    """Return the linear map of the channels in TFP's `OneByOneConv`."""
    return item._bijector


def template_function(template) -> Callable | None:
    """Return the function that a `tf.compat.v1.make_template` wraps."""
    return getattr(template, "_func", None)


def made_masks(layer: tfb.AutoregressiveNetwork) -> list[np.ndarray]:
    """Return the masks of the layers of TFP's MADE."""
    return [np.asarray(mask) for mask in layer._masks]


def made_settings(layer: tfb.AutoregressiveNetwork) -> dict[str, Any]:
    """Return the constructor arguments of TFP's MADE by name."""
    return {
        "params": layer._params,
        "event_shape": list(layer.event_shape),
        "conditional": layer._conditional,
        "conditional_event_shape": layer._conditional_event_shape,
        "conditional_input_layers": layer._conditional_layers,
        "hidden_units": list(layer._hidden_units),
        "input_order": [int(n) for n in layer._input_order],
        "activation": layer._activation,
        "use_bias": layer._use_bias,
    }
