"""Mistakes of users, one on each line: an error or a warning names the argument, or the call works."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfp_flows as tff
from tfp_flows.recipes.recipe import RECIPES

tfb, tfd = tfp.bijectors, tfp.distributions
X = tff.data.moons().sample(200, seed=0)
WIDE = X.astype(np.float64)


def changed(value, row=37, column=1):
    x = X.copy()
    x[row, column] = value
    return x


def model_of(flow):
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    return model


@pytest.fixture(scope="module")
def model():
    return model_of(tff.real_nvp(2, num_layers=2, hidden_units=[8], seed=1))


@pytest.fixture(scope="module")
def conditional():
    return model_of(tff.real_nvp(2, num_layers=2, hidden_units=[8], conditional_size=1, seed=1))


def chain_of(layers):
    return tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tfb.Chain(layers))


TO_FIT = {
    "nan": (changed(np.nan), ValueError, r"`x` must be finite in float32, got nan in row 37, column 1"),
    "infinity": (changed(-np.inf), ValueError, "-inf in row 37, column 1"),
    "several": (changed(np.nan, slice(37, 40)), ValueError, r"nan in row 37, column 1 \(3 such values in all\)"),
    "integers": (np.zeros([5, 2], int), ValueError, r"`x` has dtype int64, but a density is over real numbers"),
    "bool": (np.zeros([5, 2], bool), ValueError, "`x` has dtype bool"),
    "objects": (np.array([["a", 1.0]], object), ValueError, "floating point numbers, got dtype object"),
    "complex": (np.zeros([5, 2], complex), ValueError, "got dtype complex128"),
    "rank 1": (np.zeros([5], "f"), ValueError, r"`x` must have shape \[N, 2\], got \[5\]"),
    "rank 3": (np.zeros([5, 2, 1], "f"), ValueError, r"`x` must have shape \[N, 2\], got \[5, 2, 1\]"),
    "size": (np.zeros([5, 3], "f"), ValueError, r"`x` must have shape \[N, 2\], got \[5, 3\]"),
    "empty": (np.zeros([0, 2], "f"), ValueError, "`x` is empty"),
    "one row": (X[:1], ValueError, "`x` must have at least 2 rows to train on, got 1"),
    "constant column": (X * np.float32([1, 0]), UserWarning, "`x`: column 1 is constant"),
    "duplicate columns": (X[:, [0, 0]], UserWarning, "`x`: columns 0 and 1 are equal"),
    "1e30": (X * np.float32(1e30), UserWarning, r"standard deviation of 9.*e\+29 in column 0.*tff.standardize"),
    "1e-30": (X * np.float32(1e-30), UserWarning, r"standard deviation of .*e-31 in column 1.*tff.standardize"),
    "float64 overflow": (WIDE * 1e300, ValueError, "`x` must be finite in float32, got -?inf"),
    "float64 lost": (WIDE + 1e9, ValueError, r"`x` varies by 0.9.* around 1e\+09 in column 0.*float32.*float64"),
    "float64": (WIDE, None, ""),
}


@pytest.mark.parametrize("what", TO_FIT)
def test_data_to_fit(model, what):
    x, expected, message = TO_FIT[what]
    before = model.get_weights()
    if expected is ValueError:
        with pytest.raises(ValueError, match=message):
            model.fit(x, verbose=0)
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
        return
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            model.fit(x, verbose=0)
        except FloatingPointError:  # the loss of such data
            if what != "1e30":
                raise
    told = [str(w.message) for w in seen if issubclass(w.category, UserWarning) and str(w.message).startswith("`x`")]
    assert bool(told) == (expected is UserWarning)
    if told:
        with pytest.warns(UserWarning, match=message):
            warnings.warn(told[0], stacklevel=1)
    model.set_weights(before)
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_standardize_brings_any_scale_to_one(scale):
    x = X * np.float32(scale)
    model = model_of(tff.real_nvp(2, num_layers=2, hidden_units=[8], preprocess=tff.standardize(x), seed=1))
    reference = model_of(tff.real_nvp(2, num_layers=2, hidden_units=[8], preprocess=tff.standardize(X), seed=1))
    difference = model.evaluate(x, verbose=0) - reference.evaluate(X, verbose=0)
    assert difference == pytest.approx(2 * np.log(scale), rel=1e-5)
    assert np.isfinite(model.fit(x, verbose=0).history["loss"][0])


network = keras.Sequential([keras.layers.Dense(3)])
template = tff.masked_autoregressive_template([8], event_size=2)
made = tfb.AutoregressiveNetwork(2, hidden_units=[8], event_shape=[2])
ROWS, ONE = np.zeros([200, 1], np.float32), np.zeros([7, 1], np.float32)
planar = tff.PlanarFlow(2)


def coupling(fn, **kwargs):
    return tff.RealNVP(num_masked=1, shift_and_log_scale_fn=fn, **kwargs).forward(tf.zeros([4, 2]))


CALLS = {
    "repeated order": (
        lambda: tff.AutoregressiveNetwork(2, event_shape=[3], hidden_units=[8], input_order=[1, 1, 2]),
        r"`input_order` must be a permutation of 1 .. 3, got \[1, 1, 2\]",
    ),
    "order from zero": (
        lambda: tff.AutoregressiveNetwork(2, event_shape=[3], hidden_units=[8], input_order=[0, 1, 2]),
        r"`input_order` must be a permutation of 1 .. 3",
    ),
    "mask of positions": (
        lambda: tff.AffineCouplingLayer(network, [0, 2, 1]),
        "`mask` must be an array of zeros and ones",
    ),
    "mask of ones": (lambda: tff.AffineCouplingLayer(network, [1, 1]), "`mask` must contain both zeros and ones"),
    "mask of another size": (
        lambda: tff.AffineCouplingLayer(network, [1, 0, 1]).forward(tf.zeros([5, 4])),
        r"`mask` of shape \(3,\) does not broadcast to events of shape \[4\]",
    ),
    "one output for two": (lambda: coupling(network), r"The template's network returned shape \(4, 3\)"),
    "three outputs": (lambda: coupling(lambda x, units: (x, x, x)), "one tensor, got 3 outputs"),
    "a shift too wide": (
        lambda: coupling(lambda x, units: (tf.zeros([4, 2]), tf.zeros([4, 1]))),
        "returned a shift of shape .*its last axis must be 1",
    ),
    "a log-scale too wide": (
        lambda: coupling(lambda x, units: (tf.zeros([4, 1]), tf.zeros([4, 2]))),
        "returned a log_scale of shape",
    ),
    "outputs of an autoregressive one": (
        lambda: tff.MaskedAutoregressiveFlow(keras.Sequential([keras.layers.Dense(5)])).inverse(tf.zeros([4, 2])),
        r"The template's network returned shape \(4, 5\)",
    ),
    "a condition that a network does not take": (
        lambda: tff.RealNVP(num_masked=1, shift_and_log_scale_fn=network).forward(tf.zeros([4, 2]), colour=1),
        "takes no condition named `colour`",
    ),
    "events of another size": (
        lambda: tff.maf(2, num_layers=2, seed=1).log_prob(np.zeros([3, 3], "f")),
        r"`value` must have shape \['...', 2\], got \(3, 3\)",
    ),
    "float64 events": (
        lambda: tff.maf(2, num_layers=2, seed=1).log_prob(tf.zeros([3, 2], tf.float64)),
        "`value` must have dtype float32, that of the flow, got float64",
    ),
    "standardize one row": (lambda: tff.standardize(X[:1]), "at least 2 rows to standardize by, got 1"),
    "standardize nothing": (lambda: tff.standardize(X[:0]), "at least 2 rows to standardize by, got 0"),
    "standardize a constant": (lambda: tff.standardize(X * [1, 0]), "`data` is constant in column 1"),
    "standardize a rank": (lambda: tff.standardize(X[0]), r"`data` must have shape \[N, D\], got \[2\]"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_call_that_cannot_work_says_why(what):
    call, message = CALLS[what]
    with pytest.raises(ValueError, match=message):
        call()


OF_CONDITIONS = {
    "missing": (lambda m, d: d.log_prob(X), "`conditional_input` must be passed"),
    "unknown": (lambda m, d: d.log_prob(X, condition=ROWS), "Unknown keyword 'condition'"),
    "unknown in sample": (lambda m, d: d.sample(3, label=ROWS), "Unknown keyword 'label'"),
    "other rows": (lambda m, d: d.log_prob(X, conditional_input=ONE), r"batch shape \(7,\).*do not broadcast"),
    "other rows, model": (lambda m, d: m.log_prob(X, conditional_input=ONE), r"batch shape \(7,\).*not broadcast"),
    "other rows, sample": (lambda m, d: d.sample(5, conditional_input=ONE), r"let `sample_shape` be \[7\]"),
    "other rows, fit": (lambda m, d: m.fit(ONE, X, verbose=0), "`x` has 7 rows, `y` has 200"),
    "size": (lambda m, d: m.log_prob(X, conditional_input=X), r"must have shape \[..., 1\], got \(200, 2\)"),
    "weights": (lambda m, d: m.fit(ROWS, X, sample_weight=np.ones(7)), "`sample_weight` must hold 200 finite"),
    "no events": (lambda m, d: m.fit(X, verbose=0), "`y` must be given"),
}


@pytest.mark.parametrize("what", OF_CONDITIONS)
def test_conditions(conditional, what):
    call, message = OF_CONDITIONS[what]
    with pytest.raises(ValueError, match=message) as raised:
        call(conditional, conditional.distribution)
    assert str(raised.value).count("\n") == 0  # no page of somebody else's


def test_a_condition_where_there_is_none(model):
    with pytest.raises(ValueError, match="`conditional_input` must be left out"):
        model.log_prob(X, conditional_input=ROWS)
    with pytest.raises(ValueError, match="`x` must be an array of float32"):
        model.log_prob(np.array([["a", "b"]], object))


def test_an_unsorted_order_is_no_error():
    network = tff.AutoregressiveNetwork(2, event_shape=[3], hidden_units=[8], input_order=[3, 1, 2])
    x = tf.Variable(np.random.default_rng(0).normal(size=[1, 3]).astype("f"))
    with tf.GradientTape() as tape:
        shift = network(x)[..., 0]
    reads = np.abs(tape.jacobian(shift, x).numpy().reshape(3, 3)) > 0
    assert not reads[1].any()
    assert list(reads[2]) == [False, True, False]


SHARED = {
    "a template in two layers": lambda: [tff.MaskedAutoregressiveFlow(template) for _ in range(2)],
    "a layer eight times": lambda: [planar] * 8,
    "one TFP network in eight layers": lambda: [tfb.MaskedAutoregressiveFlow(made) for _ in range(8)],
    "a variable": lambda: [tfb.Shift(planar.w), tfb.Scale(tf.Variable([1.0, 2.0])), tfb.Shift(planar.w)],
}


@pytest.mark.parametrize("what", SHARED)
def test_weights_that_layers_share_are_told(what):
    """tfp#787: "cannot replicate the MAF paper" with one network in all layers."""
    with pytest.warns(UserWarning, match="of the flow share weights"):
        tff.FlowModel(chain_of(SHARED[what]()))


