"""Posteriors of simulators: known answers, structures, encoders, datasets, and refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfd = tfp.distributions
NORMAL = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2), name="theta")


def noisy(theta, seed):
    return theta + 0.5 * tf.random.stateless_normal(tf.shape(theta), seed)


def small(prior=NORMAL, simulator=noisy, **options):
    options = {"num_layers": 1, "hidden_units": [16], "seed": 1, **options}
    return tff.NeuralPosterior(prior, simulator, **options)


@pytest.fixture(scope="module")
def gaussian():
    posterior = small()
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 540), global_clipnorm=5.0)
    history = posterior.fit(num_simulations=3000, epochs=20, optimizer=optimizer, verbose=0).history
    return posterior, history


def test_the_posterior_of_a_linear_model_is_exact(gaussian):
    posterior, history = gaussian
    assert history["val_loss"][-1] < history["val_loss"][0]
    x = np.array([[0.8, -1.0], [-0.5, 0.3]], "float32")
    exact = tfd.MultivariateNormalDiag(x / 1.25, np.full([2, 2], np.sqrt(0.2), "float32"))
    draws = posterior.sample(4000, x, seed=1)
    assert draws.shape == (4000, 2, 2)
    np.testing.assert_allclose(np.mean(draws, axis=0), x / 1.25, atol=0.08)
    np.testing.assert_allclose(np.std(draws, axis=0), np.sqrt(0.2), rtol=0.12)
    log_prob = posterior.log_prob(draws, x)
    assert abs(float(tf.reduce_mean(exact.log_prob(draws) - log_prob))) < 0.05
    entropy = float(tf.reduce_mean(exact.entropy()))
    assert history["val_loss"][-1] > entropy - 0.15  # not below the conditional entropy
    assert posterior.calibrate(300, seed=3).p_value > 1e-3


def test_one_observation_is_an_ordinary_distribution(gaussian):
    posterior, _ = gaussian
    x = np.array([0.8, -1.0], "float32")
    given = posterior.given(x)
    draws = given.sample(5, seed=1)
    np.testing.assert_allclose(given.log_prob(draws), posterior.log_prob(draws, x), atol=1e-4)
    grid = np.stack(np.meshgrid(*[np.linspace(-4, 4, 201)] * 2), -1).reshape(-1, 2).astype("float32")
    np.testing.assert_allclose(np.sum(np.exp(given.log_prob(grid))) * 0.04**2, 1.0, atol=2e-3)


def test_draws_of_bounded_parts_are_inside_and_densities_integrate_to_one():
    prior = tfd.JointDistributionNamed({"loc": tfd.Uniform(-1.0, 1.0), "scale": tfd.HalfNormal(1.0)})

    def simulator(theta, seed):
        return theta["loc"][:, None] + theta["scale"][:, None] * tf.random.stateless_normal(
            [len(theta["loc"]), 3], seed
        )

    soft = small(prior, simulator)
    posterior = small(prior, simulator, uniform="sigmoid")
    x = np.array([0.9, 0.1, -0.4], "float32")
    for each in (soft, posterior):
        each.fit(num_simulations=500, epochs=3, verbose=0)
        assert each.target.labels == ["loc", "scale"]
        draws = each.sample(2000, x, seed=1)
        assert np.all(np.abs(draws["loc"]) < 1.0)
        assert np.all(draws["scale"] > 0.0)
        assert np.all(np.isfinite(each.log_prob(draws, x)))
    loc, scale = np.meshgrid(np.linspace(-0.9999, 0.9999, 200), np.geomspace(1e-4, 30.0, 400), indexing="ij")
    density = np.exp(posterior.log_prob({"loc": loc.ravel().astype("f4"), "scale": scale.ravel().astype("f4")}, x))
    mass = np.trapezoid(np.trapezoid(density.reshape(loc.shape), scale[0], axis=1), loc[:, 0])
    np.testing.assert_allclose(mass, 1.0, atol=0.02)


def test_a_joint_distribution_is_prior_and_simulator():
    @tfd.JointDistributionCoroutineAutoBatched
    def joint():
        w = yield tfd.Sample(tfd.Normal(0.0, 1.0), 2, name="w")
        tau = yield tfd.LogNormal(0.0, 0.2, name="tau")
        yield tfd.Normal(w * tau, 0.5, name="y")

    posterior = small(joint, None, observed="y")
    theta, x = posterior.simulate(30)
    assert theta._fields == ("w", "tau")
    assert x.shape == (30, 2)
    assert np.corrcoef((theta.w * theta.tau[:, None]).ravel(), x.ravel())[0, 1] > 0.8
    posterior.fit(theta, x, epochs=1, verbose=0)
    assert posterior.sample(3, x[0]).w.shape == (3, 2)
    again, _ = posterior.simulate(30)
    np.testing.assert_array_equal(again.w, theta.w)


def test_sets_and_datasets():
    def simulator(theta, seed):
        return theta[:, None, :] + 0.5 * tf.random.stateless_normal([len(theta), 6, 2], seed)

    posterior = small(simulator=simulator, encoder="set")
    theta, x = posterior.simulate(400)
    pairs = tf.data.Dataset.from_tensor_slices((theta, x)).batch(50)
    history = posterior.fit(pairs, epochs=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    observed = x[0]
    a, b = (posterior.log_prob(theta[:4], o) for o in (observed, observed[::-1]))
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.max(np.abs(a - posterior.log_prob(theta[:4], observed + 1.0))) > 1e-3
    with pytest.raises(ValueError, match=r"`x` must have rows of shape \[6, 2\]"):
        posterior.fit(theta, x[:, :5])


def test_numpy_simulators_without_seed_and_scalar_data():
    rng = np.random.default_rng(0)
    posterior = small(tfd.Normal(0.0, 1.0, name="a"), lambda a: np.asarray(a) + rng.normal(size=len(a)))
    posterior.fit(num_simulations=100, epochs=1, verbose=0)
    assert posterior.sample(3, [0.5]).shape == (3,)


def test_the_optimizer_and_callbacks_are_those_of_the_user():
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"]))
    posterior = small()
    optimizer = keras.optimizers.SGD(1e-3)
    posterior.fit(num_simulations=100, epochs=2, optimizer=optimizer, callbacks=[callback], verbose=0)
    assert len(seen) == 2
    assert posterior.model.optimizer is optimizer


def test_wrong_input_is_refused():
    posterior = small()
    theta, x = (np.asarray(v) for v in posterior.simulate(50))
    cases = [
        (lambda: tff.NeuralPosterior(noisy), "`prior` must be"),
        (lambda: tff.NeuralPosterior(NORMAL, 3), "`simulator` must be callable"),
        (lambda: tff.NeuralPosterior(NORMAL, observed="y"), "`observed` needs a tfd.JointDistribution"),
        (lambda: tff.NeuralPosterior(NORMAL, noisy, encoder="image"), "`encoder` must be"),
        (lambda: tff.NeuralPosterior(NORMAL).fit(), "no `simulator`"),
        (lambda: posterior.fit(theta), "`x` must be given"),
        (lambda: posterior.fit(theta, x[:9]), "same number of rows"),
        (lambda: posterior.fit(np.where(theta > 1, np.nan, theta), x), "`theta` must be inside of the prior's support"),
        (lambda: posterior.fit(theta, np.where(x > 1, np.inf, x)), "`x` must be finite; row"),
        (lambda: posterior.sample(5, x[0]), "Call `fit` first"),
        (lambda: small(simulator=lambda theta: np.zeros(3)).simulate(10), "`simulator` must return 10 rows"),
        (
            lambda: small(simulator=lambda theta: np.zeros([len(theta), 4, 4])).fit(num_simulations=40),
            "`encoder` must be given",
        ),
        (lambda: small(tfd.Independent(tfd.Poisson([1.0, 2.0]), 1)), "must be continuous"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_held_out_rows_of_a_dataset_are_never_trained_on_and_steps_are_its_own():
    posterior = small()
    theta, x = posterior.simulate(200)
    rows = tf.data.Dataset.from_tensor_slices((theta, x))
    with pytest.raises(ValueError, match="same order in each pass"):
        posterior.fit(rows.shuffle(200).batch(20), epochs=1, verbose=0)
    with pytest.raises(ValueError, match="at least two batches"):
        posterior.fit(rows.batch(200), epochs=1, verbose=0)
    posterior.fit(rows.batch(10), epochs=2, verbose=0)
    assert posterior.model.optimizer.learning_rate < 1e-5  # the cosine ends with the last step
    assert int(posterior.model.optimizer.iterations) == 2 * 18


def test_simulations_of_neighboring_seeds_differ_and_global_generators_are_left_alone():
    posterior = small(encoder="set", simulator=lambda theta, seed: tf.random.stateless_normal([len(theta), 3, 1], seed))
    many, few = posterior.simulate(2000, seed=0)[0], posterior.simulate(1000, seed=1000)[0]
    assert not np.any(np.isin(np.asarray(many), np.asarray(few)))
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.uniform(size=2)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    posterior.fit(num_simulations=40, epochs=1, verbose=0)
    np.testing.assert_array_equal(np.random.uniform(size=2), expected)  # noqa: NPY002


def test_densities_are_zero_outside_of_the_prior():
    posterior = small(tfd.Uniform(0.0, 1.0, name="a"), lambda a: np.asarray(a)[:, None] + np.zeros([1, 2]))
    posterior.fit(num_simulations=60, epochs=1, verbose=0)
    values = posterior.log_prob(np.array([-0.5, 0.5, 1.5], "f4"), [0.5, 0.5])
    np.testing.assert_array_equal(np.isfinite(values), [False, True, False])
    assert values[0] == -np.inf
