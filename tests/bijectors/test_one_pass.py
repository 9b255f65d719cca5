"""Sequential evaluation in one pass: equal to D passes, with gradients, everywhere, and never from stale values."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import TRANSFORMERS

import tfp_flows as tff
from tfp_flows.bijectors import one_pass
from tfp_flows.testing import redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
D, C, N = 5, 2, 6


def template(dtype=tf.float64, transformer=None, conditional=False, hidden_units=(9, 4), size=D, **kwargs):
    made = tff.masked_autoregressive_template(
        hidden_units,
        event_size=size,
        transformer=transformer,
        activation="tanh",
        conditional_size=C if conditional else None,
        seed=1,
        dtype=dtype,
        **kwargs,
    )
    redraw_weights(made, seed=3, scale=0.4)
    return made


def layer(made, **kwargs):
    role = "bijector_fn" if isinstance(made, tff.TransformerTemplate) else "shift_and_log_scale_fn"
    return tff.MaskedAutoregressiveFlow(**{role: made}, **kwargs)


def draw(*shape, dtype=tf.float64, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def d_passes(network, transformer, x, condition):
    """The plain definition: the whole network once for each dimension."""
    kwargs = {} if condition is None else {"conditional_input": condition}
    y = tf.zeros_like(x)
    for _ in range(x.shape[-1]):
        y, log_det = transformer.forward(x, network(y, **kwargs))
    return y, tf.reduce_sum(log_det, axis=-1)


def gradients(fn, sources):
    """Gradients of a random combination of both results."""
    with tf.GradientTape() as tape:
        tape.watch(sources)
        y, log_det = fn()
        loss = tf.reduce_sum(draw(*y.shape, seed=7) * y) + tf.reduce_sum(draw(*log_det.shape, seed=8) * log_det)
    return tape.gradient(loss, sources, unconnected_gradients="zero")


# XLA takes a quarter of a minute for a mixture's solver, and 4 to 8 s for the others of many parameters: one case each.
ORDERS = ("right-to-left", (3, 1, 5, 2, 4))
# The others in both orders, of which one has a condition.
QUICK = {
    "gaussian_mixture": [(ORDERS[1], False)],
    "deep_sigmoidal": [(ORDERS[1], True)],
    "quantile_spline": [(ORDERS[0], False)],
    "spline": [(ORDERS[1], True)],
    "circular_spline": [(ORDERS[1], True)],
    "bernstein": [(ORDERS[0], False)],
    "others": [(ORDERS[0], False), (ORDERS[1], True)],
}
CASES = [(name, order, conditional) for name in TRANSFORMERS for order in ORDERS for conditional in (False, True)]


@pytest.mark.parametrize(
    ("name", "order", "conditional"),
    [
        pytest.param(*case, marks=pytest.mark.slow) if case[1:] not in (QUICK.get(case[0]) or QUICK["others"]) else case
        for case in CASES
    ],
    ids=str,
)
def test_equals_d_passes_and_its_gradients(name, order, conditional):
    made = template(transformer=TRANSFORMERS[name], conditional=conditional, input_order=order)
    x, condition = draw(N, D), draw(N, C, seed=1) if conditional else None
    sources = [x, *(w.value for w in made.fn.trainable_variables)] + ([condition] if conditional else [])
    slow = lambda: d_passes(made.fn, made.transformer, x, condition)  # noqa: E731
    fast = lambda: one_pass.forward_and_log_det(made.fn, made.transformer, x, condition)  # noqa: E731
    for a, b in zip(fast(), slow(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(fast, sources), gradients(slow, sources), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("hidden_units", [(), (1,), (3,), (40,), (7, 2, 30)], ids=str)
@pytest.mark.parametrize("degrees", ["equal", "random"])
def test_any_architecture(hidden_units, degrees):
    network = tff.AutoregressiveNetwork(
        2,
        D,
        hidden_units=hidden_units,
        hidden_degrees=degrees,
        activation="relu",
        use_bias=False,
        dtype="float64",
        seed=2,
    )
    for w in network.trainable_variables:
        w.assign(0.4 * np.random.default_rng(1).normal(size=w.shape))
    x, affine = draw(N, D), tff.AffineTransformer()
    for a, b in zip(one_pass.forward_and_log_det(network, affine, x), d_passes(network, affine, x, None), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_one_dimension():
    made = template(size=1, transformer=tff.SplineTransformer(4), conditional=True)
    x, condition = draw(N, 1), draw(N, C, seed=1)
    y, log_det = one_pass.forward_and_log_det(made.fn, made.transformer, x, condition)
    expected, expected_log_det = d_passes(made.fn, made.transformer, x, condition)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(log_det, expected_log_det, atol=1e-12)
    assert np.ptp((y - x).numpy()) > 1e-3  # the condition has an effect


def test_float32_at_the_size_of_miniboone():
    made = template(tf.float32, hidden_units=(256, 256), size=43)
    x = draw(100, 43, dtype=tf.float32)
    y, log_det = layer(made).forward_and_log_det(x)
    affine = tff.AffineTransformer()
    scale = float(tf.reduce_max(tf.abs(y)))
    for a, b in zip((y, log_det), d_passes(made.fn, affine, x, None), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, scale))


@pytest.mark.parametrize(
    ("conditional", "wrap"),
    [
        *((conditional, wrap) for conditional in (False, True) for wrap in ("eager", "function", "jit")),
        pytest.param(False, "dynamic", marks=pytest.mark.slow),
        (True, "dynamic"),
    ],
)
def test_eager_function_jit_and_dynamic_batch(wrap, conditional):
    bijector = layer(template(conditional=conditional))
    condition = {"conditional_input": draw(N, C, seed=1)} if conditional else {}

    def both(x, **condition):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, log_det = bijector.forward_and_log_det(x, **condition)
        return y, log_det, tape.gradient([y, log_det], x)

    x = draw(N, D)
    expected = both(x, **condition)
    if wrap == "function":
        both = tf.function(both)
    elif wrap == "jit":
        both = tf.function(both, jit_compile=True)
    elif wrap == "dynamic":
        both = tf.function(both, reduce_retracing=True)
        for n in (3, 4, N):  # from the second size on the batch axis is unknown to the trace
            half = {key: value[:n] for key, value in condition.items()}
            results = both(x[:n], **half)
            np.testing.assert_allclose(results[0], expected[0][:n], atol=1e-12)
    for a, b in zip(both(x, **condition), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_batch_shapes_and_shared_conditions():
    bijector = layer(template(conditional=True))
    x, c = draw(2, 3, D), draw(3, C, seed=1)
    y, log_det = bijector.forward_and_log_det(x, conditional_input=c)
    assert (y.shape, log_det.shape) == ((2, 3, D), (2, 3))
    single = bijector.forward(x[1, 2], conditional_input=c[2])
    np.testing.assert_allclose(single, y[1, 2], atol=1e-12)
    shared = bijector.forward(x[:, 2], conditional_input=c[2])
    np.testing.assert_allclose(shared, y[:, 2], atol=1e-12)
    many = bijector.forward(x[0, 0], conditional_input=c)
    np.testing.assert_allclose(many[0], y[0, 0], atol=1e-12)
    empty = bijector.forward(tf.zeros([0, D], tf.float64), conditional_input=c[0])
    assert empty.shape == (0, D)


def test_sizes_are_few():
    sizes = {int(one_pass._bucket(tf.constant(n))) for n in range(1, 5000, 9)}
    assert len(sizes) <= 11 + 10
    for n in (1, 2, 7, 64, 1000, 1025, 4097, 10_000, 999_999):
        size = int(one_pass._bucket(tf.constant(n)))
        assert n <= size <= (2 * n if n <= 1024 else 1.25 * n + 1)


def test_many_sizes_trace_a_few_times_and_equal_layers_share():
    first, second = layer(template(tf.float32, hidden_units=(11,))), layer(template(tf.float32, hidden_units=(11,)))
    loops = []
    for bijector in (first, second):
        network = bijector._conditioner.fn
        plan, *_ = one_pass._canonical(network, tff.AffineTransformer(), None)
        loops.append(one_pass._forward_loop(plan))
    assert loops[0] is loops[1]
    for n in range(1, 40, 3):
        first.forward(draw(n, D, dtype=tf.float32))
    assert loops[0].experimental_get_tracing_count() <= 4


def test_batches_are_padded_to_a_few_sizes_for_xla(monkeypatch):
    """XLA compiles once for each size. No batch is cut, and none costs more than twice its rows."""
    # The loop of the test before, which has compiled these sizes.
    bijector, computed = layer(template(tf.float32, hidden_units=(11,))), []
    loop = one_pass._forward_loop

    def recording(plan):
        return lambda x, *weights: computed.append(len(x)) or loop(plan)(x, *weights)

    monkeypatch.setattr(one_pass, "_forward_loop", recording)
    x = 0.3 * draw(40, D, dtype=tf.float32)  # so that no value is large
    rows = list(range(1, 40, 3))
    results = [bijector.forward(x[:n]) for n in rows]
    assert sorted(set(computed)) == [1, 4, 8, 16, 32, 64]
    assert all(n <= size < 2 * n for n, size in zip(rows, computed, strict=True))
    assert [len(y) for y in results] == rows
    for y in results:
        np.testing.assert_allclose(y, results[-1][: len(y)], atol=1e-6)


def test_the_log_det_comes_from_the_same_pass(monkeypatch):
    made = template(tf.float32)
    base = tfd.MultivariateNormalDiag(tf.zeros(D), tf.ones(D))
    flow = tff.FlowDistribution(base, tfb.Chain([layer(made), layer(template(tf.float32))]))
    expected = flow.experimental_sample_and_log_prob(4, seed=[1, 2])
    np.testing.assert_allclose(flow.log_prob(expected[0]), expected[1], rtol=1e-4)

    def no_second_pass(*args, **kwargs):
        raise AssertionError("the network ran once more")

    monkeypatch.setattr(tff.MaskedAutoregressiveFlow, "inverse_and_log_det", no_second_pass)
    sample, log_prob = flow.experimental_sample_and_log_prob(4, seed=[1, 2])
    np.testing.assert_allclose(log_prob, expected[1], rtol=1e-5)
    np.testing.assert_allclose(sample, expected[0], rtol=1e-5)


def test_used_for_all_that_can_be_and_only_there(monkeypatch):
    made = template()
    x, expected = draw(N, D), layer(made, unroll_loop=True).forward(draw(N, D))
    calls = []
    original = one_pass.forward_and_log_det
    monkeypatch.setattr(one_pass, "forward_and_log_det", lambda *args, **kw: calls.append(1) or original(*args, **kw))

    def check(fn, times):
        calls.clear()
        np.testing.assert_allclose(fn(tf.identity(x)), expected, atol=1e-12)
        assert len(calls) == times

    check(layer(made).forward, 1)
    check(tfb.Invert(layer(made)).inverse, 1)
    check(tff.MaskedAutoregressiveFlow(lambda y: made(y)).forward, 0)  # any other callable: TFP's loop
    check(layer(made, unroll_loop=True).forward, 0)
    check(tfb.MaskedAutoregressiveFlow(made).forward, 0)
    network = tff.AutoregressiveNetwork(
        2, D, hidden_units=[8], activation=keras.layers.PReLU(dtype="float64"), dtype="float64"
    )
    calls.clear()
    tff.MaskedAutoregressiveFlow(network).forward(x)
    assert calls == []  # an activation with weights of its own
    bare = tff.AutoregressiveNetwork(2, hidden_units=[8], dtype="float64")  # learns its size at the first call
    y = tff.MaskedAutoregressiveFlow(bare).forward(x)
    assert calls == [1]
    np.testing.assert_allclose(tff.MaskedAutoregressiveFlow(bare, unroll_loop=True).forward(x), y, atol=1e-12)


def test_a_subclass_that_computes_something_else_is_not_bypassed():
    class Doubled(tff.AutoregressiveNetwork):
        def call(self, x, conditional_input=None):
            return 2.0 * super().call(x, conditional_input)

    network = Doubled(2, D, hidden_units=[8], activation="tanh", dtype="float64", seed=1)
    bijector = tff.MaskedAutoregressiveFlow(network)
    x = draw(N, D)
    np.testing.assert_allclose(bijector.inverse(tf.identity(bijector.forward(x))), x, atol=1e-9)


def test_wrong_number_of_parameters_is_named():
    with pytest.raises(ValueError, match="3 parameters"):
        tff.MaskedAutoregressiveFlow(tff.AutoregressiveNetwork(3, 4)).forward(tf.zeros([2, 4]))
    with pytest.raises(ValueError, match="23"):
        tff.TransformerTemplate(tff.AutoregressiveNetwork(3, 4), tff.SplineTransformer(8))


def test_second_derivatives_are_refused_not_wrong():
    x = draw(2, D)

    def second(bijector):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(bijector.forward(x) ** 2)
            slope = inner.gradient(y, x)
        return outer.gradient(slope, x)

    made = template()
    with pytest.raises(NotImplementedError, match="unroll_loop"):
        second(layer(made))
    assert second(layer(made, unroll_loop=True)) is not None


def test_no_stale_values():
    """New weights count at once, in eager mode and in a compiled function, on the same tensor object."""
    made = template()
    flow = tff.FlowDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(D, tf.float64), tf.ones(D, tf.float64)),
        tfb.Chain([tfb.Invert(layer(made))]),
    )
    y = draw(N, D)
    compiled = tf.function(flow.log_prob)
    before = flow.log_prob(y)
    np.testing.assert_allclose(compiled(y), before, rtol=1e-12)
    redraw_weights(made, seed=9)
    after = flow.log_prob(y)
    assert np.all(np.abs(after - before) > 1e-6)
    np.testing.assert_allclose(compiled(y), after, rtol=1e-12)


def test_trains_through_the_sequential_direction():
    """An IAF by maximum likelihood has nothing but the gradients of the loop."""
    x = tff.data.banana().sample(512, seed=1)
    flow = tff.iaf(2, num_layers=2, hidden_units=[16], seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = model.fit(x, batch_size=128, epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.3
