"""Flows as transition densities: windows of series, encoders of the past, paths, and the scores of forecasts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.evaluation.diagnostics import energy_score, probability_integral_transform

tfd = tfp.distributions


def all_pairs(data):
    return [np.concatenate(side) for side in zip(*data.as_numpy_iterator(), strict=True)]


def test_windows_are_those_of_a_loop():
    series = np.random.default_rng(1).normal(size=[23, 3]).astype("float32")
    for horizon in (1, 4):
        past, following = all_pairs(tff.sequence_windows(series, window=5, horizon=horizon, batch_size=4))
        places = range(23 - 5 - horizon + 1)
        np.testing.assert_array_equal(past, [series[i : i + 5].ravel() for i in places])
        np.testing.assert_array_equal(following, [series[i + 5 + horizon - 1] for i in places])


def test_no_window_crosses_a_gap_and_orders_differ():
    parts = [np.arange(0.0, 6.0)[:, None], np.arange(100.0, 102.0)[:, None], np.arange(200.0, 205.0)[:, None]]
    past, following = all_pairs(tff.sequence_windows(parts, window=3))
    np.testing.assert_array_equal(following[:, 0], [3, 4, 5, 203, 204])
    np.testing.assert_array_equal(past[:, -1], following[:, 0] - 1)
    data = tff.sequence_windows(np.arange(50.0)[:, None], window=2, shuffle=True, seed=1, batch_size=7)
    first, second = all_pairs(data)[1][:, 0], all_pairs(data)[1][:, 0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.sort(first), np.arange(2.0, 50.0))
    np.testing.assert_array_equal(np.sort(second), np.arange(2.0, 50.0))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: tff.sequence_windows(np.zeros([5]), 2), r"`series` must have shape \[N, D\]"),
        (
            lambda: tff.sequence_windows([np.zeros([5, 2]), np.zeros([5, 3])], 2),
            r"`series\[1\]` must have shape \[N, 2\]",
        ),
        (lambda: tff.sequence_windows(np.zeros([5, 2]), 5), "more than 5 rows"),
        (lambda: tff.sequence_windows(np.full([5, 2], np.nan), 2), "row 0, column 0"),
        (lambda: tff.sequence_windows([], 2), "`series`"),
        (lambda: tff.sequence_windows(np.zeros([5, 2]), 0), "`window`"),
        (lambda: tff.EncodedFlow(tff.maf(2), keras.layers.GRU(4), [3, 2]), "`flow` must be a conditional"),
        (lambda: tff.EncodedFlow(_maf(5), keras.layers.GRU(4), [3, 2]), r"`encoder` must return shape \[N, 5\]"),
        (lambda: tff.EncodedFlow(_maf(4), keras.layers.GRU(4), [0, 2]), "`condition_shape`"),
        (lambda: tff.EncodedFlow(_encoded(), keras.layers.GRU(6), [3, 2]), "already has an encoder"),
        (lambda: tff.rollout(tff.maf(2), np.zeros([3, 2]), 4), "`flow` must be conditional"),
        (lambda: tff.rollout(_maf(5), np.zeros([3, 2]), 4), "`flow` must be conditional"),
        (lambda: tff.rollout(_maf(6), np.zeros([2, 2]), 4), r"`past` must have shape \[3, 2\]"),
        (lambda: tff.rollout(_maf(6), np.zeros([3, 2]), 0), "`steps`"),
        (lambda: energy_score(np.zeros([5, 3]), np.zeros([4])), "`samples`"),
        (lambda: probability_integral_transform(np.zeros([1, 3]), np.zeros([3])), "`samples`"),
    ],
)
def test_bad_input(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def _maf(conditional_size, **kwargs):
    return tff.maf(2, num_layers=1, hidden_units=[8], conditional_size=conditional_size, seed=1, **kwargs)


def _encoded():
    return tff.EncodedFlow(_maf(4), keras.layers.GRU(4), [3, 2])


def _encoders():
    convolution = [keras.layers.Conv1D(4, 2, padding="causal"), keras.layers.GlobalAveragePooling1D()]
    return {"recurrent": lambda: keras.layers.GRU(4), "convolutional": lambda: keras.Sequential(convolution)}


@pytest.mark.parametrize("kind", ["recurrent", "convolutional"])
def test_encoder_is_part_of_the_flow(kind, tmp_path):
    """Its weights are trained jointly, its code reaches the layers, and both are in one file."""
    scale = tff.standardize(np.random.default_rng(1).normal(3.0, 2.0, size=[100, 2]))
    flow = tff.EncodedFlow(_maf(4, preprocess=scale), _encoders()[kind](), [3, 2], preprocess=scale)
    testing.redraw_weights(flow, seed=5)
    model = tff.FlowModel(flow)
    assert len(model.trainable_variables) == len(flow.trainable_variables) > len(flow.bijector.trainable_variables)
    rng = np.random.default_rng(2)
    past, y = rng.normal(3.0, 2.0, size=[64, 6]).astype("float32"), rng.normal(3.0, 2.0, size=[64, 2]).astype("float32")
    before = model.log_prob(y, conditional_input=past)
    code = flow._encoder(scale.inverse(past.reshape(-1, 3, 2)))
    plain = tff.FlowDistribution(flow.distribution, flow.bijector)
    np.testing.assert_allclose(plain.log_prob(y, conditional_input=code), before, rtol=1e-5, atol=1e-5)
    assert np.ptp(model.log_prob(np.repeat(y[:1], 64, axis=0), conditional_input=past)) > 0.1
    # One past for many events broadcasts.
    one = flow.log_prob(y, conditional_input=past[:1])
    np.testing.assert_allclose(one, flow.log_prob(y, conditional_input=np.repeat(past[:1], 64, axis=0)), atol=1e-5)
    model.compile(keras.optimizers.Adam(1e-2))
    weights = [w.numpy() for w in model.trainable_weights]
    model.fit(past, y, batch_size=32, epochs=1, verbose=0)
    assert all(np.any(w != old) for w, old in zip(model.trainable_weights, weights, strict=True))
    model.save(tmp_path / "encoded.keras")
    loaded = keras.models.load_model(tmp_path / "encoded.keras")
    np.testing.assert_allclose(
        loaded.log_prob(y, conditional_input=past), model.log_prob(y, conditional_input=past), rtol=1e-5
    )


def test_paths_follow_the_transition_density():
    """A linear system: means and deviations after some steps are known; scenarios of several windows keep apart."""

    class Move(tfp.bijectors.Bijector):
        conditional_size = 1

        def __init__(self):
            super().__init__(forward_min_event_ndims=1, dtype=tf.float32)

        def _forward(self, x, conditional_input):
            return x + conditional_input

        def _inverse(self, y, conditional_input):
            return y - conditional_input

        def _forward_log_det_jacobian(self, x, conditional_input):
            return tf.zeros([])

    class Linear(keras.layers.Layer):
        def call(self, x):
            return 0.5 * x[:, -1, :]

    inner = tff.FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(1), tf.ones(1)), Move())
    flow = tff.EncodedFlow(inner, Linear(), [2, 1])
    past = np.array([[[0.0], [8.0]], [[0.0], [-4.0]]], "float32")
    paths = tff.rollout(flow, past, steps=6, n=4000, seed=1).numpy()
    assert paths.shape == (4000, 2, 6, 1)
    powers = 0.5 ** np.arange(1, 7)
    deviation = np.sqrt(np.cumsum(0.25 ** np.arange(6)))
    for b, start in enumerate((8.0, -4.0)):
        np.testing.assert_allclose(paths[:, b, :, 0].mean(axis=0), start * powers, atol=0.08)
        np.testing.assert_allclose(paths[:, b, :, 0].std(axis=0), deviation, rtol=0.05)
    np.testing.assert_array_equal(paths, tff.rollout(flow, past, steps=6, n=4000, seed=1))
    assert np.any(paths != tff.rollout(flow, past, steps=6, n=4000, seed=2).numpy())


def test_the_system_has_the_density_that_it_tells():
    """The transition density integrates to one, and its mean log is the entropy of what is drawn."""
    system = tff.data.kicked_oscillator()
    assert system.name == "kicked_oscillator"
    path = system.sample(5000, seed=1)
    axis_q, axis_v = np.linspace(-0.4, 0.4, 161), np.linspace(-2.0, 2.0, 401)
    for past in path[::1700]:
        q, v = np.meshgrid(past[0] + axis_q + 0.1 * past[1], past[1] + axis_v, indexing="ij")
        density = np.exp(system.log_prob(np.stack([q, v], axis=-1), np.broadcast_to(past, [*q.shape, 2])))
        total = density.sum() * (axis_q[1] - axis_q[0]) * (axis_v[1] - axis_v[0])
        assert total == pytest.approx(1.0, abs=2e-3)
        entropy = -np.sum(density * np.log(np.maximum(density, 1e-300))) / density.sum()
        near = np.abs(path[:-1] - past).max(axis=1) < 0.4
        assert -np.mean(system.log_prob(path[1:][near], path[:-1][near])) == pytest.approx(entropy, abs=0.25)


def test_a_transition_density_is_learned():
    """Near the truth after a short training; `pytest -m slow` trains to the end."""
    assert 0.0 < _above_truth(rows=5000, epochs=10) < 0.25


@pytest.mark.slow
def test_a_transition_density_is_learned_to_within_five_hundredths():
    assert _above_truth(rows=20_000, epochs=30) < 0.05


def _above_truth(rows, epochs, window=4):
    system = tff.data.kicked_oscillator()
    train, test = system.sample(rows, seed=1), system.sample(10_000, seed=2)
    scale = tff.standardize(train)
    past = keras.Input((window, 2))
    code = keras.layers.Concatenate()([keras.layers.GRU(16)(past), past[:, -1]])
    inner = tff.spline_autoregressive(2, num_layers=2, conditional_size=18, preprocess=scale, seed=1)
    flow = tff.EncodedFlow(inner, keras.Model(past, code), [window, 2], preprocess=scale)
    model = tff.FlowModel(flow)
    data = tff.sequence_windows(train, window, shuffle=True, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * int(data.cardinality()))
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(data, epochs=epochs, verbose=0)
    mine = -model.evaluate(tff.sequence_windows(test, window, batch_size=4096), verbose=0)
    return float(np.mean(system.log_prob(test[window:], test[window - 1 : -1]))) - mine


def test_energy_score_and_ranks():
    """The score of normal samples is known (the CRPS); ranks of calibrated forecasts are uniform, of narrow ones not."""
    rng = np.random.default_rng(1)
    samples, y = rng.normal(size=[400, 500, 1]), rng.normal(size=[500, 1])
    crps = y[:, 0] * (2 * tfd.Normal(0.0, 1.0).cdf(y[:, 0].astype("float32")).numpy() - 1) + np.sqrt(
        2 / np.pi
    ) * np.exp(-0.5 * y[:, 0] ** 2)
    np.testing.assert_allclose(energy_score(samples, y).mean(), np.mean(crps - 1 / np.sqrt(np.pi)), atol=0.01)
    wide = np.concatenate([samples, np.zeros_like(samples)], axis=-1)
    np.testing.assert_allclose(energy_score(wide, np.pad(y, [[0, 0], [0, 1]])), energy_score(samples, y), atol=1e-9)
    u = probability_integral_transform(samples, y, seed=1)
    assert np.max(np.abs(np.sort(u[:, 0]) - (np.arange(500) + 0.5) / 500)) < 0.07
    narrow = probability_integral_transform(0.3 * samples, y, seed=1)
    assert np.mean((narrow < 0.05) | (narrow > 0.95)) > 0.4
    ties = probability_integral_transform(np.zeros([9, 2000]), np.zeros([2000]), seed=1)
    assert abs(np.mean(ties) - 0.5) < 0.03
    assert 0.0 < ties.min() < ties.max() < 1.0


def test_a_model_rolls_out_as_its_flow_does():
    flow = _maf(6)
    paths = tff.rollout(flow, np.zeros([3, 2]), 4, n=2, seed=1)
    np.testing.assert_array_equal(tff.rollout(tff.FlowModel(flow), np.zeros([3, 2]), 4, n=2, seed=1), paths)


def test_the_orders_of_windows_are_those_of_the_seed():
    def passes(seed):
        data = tff.sequence_windows(np.arange(50.0)[:, None], window=2, shuffle=True, seed=seed)
        return np.stack([all_pairs(data)[1][:, 0] for _ in range(2)])

    first = passes(1)
    np.testing.assert_array_equal(first, passes(1))
    assert np.any(first != passes(2))


def test_a_path_of_the_system_begins_anywhere_in_both_wells():
    starts = np.concatenate([tff.data.kicked_oscillator().sample(1, seed=seed) for seed in range(40)])
    assert np.std(starts[:, 0]) > 0.7  # the wells lie at -1 and 1
    assert np.mean(starts[:, 0] > 0) == pytest.approx(0.5, abs=0.3)
