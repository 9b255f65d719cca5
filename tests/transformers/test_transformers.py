"""The univariate transformers, apart from any network."""

import pathlib

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from cases import TRANSFORMERS

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.numerics import lower_normal_tail, normal_quantile
from tfp_flows.transformers import quantile_spline, spline

tfb, tfd = tfp.bijectors, tfp.distributions
by_name = pytest.mark.parametrize("name", TRANSFORMERS)


def draw(transformer, n=300, scale=1.5, spread=3.0, dtype=tf.float64, seed=0):
    rng = np.random.default_rng(seed)
    params = tf.constant(scale * rng.normal(size=[n, transformer.params]), dtype)
    return tf.constant(spread * rng.normal(size=n), dtype), params


@by_name
def test_it_can_be_saved_and_has_a_row_on_its_page(name):
    made = tff.masked_autoregressive_template([4], event_size=2, transformer=TRANSFORMERS[name], seed=1)
    flow = tff.FlowDistribution(
        tfp.distributions.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)),
        tff.MaskedAutoregressiveFlow(bijector_fn=made),
    )
    again = tff.from_description(tff.describe(flow))
    assert again.bijector._conditioner.transformer == TRANSFORMERS[name]
    page = pathlib.Path(__file__).parents[2] / "docs" / "flows" / "transformers.md"
    assert f"`{type(TRANSFORMERS[name]).__name__}" in page.read_text(encoding="utf-8")


@by_name
def test_round_trip_and_log_det(name):
    t = TRANSFORMERS[name]
    x, params = draw(t)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y, log_slope = t.forward(x, params)
    np.testing.assert_allclose(log_slope, np.log(tape.gradient(y, x)), atol=1e-9)
    with tf.GradientTape() as tape:
        tape.watch(y)
        back, log_inverse = t.inverse(y, params)
    slope = tape.gradient(back, y)
    assert np.all(slope > 0)
    np.testing.assert_allclose(log_inverse, np.log(slope), atol=1e-9)
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(log_inverse, -log_slope, atol=1e-9)
    # The other order; where the map is flat, as between two narrow Gaussians, rounding of the image moves the result.
    z, log_slope = t.inverse(x, params)
    assert np.all(np.abs(t.forward(z, params)[0] - x) <= 1e-10 + 1e-14 * np.exp(-log_slope))


@by_name
def test_gradients_of_the_solved_direction_are_those_of_the_closed_one(name):
    """`d forward / d params = -(d inverse / d params) / (d inverse / d y)` at the solution."""
    t = TRANSFORMERS[name]
    x, params = draw(t, n=40)
    with tf.GradientTape() as tape:
        tape.watch(params)
        y, _ = t.forward(x, params)
    direct = tape.gradient(y, params)
    y = tf.identity(y)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([y, params])
        back, _ = t.inverse(y, params)
    implicit = -tape.gradient(back, params) / tape.gradient(back, y)[:, None]
    np.testing.assert_allclose(direct, implicit, rtol=1e-7, atol=1e-8)


@by_name
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_finite_everywhere(name, dtype):
    """Values and gradients, far outside of where the parameters put the action, and for extreme parameters."""
    t = TRANSFORMERS[name]
    x = tf.constant([-1e6, -300.0, -4.0, -1e-30, 0.0, 1e-30, 4.0, 300.0, 1e6] * 3, dtype)
    params = tf.repeat(tf.constant([[0.0], [30.0], [-30.0]], dtype), 9, axis=0) * tf.constant(
        np.random.default_rng(0).normal(size=[27, t.params]), dtype
    )
    for fn in (t.inverse, t.forward):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, params])
            y, log_slope = fn(x, params)
            total = tf.reduce_sum(log_slope)
        results = [y, log_slope, tape.gradient(y, params), tape.gradient(total, params), tape.gradient(y, x)]
        for result in results:
            assert result is None or np.all(np.isfinite(result)), fn


