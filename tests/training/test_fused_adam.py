"""Adam by TensorFlow's kernel against Keras' own step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows as tff
from tfp_flows.training.fused_adam import FusedAdam

X = np.random.default_rng(0).standard_normal([256, 2]).astype(np.float32)


def fit(optimizer, monkeypatch, fused, **options):
    """Weights, state of the optimizer and losses after five epochs; the order of rows is the same each time."""
    if not fused:
        monkeypatch.setattr(FusedAdam, "of", classmethod(lambda cls, *_: None))
    model = tff.FlowModel(tff.maf(2, num_layers=2, hidden_units=(8,), seed=1))
    model.compile(optimizer=optimizer, **options)
    history = model.fit(X, batch_size=64, epochs=5, shuffle=False, verbose=0).history["loss"]
    monkeypatch.undo()
    return [w.numpy() for w in model.weights], [v.numpy() for v in optimizer.variables], history


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"learning_rate": 1e-2}, {"jit_compile": False}),
        ({"learning_rate": 1e-2, "beta_1": 0.7, "beta_2": 0.95, "epsilon": 1e-3, "global_clipnorm": 0.5}, {}),
        ({"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.05, 5, 0.5)}, {"jit_compile": True}),
        ({"learning_rate": 1e-2}, {"run_eagerly": True}),
    ],
    ids=["plain", "options", "schedule and XLA", "eager"],
)
def test_equals_keras(options, how, monkeypatch):
    ours, theirs = (fit(keras.optimizers.Adam(**options), monkeypatch, fused, **how) for fused in (True, False))
    for mine, keras_s in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        np.testing.assert_allclose(mine, keras_s, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-5)
    assert max(np.abs(w).max() for w in ours[0]) > 0.05


def test_a_learning_rate_that_is_set_later_counts():
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=(4,), seed=1))
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit(X, batch_size=64, epochs=1, verbose=0)
    before = model.get_weights()
    model.optimizer.learning_rate = 0.0
    model.fit(X, batch_size=64, epochs=1, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(model.optimizer.iterations) == 8


class Own(keras.optimizers.Adam):
    """Its step may be another."""


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (keras.optimizers.Adam, {"amsgrad": True}),
        (keras.optimizers.Adam, {"clipnorm": 1.0}),
        (keras.optimizers.Adam, {"clipvalue": 1.0}),
        (keras.optimizers.Adam, {"weight_decay": 0.1}),
        (keras.optimizers.Adam, {"use_ema": True}),
        (keras.optimizers.Adam, {"loss_scale_factor": 8.0}),
        (keras.optimizers.AdamW, {}),
        (keras.optimizers.Nadam, {}),
        (Own, {}),
    ],
    ids=str,
)
def test_what_the_kernel_does_not_compute_is_left_to_keras(cls, options):
    optimizer = cls(**options)
    weight = keras.Variable(tf.ones([2]))
    optimizer.build([weight])
    assert FusedAdam.of(optimizer, [weight]) is None


def test_constraints_are_left_to_keras():
    optimizer = keras.optimizers.Adam()
    free, bounded = keras.Variable(tf.ones([2])), keras.layers.Dense(1, kernel_constraint="non_neg")
    bounded.build([None, 2])
    weights = [free, bounded.kernel]
    optimizer.build(weights)
    assert FusedAdam.of(optimizer, [free]) is not None
    assert FusedAdam.of(optimizer, weights) is None


def test_frozen_weights_keep_the_moments_of_the_others_in_place():
    model = tff.FlowModel(tff.maf(2, num_layers=2, hidden_units=(4,), seed=1))
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit(X, batch_size=64, epochs=2, verbose=0)
    first = model.trainable_weights[0]
    moments = {v.path: v.numpy() for v in model.optimizer.variables}
    first.trainable = False
    frozen = first.numpy()
    model.train_on_batch(X[:64])
    np.testing.assert_array_equal(first.numpy(), frozen)
    changed = [v for v in model.optimizer.variables if not np.array_equal(v.numpy(), moments[v.path])]
    assert len(changed) >= 2 * (len(model.trainable_weights) - 1)


def test_a_rate_that_overflows_moves_no_weight():
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=(4,), seed=1))
    model.compile(optimizer=keras.optimizers.Adam(1e35))
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match="epoch 1, step 1"):
        model.fit(X, batch_size=64, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(model.optimizer.iterations) == 0
