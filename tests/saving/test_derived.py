"""Copies, clones, and flows made from other flows: the same density as their source, or an error."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import RECIPES, make_flow

import tfp_flows as tff
from tfp_flows import testing, tracking
from tfp_flows.testing import redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
X = (np.random.default_rng(0).normal(size=[400, 2]) * [90.0, 2.0] + [2000.0, -30.0]).astype("float32")
C = (2000.0 + 10.0 * np.random.default_rng(1).normal(size=[400, 1])).astype("float32")


def nll(flow, **kwargs):
    return -float(np.mean(flow.log_prob(X, **kwargs)))


def copies(model):
    """Models of new weights."""
    yield keras.models.clone_model(model)
    yield type(model).from_config(model.get_config())
    yield tff.FlowModel(tff.from_description(tff.describe(model.distribution)))


@pytest.mark.parametrize("normalization", [None, "actnorm", "batch_norm"])
def test_state_from_data_travels_to_clones(normalization):
    flow = tff.real_nvp(
        2, num_layers=2, hidden_units=[8], preprocess=tff.standardize(X), normalization=normalization, seed=1
    )
    model = tff.FlowModel(flow)
    model.adapt(X)
    for other in copies(model):  # fresh networks are the identity, so the density is that of the start
        np.testing.assert_allclose(nll(other.distribution), nll(flow), rtol=1e-5)


@pytest.mark.parametrize("kind", ["rbig", "mixture", "ica", "table", "gaussianization"])
def test_maps_that_are_fitted_without_gradients_travel(kind):
    if kind == "rbig":
        flow = tff.rbig(2, max_layers=3, seed=1).fit(X, verbose=0)
    elif kind == "mixture":
        flow = tff.destructors.DestructorStack(2, tff.destructors.MixtureDestructor(4), max_layers=1).fit(X, verbose=0)
    elif kind == "ica":
        flow = tff.rbig(2, max_layers=2, rotation="pca", seed=1).fit(X, verbose=0)
    elif kind == "table":
        flow = tff.table_flow(np.random.default_rng(0).standard_t(2.0, [400, 2]), seed=1)
    else:
        flow = tff.gaussianization_flow(2, num_layers=1, num_components=3, seed=1)
        tff.FlowModel(flow).adapt(X)
    expected = flow.log_prob(X)
    for other in (
        *(m.distribution for m in copies(tff.FlowModel(flow))),
        copy.deepcopy(flow),
        pickle.loads(pickle.dumps(flow)),
    ):
        np.testing.assert_allclose(other.log_prob(X), expected, rtol=1e-5, atol=1e-4)


def test_statistics_of_a_normalization_layer_inside_an_encoder_travel():
    normalize = keras.layers.Normalization(axis=-1)
    normalize.adapt(C)
    encoder = keras.Sequential([keras.Input([1]), normalize, keras.layers.Dense(3, kernel_initializer="ones")])
    flow = tff.EncodedFlow(tff.maf(2, num_layers=1, conditional_size=3, seed=1), encoder, [1])
    twin = tff.from_description(tff.describe(flow))
    np.testing.assert_allclose(twin._encode(tf.constant(C)), flow._encode(tf.constant(C)), rtol=1e-5)


# By the code that they are described and rebuilt by, those that are left out are the same as one of these.
ALIKE = ("radial_flow", "nice", "iaf", "made", "spline_autoregressive")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in RECIPES if n != "continuous_flow"],
)
def test_pickles_and_deep_copies_of_recipes(name):
    flow = make_flow(name, 3, conditional_size=2)
    x, c = np.random.default_rng(0).normal(size=[5, 3]), np.random.default_rng(1).normal(size=[5, 2])
    expected = flow.log_prob(x, conditional_input=c)
    for other in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow), flow.copy(name="other")):
        np.testing.assert_array_equal(other.log_prob(x, conditional_input=c), expected)
    mine = {id(v) for v in flow.variables}
    assert not mine & {id(v) for v in copy.deepcopy(flow).variables}
    assert mine == {id(v) for v in flow.copy(name="other").variables}


def test_a_pickle_of_what_cannot_be_described_says_why():
    flow = tff.FlowDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)),
        tff.RealNVP(1, shift_and_log_scale_fn=lambda x, n: (x, None)),
    )
    with pytest.raises(ValueError, match="is a function"):
        pickle.dumps(flow)


def encoded():
    encoder = keras.Sequential([keras.Input((4, 2)), keras.layers.Flatten(), keras.layers.Dense(8, "tanh")])
    inner = tff.maf(2, num_layers=2, hidden_units=[8], conditional_size=8, seed=1)
    flow = tff.EncodedFlow(inner, encoder, [4, 2], preprocess=tff.standardize(PAST.reshape(-1, 2)))
    redraw_weights(flow, seed=7, scale=0.5)
    return flow


def preprocessed():
    flow = tff.maf(
        2, num_layers=2, hidden_units=[8], conditional_size=8, preprocess_condition=tff.standardize(PAST), seed=1
    )
    redraw_weights(flow, seed=7, scale=0.5)
    return flow


PAST = (5.0 + 3.0 * np.random.default_rng(0).normal(size=[20, 8])).astype("float32")


@pytest.mark.parametrize("make", [encoded, preprocessed])
def test_derived_flows_read_the_condition_in_the_same_way(make):
    flow, y = make(), np.random.default_rng(1).normal(size=[20, 2]).astype("float32")
    expected = flow.log_prob(y, conditional_input=PAST)
    for other in (tff.at_temperature(flow, 1.0), flow.copy(), flow.with_base(flow.distribution), copy.deepcopy(flow)):
        assert type(other) is type(flow)
        np.testing.assert_allclose(other.log_prob(y, conditional_input=PAST), expected, rtol=1e-5)
    path = tff.interpolate(flow, y[0], y[1], num_steps=3, conditional_input=PAST[0])
    np.testing.assert_allclose(path[0], y[0], atol=1e-4)
    kwargs = flow.bijector_kwargs(PAST[0])
    lengths = [np.linalg.norm(flow.bijector.inverse(tf.identity(v), **kwargs)) for v in (y[0], path[1], y[1])]
    np.testing.assert_allclose(lengths[1], 0.5 * (lengths[0] + lengths[2]), rtol=1e-3)
    with pytest.raises(ValueError, match="`conditional_input` must be"):
        tff.interpolate(flow, y[0], y[1])


def test_a_posterior_with_an_encoder_of_its_own_is_asked_with_it():
    flow = preprocessed()
    encoder = keras.Sequential([keras.Input([6]), keras.layers.Dense(8)])
    decoder = keras.Sequential([keras.Input([2]), keras.layers.Dense(6)])
    vae = tff.FlowVAE(encoder, decoder, latent_size=2, posterior=flow, seed=1)
    x = np.random.default_rng(0).integers(0, 2, [10, 6]).astype("float32")
    z, log_q = vae.encode(x, seed=(1, 2))
    h = encoder(x)
    z0 = flow.bijector.inverse(tf.identity(z), **flow.bijector_kwargs(h))
    noise = (z0 - vae.loc_layer(h)) / tf.exp(tff.bound_log_scale(vae.log_scale_layer(h)))
    expected = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)).log_prob(noise)
    expected -= tf.reduce_sum(tff.bound_log_scale(vae.log_scale_layer(h)), -1)
    expected += flow.bijector.inverse_log_det_jacobian(tf.identity(z), event_ndims=1, **flow.bijector_kwargs(h))
    np.testing.assert_allclose(log_q, expected, atol=1e-3)


def test_a_temperature_follows_a_base_that_is_trained():
    flow = tff.maf(2, num_layers=1, base="trainable", seed=1)
    cold = tff.at_temperature(flow, 0.5)
    assert {id(v) for v in cold.trainable_variables} == {id(v) for v in flow.trainable_variables}
    redraw_weights(flow, seed=3)
    fresh = tff.at_temperature(flow, 0.5)
    np.testing.assert_allclose(cold.log_prob(X), fresh.log_prob(X), rtol=1e-6)
    np.testing.assert_allclose(cold.distribution.stddev(), 0.5 * flow.distribution.stddev().numpy(), rtol=1e-6)


# --- weights and the structure that they belong to ---


def paths(model, folder):
    """Ways to hand weights to another model, as functions of that model."""
    model.save_weights(folder / "a.weights.h5")
    checkpoint = tf.train.Checkpoint(flow=model.distribution)
    saved = checkpoint.save(str(folder / "checkpoint"))
    weights = model.get_weights()
    yield lambda other: other.load_weights(folder / "a.weights.h5")
    yield lambda other: other.set_weights(weights)
    yield lambda other: tf.train.Checkpoint(flow=other.distribution).restore(saved).assert_consumed()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("real_nvp", {}),
        ("spline_coupling", {}),
        pytest.param("maf", {"mixing": "permute"}, marks=pytest.mark.slow),  # as real_nvp
        ("maf", {"mixing": "lu"}),
        ("glow", {}),
    ],
)
def test_weights_mean_the_same_in_every_process_without_a_seed(name, options, tmp_path):
    def make(seed):
        keras.utils.set_random_seed(seed)  # as another process
        if name == "glow":
            return tff.FlowModel(tff.glow((4, 4, 1), num_scales=1, num_steps=2, filters=4))
        return tff.FlowModel(getattr(tff, name)(5, num_layers=2, hidden_units=[8], **options))

    model = make(1)
    redraw_weights(model.distribution, seed=3, scale=0.2)
    x = np.random.default_rng(0).random(size=[7, *model.distribution.event_shape]).astype("float32")
    expected = model.log_prob(x)
    for load in paths(model, tmp_path):
        other = make(2)
        assert np.any(np.abs(other.log_prob(x) - expected) > 1e-3)
        load(other)
        np.testing.assert_allclose(other.log_prob(x), expected, rtol=1e-5, atol=1e-4)


def test_weights_of_another_structure_are_refused_and_change_nothing(tmp_path):
    model, other = (tff.FlowModel(tff.real_nvp(6, num_layers=4, hidden_units=[8], seed=s)) for s in (1, 2))
    model.save_weights(tmp_path / "x.weights.h5")
    before = other.get_weights()
    for skip in (False, True):
        with pytest.raises(ValueError, match="permutations or variable orders"):
            other.load_weights(tmp_path / "x.weights.h5", skip_mismatch=skip)
        for old, new in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@keras.saving.register_keras_serializable("tests")
class Forgetful(keras.layers.Layer):
    """A network of a user whose second part no file holds, as nested lists are not in some versions of Keras."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.Dense(2), keras.layers.Dense(4)]
        for part, size in zip(self.parts, (1, 2), strict=True):
            part.build((None, size))
        self.built = True

    def call(self, x):
        return self.parts[1](self.parts[0](x))

    def save_own_variables(self, store):
        pass