@pytest.mark.parametrize("name", ["affine", "shift", "spline", "bernstein", "circular_spline"])
def test_zero_parameters_are_the_identity(name):
    t = TRANSFORMERS[name]
    x, params = draw(t, scale=0.0)
    for fn in (t.forward, t.inverse):
        y, log_slope = fn(x, params)
        np.testing.assert_allclose(y, x, atol=1e-12)
        np.testing.assert_allclose(log_slope, 0.0, atol=1e-12)


@pytest.mark.parametrize("bound", [None, 5.0])
def test_affine_parameters_are_the_shift_and_then_the_log_scale(bound):
    """The order of TFP's `shift_and_log_scale_fn`; the bound is for the log-scale alone."""
    t = tff.AffineTransformer(log_scale_bound=bound)
    x, log_scale = tf.constant([0.5, 0.5, -2.0], tf.float64), np.array([0.0, np.log(2.0), 0.7])
    shift = np.array([3.0, 0.0, 100.0])
    bounded = log_scale if bound is None else tff.bound_log_scale(tf.constant(log_scale), bound).numpy()
    y, log_slope = t.forward(x, tf.constant(np.stack([shift, log_scale], axis=-1)))
    np.testing.assert_allclose(y, x * np.exp(bounded) + shift, rtol=1e-12)
    np.testing.assert_allclose(log_slope, bounded, rtol=1e-12)


@pytest.mark.parametrize("name", ["deep_sigmoidal", "gaussian_mixture"])
def test_units_differ_at_zero_parameters(name):
    """Else they would get the same gradient for ever."""
    t = TRANSFORMERS[name]
    params = tf.zeros([1, t.params], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(params)
        x, _ = t.inverse(tf.constant([0.7], tf.float64), params)
    gradient = np.round(tape.gradient(x, params).numpy().ravel(), 12)
    assert len(np.unique(gradient)) > t.params // 2
    x, _ = t.inverse(tf.constant(np.linspace(-2, 2, 9)), tf.zeros([9, t.params], tf.float64))
    np.testing.assert_allclose(x, np.linspace(-2, 2, 9), atol=0.7)


def test_spline_is_that_of_tfp():
    k, bound = 6, 4.0
    t = tff.SplineTransformer(k, bound)
    y, params = draw(t, n=50)
    _, widths = spline.knots(params[:, :k], bound)
    _, heights = spline.knots(params[:, k : 2 * k], bound)
    slopes = 1e-3 + tf.math.softplus(params[:, 2 * k :] + np.log(np.expm1(1 - 1e-3)))
    theirs = tfb.RationalQuadraticSpline(widths, heights, slopes, range_min=-bound)
    x, log_slope = t.inverse(y, params)
    np.testing.assert_allclose(x, theirs.forward(y), rtol=1e-9)
    np.testing.assert_allclose(log_slope, theirs.forward_log_det_jacobian(y, event_ndims=0), atol=1e-9)


def test_spline_is_smooth_at_its_knots_and_linear_outside():
    t = tff.SplineTransformer(4, 2.0)
    _, params = draw(t, n=1, seed=5)
    edges = np.array([-2.0, 2.0])
    inside, outside = tf.constant(edges * (1 - 1e-9)), tf.constant(edges * (1 + 1e-9))
    for fn in (t.forward, t.inverse):
        (a, da), (b, db) = fn(inside, tf.repeat(params, 2, 0)), fn(outside, tf.repeat(params, 2, 0))
        np.testing.assert_allclose(a, b, atol=1e-7)
        np.testing.assert_allclose(da, db, atol=1e-6)
    y = tf.constant(np.linspace(-3, 3, 20_001))
    _, log_slope = t.inverse(y, tf.repeat(params, len(y), 0))
    assert np.max(np.abs(np.diff(log_slope))) < 0.05  # no jump of the derivative at any knot


def test_mixture_of_gaussians_is_that_of_tfp():
    t = tff.GaussianMixtureTransformer(3)
    y, params = draw(t, n=60)
    log_weight, log_scale, shift = t.split(params)
    sigma = tf.exp(-log_scale)
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=log_weight), tfd.Normal(-shift * sigma, sigma))
    x, log_slope = t.inverse(y, params)
    normal = tfd.Normal(tf.zeros([], tf.float64), 1.0)
    np.testing.assert_allclose(normal.log_prob(x) + log_slope, mixture.log_prob(y), atol=1e-10)
    np.testing.assert_allclose(normal.cdf(x), mixture.cdf(y), atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 4e-6), (tf.float64, 1e-13)])
