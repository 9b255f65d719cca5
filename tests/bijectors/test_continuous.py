"""Continuous flows: what their solver, trace and gradients promise."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows as tff
from tfp_flows import testing

MOONS = tff.data.moons()


def gradient(layer, x, **condition):
    with tf.GradientTape() as tape:
        x = tf.identity(x)  # else TFP's cache answers in eager mode, without a gradient
        loss = tf.reduce_mean(layer.inverse_log_det_jacobian(x, event_ndims=1, **condition))
        loss += tf.reduce_mean(layer.forward_log_det_jacobian(2.0 * x, event_ndims=1, **condition))
    return tape.gradient(loss, layer.trainable_variables)


@pytest.mark.parametrize(
    ("trace", "conditional_size"),
    [pytest.param(*case, marks=pytest.mark.slow) for case in (("exact", None), ("hutchinson", 3))],
)
def test_gradients_of_graph_and_eager_mode_agree(trace, conditional_size):
    """In whatever order: TensorFlow's own gradient of one traced function is NaN for the second of these callers."""
    layer = tff.ContinuousFlow(
        2, hidden_units=[6], trace=trace, conditional_size=conditional_size, seed=1, dtype=tf.float64
    )
    testing.redraw_weights(layer, seed=2)
    x = testing.draw_events([2])
    condition = {"conditional_input": testing.draw_events([3], seed=7)} if conditional_size else {}
    compiled = tf.function(lambda: gradient(layer, x, **condition))
    for found in (compiled(), gradient(layer, x, **condition)):
        for a, b in zip(found, gradient(layer, x, **condition), strict=True):
            assert np.all(np.isfinite(a))
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_the_estimated_trace_is_unbiased_and_repeats():
    """Over many batches its mean is the exact trace; for one batch it is the same each time. A bad row costs that row."""
    layers = [
        tff.ContinuousFlow(3, hidden_units=[6], trace=trace, seed=1, dtype=tf.float64)
        for trace in ("exact", "hutchinson")
    ]
    for layer in layers:
        testing.redraw_weights(layer, seed=2, scale=0.6)
    row = np.array([0.3, -0.8, 1.1])
    x = tf.constant(np.tile(row, [4000, 1]))  # each row has signs of its own
    exact, estimated = (layer.inverse_log_det_jacobian(x, event_ndims=1).numpy() for layer in layers)
    assert np.ptp(exact) < 1e-9
    assert np.std(estimated) > 1e-3
    assert abs(np.mean(estimated) - exact[0]) < 4.0 * np.std(estimated) / np.sqrt(4000) + 1e-4
    np.testing.assert_array_equal(estimated, layers[1].inverse_log_det_jacobian(tf.identity(x), event_ndims=1))
    broken = np.where(np.arange(4000)[:, np.newaxis] == 7, np.inf, x)
    found = layers[0].inverse_log_det_jacobian(tf.constant(broken), event_ndims=1).numpy()
    np.testing.assert_allclose(found, np.where(np.arange(4000) == 7, np.nan, exact), atol=1e-3)


def test_tolerances_and_evaluations():
    """Tighter tolerances take more evaluations, and bring the round trip closer."""
    errors, evaluations = [], []
    for tolerance in (1e-3, 1e-8):
        layer = tff.ContinuousFlow(2, hidden_units=[8], rtol=tolerance, atol=tolerance, seed=1, dtype=tf.float64)
        testing.redraw_weights(layer, seed=3, scale=1.5)
        x = testing.draw_events([2], [50])
        errors.append(float(np.max(np.abs(layer.inverse(layer.forward(x) + 0.0) - x))))
        evaluations.append(float(layer.num_evaluations))
    assert errors[1] < 1e-5 < errors[0] < 0.1
    assert evaluations[0] < evaluations[1]
    assert layer.num_evaluations.name == "num_evaluations:0"


def test_condition_has_the_gradient_of_differences():
    flow = tff.continuous_flow(2, hidden_units=[6], conditional_size=2, rtol=1e-9, atol=1e-9, seed=1, dtype=tf.float64)
    testing.redraw_weights(flow, seed=8)
    x, c = testing.draw_events([2]), testing.draw_events([2], seed=9)
    with tf.GradientTape() as tape:
        tape.watch(c)
        log_prob = flow.log_prob(x, conditional_input=c)
    found = tape.gradient(log_prob, c)[:, 0]
    up, down = (flow.log_prob(x, conditional_input=c + [[h, 0.0]]) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(found, (up - down) / 2e-5, rtol=1e-5, atol=1e-7)


def test_density_integrates_to_one_and_a_fit_moves_every_weight():
    flow = tff.continuous_flow(2, hidden_units=[8], seed=3)
    testing.redraw_weights(flow, seed=8)
    testing.check_normalized(flow, resolution=200)
    testing.check_fit_moves_every_weight(flow, tff.data.banana().sample(256, seed=1))
    testing.check_normalized(flow, resolution=200)  # trained, it still does


@pytest.mark.parametrize("argument", ["rtol", "atol", "trace", "max_num_steps", "event_size"])
def test_bad_arguments_are_named(argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        tff.continuous_flow(**{"event_size": 2, argument: 0})


@pytest.mark.slow
def test_two_moons():
    """Within 0.1 nats of the floor by `FlowModel.fit`; and a second `fit`, a new graph, goes on from there."""
    x, test = MOONS.sample(12_800, seed=0), MOONS.sample(20_000, seed=2).astype("float32")
    model = tff.FlowModel(tff.continuous_flow(2, preprocess=tff.standardize(x), seed=1))
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 1000)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(x, batch_size=512, epochs=40, verbose=0)
    floor = -np.mean(MOONS.log_prob(test))
    first = -np.mean(model.log_prob(test)) - floor
    assert -0.01 < first < 0.1
    model.compile(keras.optimizers.Adam(1e-4))
    model.fit(x, batch_size=500, epochs=1, steps_per_epoch=7, verbose=0)
    assert -np.mean(model.log_prob(test)) - floor < first + 0.05


@pytest.mark.parametrize(("size", "exact"), [(8, True), (9, False)])
def test_the_trace_is_exact_up_to_eight_dimensions_by_default(size, exact):
    layers = [tff.ContinuousFlow(size, hidden_units=[4], trace=trace, seed=1) for trace in ("auto", "exact")]
    for layer in layers:
        testing.redraw_weights(layer, seed=2)
    y = tf.constant(np.random.default_rng(0).normal(size=[20, size]), tf.float32)
    found, expected = (layer.inverse_log_det_jacobian(y, event_ndims=1).numpy() for layer in layers)
    assert (np.max(np.abs(found - expected)) < 1e-5) == exact
