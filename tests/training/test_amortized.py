"""Amortized variational inference: a conditional flow, trained over observations, against a conjugate posterior."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfd = tfp.distributions
# z ~ N(0, I) in two dimensions, x = A z + noise of deviation 0.5: the posterior is normal.
A, NOISE = np.array([[1.0, 0.5], [0.0, 1.5]], np.float32), 0.5
COVARIANCE = np.linalg.inv(np.eye(2) + A.T @ A / NOISE**2)
OBSERVATIONS = np.random.default_rng(1).normal(size=[600, 2]) @ A.T + NOISE * np.random.default_rng(2).normal(
    size=[600, 2]
)
OBSERVATIONS = OBSERVATIONS.astype(np.float32)


def joint(z, x):
    log_prior = tf.reduce_sum(tfd.Normal(0.0, 1.0).log_prob(z), -1)
    return log_prior + tf.reduce_sum(tfd.Normal(z @ A.T, NOISE).log_prob(x), -1)


def evidence(x):
    return tfd.MultivariateNormalFullCovariance(tf.zeros(2), A @ A.T + NOISE**2 * np.eye(2, dtype="f4")).log_prob(x)


def make(**options):
    flow = tff.iaf(2, num_layers=2, hidden_units=[32], conditional_size=2, base="trainable", seed=1)
    model = tff.VariationalFlow(flow, joint, seed=1, **options)
    model.compile(optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 25 * 19)))
    return model


@pytest.fixture(scope="module")
def fitted():
    model = make(path_derivative=True)
    history = model.fit(OBSERVATIONS, epochs=25, validation_data=OBSERVATIONS[:50], verbose=0)
    return model, history.history


def test_the_posterior_of_any_observation_is_the_conjugate_one(fitted):
    model, history = fitted
    assert sorted(history) == ["elbo", "loss", "val_elbo", "val_loss"]
    logs = model.evaluate(OBSERVATIONS, verbose=0, return_dict=True)
    gap = float(tf.reduce_mean(evidence(OBSERVATIONS))) - logs["elbo"]  # the mean reverse KL divergence
    assert -0.02 < gap < 0.03
    for x in ([1.0, -1.0], [-0.5, 2.0]):
        draws = model.flow.given(x).sample(20_000, seed=1).numpy()
        mean = COVARIANCE @ A.T @ np.array(x) / NOISE**2
        np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.08)
        np.testing.assert_allclose(np.cov(draws.T), COVARIANCE, atol=0.04)
        found = model.diagnose(2000, seed=1, x=x)
        assert found.effective_sample_size > 0.9
        np.testing.assert_allclose(found.iwelbo, evidence(x), atol=0.02)


def test_a_killed_run_resumes_and_a_saved_flow_is_the_same(tmp_path, fitted):
    def run(epochs, callbacks=None):
        keras.utils.set_random_seed(1)  # the order of batches
        model = make()
        model.fit(OBSERVATIONS[:100], epochs=epochs, callbacks=callbacks, verbose=0)
        return model

    def backup():
        return [tff.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)]

    whole = run(3)
    run(2, backup())
    again = run(3, backup())
    for one, two in zip(whole.weights, again.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-5, atol=1e-6)
    model, _ = fitted
    tff.FlowModel(model.flow).save(tmp_path / "flow.keras")
    loaded = keras.models.load_model(tmp_path / "flow.keras").distribution
    z = tf.zeros([3, 2])
    np.testing.assert_allclose(
        loaded.given([1.0, 2.0]).log_prob(z), model.flow.given([1.0, 2.0]).log_prob(tf.identity(z)), rtol=1e-5
    )


def test_a_joint_distribution_gives_draws_of_its_structure():
    parts = {
        "scale": tfd.LogNormal(0.0, 0.5),
        "x": lambda scale: tfd.Sample(tfd.Normal(0.0, scale), 4),
    }
    model = tff.VariationalFlow.from_model(tfd.JointDistributionNamedAutoBatched(parts), observed="x", seed=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    x = np.random.default_rng(0).normal(size=[64, 4])
    model.fit(x, epochs=2, verbose=0)
    draws = model.given(x[0]).sample(7, seed=1)
    assert list(draws) == ["scale"]
    assert draws["scale"].shape == [7]
    assert model.diagnose(200, seed=1, x=x[0]).labels == ["scale"]


def test_wrong_use_is_named():
    flow = tff.iaf(2, num_layers=1, hidden_units=[4], conditional_size=2, seed=1)
    with pytest.raises(ValueError, match="forward_kl"):
        tff.VariationalFlow(flow, joint, objective="forward_kl")
    with pytest.raises(ValueError, match="`log_normalizer` must be left out"):
        tff.VariationalFlow(flow, joint, log_normalizer=1.0)
    model = tff.VariationalFlow(flow, joint)
    model.compile()
    with pytest.raises(ValueError, match="`x` must be given"):
        model.fit()
    with pytest.raises(ValueError, match="`y` must be left out"):
        model.fit(OBSERVATIONS, y=OBSERVATIONS)
    with pytest.raises(ValueError, match="must have shape"):
        model.fit(np.zeros([10, 3]))
    with pytest.raises(ValueError, match="one observation of 2 numbers"):
        model.given([1.0])
    with pytest.raises(ValueError, match="`observed` must be the name"):
        tff.VariationalFlow.from_model(tfd.JointDistributionNamed({"a": tfd.Normal(0.0, 1.0)}), observed="b")
    plain = tff.VariationalFlow(tff.planar_flow(2, num_layers=1), lambda z: -tf.reduce_sum(z**2, -1))
    with pytest.raises(ValueError, match="needs a conditional flow"):
        plain.given([1.0])
