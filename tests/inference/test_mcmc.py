"""Markov chains in a flow's coordinates: known moments, counted gradients, frozen flows, and warnings."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.inference.fisher import FisherModel

tfd = tfp.distributions
LOC, CHOL = np.array([1.0, -2.0], "f4"), np.array([[1.0, 0.0], [3.0, 0.5]], "f4")
NORMAL = tfd.MultivariateNormalTriL(LOC, CHOL)


def check_moments(result, atol=0.25):
    flat = result.values.reshape(-1, 2)
    deviation = np.sqrt(np.diag(CHOL @ CHOL.T))
    np.testing.assert_allclose((flat.mean(axis=0) - LOC) / deviation, 0.0, atol=atol)
    np.testing.assert_allclose(flat.std(axis=0) / deviation, 1.0, atol=atol)


@pytest.fixture(scope="module")
def plain():
    return tff.mcmc.sample(
        NORMAL.log_prob, None, event_size=2, num_chains=8, num_samples=200, num_warmup=150, kernel="hmc", seed=1
    )


def test_moments_and_counts_of_hmc_without_a_flow(plain):
    check_moments(plain)
    assert plain.values.shape == (8, 200, 2)
    assert plain.draws.shape == (200, 8, 2)
    assert plain.num_gradients == {"warmup": 150 * 8 * 8, "sampling": (200 + 5 * 25) * 8 * 8}
    assert np.all(plain.rhat < 1.1)
    assert 0.5 < plain.acceptance < 1.0
    assert "ESS bulk" in str(plain)


def test_a_trained_flow_makes_a_correlated_target_easy_and_stays_frozen():
    flow = tff.real_nvp(2, num_layers=2, hidden_units=[16], base=None, seed=1)
    result = tff.mcmc.sample(
        NORMAL.log_prob, flow, event_size=2, num_chains=8, num_samples=100, num_warmup=100, training_steps=600, seed=1
    )
    check_moments(result)
    assert np.min(result.ess_bulk) > 200
    # The trained flow alone is close to the target.
    log_q = flow.log_prob(NORMAL.sample(2000, seed=1))
    assert float(tf.reduce_mean(NORMAL.log_prob(NORMAL.sample(2000, seed=1)) - log_q)) < 0.5
    before = [v.numpy() for v in flow.trainable_variables]
    again = tff.mcmc.sample(
        NORMAL.log_prob,
        flow,
        event_size=2,
        num_chains=4,
        num_samples=25,
        num_warmup=25,
        training_steps=0,
        kernel="hmc",
        seed=1,
    )
    assert again.values.shape == (4, 25, 2)
    for value, variable in zip(before, flow.trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable)


def test_models_have_draws_of_their_structure():
    joint = tfd.JointDistributionNamed({"scale": tfd.HalfNormal(1.0), "y": lambda scale: tfd.Normal(0.0, scale)})
    result = tff.mcmc.sample(
        joint.experimental_pin(y=1.0), None, num_chains=4, num_samples=100, num_warmup=100, kernel="hmc", seed=1
    )
    assert result.labels == ["scale"]
    assert result.draws["scale"].shape == (100, 4)
    assert np.all(result.values > 0)
    grid = np.linspace(1e-3, 6.0, 5000)
    density = np.exp(-0.5 * grid**2 - 0.5 / grid**2) / grid
    np.testing.assert_allclose(
        result.values.mean(), np.trapezoid(density * grid, grid) / np.trapezoid(density, grid), atol=0.15
    )
    pytest.importorskip("arviz_base")
    assert result.to_inference_data()["posterior"]["scale"].shape == (4, 100)


def test_chains_that_do_not_mix_say_so():
    two = tfd.Mixture(
        tfd.Categorical(probs=[0.5, 0.5]), [tfd.MultivariateNormalDiag([-30.0]), tfd.MultivariateNormalDiag([30.0])]
    )

    class Target:
        event_size = 1

        def __call__(self, z):
            return two.log_prob(z)

    flow = tff.planar_flow(1, num_layers=0, base=tfd.MultivariateNormalDiag([0.0], [30.0]))
    result = tff.mcmc.sample(Target(), flow, num_chains=4, num_samples=50, num_warmup=25, kernel="hmc", seed=1)
    assert "The chains did not mix" in str(result)


def test_fisher_divergence_is_zero_at_the_target_and_falls_in_training():
    flow = tff.real_nvp(2, num_layers=2, hidden_units=[8], base=None, seed=1)
    z = flow.sample(500, seed=1)
    for i, variable in enumerate(flow.trainable_variables):
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, (i, 1)))
    model = FisherModel(flow)
    z = flow.sample(500, seed=1)
    _, exact = tfp.math.value_and_gradient(lambda v: flow.log_prob(v), z)
    np.testing.assert_allclose(model.loss_terms((z, exact), None, False)["loss"], 0.0, atol=1e-6)
    _, other = tfp.math.value_and_gradient(NORMAL.log_prob, z)
    before = float(tf.reduce_mean(model.loss_terms((z, other), None, False)["loss"]))
    model.compile(optimizer="adam")
    model.fit(z.numpy(), other.numpy(), steps=100)
    assert float(tf.reduce_mean(model.loss_terms((z, other), None, False)["loss"])) < before


def test_wrong_arguments_are_refused():
    cases = [
        ({"kernel": "gibbs"}, "`kernel` must be"),
        ({"num_chains": 0}, "`num_chains` must be"),
        ({"target_accept": 1.0}, "`target_accept` must be between"),
        ({"event_size": None}, "`event_size` must be given"),
        ({"flow": "none"}, "`flow` must be"),
        ({"flow": tff.maf(3)}, "`flow` must be a flow with event shape"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            tff.mcmc.sample(NORMAL.log_prob, **{"event_size": 2, **options})
    with pytest.raises(ValueError, match="`model` must be"):
        tff.mcmc.sample(3.0)


def test_chains_start_inside_of_the_support_or_not_at_all():
    half = lambda z: tf.where(z[:, 0] > 0, -0.5 * tf.reduce_sum(tf.square(z), -1), -np.inf)  # noqa: E731
    options = {"event_size": 2, "num_chains": 8, "num_samples": 50, "num_warmup": 50, "kernel": "hmc", "seed": 1}
    result = tff.mcmc.sample(half, None, **options)
    assert np.all(result.values[..., 0] > 0)
    with pytest.raises(ValueError, match="`model` is finite at 0 of"):
        tff.mcmc.sample(lambda z: tf.fill(tf.shape(z)[:1], -np.inf) + 0.0 * z[:, 0], None, **options)


def test_constant_parameters_are_named():
    values = np.stack([np.random.default_rng(0).normal(size=[4, 200]), np.ones([4, 200])], axis=-1)
    nan = np.array([1.0, np.nan])
    result = tff.mcmc.MCMCResult(
        None, ["a", "b"], values, nan, 900 * nan, 900 * nan, 0, {"warmup": 1, "sampling": 1}, 0.8
    )
    assert "R-hat of b" in str(result)
    assert "b has 0 effective samples" in str(result)


def test_draws_depend_on_the_seed_alone():
    def draws():
        flow = tff.real_nvp(2, num_layers=2, hidden_units=[], seed=1)
        options = {"event_size": 2, "num_chains": 4, "num_samples": 25, "num_warmup": 50, "kernel": "hmc"}
        return tff.mcmc.sample(NORMAL.log_prob, flow, training_steps=60, seed=1, **options).values

    tf.random.set_seed(1)
    first = draws()
    tf.random.set_seed(2)
    np.testing.assert_array_equal(first, draws())


def test_progress_is_a_bar_or_lines(capsys):
    options = {"event_size": 2, "num_chains": 2, "num_samples": 25, "num_warmup": 25, "kernel": "hmc", "seed": 1}
    tff.mcmc.sample(NORMAL.log_prob, None, verbose=2, **options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["warm-up 1/1", *(f"sampling {i}/6" for i in range(1, 7))]
    tff.mcmc.sample(NORMAL.log_prob, None, verbose=1, **options)
    assert "7/7" in capsys.readouterr().out
    with pytest.raises(ValueError, match="`verbose` must be"):
        tff.mcmc.sample(NORMAL.log_prob, None, verbose=3, **options)
