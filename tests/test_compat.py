"""Private names of TFP and TensorFlow, and that they still are what `_compat_tfp` takes them for."""

import gc
import pathlib
import weakref

import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.framework import ops

import tfp_flows as tff
from tfp_flows import _compat_tfp

tfb = tfp.bijectors


def trace(with_forgetting):
    """A weak reference to a graph that a bijector's log-det was traced in, after all else of it is gone."""

    def log_det(x):
        if not with_forgetting:
            return tfb.Exp().forward_log_det_jacobian(x, event_ndims=1)
        with _compat_tfp.forgetting():
            return tfb.Exp().forward_log_det_jacobian(x, event_ndims=1)

    concrete = tf.function(log_det).get_concrete_function(tf.TensorSpec([3], tf.float32))
    return weakref.ref(concrete.graph)


def test_tfp_keeps_graphs_in_its_cache_and_forgetting_frees_them():
    kept, freed = trace(False), trace(True)
    gc.collect()
    assert freed() is None
    if kept() is None:
        pytest.fail("TFP frees the graphs of its cache by now: `forgetting` has nothing left to do.")
    for key in list(tfb.Bijector._cache.storage):
        if any(map(tf.is_symbolic_tensor, tf.nest.flatten(key()))):
            tfb.Bijector._cache.storage.pop(key)


def test_custom_gradients_are_registered_for_ever_and_unregistering_forgets_them():
    @tf.custom_gradient
    def double(x):
        return 2.0 * x, lambda dy: 2.0 * dy

    before = set(ops.gradient_registry._registry)
    concrete = tf.function(double).get_concrete_function(tf.TensorSpec([3], tf.float32))
    added = set(ops.gradient_registry._registry) - before
    assert added
    assert all(name.startswith("CustomGradient-") for name in added)
    _compat_tfp.unregister_gradients(concrete.graph)
    assert set(ops.gradient_registry._registry) == before


def test_these_names_are_used_nowhere_else():
    for path in pathlib.Path(tff.__file__).parent.rglob("*.py"):
        if not path.name.startswith("_compat"):
            text = path.read_text(encoding="utf-8")
            assert "gradient_registry" not in text, path
            assert "Bijector._cache" not in text, path
