"""Conditional flows: one keyword for all layers, TFP's nested form, and p(y | x) in Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import RECIPES, make_flow

import tfp_flows as tff
from tfp_flows import testing

tfb, tfd = tfp.bijectors, tfp.distributions
by_name = pytest.mark.parametrize("name", RECIPES)
Y = testing.draw_events([2], [6])
C = tf.constant(np.random.default_rng(1).normal(size=[6, 3]))


@by_name
def test_the_keyword_reaches_the_layers(name):
    flow = make_flow(name, 2, conditional_size=3)
    assert flow.conditional_size == 3
    log_prob = flow.log_prob(Y, conditional_input=C)
    assert np.all(np.abs(log_prob - flow.log_prob(Y, conditional_input=C + 1.0)) > 1e-6)
    kwargs = tff.make_bijector_kwargs(
        flow.bijector,
        {".*(planar|radial|sylvester|coupling|autoregressive|marginal|continuous)": {"conditional_input": C}},
    )
    np.testing.assert_allclose(flow.log_prob(Y, bijector_kwargs=kwargs), log_prob, rtol=1e-12)
    # What TFP itself makes of the same bijector and the same keywords.
    plain = tfd.TransformedDistribution(flow.distribution, flow.bijector)
    np.testing.assert_allclose(plain.log_prob(tf.identity(Y), bijector_kwargs=kwargs), log_prob, rtol=1e-9)
    sample, sample_log_prob = flow.experimental_sample_and_log_prob(6, seed=[1, 2], conditional_input=C)
    np.testing.assert_allclose(flow.log_prob(sample, conditional_input=C), sample_log_prob, rtol=1e-7)
    np.testing.assert_allclose(flow.sample(6, seed=[1, 2], conditional_input=C), sample, rtol=1e-9)


@by_name
def test_missing_unknown_and_wrong_keywords(name):
    conditional, plain = make_flow(name, 2, conditional_size=3), make_flow(name, 2)
    for call, message in (
        (lambda: conditional.log_prob(Y), "`conditional_input` must be passed"),
        (lambda: conditional.sample(3), "`conditional_input` must be passed"),
        (lambda: conditional.log_prob(Y, conditional_input=C[:, :2]), r"\[..., 3\]"),
        (lambda: conditional.log_prob(Y, condition=C), "Unknown keyword 'condition'"),
        (lambda: conditional.log_prob(Y, conditional_input=C, bijector_kwargs={}), "not both"),
        (lambda: conditional.sample(4, conditional_input=C), "sample shape"),
        (lambda: conditional.sample(conditional_input=C), "sample shape"),
        (lambda: plain.log_prob(Y, conditional_input=C), "`conditional_input` must be left out"),
        (lambda: plain.sample(3, context=C), "Unknown keyword 'context'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_every_dimension_depends_on_conditions_by_more_than_a_linear_map():
    """Also the first of the order, which sees nothing else: TFP's hidden degrees leave it a linear map."""
    made = tff.masked_autoregressive_template(
        [32], event_size=3, conditional_size=1, activation="tanh", dtype=tf.float64
    )
    testing.redraw_weights(made, scale=1.0)
    c = tf.constant(np.linspace(-2, 2, 9)[:, None])
    shift, _ = made(tf.zeros([9, 3], tf.float64), conditional_input=c)
    assert np.all(np.max(np.abs(np.diff(shift, n=2, axis=0)), axis=0) > 1e-3)


def test_layers_with_conditions_of_different_sizes():
    layers = [
        tff.MaskedAutoregressiveFlow(
            tff.masked_autoregressive_template([4], event_size=2, conditional_size=size), name=f"maf{size}"
        )
        for size in (1, 2)
    ]
    flow = tff.FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tfb.Chain(layers))
    with pytest.raises(ValueError, match="different sizes"):
        flow.log_prob(tf.zeros([5, 2]), conditional_input=tf.zeros([5, 1]))
    kwargs = tff.make_bijector_kwargs(
        flow.bijector,
        {"maf1": {"conditional_input": tf.zeros([5, 1])}, "maf2": {"conditional_input": tf.zeros([5, 2])}},
    )
    assert flow.log_prob(tf.zeros([5, 2]), bijector_kwargs=kwargs).shape == (5,)
    with pytest.raises(ValueError, match="match no bijector"):
        tff.make_bijector_kwargs(flow.bijector, {"maf3": {}})


def test_equal_names_of_which_one_takes_no_condition():
    layers = [
        tff.MaskedAutoregressiveFlow(tff.masked_autoregressive_template([4], event_size=2, conditional_size=size))
        for size in (1, None)
    ]
    flow = tff.FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tfb.Chain(layers))
    with pytest.raises(ValueError, match="rename one"):
        flow.log_prob(tf.zeros([5, 2]), conditional_input=tf.zeros([5, 1]))


def test_the_nested_form_of_a_bare_bijector():
    """Without a `Chain` TFP hands keywords on as they are."""
    layer = tff.MaskedAutoregressiveFlow(tff.masked_autoregressive_template([4], event_size=2, conditional_size=3))
    flow = tff.FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), layer)
    y, c = tf.cast(Y, tf.float32), tf.cast(C, tf.float32)
    kwargs = tff.make_bijector_kwargs(flow.bijector, {"masked": {"conditional_input": c}})
    assert list(kwargs) == ["conditional_input"]
    expected = flow.log_prob(y, conditional_input=c)
    np.testing.assert_array_equal(flow.log_prob(y, bijector_kwargs=kwargs), expected)


