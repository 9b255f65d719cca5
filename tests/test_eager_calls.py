"""Eager calls of flows: as a graph, and with the numbers of the eager code."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.eager_calls import CALLS_BEFORE_TRACING, EagerCalls, is_traceable
from tfp_flows.graphs import Graphs

tfb, tfd = tfp.bijectors, tfp.distributions
X = tf.constant(np.random.default_rng(0).standard_normal([5, 2]), tf.float32)
MANY = CALLS_BEFORE_TRACING + 2


def traces(flow):
    return len(flow._density.graphs)


def repeat(call):
    """Results of calls before and after the graph is traced."""
    return [np.asarray(call()) for _ in range(MANY)]


@pytest.mark.parametrize(
    "recipe",
    [
        tff.maf,
        tff.real_nvp,
        tff.planar_flow,
        tff.spline_coupling,
        pytest.param(tff.continuous_flow, marks=pytest.mark.slow),
    ],
)
def test_numbers_stay_the_same_and_few_graphs_serve_all_sizes(recipe):
    flow = recipe(2, num_layers=1 if recipe is tff.continuous_flow else 2, seed=1)
    first, *_, last = repeat(lambda: flow.log_prob(X))
    assert traces(flow) == 1
    np.testing.assert_allclose(first, last, rtol=1e-5)
    for rows in (1, 3, 7, 9):
        wanted = flow._density_of(tf.tile(X, [2, 1])[:rows], {})
        np.testing.assert_allclose(flow.log_prob(tf.tile(X, [2, 1])[:rows]), wanted, rtol=1e-5)
    assert traces(flow) == 1
    assert flow.log_prob(X[0]).shape == []
    assert flow.log_prob(X[tf.newaxis]).shape == [1, 5]
    assert traces(flow) == 3
    samples = repeat(lambda: flow.sample(4, seed=tf.constant([1, 2])))
    np.testing.assert_allclose(samples[0], samples[-1], rtol=1e-4, atol=1e-5)
    assert flow.sample([3, 2]).shape == [3, 2, 2]
    assert flow.sample().shape == [2]


def test_weights_may_change_between_calls():
    flow = tff.maf(2, num_layers=2, seed=1)
    before = repeat(lambda: flow.log_prob(X))[-1]
    for v in flow.trainable_variables:
        v.assign(v + 0.1)
    assert np.abs(flow.log_prob(X) - before).max() > 1e-2
    np.testing.assert_allclose(flow.log_prob(X), flow._density_of(X, {}), rtol=1e-5)


def test_under_a_tape_and_a_forward_accumulator_gradients_are_right():
    flow = tff.planar_flow(2, num_layers=2, seed=1)
    repeat(lambda: flow.log_prob(X))
    with tf.GradientTape() as tape:
        tape.watch(X)
        loss = tf.reduce_sum(flow.log_prob(X))
    gradient = tape.gradient(loss, X)
    with tf.autodiff.ForwardAccumulator(X, tf.ones_like(X)) as accumulator:
        log_prob = flow.log_prob(X)
    np.testing.assert_allclose(accumulator.jvp(log_prob), tf.reduce_sum(gradient, -1), rtol=1e-4)


def test_conditions_and_bad_input_after_tracing():
    flow = tff.maf(2, num_layers=1, conditional_size=3, seed=1)
    condition = np.ones([3])  # float64, and not a tensor
    first, *_, last = repeat(lambda: flow.log_prob(X, conditional_input=condition))
    np.testing.assert_allclose(first, last, rtol=1e-5)
    rows = tf.ones([5, 3])
    np.testing.assert_allclose(flow.log_prob(X, conditional_input=rows), last, rtol=1e-5)
    for call, message in (
        (lambda: flow.log_prob(X), "`conditional_input`"),
        (lambda: flow.log_prob(X, conditional_input=tf.ones([5, 4])), "`conditional_input` must have shape"),
        (lambda: flow.log_prob(tf.ones([5, 3]), conditional_input=rows), "`value` must have shape"),
        (lambda: flow.log_prob(tf.ones([5, 2], tf.float64), conditional_input=rows), "dtype"),
        (lambda: flow.log_prob(X, condition=rows), "Unknown keyword 'condition'"),
        (lambda: flow.sample(4, conditional_input=rows), "does not broadcast"),
    ):
        for _ in range(MANY):
            with pytest.raises(ValueError, match=message):
                call()


def test_the_code_of_users_runs_eagerly_each_time():
    calls = []

    def shift(x, output_units, **kwargs):
        calls.append(1)
        return 0.5 * x, None

    flow = tff.FlowDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tff.RealNVP(1, shift_and_log_scale_fn=shift)
    )
    repeat(lambda: flow.log_prob(X))
    assert len(calls) == MANY
    assert traces(flow) == 0


class Own(tfb.Shift):
    """A bijector that is defined elsewhere."""


def in_training():
    network = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    network.build([None, 1])
    return tff.RealNVP(1, shift_and_log_scale_fn=network)


@pytest.mark.parametrize(
    ("bijector", "expected"),
    [
        (lambda: tff.maf(2, num_layers=1).bijector, True),
        (lambda: tfb.Chain([tfb.Exp(), tfb.Invert(tff.PlanarFlow(2))]), True),
        (lambda: tfb.Inline(forward_fn=tf.exp, inverse_fn=tf.math.log, forward_min_event_ndims=0), False),
        (lambda: tfb.Chain([Own(tf.ones([2])), tff.PlanarFlow(2)]), False),
        (in_training, False),
        (lambda: tff.BatchNormalization(2), False),
    ],
    ids=["recipe", "TFP's", "inline", "own", "dropout", "batch normalization"],
)
def test_who_is_traced(bijector, expected):
    assert is_traceable(bijector()) == expected


def test_preprocessing_by_users_is_not_traced():
    flow = tff.maf(2, num_layers=1, conditional_size=3, preprocess_condition=Own(tf.ones([3])), seed=1)
    repeat(lambda: flow.log_prob(X, conditional_input=tf.ones([5, 3])))
    assert traces(flow) == 0


def test_each_dtype_has_its_graph():
    graphs = Graphs(lambda x: 2.0 * x, (0,))
    for dtype in (tf.float32, tf.float64, tf.float32):
        assert graphs(tf.ones([2], dtype)).dtype == dtype
    assert len(graphs) == 2


def test_graphs_are_freed_with_their_flow():
    def make():
        flow = tff.planar_flow(2, num_layers=1, seed=1)
        repeat(lambda: flow.log_prob(X))
        (concrete,) = flow._density.graphs._graphs.values()
        return flow, weakref.ref(concrete.graph)

    flow, graph = make()
    assert graph() is not None
    del flow
    gc.collect()
    assert graph() is None


def test_a_call_inside_of_a_function_is_part_of_it():
    calls = EagerCalls(lambda x: x + 1.0, (0,), lambda: True)
    assert float(tf.function(lambda x: calls(x))(tf.constant(1.0))) == 2.0
    assert calls._num_calls == 0


def test_an_encoder_and_an_activation_of_the_user_run_eagerly_each_time():
    factor = {"value": 1.0}

    class Encoder(keras.layers.Layer):
        def call(self, x):
            return factor["value"] * x

    inner = tff.maf(2, num_layers=1, conditional_size=3, hidden_units=[4], seed=1)
    bent = tff.maf(2, num_layers=1, hidden_units=[4], activation=lambda x: factor["value"] * tf.tanh(x), seed=1)
    for flow in (tff.EncodedFlow(inner, Encoder(), condition_shape=[3]), bent):
        for v in flow.trainable_variables:
            v.assign(v + 0.3)
        kwargs = {} if flow is bent else {"conditional_input": tf.ones([3])}
        factor["value"] = 1.0
        before = repeat(lambda flow=flow, kwargs=kwargs: flow.log_prob(X, **kwargs))[-1]
        factor["value"] = 5.0
        assert np.abs(flow.log_prob(X, **kwargs) - before).max() > 1e-2
