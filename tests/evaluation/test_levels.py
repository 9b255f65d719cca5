"""Density levels: known masses, uniform p-values, conditions."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

import tfp_flows as tff

tfd = tfp.distributions
level = tff.diagnostics.density_level


def test_levels_of_a_normal_distribution_are_those_of_chi_squared():
    normal = tfd.MultivariateNormalDiag(tf.zeros(3), [1.0, 2.0, 0.5])
    x = normal.sample(200, seed=(1, 2))
    exact = stats.chi2(3).sf(np.sum((x / [1.0, 2.0, 0.5]) ** 2, axis=1))
    np.testing.assert_allclose(level(normal, x, num_samples=20_000, seed=1), exact, atol=0.02)


def trained_like(**options):
    flow = tff.maf(2, num_layers=2, hidden_units=[8], seed=1, **options)
    for i, variable in enumerate(flow.trainable_variables):
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, (i, 1)))
    return flow


def test_levels_of_rows_of_the_flow_are_uniform_for_flow_and_model():
    flow = trained_like()
    model = tff.FlowModel(flow)
    x = flow.sample(500, seed=(5, 6))
    for distribution in (flow, model):
        levels = level(distribution, x, seed=1)
        assert stats.kstest(levels, "uniform").pvalue > 0.01
        np.testing.assert_array_equal(levels, level(distribution, x, seed=1))
    assert np.max(level(model, x + 50.0, seed=1)) < 0.001


def test_levels_depend_on_the_condition_of_the_row():
    flow = trained_like(conditional_size=1)
    conditions = np.linspace(-2, 2, 60).astype("f4")[:, None]
    x = flow.sample(60, seed=(5, 6), conditional_input=conditions)
    levels = level(flow, x, conditional_input=conditions, num_samples=500, seed=1)
    assert stats.kstest(levels, "uniform").pvalue > 0.01
    wrong = level(flow, x, conditional_input=conditions + 30.0, num_samples=500, seed=1)
    assert np.mean(wrong) < np.mean(levels)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="`num_samples` must be"):
        level(trained_like(), np.zeros([1, 2]), num_samples=0)