@pytest.mark.parametrize("recipe", ["maf", "planar_flow", "spline_coupling", "iaf", "sylvester_flow"])
def test_no_recipe_shares(recipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tff.FlowModel(RECIPES[recipe](3, seed=1))


# --- any arguments: a flow that works, or a ValueError ---

SIZES = st.one_of(st.integers(-2, 5), st.sampled_from([None, 2.0, 2.5, "3", True, np.int64(3), (2,)]))
UNITS = st.one_of(
    st.lists(st.integers(0, 6), max_size=3),
    st.sampled_from([None, 8, "64", [4, -1], [4.0], np.array([4, 4]), (5,), [[4]]]),
)
OPTIONS = {
    "num_layers": st.one_of(st.integers(-1, 3), st.sampled_from([None, 1.5, "2"])),
    "hidden_units": UNITS,
    "conditional_size": st.sampled_from([None, None, 0, 1, 2, -1, 1.5, "1"]),
    "normalization": st.sampled_from([None, "actnorm", "batch_norm", "none", 3]),
    "activation": st.sampled_from(["relu", "tanh", None, "no such", 5]),
    "dtype": st.sampled_from([tf.float32, tf.float64, tf.int32, "float32", "words", None]),
    "num_bins": st.sampled_from([0, 1, 2, 4, -3, 2.5]),
    "seed": st.sampled_from([None, 0, 1, -1, 1.5, "a"]),
}
BY_SIZE = sorted(set(RECIPES) - {"glow", "image_real_nvp"})


def names_an_argument(error):
    assert "`" in str(error), error


RANDOM = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=25, **RANDOM)
@given(st.data())
def test_any_arguments_give_a_flow_or_a_value_error(data):
    check_any_arguments(data)


