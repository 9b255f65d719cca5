"""ActNorm, batch normalization and the LU map: what the shared suite does not see."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.testing import redraw_weights

tfb = tfp.bijectors
DATA = np.random.default_rng(0).normal(size=[400, 3]) * [1.0, 5.0, 0.1] + [0.0, 10.0, -3.0]


@pytest.mark.parametrize("kind", [tff.ActNorm, tff.BatchNormalization])
def test_initialize_standardizes_the_batch(kind):
    layer = kind(3, dtype=tf.float64)
    assert not layer.adapted
    np.testing.assert_allclose(layer.forward(tf.constant(DATA)), DATA, rtol=1e-4)
    layer.adapt(DATA)
    assert layer.adapted
    x = layer.inverse(tf.constant(DATA)).numpy()
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-8)
    np.testing.assert_allclose(x.std(axis=0), 1.0, rtol=1e-3)


@pytest.mark.parametrize("kind", [tff.ActNorm, tff.BatchNormalization])
@pytest.mark.parametrize("batch", [np.zeros([5, 2]), np.zeros([1, 3]), np.full([5, 3], np.nan), np.zeros(3)])
def test_bad_batches_change_nothing(kind, batch):
    layer = kind(3)
    with pytest.raises(ValueError, match="`batch`"):
        layer.adapt(batch)
    assert not layer.adapted
    np.testing.assert_array_equal(layer.forward(tf.ones([1, 3]))[0, 0], layer.forward(tf.ones([1, 3]))[0, 1])


def test_a_constant_column_is_not_blown_up():
    layer = tff.ActNorm(2)
    layer.adapt(np.stack([np.full(10, 0.1), np.arange(10.0)], axis=1))
    assert abs(float(layer.log_scale[0])) < 1e-6


@pytest.mark.parametrize("recipe", [tff.maf, tff.real_nvp, tff.iaf])
def test_flow_model_initializes_once_from_the_first_batch(recipe, monkeypatch):
    calls = []
    original = tff.ActNorm.adapt
    monkeypatch.setattr(tff.ActNorm, "adapt", lambda self, batch: calls.append(self.name) or original(self, batch))
    flow = recipe(3, num_layers=2, hidden_units=[8], normalization="actnorm", seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-9))
    model.fit(DATA, batch_size=400, epochs=1, verbose=0)
    # Each layer starts from what those on the data's side of it made of the batch, so the latent values are standardized.
    x = flow.bijector.inverse(tf.constant(DATA, tf.float32)).numpy()
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(x.std(axis=0), 1.0, atol=1e-2)
    assert sorted(calls) == ["actnorm_0", "actnorm_1"]
    model.fit(10.0 * DATA, batch_size=400, epochs=1, verbose=0)
    assert len(calls) == 2


def test_other_sources_of_the_first_batch():
    """A dataset of float64, and a `PyDataset`."""

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return DATA[200 * index : 200 * (index + 1)].astype(np.float32)

    for source in (tf.data.Dataset.from_tensor_slices(DATA).batch(200), Batches()):
        flow = tff.maf(3, num_layers=1, hidden_units=[4], normalization="actnorm", seed=1)
        model = tff.FlowModel(flow)
        model.compile(optimizer="adam")
        model.fit(source, epochs=1, verbose=0)
        layer = next(m for m in flow.submodules if isinstance(m, tff.ActNorm))
        assert layer.adapted
        np.testing.assert_allclose(layer.shift, DATA[:200].mean(axis=0), atol=0.2)


def test_what_was_initialized_stays_so_after_saving(tmp_path):
    flow = tff.maf(3, num_layers=1, hidden_units=[4], normalization="actnorm", seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer="adam")
    model.fit(DATA, batch_size=100, epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    layer = next(m for m in loaded.distribution.submodules if isinstance(m, tff.ActNorm))
    assert layer.adapted
    np.testing.assert_array_equal(loaded.log_prob(DATA), model.log_prob(DATA))


def test_batch_normalization_inverts_in_both_modes():
    """TFP's does not: in training its inverse uses the batch, and its forward the moving statistics."""
    ours = tff.BatchNormalization(3, dtype=tf.float64)
    redraw_weights(ours)
    y = tf.constant(DATA)

    class Through(keras.Model):
        def call(self, y, training=None):
            x = ours.inverse(tf.identity(y))
            return x, ours.forward(tf.identity(x)), ours.inverse(ours.forward(tf.identity(y)))

    for training in (False, True):
        _, there_and_back, back_and_there = Through(dtype="float64")(y, training=training)
        np.testing.assert_allclose(there_and_back, DATA, rtol=1e-9)
        np.testing.assert_allclose(back_and_there, DATA, rtol=1e-9)
    theirs = tfb.BatchNormalization(training=True)
    x = theirs.inverse(tf.constant(DATA, tf.float32))
    assert np.max(np.abs(theirs.forward(tf.identity(x)) - DATA)) > 0.1  # if this fails, TFP was mended


