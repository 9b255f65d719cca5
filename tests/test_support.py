"""Support, broadcasting of events and conditions, rows that are not finite, and the scale of conditions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import RECIPES, make_flow

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions

BOUNDED = {
    "sigmoid": (tfb.Sigmoid(), [0.3, 0.5], [[1.2, 0.5], [0.5, -1e-3], [1.0, 0.5], [0.0, 0.5]]),
    "interval": (tfb.Sigmoid(2.0, 5.0), [3.0, 4.0], [[1.9, 3.0], [3.0, 5.0]]),
    "exp": (tfb.Exp(), [1.0, 2.0], [[-1.0, 1.0], [0.0, 1.0]]),
    "softplus": (tfb.Softplus(), [1.0, 2.0], [[-1.0, 1.0], [1.0, 0.0]]),
    "tanh": (tfb.Tanh(), [0.1, -0.2], [[1.5, 0.0], [0.0, -1.0]]),
    "chain": (tfb.Chain([tfb.Shift([10.0, 0.0]), tfb.Exp()]), [11.0, 2.0], [[9.0, 1.0]]),
    "joint": (tfb.Blockwise([tfb.Exp(), tfb.Identity()]), [1.0, -2.0], [[-1.0, -2.0]]),
}


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("recipe", ["spline_coupling", "maf"])
def test_outside_of_the_support_the_density_is_zero(name, recipe):
    preprocess, inside, outside = BOUNDED[name]
    flow = getattr(tff, recipe)(2, num_layers=2, hidden_units=[8], preprocess=preprocess, seed=1)
    tff.testing.redraw_weights(flow, seed=2)
    x = tf.constant([inside, *outside])
    with tf.GradientTape() as tape:
        log_prob = flow.log_prob(x)
        loss = tf.reduce_sum(log_prob[:1])
    assert np.isfinite(log_prob[0])
    np.testing.assert_array_equal(log_prob[1:], -np.inf)
    for gradient in tape.gradient(loss, flow.trainable_variables):
        assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(tf.function(flow.log_prob)(x)[1:], -np.inf)
    np.testing.assert_array_equal(tff.FlowModel(flow).log_prob(x)[1:], -np.inf)
    mixture = tfd.Mixture(tfd.Categorical(probs=[0.5, 0.5]), [flow, tff.maf(2, num_layers=1, seed=2)])
    assert np.all(np.isfinite(mixture.log_prob(x)))


def test_a_bounded_base_bounds_the_flow():
    base = tfd.Independent(tfd.Gamma([2.0, 2.0], [1.0, 1.0]), 1)
    flow = tff.FlowDistribution(base, tfb.Chain([tfb.Shift(tf.Variable([3.0, 0.0]))]))
    x = tf.constant([[4.0, 1.0], [2.0, 1.0], [4.0, -1.0]])
    with tf.GradientTape() as tape:
        log_prob = flow.log_prob(x)
        loss = log_prob[0]
    np.testing.assert_allclose(log_prob[0], base.log_prob([1.0, 1.0]), rtol=1e-6)
    np.testing.assert_array_equal(log_prob[1:], -np.inf)
    assert np.all(np.isfinite(tape.gradient(loss, flow.trainable_variables)[0]))


@pytest.mark.parametrize("name", [n for n in RECIPES if n not in ("continuous_flow", "gaussianization_flow")])
def test_far_points_have_no_nan_and_a_bad_row_costs_that_row(name):
    flow = make_flow(name, 2, tf.float32)
    near = np.array([[0.3, -0.2]], np.float32)
    rows = np.concatenate([near, [[3e38, 1.0], [-1e30, 1e30], [1e12, 0.0]], [[np.nan, 1.0]], near]).astype(np.float32)
    log_prob = flow.log_prob(rows).numpy()
    assert not np.any(np.isnan(log_prob[:4])), log_prob
    assert np.all(log_prob[1:4] < -100.0)
    assert np.isnan(log_prob[4])
    np.testing.assert_allclose(log_prob[[0, 5]], np.repeat(flow.log_prob(near), 2), rtol=1e-4)
    assert flow.log_prob(rows[:0]).shape == (0,)


@pytest.mark.parametrize("conditional_size", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_a_bad_row_costs_a_continuous_flow_that_row(conditional_size):
    flow = tff.continuous_flow(2, hidden_units=[4], conditional_size=conditional_size, seed=1)
    x, c = np.random.default_rng(0).normal(size=[2, 5, 2]).astype("float32")
    kwargs = {} if conditional_size is None else {"conditional_input": c.copy()}
    expected = flow.log_prob(x, **kwargs).numpy()
    broken = x.copy()
    broken[1, 0] = np.inf
    if kwargs:
        kwargs["conditional_input"][3, 1] = np.nan
    bad = [1, 3] if kwargs else [1]
    for log_prob in (flow.log_prob(broken, **kwargs), tf.function(flow.log_prob)(broken, **kwargs)):
        assert list(np.flatnonzero(np.isnan(log_prob))) == bad
        good = [i for i in range(5) if i not in bad]
        np.testing.assert_allclose(log_prob.numpy()[good], expected[good], atol=1e-2)
    kwargs = {key: value[:0] for key, value in kwargs.items()}
    assert flow.log_prob(x[:0], **kwargs).shape == (0,)
    assert flow.bijector.forward(x[:0], **(flow.bijector_kwargs(c[:0]) if kwargs else {})).shape == (0, 2)


def test_second_derivatives_of_a_continuous_flow_are_refused():
    flow = tff.continuous_flow(2, hidden_units=[4], seed=1)
    x = tf.constant([[0.2, -0.1]])
    with tf.GradientTape() as tape:  # traced here: the first call under two tapes takes half a minute to trace
        tape.watch(x)
        y = flow.log_prob(x)
    tape.gradient(y, x)
    with tf.GradientTape() as second:
        second.watch(x)
        with tf.GradientTape() as first:
            first.watch(x)
            y = flow.log_prob(x)
        gradient = tf.reduce_sum(first.gradient(y, x)[:, 0])
    assert np.isfinite(gradient)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        second.gradient(gradient, x)


def test_training_data_on_the_bound_are_an_error_that_names_row_column_and_support():
    x = np.random.default_rng(0).beta(2.0, 2.0, size=[50, 2]).astype("float32")
    x[7, 1] = 1.0
    for preprocess, shift in ((tfb.Sigmoid(), 0.0), (tfb.Chain([tfb.Shift([3.0, 3.0]), tfb.Sigmoid()]), 3.0)):
        flow = tff.spline_coupling(2, num_layers=2, hidden_units=[4], preprocess=preprocess, seed=1)
        model = tff.FlowModel(flow)
        model.compile(optimizer="adam", jit_compile=False)
        with pytest.raises(ValueError, match=r"`x` has .* in row 7, column 1, on or outside of the bounds of sigmoid"):
            model.fit(x + shift, verbose=0)
        with pytest.raises(ValueError, match=r"in row 7, column 1"):
            model.fit(tf.data.Dataset.from_tensor_slices(x + np.float32(shift)).batch(10), verbose=0)
    x[7, 1] = 0.9
    model.fit(x + 3.0, verbose=0)


# --- events and conditions broadcast ---


@pytest.mark.parametrize("name", list(RECIPES))
def test_one_event_under_many_conditions_and_the_reverse(name):
    options = {"rtol": 1e-9, "atol": 1e-9} if name == "continuous_flow" else {}
    flow = make_flow(name, 3, conditional_size=2, **options)
    rng = np.random.default_rng(0)
    c, y = rng.normal(size=[5, 2]), rng.normal(size=[3])
    right = flow.log_prob(np.repeat(y[None], 5, axis=0), conditional_input=c)
    kwargs = flow.bijector_kwargs(c)
    for event in (y, y[None]):
        np.testing.assert_allclose(flow.log_prob(event, conditional_input=c), right, atol=1e-6)
        x = flow.bijector.inverse(tf.constant(event), **kwargs)
        assert x.shape == (5, 3)
        np.testing.assert_allclose(flow.bijector.forward(tf.identity(x), **kwargs), np.repeat(y[None], 5, 0), atol=1e-5)
        assert flow.bijector.forward(tf.constant(event), **kwargs).shape == (5, 3)
    grid = flow.log_prob(rng.normal(size=[4, 1, 3]), conditional_input=c)
    assert grid.shape == (4, 5)
    many = rng.normal(size=[4, 3])
    one = flow.log_prob(many, conditional_input=c[0])
    np.testing.assert_allclose(one, flow.log_prob(many, conditional_input=np.repeat(c[:1], 4, 0)), atol=1e-6)


def test_ranks_of_conditions_may_change_from_call_to_call_and_in_an_export(tmp_path):
    model = tff.FlowModel(tff.maf(2, num_layers=2, hidden_units=[8], conditional_size=3, seed=1))
    tff.testing.redraw_weights(model.distribution)
    x, c = np.random.default_rng(0).normal(size=[5, 2]), np.random.default_rng(1).normal(size=[4, 5, 3])
    for condition in (c[0, 0], c[0], c, c[0, 0], c[:, :1]):
        expected = model.distribution.log_prob(tf.cast(x, tf.float32), conditional_input=tf.cast(condition, tf.float32))
        np.testing.assert_allclose(model.log_prob(x, conditional_input=condition), expected, rtol=1e-5)
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    one = tf.cast(c[0, 0], tf.float32)
    assert served.sample(5, [1, 2], one)["samples"].shape == (5, 2)
    np.testing.assert_allclose(
        served.log_prob(tf.cast(x, tf.float32), one)["log_prob"], model.log_prob(x, conditional_input=one), rtol=1e-5
    )


# --- the scale of conditions ---


def related(scale, shift, n=1500):
    rng = np.random.default_rng(0)
    u = rng.normal(size=[n, 1])
    y = np.concatenate([u + 0.1 * rng.normal(size=[n, 1]), rng.normal(size=[n, 1])], axis=1).astype("float32")
    return (shift + scale * u).astype("float32"), y


def fitted(flow, c, y, **kwargs):
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(5e-3, global_clipnorm=1.0), jit_compile=False)
    model.fit(c, y, batch_size=100, epochs=6, verbose=0, **kwargs)
    return model


@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        (10.0, 2000.0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1e-6, 0.0), (1e4, 0.0), (1.0, 300.0))),
    ],
)
def test_conditions_are_standardized_by_the_first_fit_and_saved(scale, shift, tmp_path):
    c, y = related(scale, shift)
    floor = 0.5 * np.log(2 * np.pi * np.e * 0.01) + 0.5 * np.log(2 * np.pi * np.e)
    model = fitted(tff.maf(2, num_layers=2, hidden_units=[16], conditional_size=1, seed=1), c, y)
    nll = model.evaluate(c, y, verbose=0)
    assert nll < floor + 0.4
    model.save(tmp_path / "x.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "x.keras").evaluate(c, y, verbose=0), nll, rtol=1e-5)
    before = model.distribution.preprocess_condition.shift.numpy().copy()
    model.fit(c + 100.0 * scale, y, verbose=0)  # adapted once, by the first fit
    np.testing.assert_array_equal(model.distribution.preprocess_condition.shift, before)


def test_flags_stay_and_a_flow_that_reads_conditions_already_is_left_alone():
    rng = np.random.default_rng(0)
    y = rng.normal(size=[300, 2]).astype("float32")
    flags = np.concatenate([np.eye(3)[rng.integers(0, 3, 300)], 50.0 + 7.0 * rng.normal(size=[300, 1])], 1).astype("f")
    model = fitted(tff.maf(2, num_layers=1, hidden_units=[4], conditional_size=4, seed=1), flags, y)
    layer = model.distribution.preprocess_condition
    np.testing.assert_array_equal(layer.shift[:3], 0.0)
    np.testing.assert_array_equal(layer.scale[:3], 1.0)
    np.testing.assert_allclose(layer.shift[3], 50.0, atol=1.5)
    flow = tff.maf(2, num_layers=1, hidden_units=[4], conditional_size=4, seed=1)
    tff.testing.redraw_weights(flow)  # as after a training without FlowModel
    with pytest.warns(
        UserWarning, match=r"`x` has mean 4\.93e\+04.*column 3 where networks read it.*preprocess_condition"
    ):
        fitted(flow, flags * [1.0, 1.0, 1.0, 1e3], y)
    assert not flow.preprocess_condition.adapted


@pytest.mark.parametrize("kind", ["none", "encoded", "tfp"])
def test_where_nothing_standardizes_conditions_a_warning_names_the_column(kind):
    c, y = related(1e4, 0.0, 200)
    c = np.concatenate([c / 1e4, c], axis=1)
    options = {"num_layers": 1, "hidden_units": [4], "seed": 1}
    if kind == "none":
        flow = tff.maf(2, conditional_size=2, preprocess_condition=None, **options)
    elif kind == "encoded":
        flow = tff.EncodedFlow(tff.maf(2, conditional_size=2, **options), keras.layers.Dense(2), [2])
    else:
        network = tff.masked_autoregressive_template([4], event_size=2, conditional_size=2, seed=1)
        flow = tff.FlowDistribution(
            tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tff.MaskedAutoregressiveFlow(network)
        )
    with pytest.warns(UserWarning, match=r"`x` has mean .* in column 1 where networks read it"):
        fitted(flow, c, y)


def test_conditions_may_be_preprocessed_by_a_bijector_for_any_size():
    class Double(tff.FlowBijector):
        def forward_and_log_det(self, x):
            return 2.0 * x, tf.zeros([], x.dtype)

        def inverse_and_log_det(self, y):
            return 0.5 * y, tf.zeros([], y.dtype)

    def flow(preprocess):
        made = tff.maf(2, num_layers=1, conditional_size=3, preprocess_condition=preprocess, seed=1)
        tff.testing.redraw_weights(made)
        return made

    y, c = tf.ones([4, 2]), tf.reshape(tf.range(12.0), [4, 3])
    expected = flow(None).log_prob(y, conditional_input=0.5 * c)
    np.testing.assert_allclose(flow(Double(name="double")).log_prob(y, conditional_input=c), expected, rtol=1e-5)


def test_bad_arguments_of_preprocess_condition():
    with pytest.raises(ValueError, match="`preprocess_condition` needs a flow with conditions"):
        tff.maf(2, preprocess_condition=tff.Standardize(1))
    with pytest.raises(ValueError, match="`preprocess_condition` is for 3 columns, the flow's conditions have 1"):
        tff.maf(2, conditional_size=1, preprocess_condition=tff.Standardize(3))
    with pytest.raises(ValueError, match=r"`preprocess_condition` must be a tfb\.Bijector"):
        tff.maf(2, conditional_size=1, preprocess_condition="whiten")
    _, y = related(1e-3, 1e6, 50)
    with pytest.raises(ValueError, match=r"`x` varies by .* too little to be seen in float32"):
        fitted(tff.maf(2, num_layers=1, conditional_size=1, seed=1), (1e6 + 1e-3 * np.arange(50.0))[:, None], y)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", tf.int32])
def test_other_dtypes_are_refused_by_every_recipe(dtype):
    for name in RECIPES:
        with pytest.raises(ValueError, match=r"`dtype` must be tf\.float32 or tf\.float64"):
            getattr(tff, name)(2, dtype=dtype)


def test_affine_autoregressive_flows_in_one_dimension_are_told_to_be_gaussian():
    for name in ("maf", "iaf", "made"):
        with pytest.warns(UserWarning, match="In one dimension an affine autoregressive flow is a Gaussian"):
            getattr(tff, name)(1)
