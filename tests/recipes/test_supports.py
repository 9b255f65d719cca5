"""Flows on bounded columns, angles and shares: the seam, the bounds, standardization, saving, and trained densities."""

import inspect
import math
import pickle

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from cases import RECIPES, make_flow

import tfp_flows as tff
from tfp_flows.testing import redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
MIXED = ["circle", "positive", ("simplex", "a"), ("circle", 0.0, 24.0), ("simplex", "a"), (-1.0, 3.0), ("simplex", "a")]
PERIODIC = {name: fn for name, fn in tff.recipes.RECIPES.items() if "mixing" in inspect.signature(fn).parameters}
PERIODIC.pop("nice")


def small(name, support, event_size=7, **kwargs):
    options = {"num_layers": 2, "hidden_units": [8], "activation": "tanh", "seed": 3, "dtype": tf.float64, **kwargs}
    flow = PERIODIC[name](event_size, support=support, **options)
    redraw_weights(flow, seed=4)
    return flow


@pytest.mark.parametrize("name", [n for n in RECIPES if n != "continuous_flow"])
def test_every_recipe_takes_bounds_and_shares(name):
    flow = make_flow(name, 4, support=["positive", "simplex", "simplex", (0.0, 1.0)], num_layers=1 + (name != "made"))
    assert flow.event_shape == [4]
    x, log_prob = flow.experimental_sample_and_log_prob(20, seed=(1, 2))
    np.testing.assert_allclose(flow.log_prob(tf.identity(x)), log_prob, atol=1e-6)
    assert np.all((x.numpy() > 0.0) & (x.numpy()[:, [3]] < 1.0))
    np.testing.assert_allclose(tf.reduce_sum(x[:, 1:3], axis=1), 1.0)
    assert np.all(np.isneginf(flow.log_prob(x.numpy() * [1.0, 1.0, 1.0, -1.0])))
    if name not in PERIODIC:
        with pytest.raises(ValueError, match=f"`support` must have no circle in {name}"):
            getattr(tff, name)(3, support="circle")


QUICK = [("spline_coupling", None), ("maf", 2)]
SEAMS = [
    pytest.param(name, size, marks=[] if (name, size) in QUICK else [pytest.mark.slow])
    for name in PERIODIC
    for size in (None, 2)
]


@pytest.mark.parametrize(("name", "conditional_size"), SEAMS)
def test_the_density_is_periodic_and_smooth_across_the_seam(name, conditional_size):
    flow = small(name, MIXED, conditional_size=conditional_size)
    given = {} if conditional_size is None else {"conditional_input": tf.constant([[0.3, -0.7]], tf.float64)}
    x, log_prob = flow.experimental_sample_and_log_prob([20], seed=(1, 2), **given)
    np.testing.assert_allclose(flow.log_prob(tf.identity(x), **given), log_prob, atol=1e-8)
    turn = np.array([2.0 * math.pi, 0, 0, -24.0, 0, 0, 0])
    np.testing.assert_allclose(flow.log_prob(x + turn, **given), log_prob, atol=1e-8)
    for column, (low, high) in {0: (-math.pi, math.pi), 3: (0.0, 24.0)}.items():
        sides = []
        for edge in (low + 1e-9, high - 1e-9):
            y = tf.constant(np.where(np.arange(7) == column, edge, x.numpy()))
            with tf.GradientTape() as tape:
                tape.watch(y)
                z = flow.bijector.inverse(y, **(flow.bijector_kwargs(given["conditional_input"]) if given else {}))
                total = tf.reduce_sum(z[:, 1])  # of a latent value that the angle conditions or is
            sides.append((flow.log_prob(y, **given), tape.gradient(total, y)[:, column]))
        np.testing.assert_allclose(sides[0][0], sides[1][0], atol=1e-5)
        np.testing.assert_allclose(sides[0][1], sides[1][1], atol=1e-5)


@pytest.mark.parametrize("name", ["spline_coupling", pytest.param("maf", marks=pytest.mark.slow)])
def test_flows_of_angles_are_saved_and_pickled(name, tmp_path):
    flow = small(name, MIXED, dtype=tf.float32, base="student_t")
    x = flow.sample(5, seed=(1, 2))
    expected = flow.log_prob(x)
    for other in (pickle.loads(pickle.dumps(flow)), tff.FlowModel(flow)):
        if isinstance(other, tff.FlowModel):
            other.save(tmp_path / "x.keras")
            other = keras.models.load_model(tmp_path / "x.keras").distribution
        np.testing.assert_allclose(other.log_prob(x), expected, rtol=1e-5)
        np.testing.assert_allclose(other.sample(5, seed=(1, 2)), x, rtol=1e-5)
    again = tff.from_description(tff.describe(small(name, MIXED)))
    assert [v.shape for v in again.trainable_variables] == [v.shape for v in flow.trainable_variables][:-3] + [
        v.shape for v in again.trainable_variables
    ][len(flow.trainable_variables) - 3 :]


