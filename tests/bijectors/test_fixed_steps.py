"""Fixed-step solvers of continuous flows: their order, their number of evaluations, and what is saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.bijectors.composition import without_invert

tfb, tfd = tfp.bijectors, tfp.distributions


def layer(**options):
    options = {"hidden_units": [8], "seed": 1, "dtype": tf.float64, "rtol": 1e-9, "atol": 1e-9, **options}
    made = tff.ContinuousFlow(2, **options)
    testing.redraw_weights(made, seed=3)
    return made


@pytest.fixture(scope="module")
def exact():
    """A layer, points, and what the adaptive solver makes of them in both directions."""
    adaptive = layer()
    x = testing.draw_events([2], [20])
    return adaptive, x, {d: getattr(adaptive, f"{d}_and_log_det")(x) for d in ("forward", "inverse")}


@pytest.mark.parametrize(
    ("solver", "stages", "order"), [("euler", 1, 1), ("midpoint", 2, 2), ("heun", 2, 2), ("rk4", 4, 4)]
)
def test_values_and_log_dets_converge_with_the_order_of_the_method(exact, solver, stages, order):
    adaptive, x, solutions = exact
    for direction, expected in solutions.items():
        errors = []
        for num_steps in (4, 8):
            fixed = adaptive.with_solver(solver, num_steps)
            found = getattr(fixed, f"{direction}_and_log_det")(x)
            assert int(fixed.num_evaluations) == num_steps * stages
            errors.append([np.max(np.abs(a - b)) for a, b in zip(found, expected, strict=True)])
        assert np.all(np.log2(np.divide(*errors)) > order - 0.5), errors
        assert np.max(errors) < 0.2


def test_the_gradient_is_that_of_differences():
    fixed, x = layer(solver="midpoint", num_steps=3), testing.draw_events([2], [20])
    weights = fixed.trainable_variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fixed.inverse_and_log_det(x)[1])
    gradient = tape.gradient(loss, weights)
    rng, losses = np.random.default_rng(0), []
    direction = [rng.standard_normal(w.shape) for w in weights]
    for step in (1e-5, -2e-5):
        for weight, each in zip(weights, direction, strict=True):
            weight.assign_add(step * each)
        losses.append(float(tf.reduce_sum(fixed.inverse_and_log_det(x)[1])))
    expected = sum(np.sum(g * d) for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose((losses[0] - losses[1]) / 2e-5, expected, rtol=1e-6)


def test_a_linear_equation_is_solved_as_by_hand():
    """`dx/dt = -x` over two midpoint steps of 1/2 multiplies by (1 - h + h^2 / 2)^2, and the trace is -2."""

    class Decay(keras.layers.Layer):
        def call(self, x, given):
            return -x

    fixed = tff.ContinuousFlow(2, network=Decay(dtype="float64"), solver="midpoint", num_steps=2, dtype=tf.float64)
    y, log_det = fixed.forward_and_log_det(tf.constant([[1.0, -2.0]], tf.float64))
    np.testing.assert_allclose(y, np.array([[1.0, -2.0]]) * 0.625**2)
    np.testing.assert_allclose(log_det, [-2.0])


def test_hutchinson_conditions_and_the_saved_solver(tmp_path):
    flow = tff.continuous_flow(3, hidden_units=[6], num_frequencies=2, trace="hutchinson", conditional_size=2, seed=1)
    testing.redraw_weights(flow, seed=2, scale=0.3)
    x, c = np.ones([5, 3], np.float32), np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 1]]
    fast = tff.with_solver(flow, "midpoint", 3)
    before = fast.log_prob(x, conditional_input=c)
    assert np.all(np.isfinite(before))
    tff.FlowModel(fast).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").distribution
    solver = loaded.bijector.bijectors[0]
    assert (solver.solver, solver.num_steps, float(solver.num_evaluations)) == ("midpoint", 3, 6.0)
    np.testing.assert_array_equal(loaded.log_prob(x, conditional_input=c), before)


def test_the_new_solver_shares_the_weights():
    flow = tff.continuous_flow(2, hidden_units=[6], num_frequencies=1, preprocess=tff.ActNorm(2), seed=1)
    fast = tff.with_solver(flow, "heun", 10)
    testing.redraw_weights(flow, seed=2)
    np.testing.assert_allclose(fast.sample(20, seed=[1, 2]), flow.sample(20, seed=[1, 2]), atol=0.05)
    assert {id(v) for v in fast.trainable_variables} == {id(v) for v in flow.trainable_variables}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layer(solver="rk5"), "`solver` must be one of"),
        (lambda: layer(solver="rk4"), "`num_steps` must be an integer"),
        (lambda: layer(num_steps=4), "`num_steps` must be None"),
        (lambda: layer(num_frequencies=-1), "`num_frequencies`"),
        (lambda: tff.with_solver(tff.maf(2), "rk4", 4), "`flow` must have a ContinuousFlow"),
        (lambda: tff.VelocityUNet((5, 4, 1)), "divisible by 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_another_solver_reaches_inverted_layers_and_keeps_tolerances():
    base = tfd.MultivariateNormalDiag(tf.zeros(2, tf.float64))
    flow = tff.FlowDistribution(base, tfb.Chain([tfb.Invert(layer(rtol=1e-6)), layer(rtol=1e-7, atol=1e-8)]))
    fast = tff.with_solver(flow, "euler", 3)
    assert [without_invert(part).solver for part in fast.bijector.bijectors] == ["euler", "euler"]
    again = tff.with_solver(fast, "dormand_prince")
    x = testing.draw_events([2], [4])
    np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))
    assert np.max(np.abs(fast.log_prob(x) - flow.log_prob(x))) > 1e-4
