"""Weights, splits and single batches: what reaches the loss of `FlowModel`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows as tff

X = np.random.default_rng(0).normal(size=[64, 2]).astype(np.float32)


def compiled(rate=1e-3):
    model = tff.FlowModel(tff.real_nvp(2, num_layers=2, hidden_units=[8], seed=1))
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