def test_a_phase_may_follow_a_conditioning_angle_once_around():
    """A phase that is a number could not: an angle that follows another would tear the density."""
    spline = tff.CircularSplineTransformer(4)
    angle = tf.constant(np.linspace(-math.pi, math.pi, 9))
    params = np.zeros([9, spline.params])
    params[:, -2:] = np.stack([np.cos(angle) - 1.0, np.sin(angle)], axis=1)
    y, _ = spline.forward(tf.zeros_like(angle), tf.constant(params))
    np.testing.assert_allclose(y, angle, atol=1e-12)
    params[:, -2:] = [-1.0, 0.0]
    params = tf.constant(params)
    with tf.GradientTape() as tape:
        tape.watch(params)
        y, log_slope = spline.forward(angle, params)
    assert np.all(np.isfinite(tape.gradient([y, log_slope], params)))


def test_a_fresh_flow_is_the_identity_on_angles():
    flow = tff.spline_coupling(3, support=["circle", "circle", "real"], seed=1, dtype=tf.float64)
    x = flow.sample(5000, seed=(1, 2))
    assert np.all(np.abs(x.numpy()[:, :2]) <= math.pi)
    assert np.max(np.abs(x[:, 2])) > 3.3
    expected = tfd.Normal(tf.zeros([], tf.float64), 1.0).log_prob(x[:, 2]) - 2.0 * math.log(2.0 * math.pi)
    np.testing.assert_allclose(flow.log_prob(x), expected, atol=1e-9)


def rows(n=600):
    rng = np.random.default_rng(1)
    x = [rng.lognormal(3.0, 0.2, n), 100.0 * rng.beta(2.0, 5.0, n), 1e3 + rng.normal(size=n)]
    return np.column_stack(x).astype("float32")


KINDS = ["array", "standardize", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dataset", "generator"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_fit_standardizes_the_unconstrained_values(kind):
    x, spec = rows(), ["positive", (0.0, 100.0), "real"]
    preprocess = tff.standardize(x) if kind == "standardize" else None
    flow = tff.maf(3, support=spec, preprocess=preprocess, num_layers=1, hidden_units=[4], seed=1)
    support = flow.bijector.bijectors[0]
    if kind == "standardize":  # known before `fit`, for training without `FlowModel`
        np.testing.assert_allclose(support.inverse(x).numpy().std(axis=0), 1.0, rtol=1e-3)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(x).batch(100) if kind == "dataset" else x
    if kind == "generator":
        model.adapt(x)
        data = ((x[i : i + 100],) for i in range(0, len(x), 100))
    model.fit(data, verbose=0, **({} if kind in ("dataset", "generator") else {"batch_size": 100}))
    assert support.adapted
    z = support.inverse(x).numpy()
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=2e-2)
    np.testing.assert_allclose(z.std(axis=0), 1.0, rtol=1e-2)
    before = support.shift.numpy().copy()
    model.fit(x[:100] * 2.0 % 100.0 + 1e-3, verbose=0)
    np.testing.assert_array_equal(support.shift, before)