def test_batch_statistics_move_in_training_only():
    layer = tff.BatchNormalization(3, momentum=0.5, dtype=tf.float64)
    layer.inverse(tf.constant(DATA))
    layer.update()
    np.testing.assert_array_equal(layer.moving_mean, 0.0)
    flow = tff.maf(3, num_layers=1, hidden_units=[4], normalization="batch_norm", seed=1)
    norm = next(m for m in flow.bijector.submodules if isinstance(m, tff.BatchNormalization))
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-9))
    model.evaluate(DATA, verbose=0)
    np.testing.assert_array_equal(norm.moving_mean, 0.0)
    model.fit(DATA, batch_size=400, epochs=1, verbose=0)  # starts from the first batch
    np.testing.assert_allclose(norm.moving_mean, DATA.mean(axis=0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(norm.moving_variance, DATA.var(axis=0), rtol=1e-2)
    model.fit(DATA + 1.0, batch_size=400, epochs=30, verbose=0)
    moved = norm.moving_mean.numpy() - DATA.mean(axis=0)
    np.testing.assert_allclose(moved, 1.0 - 0.99**30, rtol=0.01)
    assert not any("moving" in w.name for w in model.trainable_weights)


def test_a_batch_that_is_not_finite_leaves_the_statistics():
    layer = tff.BatchNormalization(2)
    layer._batch.fn.mean.assign([np.nan, 0.0])
    layer.update()
    np.testing.assert_array_equal(layer.moving_mean, 0.0)
    np.testing.assert_array_equal(layer.moving_variance, 1.0)


@pytest.mark.parametrize(("kwargs", "argument"), [({"momentum": 1.0}, "momentum"), ({"epsilon": 0.0}, "epsilon")])
def test_bad_arguments_are_named(kwargs, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        tff.BatchNormalization(2, **kwargs)


def test_lu_linear_is_a_permutation_at_first_and_a_full_matrix_later():
    layer = tff.LULinear(4, seed=2, dtype=tf.float64)
    matrix = layer.inverse(tf.eye(4, dtype=tf.float64)).numpy().T
    np.testing.assert_array_equal(np.sort(matrix, axis=0)[-1], 1.0)
    assert np.sum(matrix != 0) == 4
    redraw_weights(layer, scale=0.7)
    matrix = layer.inverse(tf.eye(4, dtype=tf.float64)).numpy().T
    assert np.all(np.abs(matrix) > 1e-6)
    np.testing.assert_allclose(
        layer.inverse_log_det_jacobian(tf.zeros([4], tf.float64), event_ndims=1), np.linalg.slogdet(matrix)[1]
    )


@pytest.mark.parametrize("mixing", ["reverse", "permute", "lu"])
@pytest.mark.parametrize("name", ["maf", "real_nvp", pytest.param("spline_autoregressive", marks=pytest.mark.slow)])
def test_every_mixing_lets_all_depend_on_all(name, mixing):
    flow = getattr(tff, name)(
        4, num_layers=6, hidden_units=[16], activation="tanh", mixing=mixing, seed=1, dtype=tf.float64
    )
    redraw_weights(flow, scale=0.2)
    x = tf.constant(np.random.default_rng(0).normal(size=[8, 4]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = flow.bijector.inverse(x)
    assert np.all(np.any(tape.batch_jacobian(z, x) != 0, axis=0))
    np.testing.assert_allclose(flow.bijector.forward(tf.identity(z)), x, atol=1e-7)
