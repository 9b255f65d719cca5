"""Every recipe: the properties of its distribution."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import RECIPES, make_flow

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.bijectors.composition import layers_of

tfb, tfd = tfp.bijectors, tfp.distributions
# Of a continuous flow the bijector's tests and those of test_continuous.py run always.
LONG = ("continuous_flow",)
by_name = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in RECIPES]
)
# These are the code of another recipe: of real_nvp, of maf, and of maf with the transformer of spline_coupling. What they
# themselves decide (layers, seeds, descriptions, arguments) is in the tests by name.
ALIKE = ("nice", "made", "spline_autoregressive")
by_code = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in (*LONG, *ALIKE) else name for name in RECIPES]
)


@by_code
def test_bijector_properties(name):
    flow = make_flow(name, 3)
    bijector, x = flow.bijector, testing.draw_events([3])
    testing.check_moves(bijector, x)
    tolerance = 1e-7 if name == "continuous_flow" else 1e-9  # its solver's is 1e-10 for each step
    testing.check_round_trip(bijector, x, tolerance)
    testing.check_log_det(bijector, x, 10.0 * tolerance)
    testing.check_tracking(bijector, [3])
    testing.check_density(flow, tolerance=10.0 * tolerance)


@by_name
def test_every_dimension_is_transformed_and_mixed(name):
    """With weights redrawn, eight layers let every output depend on every input; so does one differential equation.

    A MADE is one layer, and triangular.
    """
    flow = make_flow(name, 5, **({} if name in ("made", "continuous_flow") else {"num_layers": 8}))
    j = testing.jacobian(flow.bijector.inverse, testing.draw_events([5], [20]), 1)
    depends = np.any(j != 0, axis=0)
    np.testing.assert_array_equal(depends, np.tril(np.ones([5, 5], bool)) if name == "made" else np.ones([5, 5], bool))


@by_code
def test_integrates_to_one(name):
    testing.check_normalized(make_flow(name, 2), resolution=300)


@by_code
def test_trained_it_still_integrates_to_one(name):
    """And every weight has moved, and the NLL is lower, but not below the entropy of the data."""
    flow = make_flow(name, 2, tf.float32, redraw=False)
    draw, entropy = testing.correlated_normal(2)
    x = draw(20_000, 2)
    before = [v.numpy().copy() for v in flow.trainable_variables]
    start = np.mean(flow.log_prob(x[:1000].astype(np.float32)))
    testing.train(flow)
    for variable, old in zip(flow.trainable_variables, before, strict=True):
        assert np.any(variable.numpy() != old), f"{variable.name} did not move"
    assert np.mean(flow.log_prob(x[:1000].astype(np.float32))) > start
    testing.check_normalized(flow, resolution=400, tolerance=1e-3)
    testing.check_above_entropy(flow, x, entropy)


# A fit as in a user's script; the test before sees every weight of the other recipes move.
by_fit = pytest.mark.parametrize(
    "name", [name if name in ("real_nvp", "maf") else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)


@by_fit
def test_one_fit_moves_every_weight(name):
    x = tff.data.banana().sample(256, seed=1)
    testing.check_fit_moves_every_weight(make_flow(name, 2, tf.float32), x)


@by_code
def test_gradients_reach_every_variable(name):
    testing.check_gradients(make_flow(name, 3).bijector, testing.draw_events([3]))


@by_code
def test_eager_log_prob_is_right_after_an_update_on_the_same_tensor(name):
    """TFP's cache mixes old and new values here; see the next test."""
    flow = make_flow(name, 2, tf.float32)
    x = tf.random.normal([6, 2])
    flow.log_prob(x)
    testing.redraw_weights(flow, seed=99)
    with tf.GradientTape() as tape:
        again = flow.log_prob(x)
    np.testing.assert_array_equal(again, flow.log_prob(tf.identity(x)))
    assert all(g is not None for g in tape.gradient(again, flow.trainable_variables))


def test_tfp_still_has_the_stale_cache():
    """If this fails, TFP was mended, and FlowDistribution has nothing left to do."""
    v = tf.Variable(1.0)
    d = tfd.TransformedDistribution(tfd.Normal(0.0, 1.0), tfb.Scale(v))
    x = tf.constant(1.5)
    d.log_prob(x)
    v.assign(4.0)
    assert abs(float(d.log_prob(x)) - float(d.log_prob(tf.identity(x)))) > 0.1


def test_a_batch_of_flows_draws_samples_for_each():
    """Parameters with a batch axis make two flows: each draws its own noise, and a condition reaches both."""
    shift = tfb.Shift(tf.constant([[-100.0, -100.0], [100.0, 100.0]]))
    made = tff.masked_autoregressive_template([4], event_size=2, conditional_size=1, seed=1)
    base = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
    for bijector, condition in (
        (shift, {}),
        (tfb.Chain([shift, tff.MaskedAutoregressiveFlow(made)]), {"conditional_input": tf.ones([1])}),
    ):
        flow = tff.FlowDistribution(base, bijector)
        assert flow.batch_shape == [2]
        y, log_prob = flow.experimental_sample_and_log_prob(5, seed=[1, 2], **condition)
        assert y.shape == [5, 2, 2]
        np.testing.assert_array_equal(flow.sample(5, seed=[1, 2], **condition), y)
        np.testing.assert_allclose(flow.log_prob(y, **condition), log_prob, rtol=1e-4)
        noise = y.numpy() - [[[-100.0], [100.0]]]
        assert np.max(np.abs(noise)) < 10.0
        assert np.min(np.abs(noise[:, 0] - noise[:, 1])) > 1e-3
    plain = tfd.TransformedDistribution(base, shift)
    np.testing.assert_array_equal(
        tff.FlowDistribution(base, shift).sample(5, seed=[1, 2]), plain.sample(5, seed=[1, 2])
    )