def test_rows_outside_are_an_error_before_training_and_shares_need_no_warning(recwarn):
    x = rows()
    flow = tff.maf(3, support=["positive", (0.0, 100.0), "real"], num_layers=1, hidden_units=[4], seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer="adam", jit_compile=False)
    x[17, 1] = 100.0
    message = r"`x` has 100\.0 in row 17, column 1, on or outside of the bounds \(0, 100\) of `support`.* \(1 such rows"
    for data in (x, tf.data.Dataset.from_tensor_slices(x).batch(50)):
        with pytest.raises(ValueError, match=message):
            model.fit(data, verbose=0)
    with pytest.raises(ValueError, match=r"`data` has 100\.0 in row 17, column 1"):
        tff.maf(3, support=["positive", (0.0, 100.0), "real"], preprocess=tff.standardize(x))
    assert not flow.bijector.bijectors[0].adapted
    clip = tff.Support(3, ["positive", (0.0, 100.0), "real"], clip=1e-3)
    model = tff.FlowModel(tff.maf(3, support=clip, num_layers=1, hidden_units=[4], seed=1))
    model.compile(optimizer="adam", jit_compile=False)
    model.fit(x, verbose=0)
    shares = np.random.default_rng(0).dirichlet([2.0, 3.0, 4.0], size=200).astype("float32")
    model = tff.FlowModel(tff.maf(3, support="simplex", num_layers=1, hidden_units=[4], seed=1))
    model.compile(optimizer="adam", jit_compile=False)
    model.fit(shares, verbose=0)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_arguments_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="`preprocess` must be standardize"):
        tff.maf(2, support="positive", preprocess=tfb.Exp())
    with pytest.raises(ValueError, match="`preprocess` standardizes 2 columns, the flow has 3"):
        tff.maf(3, support="simplex", preprocess=tff.standardize(rows()[:, :2]))
    with pytest.raises(ValueError, match="`support` must be for 3 columns in float32, got a Support for 2"):
        tff.maf(3, support=tff.Support(2, "positive"))
    with pytest.raises(ValueError, match="`normalization` must be None with angles"):
        tff.maf(2, support="circle", normalization="actnorm")
    with pytest.raises(ValueError, match="`circular_inputs` must be indices of 2 inputs"):
        tff.masked_autoregressive_template([4], event_size=2, circular_inputs=[2])


# --- trained densities against known entropies ---


def wrap(angle):
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


def winding(*concentrations):
    """Angles that follow each other: each is the one before, plus noise."""
    steps = [scipy.stats.vonmises(k) for k in concentrations]

    def draw(n, seed):
        rng = np.random.default_rng(seed)
        return wrap(3.0 + np.cumsum([step.rvs(n, random_state=rng) for step in steps], axis=0).T)

    def log_prob(x):
        differences = np.diff(x, axis=1, prepend=3.0)
        return sum(step.logpdf(d) for step, d in zip(steps, differences.T, strict=True))

    return draw, log_prob, sum(step.entropy() for step in steps)


def log_normal():
    mix = np.array([[1.0, 0.5], [0.0, 0.5]])
    z = scipy.stats.multivariate_normal(np.zeros(2), mix.T @ mix)
    draw = lambda n, seed: np.exp(z.rvs(n, random_state=seed))  # noqa: E731
    return draw, lambda x: z.logpdf(np.log(x)) - np.log(x).sum(axis=1), z.entropy()


def dirichlet(*concentrations):
    d = scipy.stats.dirichlet(concentrations)
    return (
        lambda n, seed: d.rvs(n, random_state=seed),
        lambda x: d.logpdf((x / x.sum(axis=1, keepdims=True)).T),
        d.entropy(),
    )


def truncated(low, high):
    t = scipy.stats.truncnorm(low, high)
    return lambda n, seed: t.rvs([n, 1], random_state=seed), lambda x: t.logpdf(x[:, 0]), t.entropy()


TARGETS = {
    "von_mises": (*winding(4.0), "circle"),
    "torus": (*winding(1.0, 5.0), "circle"),
    "torus_4": (*winding(1.0, 3.0, 5.0, 4.0), "circle"),
    "truncated": (*truncated(-1.0, 2.0), (-1.0, 2.0)),
    "log_normal": (*log_normal(), "positive"),
    "dirichlet": (*dirichlet(0.8, 2.0, 3.0, 5.0), "simplex"),
}


def trained(name, n=200_000, epochs=6):
    """Return a trained model, its divergence from the target in nats, and the error of the target's entropy by sampling."""
    draw, log_prob, entropy, support = TARGETS[name]
    x, held = draw(n, 1).astype("float32"), draw(200_000, 2)
    recipe = tff.spline_coupling if x.shape[1] in (2, 4) and name != "torus_4" else tff.spline_autoregressive
    flow = recipe(x.shape[1], support=support, seed=1)
    model = tff.FlowModel(flow)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, epochs * n // 256)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(x, batch_size=256, epochs=epochs, verbose=0)
    exact = log_prob(held)
    found = model.predict(held.astype("float32"), batch_size=8192, verbose=0).astype(np.float64)
    print(name, recipe.__name__, "divergence", np.mean(exact - found), "NLL", -np.mean(found), "entropy", entropy)
    return model, np.mean(exact - found), np.mean(exact) + entropy


