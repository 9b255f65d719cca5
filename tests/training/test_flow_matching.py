"""`FlowMatchingModel`: the regression, its pairings, and the density that comes out."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.training.flow_matching import pair

tfd = tfp.distributions
DRAW, ENTROPY = testing.correlated_normal(2)


def flow(**options):
    return tff.continuous_flow(2, **{"hidden_units": [32, 32], "activation": "silu", "seed": 1, **options})


def fitted(model, x, y=None, steps=600, batch_size=250):
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    epochs = -(-steps // (len(x) // batch_size))
    return model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0).history["loss"]


@pytest.mark.parametrize(
    ("pairing", "steps"), [("independent", 600), pytest.param("optimal_transport", 300, marks=pytest.mark.slow)]
)
def test_the_trained_flow_is_a_density_near_the_truth(pairing, steps):
    x = 100.0 * DRAW(4000, 0).astype(np.float32) + 7.0  # `preprocess` hides the units from the network
    model = tff.FlowMatchingModel(flow(preprocess=tff.standardize(x)), pairing=pairing, seed=1)
    losses = fitted(model, x, steps=steps)
    assert losses[-1] < 0.8 * losses[0] < 5.0
    test = (100.0 * DRAW(2000, 1) + 7.0).astype(np.float32)
    entropy = ENTROPY + 2.0 * np.log(100.0)
    testing.check_above_entropy(model.distribution, test, entropy)
    assert -np.mean(model.log_prob(test)) < entropy + 0.06
    standardized = tff.FlowDistribution(model.distribution.distribution, model.distribution.bijector.bijectors[-1])
    testing.check_normalized(standardized, limit=6.0, resolution=80)
    samples = model.sample(4000, seed=3).numpy()
    np.testing.assert_allclose(np.cov(samples.T) / 1e4, np.cov(test.T) / 1e4, atol=0.12)


def test_a_zero_velocity_costs_the_mean_square_of_the_path():
    model = tff.FlowMatchingModel(flow(), seed=1)
    model.compile()
    x = DRAW(4000, 0).astype(np.float32)
    assert np.all(model.distribution.bijector.bijectors[0].velocity(0.3, x[:3]) == 0.0)
    expected = 2.0 + np.mean(np.sum(x**2, axis=-1))  # E|x_0|^2 + E|x_1|^2 of independent ends
    np.testing.assert_allclose(model.evaluate(x, batch_size=1000, verbose=0), expected, rtol=0.05)


def test_it_learns_conditional_densities():
    c = np.random.default_rng(0).uniform(-1.0, 1.0, [4000, 1]).astype(np.float32)
    y = np.concatenate([2.0 * c, -c], axis=-1) + 0.3 * np.random.default_rng(1).standard_normal([4000, 2])
    model = tff.FlowMatchingModel(flow(conditional_size=1), seed=1)
    fitted(model, c, y.astype(np.float32), steps=300)
    for value in (-0.8, 0.5):
        samples = model.sample(2000, conditional_input=[value], seed=2).numpy()
        np.testing.assert_allclose(samples.mean(axis=0), [2.0 * value, -value], atol=0.1)
        np.testing.assert_allclose(samples.std(axis=0), 0.3, atol=0.06)


def test_velocities_take_one_time_or_one_per_row_and_conditions():
    layer = tff.ContinuousFlow(2, hidden_units=[8], conditional_size=3, seed=1)
    testing.redraw_weights(layer, seed=2)
    x = tf.constant(DRAW(6, 0), tf.float32)
    condition = tf.reshape(tf.range(18, dtype=tf.float32), [6, 3]) / 10.0
    times = tf.linspace(0.0, 1.0, 6)
    rows = layer.velocity(times, x, condition)
    for i in range(6):
        np.testing.assert_allclose(layer.velocity(times[i], x[i], condition[i]), rows[i], rtol=1e-5)
    np.testing.assert_allclose(
        layer.velocity(0.4, x, condition[0])[2], layer.velocity(0.4, x[2], condition[0]), rtol=1e-5
    )
    with pytest.raises(ValueError, match="`conditional_input`"):
        layer.velocity(0.5, x)
    with pytest.raises(ValueError, match="events of size 2"):
        layer.velocity(0.5, tf.ones([4, 3]), condition[0])


def test_the_flow_follows_its_velocity():
    layer = tff.ContinuousFlow(2, hidden_units=[8], rtol=1e-7, atol=1e-7, dtype=tf.float64, seed=1)
    testing.redraw_weights(layer, seed=2)
    x = state = tf.constant(DRAW(5, 0))
    for i in range(200):  # the midpoint rule
        half = state + layer.velocity(i / 200, state) / 400
        state = state + layer.velocity((i + 0.5) / 200, half) / 200
    np.testing.assert_allclose(layer.forward(x), state, atol=1e-4)


def test_pairs_have_the_smallest_total_distance():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=[2, 6, 3])
    best = min(itertools.permutations(range(6)), key=lambda order: np.sum((start[list(order)] - end) ** 2))
    np.testing.assert_array_equal(pair(start, end), start[list(best)])


def test_saved_and_repeated(tmp_path):
    x = DRAW(200, 0).astype(np.float32)
    models = [tff.FlowMatchingModel(flow(), pairing="optimal_transport", seed=s) for s in (4, 4, 5)]
    losses = []
    for model in models:
        model.compile()
        losses.append(model.evaluate(x, batch_size=50, verbose=0))
    assert losses[0] == losses[1] != losses[2]
    fitted(models[0], x, steps=8, batch_size=50)
    models[0].save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (type(loaded), loaded.pairing, loaded.seed) == (tff.FlowMatchingModel, "optimal_transport", 4)
    np.testing.assert_array_equal(loaded.log_prob(x[:5]), models[0].log_prob(x[:5]))


def test_base_and_layers_on_the_side_of_the_data_keep_their_values():
    model = tff.FlowMatchingModel(flow(base="trainable", preprocess=tff.ActNorm(2)), seed=1)
    x = (5.0 * DRAW(500, 0) + 3.0).astype(np.float32)
    model.adapt(x)
    others = [v for v in model.distribution.trainable_variables if "coupling" not in v.name and v.shape.rank < 2]
    fixed = {v.name: v.numpy() for v in others if v.shape == [2] and "bias" not in v.name}
    fitted(model, x, steps=20)
    assert len(fixed) >= 3
    for v in others:
        if v.name in fixed:
            np.testing.assert_array_equal(v.numpy(), fixed[v.name])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tff.FlowMatchingModel(tff.maf(2)), "one ContinuousFlow next to its base"),
        (lambda: tff.FlowMatchingModel(flow(num_layers=2)), "one ContinuousFlow next to its base"),
        (lambda: tff.FlowMatchingModel(tfd.MultivariateNormalDiag(tf.zeros(2))), "one ContinuousFlow next to its base"),
        (lambda: tff.FlowMatchingModel(flow(), pairing="random"), "`pairing` must be"),
        (
            lambda: tff.FlowMatchingModel(flow(conditional_size=1), pairing="optimal_transport"),
            '`pairing` must be "independent" for a conditional flow',
        ),
    ],
)
def test_what_cannot_be_matched_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fine_tuning_by_likelihood_does_not_raise_the_nll():
    x = DRAW(1000, 0).astype(np.float32)
    matched = tff.FlowMatchingModel(flow(hidden_units=[16], solver="midpoint", num_steps=6), seed=1)
    fitted(matched, x, steps=40)
    before = -np.mean(matched.log_prob(x))
    refined = tff.FlowModel(matched.distribution)
    refined.compile(keras.optimizers.Adam(2e-3))
    refined.fit(x, batch_size=250, epochs=5, verbose=0)
    after = -np.mean(refined.log_prob(x))
    assert ENTROPY - 0.05 < after < before
    assert after == pytest.approx(-np.mean(matched.log_prob(x)))  # the same flow


def test_images_are_matched_by_a_convolutional_velocity(tmp_path):
    """Images of a gradient with one random brightness: samples are gradients too, and a condition decides the side."""
    rng = np.random.default_rng(0)
    c = np.eye(2, dtype=np.float32)[rng.integers(2, size=400)]
    ramp = np.linspace(-1.0, 1.0, 4) * np.where(c[:, :1] == 1, 1.0, -1.0)
    x = ramp[:, :, None, None] * np.ones([1, 1, 4, 1]) + 0.1 * rng.standard_normal([400, 4, 4, 1])
    options = {"filters": 4, "alpha": None, "solver": "midpoint", "num_steps": 4, "conditional_size": 2}
    model = tff.FlowMatchingModel(tff.image_continuous_flow((4, 4, 1), seed=1, **options), seed=1)
    losses = fitted(model, c, x.astype(np.float32), steps=100, batch_size=100)
    assert losses[-1] < 0.6 * losses[0]
    samples = model.sample(50, conditional_input=[1.0, 0.0], seed=2).numpy()
    assert samples.shape == (50, 4, 4, 1)
    np.testing.assert_allclose(samples.mean(axis=(0, 2, 3)), np.linspace(-1.0, 1.0, 4), atol=0.3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.sample(3, conditional_input=[1.0, 0.0], seed=2), model.sample(3, conditional_input=[1.0, 0.0], seed=2)
    )
    assert np.all(np.isfinite(model.log_prob(x[:4].astype(np.float32), conditional_input=c[:4])))