def test_save_reads_the_file_that_it_wrote(tmp_path, monkeypatch):
    flow = tff.FlowDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(3), tf.ones(3)), tff.RealNVP(1, shift_and_log_scale_fn=Forgetful())
    )
    model = tff.FlowModel(flow)
    model.save(tmp_path / "good.keras")
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "good.keras").log_prob(np.ones([2, 3])),
        model.log_prob(np.ones([2, 3])),
        rtol=1e-6,
    )
    monkeypatch.setattr(keras.layers.Dense, "save_own_variables", lambda self, store: None)
    monkeypatch.setattr(keras.layers.Dense, "load_own_variables", lambda self, store: None)
    fresh = tff.FlowModel(flow)
    with pytest.raises(ValueError, match=r"did not save \d of \d weights"):
        fresh.save(tmp_path / "bad.keras")
    with pytest.raises(ValueError, match=r"saved \d+ of \d+ numbers"):
        fresh.save_weights(tmp_path / "bad.weights.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.keras"]


# --- statistics ---


def test_moments_are_right_or_refused():
    nice = make_flow("nice", 3, activation="tanh")
    x = nice.sample(100_000, seed=(1, 2))
    for statistic in ("mean", "covariance", "stddev", "variance"):
        with pytest.raises(NotImplementedError, match=f"`{statistic}` is not implemented"):
            getattr(nice, statistic)()
    np.testing.assert_allclose(nice.entropy(), -np.mean(nice.log_prob(x)), atol=0.02)
    assert nice.log_prob(tf.identity(nice.mode())) >= np.max(nice.log_prob(x)) - 1e-6
    maf = make_flow("maf", 3)
    for statistic in ("mean", "covariance", "entropy", "mode"):
        with pytest.raises(NotImplementedError):
            getattr(maf, statistic)()
    base = tfd.MultivariateNormalDiag(tf.zeros(3, tf.float64), tf.ones(3, tf.float64))
    coupling = nice.bijector.bijectors[-1]
    for flow in (tfd.TransformedDistribution(base, coupling), tfd.TransformedDistribution(base, tfb.Invert(coupling))):
        with pytest.raises(NotImplementedError):
            flow.mean()


