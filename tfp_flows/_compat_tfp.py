"""Private names of TFP and TensorFlow that this package needs, each with its reason.

`tests/test_compat.py` has a test of each, which fails when the name changes, or when the reason is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.framework import ops

tfb = tfp.bijectors


# TFP's constructors return instances of these private classes where a part is no `CompositeTensor`, as no bijector with a
# network is. The public classes, their subclasses, are `CompositeTensor`s, whose components are their tensor arguments: a
# `tf.Module` that holds one would lose the variables of the bijector.
Blockwise, Chain, Invert = (cls.__bases__[0] for cls in (tfb.Blockwise, tfb.Chain, tfb.Invert))


AnyTransformedDistribution = tfp.distributions.TransformedDistribution.__bases__[0]


class TransformedDistribution(AnyTransformedDistribution):
    """TFP's distribution with a hook for sampling, which it has under private names only."""

    def draw(self, sample_shape, seed, **kwargs):
        """Returns samples, as TFP draws them."""
        return super()._call_sample_n(sample_shape, seed, **kwargs)

    def _call_sample_n(self, sample_shape, seed, **kwargs):
        return self.draw(sample_shape, seed, **kwargs)


def is_injective(bijector: tfb.Bijector) -> bool:
    """Whether each value has one point before it; of others, such as `tfb.AbsoluteValue`, TFP adds the densities."""
    return bijector._is_injective


def set_input_depth(real_nvp: tfb.RealNVP, size: int) -> None:
    """Tells TFP's `RealNVP` the size of its events, of which its subclasses and tests ask as `_masked_size`."""
    real_nvp._input_depth = size


@contextlib.contextmanager
def forgetting():
    """Takes what is traced meanwhile out of TFP's cache of bijectors.

    `Bijector._cache` is a global table. It holds a log-det by a weak reference to the point; but in a graph the log-det keeps
    the point alive, and so the table would keep every graph until the process ends. Its entries are of use only while a graph
    is traced. TFP has no public way to clear it.
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
    """Forgets the custom gradients of a graph that nobody differentiates.

    TensorFlow registers the gradient of each call of a `tf.custom_gradient` in a global table, and with it the graph, for
    ever. Keras' optimizers make one in each step, to sum gradients over replicas, even if there is one.
    """
    registered = ops.gradient_registry._registry
    for op in graph.get_operations():
        if op.type == "IdentityN":
            registered.pop(_gradient_name(op), None)


def _gradient_name(op: tf.Operation) -> str | None:
    """The name of a gradient that was registered for this one operation."""
    try:
        name = op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return None
    return name if name.startswith("CustomGradient-") else None


def module_children(module: tf.Module) -> list:
    """The attributes of a module in which variables are looked for.

    Those that tf.Module itself skips hold caches and constructor arguments: the cache of a bijector would lead to everything
    that was ever passed through it.
    """
    ignored = getattr(type(module), "_TF_MODULE_IGNORED_PROPERTIES", ())
    return [value for key, value in vars(module).items() if key not in ignored]


# What TFP's parts of flows do not make public, and a copy in this package needs (`saving.from_tfp`).


def actnorm_state(item) -> tuple[np.ndarray, np.ndarray] | None:
    """`s` and `m` of the map `y = x / s - m` of TFP's `ActivationNormalization`, or `None` before it has seen data."""
    return (item._s.numpy(), item._m.numpy()) if bool(item._initialized.numpy()) else None


def one_by_one_conv(item) -> tfb.ScaleMatvecLU:
    """The linear map of the channels within TFP's `OneByOneConv`."""
    return item._bijector


def template_function(template) -> Callable | None:
    """The function that a `tf.compat.v1.make_template` wraps."""
    return getattr(template, "_func", None)


def made_masks(layer: tfb.AutoregressiveNetwork) -> list[np.ndarray]:
    """The masks of the layers of TFP's MADE."""
    return [np.asarray(mask) for mask in layer._masks]


def made_settings(layer: tfb.AutoregressiveNetwork) -> dict[str, Any]:
    """The arguments that TFP's MADE was made with, under the names of its constructor."""
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
