"""Joint mixtures as maps: exactly TFP's density, found again by EM, and finite where data are few, constant or far."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.bijectors import MixtureBijector

tfd = tfp.distributions
MOONS = tff.data.moons()


def test_a_mixture_is_found_again():
    """The density is that of TFP's mixture; EM finds where data came from, and its likelihood is no worse than the truth's."""

    def make(dtype=tf.float64):
        layer = MixtureBijector(3, 3, seed=1, dtype=dtype)
        testing.redraw_weights(layer, seed=3, scale=0.7)
        return layer

    testing.check_bijector(make, [3], jit=False)  # XLA takes a minute to compile the solves
    testing.check_jacobian_zeros(make(), testing.draw_events([3]), np.tri(3, dtype=bool))
    testing.check_float32(make, [3])
    layer = make()
    layer.loc.assign([[-3.0, 1.0, 0.0], [0.0, -2.0, 2.0], [2.0, 0.0, -1.0]])
    layer.log_scale.assign(0.5 * layer.log_scale)
    flow = tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(3, tf.float64), tf.ones(3, tf.float64)), layer
    )
    parts = tfd.MultivariateNormalDiag(layer.loc, tf.exp(layer.log_scale))
    truth = tfd.MixtureSameFamily(tfd.Categorical(logits=layer.logits), parts)
    x = truth.sample(4000, seed=[1, 2])
    np.testing.assert_allclose(flow.log_prob(x), truth.log_prob(x), atol=1e-9)
    testing.check_density(flow)
    far = tf.constant([[1e3, -1e3, 50.0], [0.0, 0.0, -1e5]], tf.float64)
    testing.check_round_trip(layer, far, tolerance=1e-6)
    shift, scale = np.array([1e4, 0.0, -3.0]), np.array([1e3, 1e-2, 1.0])
    found = MixtureBijector(3, 3, seed=2, dtype=tf.float64)
    assert not found.adapted
    found.adapt(shift + scale * x)
    assert found.adapted
    fitted = tfd.TransformedDistribution(flow.distribution, found)
    gap = np.mean(truth.log_prob(x) - np.log(scale).sum() - fitted.log_prob(shift + scale * x))
    assert -0.02 < gap < 0.0


def test_a_mixture_keeps_to_what_few_rows_tell():
    """A first batch of 32 rows lets no component collapse; constant columns stay finite; nothing is NaN between far modes."""
    x, test = MOONS.sample(32, seed=1).astype("float32"), MOONS.sample(2000, seed=2).astype("float32")
    layer = MixtureBijector(2, 16, seed=1)
    layer.adapt(x)
    flow = tff.FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), layer)
    assert -np.mean(flow.log_prob(test)) < 4.0  # one Gaussian: 1.9
    x[:, 1] = 0.0
    layer.adapt(x)
    assert np.all(np.isfinite(layer.inverse(x)))
    layer = MixtureBijector(1, 2)
    layer.loc.assign([[-3.0], [3.0]])
    layer.log_scale.assign([[-3.0], [-3.0]])
    with tf.GradientTape() as tape:
        y = layer.forward(tf.zeros([1, 1]))
    assert np.abs(y) < 2.9
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(y, layer.trainable_variables))
    offset = MixtureBijector(2, 8, seed=1)
    offset.adapt(1e4 + test)
    parts = tfd.MultivariateNormalDiag(offset.loc, tf.exp(offset.log_scale))
    truth = tfd.MixtureSameFamily(tfd.Categorical(logits=offset.logits), parts)
    flow = tff.FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), offset)
    np.testing.assert_allclose(flow.log_prob(1e4 + test), truth.log_prob(1e4 + test), atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_each_of_many_narrow_clusters_gets_a_component(seed):
    """Components start far apart: those of random rows share clusters, and expectation maximization cannot part them."""
    rng = np.random.default_rng(seed)
    centers = 10.0 * np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), axis=-1).reshape(-1, 2)
    x = np.repeat(centers, 50, axis=0) + 0.1 * rng.normal(size=[800, 2])
    layer = MixtureBijector(2, 16, seed=seed, dtype=tf.float64)
    layer.adapt(rng.permutation(x))
    distance = np.linalg.norm(layer.loc.numpy()[:, None] - centers, axis=-1)
    np.testing.assert_array_equal(np.sort(np.argmin(distance, axis=1)), np.arange(16))
    assert np.max(np.min(distance, axis=1)) < 0.1


def test_of_very_many_sorted_rows_all_parts_count():
    layer = MixtureBijector(1, 2, seed=1)
    layer.adapt(np.repeat([-1.0, 1.0], 40_000)[:, None] + 0.1 * np.sin(np.arange(80_000.0))[:, None])
    np.testing.assert_allclose(np.sort(layer.loc, axis=0), [[-1.0], [1.0]], atol=0.02)
