"""Diagnostics of approximate posteriors: values with known answers, and alarms that are neither missed nor false."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfd = tfp.distributions
diagnose = tff.diagnostics.posterior_diagnostics


def normal(size, scale=1.0, loc=0.0):
    return tfd.MultivariateNormalDiag(tf.fill([size], loc), tf.fill([size], scale))


def test_an_exact_approximation_has_no_warning():
    q = normal(3)
    found = diagnose(q, lambda z: q.log_prob(z) + 2.5, num_samples=2000, seed=1)
    np.testing.assert_allclose([found.elbo, found.iwelbo], 2.5, atol=1e-4)
    assert found.effective_sample_size > 0.9999
    assert found.pareto_k == -np.inf
    assert found.warnings == []
    np.testing.assert_allclose(found.mean, 0.0, atol=0.1)


def test_weights_correct_a_wide_approximation():
    q, p = normal(2, 1.3, 0.2), normal(2)
    found = diagnose(q, p.log_prob, num_samples=20_000, seed=1)
    kl = float(tfd.kl_divergence(q, p))
    np.testing.assert_allclose(found.elbo, -kl, atol=4 * found.elbo_error)
    np.testing.assert_allclose(found.iwelbo, 0.0, atol=4 * found.iwelbo_error)
    np.testing.assert_allclose(found.deviation, 1.3, rtol=0.03)
    np.testing.assert_allclose(found.weighted_deviation, 1.0, rtol=0.03)
    np.testing.assert_allclose(found.weighted_mean, 0.0, atol=0.03)
    assert found.pareto_k < 0.7


def test_a_narrow_approximation_has_a_heavy_tail():
    found = diagnose(normal(2, 0.4), normal(2).log_prob, num_samples=5000, seed=1)
    assert found.pareto_k > 0.7
    assert "heavy tail" in str(found)


@pytest.mark.parametrize("size", [2, 20, 100])
def test_coverage_gives_no_false_alarm_and_finds_far_modes_in_many_dimensions(size):
    q, far = normal(size), normal(size, 1.0, 6.0)
    assert diagnose(q, normal(size, 1.02).log_prob, num_samples=4000, seed=1).coverage > 0.95
    two = tfd.Mixture(tfd.Categorical(probs=[0.6, 0.4]), [q, far])
    proposal = normal(size, 5.0, 3.0)  # as the start of a flow that has been trained into one mode
    assert abs(diagnose(q, two.log_prob, proposal=proposal, num_samples=4000, seed=1).coverage - 0.6) < 0.1


def test_draws_go_on_into_arviz_with_names_and_shapes():
    pytest.importorskip("arviz_base")
    model = (
        tfd.JointDistributionNamed(
            {"a": tfd.Independent(tfd.Normal(tf.zeros([2, 3]), 1.0), 2), "b": tfd.HalfNormal(1.0)}
        ),
        lambda parts: tfd.Normal(parts["b"], 1.0).log_prob(0.3),
    )
    target = tff.ModelTarget(model)
    found = diagnose(normal(7), target, num_samples=500, seed=1)
    posterior = found.to_inference_data()["posterior"]
    assert posterior["a"].shape == (1, 500, 2, 3)
    assert posterior["b"].shape == (1, 500)
    np.testing.assert_allclose(posterior["a"].values[0, :, 1, 2].mean(), found.weighted_mean[5], atol=0.2)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="`num_samples` must be"):
        diagnose(normal(2), normal(2).log_prob, num_samples=10)


def test_targets_with_hard_bounds_have_diagnostics_and_nan_is_an_error():
    q = normal(2)
    found = diagnose(q, lambda z: tf.where(z[:, 0] > 0, q.log_prob(z), -np.inf), num_samples=2000, seed=1)
    np.testing.assert_allclose(found.iwelbo, np.log(0.5), atol=0.1)
    np.testing.assert_allclose(found.effective_sample_size, 0.5, atol=0.05)
    with pytest.raises(ValueError, match="must not be NaN"):
        diagnose(q, lambda z: tf.where(z[:, 0] > -2, q.log_prob(z), np.nan), num_samples=2000, seed=1)
