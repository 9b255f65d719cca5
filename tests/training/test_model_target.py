"""Posteriors of models over one vector: every kind of model, densities, names, and refusals."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.training.soft_clip import SoftClip

tfb, tfd = tfp.bijectors, tfp.distributions
Root = tfd.JointDistributionCoroutine.Root


def coroutine(auto_batched):
    root = (lambda d: d) if auto_batched else Root

    def joint():
        mu = yield root(tfd.Normal(0.0, 3.0, name="mu"))
        tau = yield root(tfd.LogNormal(0.0, 0.5, name="tau"))
        theta = yield root(tfd.Sample(tfd.Normal(0.0, 1.0), 3, name="theta"))
        loc = mu + tau * theta if auto_batched else mu[..., None] + tau[..., None] * theta
        yield tfd.Independent(tfd.Normal(loc, [1.0, 2.0, 3.0]), 1, name="y")

    kind = tfd.JointDistributionCoroutineAutoBatched if auto_batched else tfd.JointDistributionCoroutine
    return kind(joint).experimental_pin(y=[1.0, 0.0, 2.0])


@tfd.JointDistributionCoroutine
def without_batches():
    """Broadcasts wrongly over draws: `theta` has an axis more than `mu`."""
    mu = yield Root(tfd.Normal(0.0, 3.0, name="mu"))
    theta = yield Root(tfd.Sample(tfd.Normal(0.0, 1.0), 3, name="theta"))
    yield tfd.Independent(tfd.Normal(mu + theta, 1.0), 1, name="y")


def nested_bounds():
    """The support of `low` depends on `high`."""
    return tfd.JointDistributionNamedAutoBatched(
        {
            "high": tfd.Uniform(1.0, 2.0),
            "low": lambda high: tfd.Uniform(0.0, high),
            "y": lambda low: tfd.Normal(low, 1.0),
        }
    ).experimental_pin(y=0.5)


MODELS = {
    "auto batched": (lambda: coroutine(True), ["mu", "tau", "theta[0]", "theta[1]", "theta[2]"]),
    "coroutine": (lambda: coroutine(False), ["mu", "tau", "theta[0]", "theta[1]", "theta[2]"]),
    "without batches": (
        lambda: without_batches.experimental_pin(y=[1.0, 0.0, 2.0]),
        ["mu", "theta[0]", "theta[1]", "theta[2]"],
    ),
    "bounds": (nested_bounds, ["high", "low"]),
    "sequential": (
        lambda: tfd.JointDistributionSequential(
            [
                tfd.Beta(2.0, 3.0, name="p"),
                tfd.Sample(tfd.Gamma(2.0, 1.0), [2, 2], name="g"),
                lambda g, p: tfd.Normal(p, 1.0),
            ]
        ).experimental_pin([None, None, 1.5]),
        ["p", "g[0, 0]", "g[0, 1]", "g[1, 0]", "g[1, 1]"],
    ),
    "pair": (
        lambda: (tfd.MultivariateNormalDiag(tf.zeros(2), name="w"), lambda w: tfd.Normal(w[..., 0], 1.0).log_prob(0.3)),
        ["w[0]", "w[1]"],
    ),
    "pair of parts": (
        lambda: (
            tfd.JointDistributionNamed({"a": tfd.HalfNormal(1.0), "b": tfd.Normal(0.0, 1.0)}),
            lambda v: tfd.Normal(v["b"], v["a"]).log_prob(0.3),
        ),
        ["a", "b"],
    ),
    "corr": (
        lambda: tfd.JointDistributionNamedAutoBatched(
            {"r": tfd.CholeskyLKJ(3, 2.0), "y": lambda r: tfd.MultivariateNormalTriL(tf.zeros(3), r)}
        ).experimental_pin(y=[1.0, 0.0, 1.0]),
        [f"r[{i}, {j}]" for i in range(3) for j in range(3)],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_density_is_that_of_one_draw_at_a_time(name):
    make, labels = MODELS[name]
    model = make()
    target = tff.ModelTarget(model)
    assert target.labels == labels
    z = tf.random.stateless_normal([4, target.event_size], (1, 2))
    rows = target.parameters(z)
    assert rows.shape == (4, len(labels))
    for i, total in enumerate(target(z).numpy()):
        parts = target.bijector.forward(z[i])
        log_det = target.bijector.forward_log_det_jacobian(tf.identity(z[i]), event_ndims=1)
        if isinstance(model, tuple):
            expected = model[0].log_prob(parts) + model[1](parts)
        else:
            expected = model.unnormalized_log_prob(parts)
            tf.nest.assert_same_structure(parts, model.event_shape, check_types=not hasattr(parts, "_fields"))
        np.testing.assert_allclose(total, tf.reshape(expected, []) + log_det, rtol=1e-4)
        np.testing.assert_allclose(rows[i], np.concatenate([np.ravel(p) for p in tf.nest.flatten(parts)]), rtol=1e-5)
    if name != "corr":  # TFP's inverse of Cholesky factors needs exact ones
        prior = target.sample_prior(5, seed=(1, 2))
        assert prior.shape == (5, target.event_size)
        np.testing.assert_allclose(target.bijector.inverse(target.bijector.forward(tf.identity(z))), z, atol=1e-4)


def test_log_det_of_dependent_and_elementwise_bounds_is_that_of_autodiff():
    for name in ("bounds", "sequential", "auto batched"):
        target = tff.ModelTarget(MODELS[name][0]())
        z = tf.random.stateless_normal([target.event_size], (3, 4))
        with tf.GradientTape() as tape:
            tape.watch(z)
            flat = tf.concat([tf.reshape(p, [-1]) for p in tf.nest.flatten(target.bijector.forward(z))], 0)
        jacobian = tape.jacobian(flat, z).numpy()
        expected = np.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(
            target.bijector.forward_log_det_jacobian(tf.identity(z), event_ndims=1), expected, rtol=1e-4
        )


def test_bijectors_of_independent_supports_are_described_and_run_no_model():
    target = tff.ModelTarget(coroutine(True))
    copy = tff.from_description(tff.describe(target.bijector))
    z = tf.random.stateless_normal([4, 5], (1, 2))
    mine, theirs = target.bijector.forward(z), copy.forward(tf.identity(z))
    assert theirs._fields == mine._fields == ("mu", "tau", "theta")
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parts_without_a_density_over_real_numbers_are_refused_by_name():
    discrete = tfd.JointDistributionNamed({"n": tfd.Poisson(3.0), "y": lambda n: tfd.Normal(n, 1.0)})
    with pytest.raises(ValueError, match="part `n` of the model, Poisson, must be continuous"):
        tff.ModelTarget(discrete.experimental_pin(y=1.0))
    improper = tfd.JointDistributionNamed({"a": tfd.Normal(0.0, np.inf), "y": lambda a: tfd.Normal(a, 1.0)})
    with pytest.raises(ValueError, match="part `a` of the model, Normal, must have a proper prior"):
        tff.ModelTarget(improper.experimental_pin(y=1.0))
    for wrong in (lambda z: z, (1, 2), tfd.Normal(0.0, 1.0)):
        with pytest.raises(ValueError, match="`model` must be a pinned joint distribution"):
            tff.ModelTarget(wrong)


def test_an_unmappable_part_names_the_version_of_numpy(monkeypatch):
    def fails(self):
        raise TypeError("only 0-dimensional arrays can be converted")

    monkeypatch.setattr(tfd.Dirichlet, "experimental_default_event_space_bijector", fails)
    joint = tfd.JointDistributionNamed({"p": tfd.Dirichlet([1.0, 1.0]), "y": lambda p: tfd.Normal(p[..., 0], 1.0)})
    with pytest.raises(ValueError, match=r"numpy<2\.4"):
        tff.ModelTarget(joint.experimental_pin(y=1.0))


def test_a_bound_that_depends_on_another_part_in_few_draws_is_not_frozen():
    """In two of three draws the bound is 1: two draws may agree on it."""
    joint = tfd.JointDistributionNamed(
        {
            "a": tfd.Normal(0.0, 1.0),
            "b": lambda a: tfd.Uniform(0.0, tf.maximum(1.0, a)),
            "y": lambda b: tfd.Normal(b, 0.2),
        }
    )
    target = tff.ModelTarget(joint.experimental_pin(y=1.3))
    z = target.sample_prior(500, seed=(1, 2))
    assert np.all(np.isfinite(z))
    assert np.max(target.parameters(z)[:, 1]) > 1.5
    assert np.all(np.isfinite(target(z)))


def test_soft_clipping_keeps_uniform_parts_inside_and_is_linear_there():
    prior = tfd.Independent(tfd.Uniform([-10.0, 0.0], [10.0, 1.0]), 1)
    target = tff.ModelTarget((prior, lambda theta: 0.0), uniform="softclip")
    z = tf.constant([[0.3, 0.5], [-4.0, 0.2]])
    np.testing.assert_allclose(target.bijector.forward(z), z, atol=1e-4)
    far = tf.constant([[-11.0, 1.05], [11.0, -0.05], [-40.0, -5.0], [40.0, 6.0], [-1e4, -1e4], [1e4, 1e4]])
    y = target.bijector.forward(far)
    assert np.all((y.numpy() > [-10.0, 0.0]) & (y.numpy() < [10.0, 1.0]))
    assert np.all(np.isfinite(target.bijector.inverse(tf.identity(y))))
    np.testing.assert_allclose(target.bijector.inverse(tf.identity(y))[:2], far[:2], rtol=1e-2)
    scale = tff.ModelTarget((tfd.Uniform(0.0, 1.0), lambda s: tfd.Normal(0.0, s).log_prob(0.5)), uniform="softclip")
    assert not np.any(np.isnan(scale(tf.constant([[-0.3], [-1.0], [0.5]]))))  # minus infinity where float32 ends
    grid = np.stack(np.meshgrid(np.linspace(-14, 14, 800), np.linspace(-0.3, 1.3, 400)), -1).reshape(-1, 2).astype("f4")
    mass = np.sum(np.exp(target(tf.constant(grid)))) * (28 / 799) * (1.6 / 399)
    np.testing.assert_allclose(mass, 1.0, atol=5e-3)
    with pytest.raises(ValueError, match="`uniform` must be"):
        tff.ModelTarget((prior, lambda theta: 0.0), uniform="logit")


def test_soft_clipping_is_exact_in_both_directions_and_its_log_det_that_of_autodiff():
    bijector = SoftClip(tf.constant(0.0, tf.float64), tf.constant(3.0, tf.float64), tf.constant(0.06, tf.float64))
    x = tf.constant(np.linspace(-1.0, 4.0, 201))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = bijector.forward(x)
    np.testing.assert_allclose(bijector.inverse(tf.identity(y)), x, atol=1e-7)
    expected = np.log(tape.gradient(y, x))
    np.testing.assert_allclose(bijector.forward_log_det_jacobian(tf.identity(x), 0), expected, atol=1e-7)
