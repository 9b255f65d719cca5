"""Weights, splits and single batches: what reaches the loss of `FlowModel`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows as tff
from tfp_flows.training.compilation import steps_per_execution

X = np.random.default_rng(0).normal(size=[64, 2]).astype(np.float32)


def compiled(rate=1e-3):
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[8], seed=1))
    model.compile(optimizer=keras.optimizers.Adam(rate))
    return model


def test_train_on_batch_raises_and_goes_on():
    model = compiled(rate=1e-2)
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match="not finite"):
        model.train_on_batch(np.full([4, 2], np.nan, np.float32))
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    model.train_on_batch(X[:4])
    assert any(np.any(a != b) for a, b in zip(model.get_weights(), before, strict=True))


def test_weights_with_an_axis_of_one_count_as_weights():
    model = compiled()
    weight = np.array([1.0, 1.0, 0.0, 0.0], np.float32)
    data = (X[:4], np.zeros([4, 0], np.float32))
    flat, column = (tf.data.Dataset.from_tensors((*data, w)) for w in (weight, weight[:, None]))
    assert model.evaluate(flat, verbose=0) == pytest.approx(model.evaluate(column, verbose=0))
    assert model.evaluate(X[:4], sample_weight=weight, verbose=0) == pytest.approx(model.evaluate(flat, verbose=0))


@pytest.mark.parametrize("split", [-0.5, 1.0, 1.5])
def test_validation_split_must_leave_rows_on_both_sides(split):
    with pytest.raises(ValueError, match="`validation_split`"):
        compiled().fit(X, validation_split=split, verbose=0)


def test_several_steps_in_one_call_where_nobody_looks():
    x = tff.data.moons().sample(250, seed=1)
    seen, settings = [], []
    watcher = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    results = []

    class Settings(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            settings.append(self.model.steps_per_execution)
            self.model.predict(x[:30], batch_size=10, verbose=0)

    for callbacks, steps in (([], 13), ([watcher], 1)):  # 25 batches are nearly twice 13
        model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[8], seed=1))
        model.compile(optimizer=keras.optimizers.SGD(1e-2), jit_compile=False)
        model.fit(
            x, batch_size=10, epochs=2, shuffle=False, verbose=0, callbacks=[*callbacks, Settings()], validation_data=x
        )
        assert settings[-2:] == [steps, steps]
        assert model.steps_per_execution == 1
        assert model.optimizer.iterations.numpy() == 50
        results.append([w.numpy() for w in model.weights] + [model.evaluate(x, verbose=0)])
    assert seen == 2 * list(range(25))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    data = tf.data.Dataset.from_tensor_slices(x).batch(10).repeat()
    model.fit(data, steps_per_epoch=12, epochs=2, verbose=0, callbacks=[Settings()])
    assert settings[-1] == 12
    assert model.optimizer.iterations.numpy() == 74


def test_moving_statistics_too_are_those_before_the_step_that_failed():
    flow = tff.maf(2, num_layers=1, hidden_units=[4], normalization="batch_norm", seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    model.fit(X, batch_size=32, verbose=0)
    before = [w.numpy() for w in model.weights]
    bad = np.concatenate([np.full([32, 2], np.nan, np.float32), np.full([320, 2], 100.0, np.float32)])
    with pytest.raises(FloatingPointError, match="epoch 1, step 1"):
        model.fit(tf.data.Dataset.from_tensor_slices(bad).batch(32), verbose=0)
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old, err_msg=weight.path)


@pytest.mark.parametrize(("batches", "steps"), [(1, 1), (4, 4), (10, 10), (50, 10), (47, 16), (None, 16)])
def test_the_last_call_hardly_overshoots_the_data(batches, steps):
    data = tf.data.Dataset.range(100) if batches is None else tf.data.Dataset.range(batches)
    if batches is None:
        data = data.filter(lambda i: i < 50)
    assert steps_per_execution(data, [], [None, None]) == steps