def check_inside(model, support, n=1_000_000):
    x = model.sample(n, seed=5).numpy().astype(np.float64)
    assert np.all(np.isfinite(x))
    if support == "circle":
        assert np.all((x >= -math.pi) & (x < math.pi))
    elif support == "simplex":
        assert np.all(x > 0.0)
        assert np.max(np.abs(x.sum(axis=1) - 1.0)) < 1e-5
    else:
        low, high = (0.0, math.inf) if support == "positive" else support
        assert np.all((x > low) & (x < high))


def check_integral(model, support, resolution):
    """Integrate the density over the unconstrained values, or over one period of each angle, by the midpoint rule."""
    size = model.distribution.event_shape[0] - (support == "simplex")
    start, end = {"circle": (-math.pi, math.pi), "simplex": (-20.0, 8.0)}.get(support, (-14.0, 14.0))
    step = (end - start) / resolution
    u = start + step * (np.arange(resolution) + 0.5)
    grid = np.stack(np.meshgrid(*[u] * size), axis=-1).reshape(-1, size)
    if support == "circle":
        y, log_slope = grid, 0.0
    elif support == "positive":
        y, log_slope = np.exp(grid), grid.sum(axis=1)
    elif support == "simplex":
        log_y = scipy.special.log_softmax(np.pad(grid, [[0, 0], [0, 1]]), axis=1)
        y, log_slope = np.exp(log_y), log_y.sum(axis=1)
    else:
        share, width = scipy.special.expit(grid), support[1] - support[0]
        y, log_slope = support[0] + width * share, np.sum(np.log(width * share * (1.0 - share)), axis=1)
    log_prob = model.predict(y.astype("float32"), batch_size=65536, verbose=0).astype(np.float64)
    assert abs(np.sum(np.exp(log_prob + log_slope)) * step**size - 1.0) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_trained_densities_reach_the_entropy(name):
    model, divergence, error = trained(name)
    assert abs(error) < 0.02  # that of 200,000 rows
    assert -0.002 < divergence < 0.02
    check_inside(model, TARGETS[name][3])
    size = model.distribution.event_shape[0] - (name == "dirichlet")
    if size <= 3:
        check_integral(model, TARGETS[name][3], {1: 20_000, 2: 2000, 3: 200}[size])


@pytest.mark.slow
def test_samples_keep_the_tail_index_of_the_data():
    df, n = 2.0, 40_000
    x = np.random.default_rng(1).standard_t(df, size=[n, 2]).astype("float32")
    model = tff.FlowModel(tff.spline_autoregressive(2, base="student_t", seed=1))
    rate = keras.optimizers.schedules.CosineDecay(3e-3, 10 * n // 256)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(x, batch_size=256, epochs=10, verbose=0)
    np.testing.assert_allclose(np.exp(model.distribution.distribution.log_df), df, rtol=0.1)
    samples = np.abs(model.sample(1_000_000, seed=3).numpy().astype(np.float64))
    for column in samples.T:
        top = np.sort(column)[-2001:]
        assert abs(1.0 / np.mean(np.log(top[1:] / top[0])) / df - 1.0) < 0.1  # Hill's estimate


def test_tables_have_supports_too():
    rng = np.random.default_rng(1)
    columns = [rng.vonmises(2.0, 3.0, 40), rng.lognormal(3.0, 0.5, 40), *rng.dirichlet([2.0, 3.0], 40).T]
    x, support = np.column_stack(columns), ["circle", "positive", "simplex", "simplex"]
    flow = tff.table_flow(x, support=support, seed=1)
    assert np.all(np.isfinite(flow.log_prob(x.astype("float32"))))
    assert flow.distribution.base.inverse_df.shape == []
    y = flow.sample(100, seed=(1, 2)).numpy()
    assert np.all(y[:, 1:] > 0.0)
    np.testing.assert_allclose(y[:, 2] + y[:, 3], 1.0, rtol=1e-6)
    x[5, 1] = -1.0
    with pytest.raises(ValueError, match=r"`x` has -1\.0 in row 5, column 1"):
        tff.fit_table(x, support=support)


@pytest.mark.slow
def test_a_table_of_shares_is_fitted_in_folds():
    x = np.random.default_rng(1).dirichlet([2.0, 3.0, 4.0], 200)
    model, _ = tff.fit_table(x, support="simplex", seed=1, epochs=5)
    floor = scipy.stats.dirichlet([2.0, 3.0, 4.0]).entropy()
    held = np.random.default_rng(2).dirichlet([2.0, 3.0, 4.0], 5000)
    assert model.evaluate(held, verbose=0) < floor + 0.2