def test_normal_tail_and_quantile(dtype, tolerance):
    z = -np.geomspace(1e-6, 1e4, 500).astype(dtype.as_numpy_dtype)
    log_phi, mills = lower_normal_tail(tf.constant(z))
    exact = z.astype(np.float64)
    np.testing.assert_allclose(log_phi, scipy.stats.norm.logcdf(exact), rtol=tolerance)
    np.testing.assert_allclose(mills, np.sqrt(np.pi / 2) * scipy.special.erfcx(-exact / np.sqrt(2)), rtol=tolerance)
    x = np.linspace(-30, 30, 401)
    logs = [tf.constant(f(x), dtype) for f in (scipy.stats.norm.logcdf, scipy.stats.norm.logsf)]
    np.testing.assert_allclose(normal_quantile(*logs), x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("num_components", [1, 2, 3])
def test_the_median_of_a_mixture_has_a_slope(num_components):
    """Clipping and `abs` have no gradient where both tails are one half, or where a component is hit in its center."""
    t = tff.GaussianMixtureTransformer(num_components)
    y, params = tf.zeros([1], tf.float64), tf.zeros([1, t.params], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(y)
        x, log_slope = t.inverse(y, params)
    np.testing.assert_allclose(tape.gradient(x, y), np.exp(log_slope), rtol=1e-12)


@by_name
def test_as_a_bijector_of_tfp(name):
    t = TRANSFORMERS[name]
    x, params = draw(t, n=4)
    bijector = t(params)
    y = bijector.forward(tf.stack([x, x]))  # broadcasts
    assert y.shape == (2, 4)
    np.testing.assert_allclose(bijector.inverse(tf.identity(y))[1], x, atol=1e-9)
    there = bijector.forward_log_det_jacobian(x, event_ndims=0)
    np.testing.assert_allclose(bijector.inverse_log_det_jacobian(tf.identity(y[0]), event_ndims=0), -there, atol=1e-9)
    with pytest.raises(ValueError, match=str(t.params)):
        t(params[:, 1:])


@by_name
@pytest.mark.parametrize("flow", [tff.RealNVP, tfb.RealNVP])
def test_in_a_coupling_layer(name, flow):
    """The registry has them all in autoregressive layers."""
    template = tff.real_nvp_template(
        [8], input_units=1, output_units=2, transformer=TRANSFORMERS[name], activation="tanh", dtype=tf.float64, seed=1
    )
    testing.redraw_weights(template)
    argument = "shift_and_log_scale_fn" if name in ("affine", "shift") else "bijector_fn"
    bijector, x = flow(num_masked=1, **{argument: template}), testing.draw_events([3])
    testing.check_moves(bijector, x)
    testing.check_round_trip(bijector, x)
    testing.check_log_det(bijector, x)


@by_name
def test_equal_ones_are_equal_and_hashable(name):
    t = TRANSFORMERS[name]
    twin = type(t)(**{f: getattr(t, f) for f in t.__dataclass_fields__})
    assert t == twin
    assert hash(t) == hash(twin)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: tff.AffineTransformer(0.0), "log_scale_bound"),
        (lambda: tff.SplineTransformer(0), "num_bins"),
        (lambda: tff.SplineTransformer(1000), "num_bins"),
        (lambda: tff.SplineTransformer(8, -1.0), "bound"),
        (lambda: tff.DeepSigmoidalTransformer(0), "num_units"),
        (lambda: tff.DeepSigmoidalTransformer(2, 0), "num_layers"),
        (lambda: tff.GaussianMixtureTransformer(1.5), "num_components"),
        (lambda: tff.real_nvp_template([4], transformer="spline", input_units=1, output_units=1), "transformer"),
        (lambda: tff.masked_autoregressive_template([4], event_size=2, transformer=3), "transformer"),
        (lambda: tff.spline_coupling(2, bound=float("inf")), "bound"),
        (lambda: tff.maf(2, mixing="shuffle"), "mixing"),
        (lambda: tff.real_nvp(2, normalization="layer"), "normalization"),
    ],
)
def test_bad_arguments_are_named(make, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        make()


@pytest.mark.parametrize("make", [tff.GaussianMixtureTransformer, tff.QuantileSplineTransformer])
def test_a_fit_does_not_depend_on_the_order_of_many_rows(make):
    x = np.sort(np.random.default_rng(1).normal(size=[30_000, 1]), axis=0)
    t = make(4)
    z, _ = t.inverse(tf.constant(x), tf.constant(t.adapt(x)))
    np.testing.assert_allclose([np.mean(z), np.std(z)], [0.0, 1.0], atol=0.02)


def test_a_quantile_spline_is_straight_beyond_about_the_fifth_row_from_each_end():
    x = np.sort(np.random.default_rng(1).normal(size=[10_000, 1]), axis=0)
    t = tff.QuantileSplineTransformer(30)
    _, log_slope = t.inverse(tf.constant(x), tf.constant(t.adapt(x)))
    for slope in (log_slope.numpy()[:, 0], log_slope.numpy()[::-1, 0]):
        np.testing.assert_allclose(slope[:4], slope[0], rtol=1e-12)
        assert np.abs(slope[8] - slope[0]) > 1e-4


def test_the_normal_quantile_has_two_derivatives():
    """Derivatives by the logarithm of the smaller tail: `m` and `m (1 + x m)`, with Mills' ratio `m` at the quantile `x`."""
    x = np.array([-30.0, -8.0, -2.0, -0.5])
    lower, upper = tf.constant(scipy.stats.norm.logcdf(x)), tf.constant(scipy.stats.norm.logsf(x))
    with tf.GradientTape() as outer:
        outer.watch(lower)
        with tf.GradientTape() as inner:
            inner.watch(lower)
            quantile = normal_quantile(lower, upper)
        first = inner.gradient(quantile, lower)
    mills = np.sqrt(np.pi / 2) * scipy.special.erfcx(-x / np.sqrt(2))
    np.testing.assert_allclose(first, mills, rtol=1e-10)
    np.testing.assert_allclose(outer.gradient(first, lower), mills * (1.0 + x * mills), rtol=1e-6)


def test_a_quantile_spline_maps_quantiles_to_those_of_the_normal_distribution():
    x = np.random.default_rng(1).exponential(size=[10_000, 1])
    t = tff.QuantileSplineTransformer(30)
    z = quantile_spline._knots(30, len(x))
    found, _ = t.inverse(tf.constant(np.quantile(x, scipy.stats.norm.cdf(z)))[:, None], tf.constant(t.adapt(x)))
    np.testing.assert_allclose(found[:, 0], z, atol=1e-9)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_xla_sees_one_seam(direction):
    """XLA rounds copies of an operation in different ways, and none of them may see the other side."""
    t = tff.CircularSplineTransformer(5)
    edges = np.pi * np.array([[-3.0], [-1.0], [1.0], [3.0]]) * (1.0 + 1e-7 * np.arange(-8, 9))
    x, params = tf.constant(edges.ravel(), tf.float32), draw(t, n=edges.size, scale=0.5, dtype=tf.float32)[1]
    if direction == "inverse":
        x += t._phase(params)
    fn = getattr(t, direction)
    (y, log_slope), (exact, exact_slope) = tf.function(fn, jit_compile=True)(x, params), fn(x, params)
    turns = (y - exact) / (2.0 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-5)  # both sides are one point
    np.testing.assert_allclose(log_slope, exact_slope, atol=1e-3)
