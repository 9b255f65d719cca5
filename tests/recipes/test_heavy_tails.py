"""Numbers that a density meets in the wild: heavy tails, far points, half precision. No NaN, and no lost digits."""

import inspect
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.recipes.recipe import RECIPES
from tfp_flows.testing import redraw_weights

TABULAR = sorted(set(RECIPES) - {"glow", "image_real_nvp"})


def student_t(degrees, rows, size=2):
    """Samples of Student's t, up to 1e8 (where those of one degree of freedom end up now and then)."""
    rng = np.random.default_rng(degrees)
    x = np.clip(rng.standard_t(degrees, size=[rows, size]), -1e8, 1e8)
    x[rows // 2], x[rows // 3] = 1e8, -1e8
    return x.astype(np.float32)


def train(name, degrees, steps, **options):
    x = student_t(degrees, 25_600)
    model = tff.FlowModel(RECIPES[name](2, seed=1, **options))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=steps > 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which say that the data are not standardized
        history = model.fit(
            x, batch_size=128, steps_per_epoch=min(steps, 200), epochs=-(-steps // 200), verbose=0
        ).history
    assert int(model.optimizer.iterations.numpy()) == steps
    assert np.all(np.isfinite(history["loss"]))
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    assert np.all(np.isfinite(model.log_prob(x)))


@pytest.mark.parametrize(("name", "degrees"), [("real_nvp", 2), ("maf", 1), ("spline_coupling", 1), ("planar_flow", 1)])
def test_two_hundred_steps_on_heavy_tails(name, degrees):
    train(name, degrees, 200, num_layers=2)


def test_a_gradient_whose_square_overflows_is_scaled_down_and_told():
    """Keras' Adam would have infinite moments, and at the next step a NaN in every weight."""
    flow = tfp.distributions.TransformedDistribution(
        tfp.distributions.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)),
        tfp.bijectors.Shift(tf.Variable([0.0, 0.0])),
    )
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    x = np.zeros([64, 2], np.float32)
    x[1] = [3e18, 1e18]
    with pytest.warns(UserWarning, match=r"A gradient of 4.*e\+1.*global_clipnorm"):
        model.fit(x[:2], batch_size=1, epochs=10, shuffle=False, verbose=0)
    assert np.all(np.isfinite(model.get_weights()[0]))
    assert np.all(model.get_weights()[0] > 0.0)
    assert all(np.all(np.isfinite(v.numpy())) for v in model.optimizer.variables)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [1, 2])
@pytest.mark.parametrize("name", TABULAR)
def test_ten_thousand_steps_on_heavy_tails(name, degrees):
    train(name, degrees, 10_000)


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def own_network():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(2)])
    layers = [tff.RealNVP(1, shift_and_log_scale_fn=net)]
    base = tfp.distributions.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
    return tfp.distributions.TransformedDistribution(base, tfp.bijectors.Chain(layers))


MIXED = {
    "own": own_network,
    "real_nvp": lambda: tff.real_nvp(2, num_layers=2, hidden_units=[32], seed=1),
    "spline_coupling": lambda: tff.spline_coupling(2, num_layers=2, hidden_units=[32], seed=1),
    "maf": lambda: tff.maf(2, num_layers=2, hidden_units=[32], seed=1),
    "image": lambda: tff.image_real_nvp((4, 4, 1), num_scales=1, num_couplings=1, filters=8, num_blocks=1, seed=3),
}


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, "mixed_float16") for name in MIXED),
        *(
            (name, "mixed_bfloat16") if name == "own" else pytest.param(name, "mixed_bfloat16", marks=pytest.mark.slow)
            for name in MIXED
        ),
    ],
    indirect=["policy"],
)
def test_mixed_precision_trains_with_log_dets_in_float32(policy, name):
    flow = MIXED[name]()
    size = flow.event_shape.as_list()
    model = tff.FlowModel(flow)
    half = {layer.dtype_policy.name for layer in model._networks}
    # What sampling computes in another order than density, unit by unit, stays in float32.
    assert half == ({"float32"} if name == "maf" else {policy})
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16" and name != "maf")
    rng = np.random.default_rng(0)
    x = (0.5 + 0.1 * rng.normal(size=[512, *size])).astype(np.float32)
    history = model.fit(x, batch_size=64, epochs=6, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.02
    assert all(w.dtype == "float32" for w in model.trainable_weights)
    z = flow.bijector.inverse(x)
    log_det = flow.bijector.inverse_log_det_jacobian(tf.identity(x), event_ndims=len(size))
    assert log_det.dtype == z.dtype == tf.float32
    np.testing.assert_allclose(flow.bijector.forward(tf.identity(z)), x, atol=2e-4)
    # In float32, and not numbers of a half that were cast at the end: half ones have 11 bits at most.
    digits = np.asarray(log_det).ravel()
    assert name == "own" or np.mean(digits.astype(np.float16).astype(np.float32) == digits) < 0.2


@pytest.mark.parametrize("name", TABULAR)
def test_float32_agrees_with_float64_within_twenty_deviations(name):
    """Weights redrawn; the error counts against the size of the log-density where that is large."""
    known = inspect.signature(RECIPES[name]).parameters
    options = {key: value for key, value in {"hidden_units": [16], "num_layers": 2}.items() if key in known}
    flows = [RECIPES[name](3, dtype=dtype, seed=1, **options) for dtype in (tf.float32, tf.float64)]
    redraw_weights(flows[1], seed=3, scale=0.2)
    for narrow, exact in zip(flows[0].trainable_variables, flows[1].trainable_variables, strict=True):
        narrow.assign(tf.cast(exact, tf.float32))
        exact.assign(tf.cast(narrow, tf.float64))  # the same numbers, so that only the computation differs
    directions = np.random.default_rng(4).normal(size=[500, 3])
    x = directions / np.linalg.norm(directions, axis=1, keepdims=True) * np.linspace(0, 20, 500)[:, None]
    x = x.astype(np.float32)
    narrow, exact = flows[0].log_prob(x).numpy(), flows[1].log_prob(x.astype(np.float64)).numpy()
    error = np.abs(narrow - exact) / np.maximum(1.0, np.abs(exact))
    assert np.max(error) < 1e-4, f"{np.max(error)} at {x[np.argmax(error)]}"
