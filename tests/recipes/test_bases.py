"""Bases by name: density, samples, start from data, saving, and the tails that they leave to a flow."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import BASES

import tfp_flows as tff
from tfp_flows.testing import check_normalized, redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
by_name = pytest.mark.parametrize("name", BASES)
ROWS = np.random.default_rng(0).normal(size=[400, 2]) * [1.0, 2.0] + np.repeat([[-4.0, 0.0], [4.0, 1.0]], 200, axis=0)


@by_name
def test_density_and_samples_agree(name):
    base = BASES[name](tf.float64)
    redraw_weights(base, seed=3)
    x = base.sample(20_000, seed=(1, 2))
    np.testing.assert_array_equal(x, base.sample(20_000, seed=(1, 2)))
    assert base.sample([2, 3], seed=(1, 2)).shape == (2, 3, 2)
    assert base.log_prob(x[0]).shape == ()
    np.testing.assert_allclose(base.log_prob(x[:6].numpy().reshape(2, 3, 2)), tf.reshape(base.log_prob(x[:6]), [2, 3]))
    # The mean of q / p over samples of p is the integral of q, for a narrow normal density q inside.
    narrow = tfd.MultivariateNormalDiag(tf.constant([0.3, -0.2], tf.float64), tf.constant([0.5, 0.5], tf.float64))
    ratio = np.exp(narrow.log_prob(x) - base.log_prob(x))
    assert abs(ratio.mean() - 1.0) < 5.0 * ratio.std() / np.sqrt(len(ratio))


@by_name
def test_it_is_saved_pickled_and_copied(name):
    base = BASES[name](tf.float32)
    redraw_weights(base, seed=3)
    if hasattr(base, "adapt"):
        base.adapt(ROWS)
    flow = tff.maf(2, num_layers=1, hidden_units=[4], base=base, seed=1)
    x = tf.constant(ROWS[:5], tf.float32)
    expected = flow.log_prob(x)
    for other in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow), tff.from_description(tff.describe(flow))):
        np.testing.assert_allclose(other.log_prob(x), expected, rtol=1e-5)
        assert getattr(other.distribution, "adapted", True) == getattr(base, "adapted", True)
    np.testing.assert_allclose(base.copy(name="other").log_prob(x), base.log_prob(x), rtol=1e-6)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("normal", "trainable", "mixture", "uniform")]


@pytest.mark.parametrize("name", ["student_t", *SLOW])
def test_recipes_take_them_by_name(name, tmp_path):
    support = "circle" if name == "uniform" else ["real", "circle", "real"]
    flow = tff.real_nvp(3, base=name, support=support, num_layers=2, hidden_units=[8], seed=1)
    x = np.random.default_rng(1).uniform(-3.0, 3.0, size=[200, 3]).astype("float32")
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    model.fit(x, batch_size=100, verbose=0)
    assert getattr(flow.distribution, "adapted", True)
    model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_allclose(again.log_prob(x), model.log_prob(x), rtol=1e-5)
    if name == "student_t":
        before = [variable.numpy().copy() for variable in flow.distribution.trainable_variables]
        model.fit(x, batch_size=100, verbose=0)
        for variable, old in zip(flow.distribution.trainable_variables, before, strict=True):
            assert 0 < np.max(np.abs(variable.numpy() - old)) < 0.1  # trained, and not adapted again


def test_conditional_flows_adapt_their_base_to_what_their_layers_leave():
    flow = tff.maf(2, base="mixture", conditional_size=1, num_layers=1, hidden_units=[8], seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-5), jit_compile=False)
    model.fit(ROWS[:, :1].astype("float32"), ROWS.astype("float32"), verbose=0)
    assert flow.distribution.adapted
    modes = np.sort(flow.distribution.loc.numpy()[:, 0])
    assert modes[0] < -3.0 < 3.0 < modes[-1]


def test_a_mixture_finds_separate_groups_and_needs_no_rows_of_its_own_for_each():
    base = tff.GaussianMixture(2, num_components=2, seed=1)
    base.adapt(ROWS)
    order = np.argsort(base.loc[:, 0])
    np.testing.assert_allclose(base.loc.numpy()[order], [[-4.0, 0.0], [4.0, 1.0]], atol=0.4)
    np.testing.assert_allclose(np.exp(base.log_scale)[order], [[1.0, 2.0], [1.0, 2.0]], rtol=0.2)
    np.testing.assert_allclose(tf.nn.softmax(base.logits), [0.5, 0.5], atol=0.05)
    np.testing.assert_allclose(base.mean(), ROWS.mean(axis=0), atol=0.1)
    check_normalized(base, limit=15.0)
    many = tff.GaussianMixture(2, num_components=30, seed=1)
    many.adapt(np.repeat(ROWS[:4], 3, axis=0))  # fewer distinct rows than components
    assert np.all(np.isfinite(many.log_prob(tf.constant(ROWS, tf.float32))))


def test_student_t_columns_are_those_of_tfp_and_have_finite_gradients_far_out():
    base = tff.StudentT(2, dtype=tf.float64)
    redraw_weights(base, seed=2)
    theirs = tfd.Independent(tfd.StudentT(tf.exp(base.log_df), base.loc, tf.exp(base.log_scale)), 1)
    x = tf.constant([[0.1, -0.3], [5.0, 100.0], [1e7, -1e9]], tf.float64)
    np.testing.assert_allclose(base.log_prob(x), theirs.log_prob(x), rtol=1e-9)
    single = tff.StudentT(2)
    x = tf.constant([[1e30, 0.0], [1e6, -1e20]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_prob = single.log_prob(x)
    gradients = tape.gradient(log_prob, [x, *single.trainable_variables])
    assert np.all(np.isfinite(log_prob))
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_bad_bases_are_refused():
    with pytest.raises(ValueError, match=r"`base` must be a tfd\.Distribution, None or one of .*, got 'student'"):
        tff.maf(2, base="student")
    with pytest.raises(
        ValueError, match='`base="uniform"` is for flows of angles, and 1 columns have another `support`'
    ):
        tff.maf(2, base="uniform", support=["circle", "real"])
    with pytest.raises(ValueError, match=r"`base` must have event shape \[2\] and dtype float32"):
        tff.maf(3, base=tff.StudentT(3), support="simplex")
    with pytest.raises(
        ValueError, match=r"`rows` must be finite, of shape \[N, 2\] with at least 2 rows, got shape \[1, 2\]"
    ):
        tff.StudentT(2).adapt(ROWS[:1])
    with pytest.raises(ValueError, match="`base` must have events of size 1"):
        tff.UniformAngles(2, [0])
    with pytest.raises(ValueError, match="`angles` must be indices of 2 columns"):
        tff.UniformAngles(2, [2])