def test_a_map_that_is_not_injective_gives_the_folded_density():
    """The absolute value of a normal variable is half-normal: both preimages of a value count."""
    flow = tff.FlowDistribution(tfd.Normal(0.0, 2.0), tfb.AbsoluteValue())
    half = tfd.HalfNormal(2.0)
    y = flow.sample(2000, seed=[1, 2])
    assert np.min(y) >= 0.0
    np.testing.assert_allclose(flow.log_prob(y), half.log_prob(y), rtol=1e-5)
    np.testing.assert_allclose(np.mean(y), half.mean(), rtol=0.05)


@by_name
def test_same_seed_same_flow(name):
    x = np.random.default_rng(0).normal(size=[4, 6]).astype(np.float32)
    make = lambda seed: make_flow(name, 6, tf.float32, redraw=False, seed=seed)  # noqa: E731
    a, b, c = make(5), make(5), make(6)
    for v, w in zip(a.variables, b.variables, strict=True):
        np.testing.assert_array_equal(v, w)
    np.testing.assert_array_equal(a.log_prob(x), b.log_prob(x))
    assert any(np.any(v.numpy() != w.numpy()) for v, w in zip(a.variables, c.variables, strict=True))


@by_name
def test_keras_seed_is_honoured(name):
    def build():
        keras.utils.set_random_seed(3)
        return make_flow(name, 2, tf.float32, redraw=False, seed=None)

    for v, w in zip(build().variables, build().variables, strict=True):
        np.testing.assert_array_equal(v, w)


@by_name
def test_recipe_describes_the_flow(name):
    """Weights copied into a flow built from the description give the same density: the permutations are the same too."""
    flow = make_flow(
        name, 6, preprocess=tff.standardize(np.random.default_rng(1).normal(size=[9, 6]), dtype=tf.float64)
    )
    twin = tff.from_description(tff.describe(flow))
    for v, w in zip(twin.variables, flow.variables, strict=True):
        v.assign(w)
    x = testing.draw_events([6])
    np.testing.assert_array_equal(twin.log_prob(x), flow.log_prob(x))
    assert json.loads(tff.describe(flow))["objects"][-1]["call"] == f"tfp_flows>{name}"


@by_code
def test_base_and_its_variables(name):
    loc = tf.Variable([0.5, 1.0], dtype=tf.float64)
    flow = make_flow(name, 2, base=tfd.MultivariateNormalDiag(loc, tf.ones([2], tf.float64)))
    assert any(v is loc for v in flow.trainable_variables)
    testing.check_density(flow)


@by_name
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("event_size", 0),
        ("event_size", 2.5),
        ("num_layers", -1),
        ("seed", -1),
        ("base", "gaussian"),
        ("base", tfd.MultivariateNormalDiag(tf.zeros(3))),
        ("preprocess", tff.Standardize(3)),
        ("preprocess", 3),
    ],
)
def test_bad_arguments_are_named(name, argument, value):
    kwargs = {"event_size": 2, argument: value}
    if name == "made" and argument == "num_layers":
        return
    with pytest.raises(ValueError, match=f"`{argument}`"):
        getattr(tff, name)(kwargs.pop("event_size"), **kwargs)


@pytest.mark.parametrize("hidden_units", ["64", 64, [64, 0], [1.5]])
def test_bad_hidden_units(hidden_units):
    with pytest.raises(ValueError, match="hidden_units"):
        tff.maf(2, hidden_units=hidden_units)


@pytest.mark.parametrize(("recipe", "count"), [(tff.spline_coupling, 1), (tff.spline_autoregressive, 2)])
def test_splines_are_mixed_by_lu_maps_by_default(recipe, count):
    def mixing(**options):
        layers = layers_of(recipe(3, num_layers=3, hidden_units=[4], seed=1, **options).bijector)
        return sum(isinstance(layer, tff.LULinear) for layer in layers)

    assert (mixing(), mixing(mixing="permute")) == (count, 0)


def test_iaf_is_the_inverse_of_maf():
    """The networks of an IAF read latent values, so that its forward map is the inverse map of a MAF."""
    iaf, maf = (recipe(3, num_layers=1, hidden_units=[8], seed=1).bijector for recipe in (tff.iaf, tff.maf))
    for bijector in (iaf, maf):
        tff.testing.redraw_weights(bijector, seed=1)
    z = tf.constant([[0.3, -0.4, 1.2]])
    np.testing.assert_allclose(iaf.forward(tf.identity(z)), maf.inverse(tf.identity(z)), rtol=1e-5)
    assert not np.allclose(iaf.forward(tf.identity(z)), maf.forward(tf.identity(z)))