def conditional_data(n, seed):
    """y given x: a Gaussian ring sector whose mean and scale depend on x; the conditional entropy is known."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.5, 1.5, size=[n, 1])
    scale = np.exp(0.5 * x)
    y = np.concatenate([np.sin(2 * x), x**2], axis=1) + 0.2 * scale * rng.normal(size=[n, 2])
    entropy = 2 * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.2)) + np.mean(2 * 0.5 * x)
    return x.astype(np.float32), y.astype(np.float32), entropy


def compiled(flow, rate=5e-3):
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0), jit_compile=False)
    return model


def test_fit_learns_the_conditional_density(tmp_path):
    x, y, entropy = conditional_data(4000, 0)
    x_test, y_test, entropy = conditional_data(4000, 1)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, 500)  # a constant one ends anywhere within 0.1 nats
    model = compiled(tff.maf(2, num_layers=2, hidden_units=[32, 32], conditional_size=1, seed=1), rate)
    history = model.fit(x, y, batch_size=200, epochs=25, validation_data=(x_test, y_test), verbose=0)
    nll = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    assert -0.05 < nll - entropy < 0.15, f"{nll} nats, floor {entropy}"
    assert abs(history.history["val_loss"][-1] - nll) < 1e-3

    log_prob = model.log_prob(y_test, conditional_input=x_test)
    np.testing.assert_allclose(model.predict(x_test, batch_size=512, y=y_test, verbose=0), log_prob, atol=1e-4)
    np.testing.assert_allclose(np.mean(log_prob), -nll, atol=1e-3)
    dataset = tf.data.Dataset.from_tensor_slices((x_test, y_test)).batch(500)
    np.testing.assert_allclose(model.evaluate(dataset, verbose=0), nll, atol=1e-4)
    np.testing.assert_allclose(model.predict(dataset, verbose=0), log_prob, atol=1e-4)

    sample = model.sample(5000, seed=1, conditional_input=[1.0]).numpy()
    np.testing.assert_allclose(sample.mean(axis=0), [np.sin(2.0), 1.0], atol=0.1)
    assert model.sample((3, 4), seed=1, conditional_input=x[:4]).shape == (3, 4, 2)
    assert model.sample(conditional_input=[0.5], seed=1).shape == (2,)

    model.save(tmp_path / "conditional.keras")
    loaded = keras.models.load_model(tmp_path / "conditional.keras")
    np.testing.assert_array_equal(loaded.log_prob(y_test, conditional_input=x_test), log_prob)


def test_weights_and_integer_conditions():
    """Rows of weight zero do not count; labels may be integers."""
    x = np.repeat([[0], [1]], 500, axis=0)
    rng = np.random.default_rng(0)
    y = (3.0 * x + rng.normal(size=[1000, 1])).astype(np.float32)
    y[::2] = 50.0
    weight = np.tile([0.0, 1.0], 500)
    model = compiled(tff.maf(1, num_layers=1, hidden_units=[8], conditional_size=1, seed=1), 0.03)
    model.fit(x, y, sample_weight=weight, batch_size=100, epochs=15, verbose=0)
    for label in (0, 1):
        sample = model.sample(2000, seed=1, conditional_input=[label]).numpy()
        assert abs(sample.mean() - 3.0 * label) < 0.3
    weighted = model.evaluate(x, y, sample_weight=weight, verbose=0)
    assert abs(weighted - 0.5 * 0.5 * np.log(2 * np.pi * np.e)) < 0.1  # a sum over rows, not over weights, as in Keras


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((np.zeros([8, 1]),), {}, "`y` must be given"),
        ((np.zeros([8, 2]), np.zeros([8, 2])), {}, r"`x` must hold conditions, of shape \[N, 1\]"),
        ((np.zeros([8, 1]), np.zeros([8, 3])), {}, r"`y` must have shape \[N, 2\]"),
        ((np.zeros([8, 1]), np.zeros([7, 2])), {}, "`x` has 8 rows, `y` has 7"),
        ((np.full([8, 1], np.nan), np.zeros([8, 2])), {}, "`x` must be finite"),
        ((np.array([["a"]] * 8), np.zeros([8, 2])), {}, "array of numbers"),
        ((np.zeros([8, 1]), np.zeros([8, 2])), {"validation_data": np.zeros([8, 1])}, "`validation_data"),
        ((np.zeros([8, 1]), np.zeros([8, 2])), {"validation_data": (np.zeros([8, 1]),)}, "`validation_data"),
        ((tf.data.Dataset.from_tensor_slices(np.zeros([8, 2], np.float32)).batch(4),), {}, "must yield"),
    ],
)
def test_bad_data_is_named(args, kwargs, message):
    model = compiled(tff.maf(2, num_layers=1, hidden_units=[4], conditional_size=1))
    with pytest.raises(ValueError, match=message):
        model.fit(*args, verbose=0, **kwargs)