def test_moments_of_affine_flows_are_those_of_samples():
    base = tfd.MultivariateNormalDiag(
        tf.constant([1.0, -1.0, 0.0], tf.float64), tf.constant([1.0, 2.0, 0.5], tf.float64)
    )
    layers = [
        tff.LULinear(3, seed=1, dtype=tf.float64),
        tff.Rotation(3, seed=1, dtype=tf.float64),
        tff.ActNorm(3, dtype=tf.float64),
    ]
    flow = tff.FlowDistribution(base, tfb.Chain([tfb.Shift(tf.constant([3.0, 2.0, 1.0], tf.float64)), *layers]))
    redraw_weights(flow, seed=2)
    x = flow.sample(400_000, seed=(1, 2)).numpy()
    np.testing.assert_allclose(flow.mean(), x.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(flow.covariance(), np.cov(x.T), atol=0.06)
    np.testing.assert_allclose(flow.entropy(), -np.mean(flow.log_prob(x)), atol=0.01)


def test_frozen_layers_are_pickled_and_stay_frozen():
    flow = tff.maf(2, num_layers=2, hidden_units=[4], seed=1)
    testing.redraw_weights(flow)
    for layer in tracking.find(flow).layers:
        layer.trainable = False
    for again in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
        np.testing.assert_allclose(again.log_prob(X[:5]), flow.log_prob(X[:5]), rtol=1e-6)
        assert not tracking.find(again).trainable_variables


def test_a_flow_at_a_temperature_is_saved_and_can_be_heated_again(tmp_path):
    flow = tff.maf(2, num_layers=1, hidden_units=[4], base="trainable", seed=1)
    flow.distribution.loc.assign([0.5, 1.0])
    cold = tff.at_temperature(flow, 0.5)
    model = tff.FlowModel(cold)
    model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras").distribution
    np.testing.assert_allclose(again.log_prob(X[:5]), cold.log_prob(X[:5]), rtol=1e-6)
    np.testing.assert_allclose(tff.at_temperature(cold, 0.5).distribution.stddev(), [0.25, 0.25])
    np.testing.assert_allclose(cold.distribution.mean(), [0.5, 1.0])
