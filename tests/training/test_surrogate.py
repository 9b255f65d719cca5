"""Flows over the unknowns of a model: structure, density, training, and TFP's own tools."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import tfp_flows as tff

tfd = tfp.distributions


@tfd.JointDistributionCoroutineAutoBatched
def linear():
    """Conjugate: the posterior of `w` is normal."""
    w = yield tfd.Sample(tfd.Normal(0.0, 100.0), 2, name="w")
    yield tfd.Independent(tfd.Normal(w + w[::-1] * 0.5, 0.5), 1, name="y")


PINNED = linear.experimental_pin(y=[300.0, 310.0])


def exact():
    a = np.array([[1.0, 0.5], [0.5, 1.0]])
    precision = a.T @ a / 0.25 + np.eye(2) / 1e4
    return np.linalg.solve(precision, a.T @ np.array([300.0, 310.0]) / 0.25), np.linalg.inv(precision)


def test_a_posterior_far_from_zero_is_found_from_the_scale_of_the_prior():
    model = tff.VariationalFlow.from_model(
        PINNED, tff.real_nvp, num_layers=2, hidden_units=[8], base="trainable", seed=1
    )
    schedule = keras.optimizers.schedules.CosineDecay(3e-2, 1200)
    model.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=10.0))
    model.fit(steps_per_epoch=400, epochs=3, verbose=0)
    mean, covariance = exact()
    found = model.diagnose(num_samples=4000, seed=1)
    deviation = np.sqrt(np.diag(covariance))
    assert found.labels == ["w[0]", "w[1]"]
    assert np.max(np.abs(found.weighted_mean - mean) / deviation) < 0.2
    np.testing.assert_allclose(found.weighted_deviation, deviation, rtol=0.1)
    assert found.coverage > 0.95
    pytest.importorskip("arviz_base", reason="before ArviZ 1 the container differs")
    assert found.to_inference_data()["posterior"]["w"].shape == (1, 4000, 2)


def test_surrogates_are_distributions_of_the_structure_of_the_model():
    posterior = tff.surrogate_posterior(PINNED, num_layers=1, hidden_units=[8], seed=1)
    assert isinstance(posterior, tfd.Distribution)
    draws = posterior.sample(5, seed=(1, 2))
    assert draws._fields == ("w",)
    z = posterior.bijector.inverse(draws)
    log_det = posterior.bijector.forward_log_det_jacobian(tf.identity(z), event_ndims=1)
    expected = posterior.distribution.log_prob(z) - log_det
    np.testing.assert_allclose(posterior.log_prob(draws), expected, rtol=1e-5)
    assert len(posterior.trainable_variables) == len(posterior.distribution.trainable_variables) > 0
    optimizer = tf_keras.optimizers.Adam(1e-2)
    losses = tfp.vi.fit_surrogate_posterior(
        PINNED.unnormalized_log_prob, posterior, optimizer, num_steps=30, seed=(1, 2)
    )
    assert losses[-1] < losses[0]


def test_one_unknown_number_has_a_flow_too():
    model = (tfd.HalfNormal(2.0, name="s"), lambda s: tfd.Normal(0.0, s).log_prob(1.0))
    posterior = tff.surrogate_posterior(model, seed=1)
    draws = posterior.sample(100, seed=1)
    assert draws.shape == (100,)
    assert np.all(draws > 0)
    grid = tf.linspace(1e-3, 30.0, 20_000)
    np.testing.assert_allclose(np.trapezoid(np.exp(posterior.log_prob(grid)), grid), 1.0, atol=5e-3)


def test_unknown_options_reach_the_recipe_which_refuses_them():
    with pytest.raises(TypeError, match="number_of_layers"):
        tff.VariationalFlow.from_model(PINNED, number_of_layers=3)


def test_a_saved_flow_is_the_same_posterior_again(tmp_path):
    posterior = tff.surrogate_posterior(PINNED, num_layers=1, hidden_units=[8], seed=1)
    for i, variable in enumerate(posterior.trainable_variables):
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, (i, 1)))
    tff.FlowModel(posterior.distribution).save(tmp_path / "posterior.keras")
    loaded = keras.models.load_model(tmp_path / "posterior.keras")
    again = tff.SurrogatePosterior(loaded.distribution, tff.ModelTarget(PINNED))
    draws = posterior.sample(5, seed=(1, 2))
    np.testing.assert_allclose(again.sample(5, seed=(1, 2)).w, draws.w, rtol=1e-5)
    np.testing.assert_allclose(again.log_prob(draws), posterior.log_prob(draws), rtol=1e-5)