@pytest.mark.slow
@settings(max_examples=200, **RANDOM)
@given(st.data())
def test_many_arguments_give_a_flow_or_a_value_error(data):
    check_any_arguments(data)


def check_any_arguments(data):
    import inspect

    name = data.draw(st.sampled_from(BY_SIZE))
    known = inspect.signature(RECIPES[name]).parameters
    chosen = data.draw(st.lists(st.sampled_from([k for k in OPTIONS if k in known]), unique=True, max_size=3))
    options = {key: data.draw(OPTIONS[key], label=key) for key in chosen}
    size = data.draw(SIZES, label="event_size")
    rows = data.draw(st.integers(0, 4), label="rows")
    try:
        flow = RECIPES[name](size, **options)
    except ValueError as error:
        names_an_argument(error)
        return
    condition = {}
    if flow.conditional_size is not None:
        condition["conditional_input"] = tf.zeros([rows, flow.conditional_size], flow.dtype)
    x = tf.zeros([rows, size], flow.dtype)
    log_prob = flow.log_prob(x, **condition)
    assert log_prob.shape == [rows]
    assert log_prob.dtype == flow.dtype
    assert np.all(np.isfinite(log_prob))
    try:
        samples = flow.sample(rows, seed=(1, 2), **condition)
    except NotImplementedError:
        return
    assert samples.shape == [rows, size]


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_any_image_shape_gives_a_flow_or_a_value_error(data):
    name = data.draw(st.sampled_from(["glow", "image_real_nvp"]))
    shape = data.draw(st.one_of(st.lists(st.integers(-1, 6), min_size=2, max_size=4), st.sampled_from([None, 4, "4"])))
    options = {"num_scales": data.draw(st.sampled_from([1, 2, 0, None])), "filters": data.draw(st.sampled_from([2, 0]))}
    try:
        flow = RECIPES[name](shape, **options)
    except ValueError as error:
        names_an_argument(error)
        return
    assert flow.log_prob(tf.zeros([2, *shape])).shape == [2]
