"""Objectives of variational inference: their values, gradients, and what each is for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.training.objectives import forward_kl, renyi_bound

tfd = tfp.distributions
LOG_W = tf.constant([0.3, -1.0, 2.0, 0.1, -0.4, 0.9], tf.float64)
MODES = tfd.MixtureSameFamily(
    tfd.Categorical(probs=[0.35, 0.65]), tfd.MultivariateNormalDiag([[-4.0, -4.0], [4.0, 4.0]], 0.7 * tf.ones([2, 2]))
)


def fitted(objective, target, flow, steps=300, rate=5e-3, **options):
    model = tff.VariationalFlow(flow, target, objective=objective, seed=1, **{"sample_size": 128, **options})
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=10.0))
    model.fit(steps_per_epoch=steps, epochs=1, verbose=0)
    return model


def test_bounds_have_their_definitions():
    w = np.exp(LOG_W.numpy()).reshape(2, 3)
    np.testing.assert_allclose(renyi_bound(LOG_W, 1.0, 3), -LOG_W)
    for alpha in (0.0, 0.5, 2.0):
        expected = -np.log(np.mean(w ** (1 - alpha), axis=1)) / (1 - alpha)
        np.testing.assert_allclose(
            renyi_bound(LOG_W, alpha, 3).numpy().reshape(2, 3), expected[:, None] + np.zeros([2, 3])
        )
    # In the limit of alpha = 1 the bound is the ELBO.
    np.testing.assert_allclose(np.mean(renyi_bound(LOG_W, 1 - 1e-6, 6)), -np.mean(LOG_W), atol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 0.0, 0.5])
def test_path_derivatives_have_the_expectation_of_the_gradient(alpha):
    """With many groups, the gradient without the score term agrees with the gradient of the bound."""
    target = tfd.MultivariateNormalDiag([0.5, -0.3], [0.8, 1.2])
    loc, log_scale = tf.Variable([0.2, 0.1]), tf.Variable([0.1, -0.2])
    q = tfd.MultivariateNormalDiag(loc, tfp.util.DeferredTensor(log_scale, tf.exp))
    gradients = []
    for path in (False, True):
        model = tff.VariationalFlow(
            q,
            target.log_prob,
            objective=alpha,
            num_importance_samples=4,
            sample_size=400_000,
            path_derivative=path,
            seed=1,
        )
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model.loss_terms(None, tf.constant([1, 2]), True)["loss"])
        gradients.append(tf.concat(tape.gradient(loss, [loc, log_scale]), axis=0).numpy())
    np.testing.assert_allclose(*gradients, atol=0.01)
    assert np.max(np.abs(gradients[0])) > 0.1


def test_forward_weights_are_normalized_and_tempered_only_while_few_samples_count():
    log_q = tf.zeros([6], tf.float64)
    w = np.exp(LOG_W.numpy())
    share = w / w.sum()
    assert 1 / np.sum(share**2) > 0.25 * 6
    np.testing.assert_allclose(forward_kl(log_q - 1.0, LOG_W), 6 * share)
    extreme = forward_kl(log_q - 1.0, 100.0 * LOG_W).numpy() / 6
    np.testing.assert_allclose(np.sum(extreme), 1.0)
    np.testing.assert_allclose(1 / np.sum(extreme**2), 1.5, rtol=1e-3)


def normal_flow():
    scale = tfp.util.TransformedVariable(tf.eye(2), tfp.bijectors.FillScaleTriL())
    return tfd.MultivariateNormalTriL(tf.Variable([0.1, 0.0]), scale)


def test_a_lost_mode_is_noticed_and_forward_kl_keeps_both():
    lost = fitted("reverse_kl", MODES.log_prob, normal_flow(), rate=5e-2).diagnose(num_samples=4000, seed=1)
    assert abs(lost.coverage - 0.65) < 0.05 or abs(lost.coverage - 0.35) < 0.05
    assert lost.effective_sample_size > 0.9  # the weights alone do not notice
    assert "misses about" in str(lost)
    flow = tff.real_nvp(2, num_layers=4, hidden_units=[32], base="trainable", seed=1)
    kept = fitted("forward_kl", MODES.log_prob, flow, steps=500, rate=1e-2).diagnose(num_samples=4000, seed=1)
    assert abs(np.mean(flow.sample(4000, seed=2)[:, 0] > 0) - 0.65) < 0.1
    assert kept.coverage > 0.95
    assert abs(kept.iwelbo) < 0.05


@pytest.mark.slow
def test_both_modes_in_five_of_five_seeds():
    for seed in range(5):
        reverse, forward = (
            fitted(
                objective, MODES.log_prob, tff.spline_coupling(2, base="trainable", seed=seed), 1500, sample_size=256
            )
            for objective in ("reverse_kl", "forward_kl")
        )
        assert reverse.diagnose(seed=1).coverage < 0.75
        assert abs(np.mean(forward.flow.sample(10_000, seed=1)[:, 0] > 0) - 0.65) < 0.1
        assert forward.diagnose(seed=1).coverage > 0.95


def test_importance_weighted_bounds_are_tighter_than_the_elbo_after_training():
    """The banana is no Gaussian: each objective is best in its own bound."""
    target = tff.data.targets.banana()

    def bound(model, alpha, samples=16):
        z, log_q = model.flow.experimental_sample_and_log_prob(samples * 4000, seed=(3, 4))
        return -float(tf.reduce_mean(renyi_bound(target(z) - log_q, alpha, samples)))

    elbo = fitted(1.0, target, normal_flow(), steps=800, rate=2e-2)
    weighted = fitted(
        "importance_weighted", target, normal_flow(), steps=800, rate=2e-2, sample_size=512, path_derivative=True
    )
    assert bound(weighted, 0.0) > bound(elbo, 0.0) + 0.02
    assert bound(elbo, 1.0) > bound(weighted, 1.0) + 0.02


def test_wrong_objectives_are_refused():
    flow, target = tff.planar_flow(2, num_layers=1), tff.data.targets.u1()
    cases = [
        ({"objective": "elbo"}, "`objective` must be"),
        ({"objective": np.nan}, "`objective` must be"),
        ({"objective": -0.5}, "`objective` must be"),  # an upper bound
        ({"objective": "forward_kl", "path_derivative": True}, "`path_derivative` must be false"),
        ({"objective": 0.5, "sample_size": 10, "num_importance_samples": 4}, "must divide `sample_size`"),
        ({"proposal": tfd.Normal(0.0, 1.0), "objective": "forward_kl"}, "`proposal` must have the event shape"),
        ({"proposal": tfd.MultivariateNormalDiag([0.0, 0.0])}, "`proposal` must have the event shape"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            tff.VariationalFlow(flow, target, **options)


def test_forward_kl_of_a_target_with_bounded_support():
    """Most samples of the start are outside of the box, where the density is zero."""
    box = tf.constant([0.5, 0.5])
    flow = tff.real_nvp(2, num_layers=2, hidden_units=[8], base="trainable", seed=1)
    model = fitted("forward_kl", lambda z: tf.where(tf.reduce_all(tf.abs(z) < box, -1), 0.0, -np.inf), flow, rate=1e-2)
    assert np.mean(np.all(np.abs(model.flow.sample(2000, seed=1)) < 0.6, axis=-1)) > 0.8
    share = forward_kl(tf.zeros([10]) - 1.0, tf.constant([0.0] * 2 + [-np.inf] * 8)) / 10.0
    np.testing.assert_allclose(share, [0.5] * 2 + [0.0] * 8, atol=1e-6)
    assert np.all(np.isnan(forward_kl(tf.zeros([2]), tf.constant([0.0, np.nan]))))
