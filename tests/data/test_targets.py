"""The targets of variational inference, and the diagnostics of an approximation, against what is known."""

import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import diagnostics
from tfp_flows.data import targets

tfd = tfp.distributions


def integral(target, reach, n=1601):
    """By the trapezoidal rule, which knows nothing of the package's own."""
    x = np.linspace(-reach, reach, n)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(target.log_prob(tf.constant(grid)).numpy()).reshape(n, n)
    return np.log(scipy.integrate.trapezoid(scipy.integrate.trapezoid(p, x), x))


@pytest.mark.parametrize(("name", "log_z"), [("u1", 1.877502), ("u2", 2.082089), ("u3", 2.641705), ("u4", 2.684568)])
def test_energies_on_the_box(name, log_z):
    """DESIGN section 5."""
    make = targets.energies[name]
    target = make() if name == "u1" else make(wall=None)
    np.testing.assert_allclose(target.log_normalizer, log_z, atol=2e-6)
    np.testing.assert_allclose(integral(target, 4.0), log_z, atol=3e-4)


@pytest.mark.parametrize("name", ["u1", "u2", "u3", "u4", "ring", "eight_gaussians"])
def test_normalizers_on_the_plane(name):
    target = targets.targets[name]()
    np.testing.assert_allclose(integral(target, 7.0), target.log_normalizer, atol=1e-4)


def test_walls_lead_back_and_boxes_end():
    outside = tf.constant([[5.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(outside)
        value = targets.u2().log_prob(outside)
    assert np.isfinite(value)
    assert tape.gradient(value, outside)[0, 0] < -50
    assert targets.u2(wall=None).log_prob(outside) == -np.inf
    assert np.isneginf(targets.u3(box=2.0, wall=None).log_prob(tf.constant([0.0, 2.5])))


def test_the_normalized_targets_are_the_densities():
    x = np.random.default_rng(0).normal(size=[100, 2]) * 2.0
    for name in ("banana", "eight_gaussians"):
        expected = tff.data.densities[name]().log_prob(x)
        np.testing.assert_allclose(targets.targets[name]().log_prob(tf.constant(x)), expected, rtol=1e-9)
    v = tf.constant([[0.7, 0.2, -1.0]], tf.float64)
    expected = tfd.Normal(0.0, 3.0).log_prob(0.7) + np.sum(tfd.Normal(0.0, np.exp(0.35)).log_prob([0.2, -1.0]))
    np.testing.assert_allclose(targets.funnel(3).log_prob(v), [expected], rtol=1e-6)


@pytest.mark.parametrize("name", sorted(targets.targets))
def test_shapes_gradients_and_dtypes(name):
    target = targets.targets[name]()
    z = tf.zeros([3, 4, target.event_size])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = target(z)
    assert value.shape == [3, 4]
    assert value.dtype == tf.float32
    assert np.all(np.isfinite(tape.gradient(value, z)))  # also at the origin, where a norm has a kink
    with pytest.raises(ValueError, match=r"`z` must have shape"):
        target.log_prob(tf.zeros([5, 7]))


def test_bad_targets_are_named():
    with pytest.raises(ValueError, match="`wall`"):
        targets.u2(wall=-1.0)
    with pytest.raises(ValueError, match="`box` must be positive"):
        targets.Target("mine", 2, lambda z: z[..., 0], box=0.0)
    with pytest.raises(ValueError, match="`log_normalizer`"):
        targets.Target("mine", 3, lambda z: z[..., 0])
    with pytest.raises(ValueError, match="two dimensions"):
        targets.funnel().quadrature()
    with pytest.raises(ValueError, match="`event_size`"):
        targets.funnel(1)


def test_reverse_kl_of_two_normals():
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s in each dimension."""
    p = tfd.MultivariateNormalDiag(tf.zeros(2, tf.float64), tf.ones(2, tf.float64))
    target = targets.Target("normal", 2, lambda z: p.log_prob(z) + 2.5, log_normalizer=2.5)
    mean, scale = np.array([0.5, -0.3]), np.array([0.7, 1.2])
    q = tfd.MultivariateNormalDiag(mean, scale)
    exact = np.sum((mean**2 + scale**2 - 1.0) / 2.0 - np.log(scale))
    found = diagnostics.reverse_kl(q, target)
    np.testing.assert_allclose(found, (exact, 1.0), rtol=1e-8)
    np.testing.assert_allclose(diagnostics.reverse_kl(q, target, resolution=160), (exact, 1.0), rtol=1e-4)
    weights = diagnostics.importance_diagnostics(q, target, num_samples=20_000, seed=1)
    assert abs(weights.elbo - (2.5 - exact)) < 4 * weights.elbo_error
    np.testing.assert_allclose(weights.log_normalizer, 2.5, atol=0.05)
    log_w = weights.log_weights
    np.testing.assert_allclose(
        weights.effective_sample_size, np.mean(np.exp(log_w)) ** 2 / np.mean(np.exp(2 * log_w)), rtol=1e-9
    )


def test_pareto_k_tells_good_weights_from_bad():
    p = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
    ks = [
        diagnostics.pareto_k(
            diagnostics.importance_diagnostics(
                tfd.MultivariateNormalDiag(tf.zeros(2), [scale, scale]), p.log_prob, num_samples=5000, seed=1
            ).log_weights
        )
        for scale in (1.1, 0.4)
    ]
    # For a normal proposal of scale s < 1, weights have a tail of index 1 / (1 - s^2): k = 0.84 at s = 0.4.
    assert ks[0] < 0.3
    assert 0.6 < ks[1] < 1.1
