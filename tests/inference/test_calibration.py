"""Calibration: posteriors that are right pass, and those that are too wide, too narrow or shifted are named."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfd = tfp.distributions
calibration = tff.calibration


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def simulated(width=1.0, shift=0.0, count=400, draws=60, seed=0, columns=2):
    """Parameters and posterior draws of a normal mean, whose posterior is exact but for its width and location."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=[count, columns])
    x = theta + rng.normal(size=theta.shape)
    return theta, x / 2 + math.sqrt(0.5) * (shift + width * rng.normal(size=[draws, count, columns]))


WRONG = {
    "too narrow": {"width": 0.7},
    "too wide": {"width": 1.5},
    "too low": {"shift": -0.5},
    "too high": {"shift": 0.5},
}


@pytest.mark.parametrize("name", WRONG)
def test_ranks_name_what_is_wrong(name):
    found = calibration.sbc_ranks(*simulated(**WRONG[name]), labels=["a", "b"], seed=1)
    assert found.p_value < 1e-4
    assert str(found).count(name) == 2
    right = calibration.sbc_ranks(*simulated(), seed=1)
    assert right.p_value > 0.05
    assert not any(word in str(right) for word in WRONG)
    assert np.all(np.abs(right.shift) < 4 * right.error)


def test_ranks_have_their_definition():
    theta = np.tile([[0.5]], [20, 1])
    draws = np.stack([np.full([20, 1], v) for v in (0.1, 0.2, 0.9)])
    values = calibration.sbc_ranks(theta, draws, seed=1).values
    assert np.all((values > 2 / 4) & (values < 3 / 4))  # two of three are below
    ties = calibration.sbc_ranks(theta, np.full([9, 20, 1], 0.5), seed=1).values
    assert np.ptp(ties) > 0.5  # positions among ties are random


def test_the_level_of_the_test_is_that_of_its_name():
    """About 95 of 100 exact posteriors pass at level 0.05, and none of 100 that are 30 % too narrow."""
    p_values = {
        width: [calibration.sbc_ranks(*simulated(width, seed=s, columns=1), seed=s).p_value for s in range(100)]
        for width in (1.0, 0.7)
    }
    assert 90 <= sum(p > 0.05 for p in p_values[1.0]) <= 99
    assert sum(p > 0.05 for p in p_values[0.7]) == 0


@pytest.mark.parametrize("kind", ["expected_coverage", "tarp"])
def test_coverage_is_level_only_of_the_right_posterior(kind):
    def curve(width, shift=0.0):
        theta, draws = simulated(width, shift, count=800)
        if kind == "tarp":
            return calibration.tarp(theta, draws, seed=1)
        # The density of each posterior, at its own width and location.
        center = np.mean(draws, axis=0)
        return calibration.expected_coverage(
            -np.sum((theta - center) ** 2, axis=-1), -np.sum((draws - center) ** 2, axis=-1), seed=1
        )

    right, narrow, wide = curve(1.0), curve(0.6), curve(1.6)
    assert right.p_value > 0.01
    assert np.max(np.abs(right.coverage - right.levels)) < 0.06
    assert narrow.p_value < 1e-3
    assert wide.p_value < 1e-3
    if kind == "expected_coverage":
        assert "too narrow" in str(narrow)
        assert "too wide" in str(wide)
        assert narrow.bias < -5 * narrow.bias_error
        assert curve(1.0, shift=1.0).bias < -5 * right.bias_error
    assert np.all(right.coverage[[0, -1]] == [0.0, 1.0])


def test_tarp_sees_a_dependence_that_ranks_do_not():
    rng = np.random.default_rng(0)
    chol = np.array([[1.0, 0.0], [0.9, math.sqrt(1 - 0.81)]])
    theta = rng.normal(size=[1000, 2]) @ chol.T
    draws = rng.normal(size=[60, 1000, 2])  # the right marginals, without the correlation
    assert calibration.sbc_ranks(theta, draws, seed=1).p_value > 0.01
    assert calibration.tarp(theta, draws, seed=1).p_value < 1e-3


def test_pit_of_a_flow_sees_another_density_and_conditions():
    flow = tff.maf(2, num_layers=2, hidden_units=[8], conditional_size=1, seed=1)
    for i, variable in enumerate(flow.trainable_variables):
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, (i, 1)))
    c = np.random.default_rng(0).normal(size=[600, 1]).astype("float32")
    y = flow.sample(600, seed=(1, 2), conditional_input=c)
    assert calibration.pit(flow, y, conditional_input=c).p_value > 0.01
    assert calibration.pit(flow, 1.5 * y, conditional_input=c).p_value < 1e-3
    moved = flow.with_base(tfd.MultivariateNormalDiag([1.0, 0.0], [2.0, 1.0]))
    y = moved.sample(600, seed=(1, 2), conditional_input=c)
    assert calibration.pit(moved, y, conditional_input=c).p_value > 0.01
    with pytest.raises(ValueError, match="MultivariateNormalDiag"):
        calibration.pit(flow.with_base(tff.MultivariateStudentT(2)), y)


def test_two_sample_test_is_half_for_equal_samples_and_one_for_separate_ones():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=[2, 500, 2])
    same, apart = calibration.c2st(x, y, seed=1), calibration.c2st(x, y + 8.0, seed=1)
    assert abs(same.accuracy - 0.5) < 4 * same.error
    assert apart.accuracy > 0.99


def test_plots_show_the_numbers():
    found = calibration.sbc_ranks(*simulated(0.7), seed=1)
    axes = found.plot()
    heights = [patch.get_height() for patch in axes[0].patches if patch.get_height() > 1]
    assert sum(heights) >= 400
    curve = calibration.tarp(*simulated(), seed=1)
    line = curve.plot().lines[-1]
    np.testing.assert_array_equal(line.get_ydata(), curve.coverage)


def test_wrong_shapes_and_values_are_refused():
    theta, draws = simulated(count=30)
    for function in (calibration.sbc_ranks, calibration.tarp):
        with pytest.raises(ValueError, match=r"`theta` must have shape \[M, P\]"):
            function(theta, np.swapaxes(draws, 0, 1))
        with pytest.raises(ValueError, match="must be finite"):
            function(theta, np.where(draws > 2.0, np.nan, draws))
    with pytest.raises(ValueError, match="`log_prob_theta` must have shape"):
        calibration.expected_coverage(theta, draws)
    with pytest.raises(ValueError, match="must not contain NaN"):
        calibration.expected_coverage(np.full(30, np.nan), np.zeros([5, 30]))
    with pytest.raises(ValueError, match="`x` and `y` must have the same shape"):
        calibration.c2st(theta, theta[:10])
    with pytest.raises(ValueError, match="`labels` must have 2 names"):
        calibration.sbc_ranks(theta, draws, labels=["a"])


def test_a_value_that_is_not_finite_is_an_error_and_a_constant_parameter_is_none():
    flow = tff.maf(2, num_layers=1, seed=1)
    y = np.array(flow.sample(50, seed=1))
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        calibration.pit(flow, y)
    theta, draws = simulated()
    theta[:, 1], draws[..., 1] = 2.0, 2.0
    assert calibration.tarp(theta, draws, seed=1).p_value > 0.01
