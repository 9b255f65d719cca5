# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] nbgrader={"grade": false, "grade_id": "intro", "locked": true, "schema_version": 3, "solution": false, "task": false}
# # Posteriors and their calibration
#
# A flow can approximate the posterior of a model in two ways. Variational inference fits one flow to one data set and needs the likelihood.
# Neural posterior estimation trains one conditional flow on simulations, and then answers for any data set. Either may be wrong without any
# warning, so this assignment also teaches you how to find out.
#
# **Learning goals.** After this assignment you can
#
# - write a model as a TFP joint distribution and pin its data;
# - fit a flow to its posterior with `tff.VariationalFlow.from_model`, and check the fit against an exact answer;
# - train `tff.NeuralPosterior` on simulations of the same model;
# - compute ranks and coverage by hand, and read from them whether a posterior is too narrow, too wide or shifted.
#
# **Prerequisites.** Assignment 02 (the ELBO). Bayes' rule for a normal mean.
#
# **Time.** About 4 hours of work (an estimate). The finished notebook runs in about 3 minutes on two busy cores (167 s at a load of 10, of which 47 s of processor time), with 1.6 GB of memory.
#
# **Points.** 18 in total: 14 by tests, 4 by hand.
#
# Write your code in the cells that say `YOUR CODE HERE`. Do not change the names or arguments of the functions. The cells after them
# test your code and print nothing if it is correct.

# %% nbgrader={"grade": false, "grade_id": "install", "locked": true, "schema_version": 3, "solution": false, "task": false}
#### INSTALL ####
# Installs the package if it is missing. On another machine, let `CLONE` be the path to your clone of the repository.
import importlib.util
import subprocess
import sys

CLONE = "../../.."
if importlib.util.find_spec("tfp_flows") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"{CLONE}[plots,ica,matching]"], check=True)

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#### PACKAGE IMPORTS ####
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions
keras.utils.set_random_seed(0)
# The tests of this notebook run it at a small size. Leave this line as it is.
SMOKE = bool(os.environ.get("TFP_FLOWS_SMOKE"))

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-1", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 1. A posterior that you can compute
#
# Let $\theta \sim N(0, \tau^2)$ and $y_1, \dots, y_n \sim N(\theta, \sigma^2)$ given $\theta$. The posterior of $\theta$ is normal. Its precision (one over
# the variance) is the sum of the precisions of the prior and of the $n$ observations. Its mean is the precision-weighted mean.
#
# Complete `exact_posterior`.


# %% nbgrader={"grade": false, "grade_id": "exact-posterior", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def exact_posterior(y, prior_scale, noise_scale):
    """Mean and standard deviation of theta given data.

    Arguments: observations of shape [n], and the standard deviations of prior and noise.
    Returns: two floats.
    """
    ### BEGIN SOLUTION
    precision = 1.0 / prior_scale**2 + len(y) / noise_scale**2
    return np.sum(y) / noise_scale**2 / precision, precision**-0.5
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "exact-posterior-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_allclose(exact_posterior(np.array([2.0]), 1.0, 1.0), [1.0, np.sqrt(0.5)])
np.testing.assert_allclose(exact_posterior(np.array([1.0, 2.0, 6.0]), 1e6, 2.0), [3.0, 2.0 / np.sqrt(3.0)])
np.testing.assert_allclose(exact_posterior(np.array([1.0, 2.0, 6.0]), 1e-6, 2.0), [0.0, 1e-6], atol=1e-9)
grid = np.linspace(-10.0, 10.0, 4001)
density = np.exp(-0.5 * (grid / 3.0) ** 2 - 0.5 * ((1.0 - grid) / 0.5) ** 2 - 0.5 * ((2.5 - grid) / 0.5) ** 2)
mean = np.sum(grid * density) / np.sum(density)
deviation = np.sqrt(np.sum((grid - mean) ** 2 * density) / np.sum(density))
np.testing.assert_allclose(exact_posterior(np.array([1.0, 2.5]), 3.0, 0.5), [mean, deviation], rtol=1e-4)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-2", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. A model
#
# Now the noise is unknown too:
#
# $$\mathrm{loc} \sim N(0, 3^2), \qquad \mathrm{scale} \sim \mathrm{LogNormal}(0, 0.5), \qquad y_1, \dots, y_8 \sim N(\mathrm{loc}, \mathrm{scale}^2).$$
#
# Complete `make_joint`: a `tfd.JointDistributionNamedAutoBatched` with the parts `loc`, `scale` and `y`. Use `tfd.Sample` for the eight observations.


# %% nbgrader={"grade": false, "grade_id": "make-joint", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def make_joint():
    """The joint distribution of loc, scale and y, where y has shape [8]."""
    ### BEGIN SOLUTION
    return tfd.JointDistributionNamedAutoBatched(
        {
            "loc": tfd.Normal(0.0, 3.0),
            "scale": tfd.LogNormal(0.0, 0.5),
            "y": lambda loc, scale: tfd.Sample(tfd.Normal(loc, scale), 8),
        }
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "make-joint-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
joint = make_joint()
draw = joint.sample(4000, seed=1)
assert sorted(draw) == ["loc", "scale", "y"] and draw["y"].shape == (4000, 8)
residual = (draw["y"] - draw["loc"][:, None]) / draw["scale"][:, None]
np.testing.assert_allclose([np.std(residual), np.std(draw["loc"])], [1.0, 3.0], rtol=0.06)
np.testing.assert_allclose([np.mean(np.log(draw["scale"])), np.std(np.log(draw["scale"]))], [0.0, 0.5], atol=0.05)
value = joint.log_prob({"loc": 1.0, "scale": 2.0, "y": tf.ones([8])})
expected = tfd.Normal(0.0, 3.0).log_prob(1.0) + tfd.LogNormal(0.0, 0.5).log_prob(2.0) - 4.0 * np.log(2.0 * np.pi * 4.0)
np.testing.assert_allclose(value, expected, rtol=1e-5)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. Variational inference
#
# `joint.experimental_pin(y=y)` fixes the data. `tff.VariationalFlow.from_model(pinned, seed=1, ...)` makes a flow over the remaining parts. Both
# are mapped to the real line, so that `scale` stays positive. After training, `model.posterior.sample(n)` returns a dictionary.
#
# Complete `fit_posterior`. Pass `sample_size=64` and `path_derivative=True`, compile the model with
# `keras.optimizers.Adam(5e-3, global_clipnorm=10.0)`, and fit it in ten epochs of `steps // 10` steps, with `verbose=0`.


# %% nbgrader={"grade": false, "grade_id": "fit-posterior", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def fit_posterior(joint, y, steps):
    """A trained tff.VariationalFlow for the posterior of loc and scale given y."""
    ### BEGIN SOLUTION
    model = tff.VariationalFlow.from_model(joint.experimental_pin(y=y), sample_size=64, path_derivative=True, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(5e-3, global_clipnorm=10.0))
    model.fit(steps_per_epoch=steps // 10, epochs=10, verbose=0)
    return model
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "fit-posterior-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
y = np.array([1.3, 2.9, 2.1, 0.2, 3.3, 1.9, 4.1, 2.6], np.float32)
model = fit_posterior(joint, y, steps=300 if SMOKE else 2000)
assert isinstance(model, tff.VariationalFlow)
draws = model.posterior.sample(4000, seed=1)
assert sorted(draws) == ["loc", "scale"] and np.all(draws["scale"] > 0)
# The exact answer, by a sum over a grid.
side = np.stack(np.meshgrid(np.linspace(-2.0, 6.0, 201), np.linspace(0.2, 4.5, 201), indexing="ij"), axis=-1)
parts = {"loc": tf.constant(side[..., 0].ravel(), tf.float32), "scale": tf.constant(side[..., 1].ravel(), tf.float32)}
log_joint = joint.log_prob({**parts, "y": tf.constant(np.tile(y, [len(parts["loc"]), 1]))}).numpy().astype(float)
weights = np.exp(log_joint - log_joint.max())
weights /= weights.sum()
exact = {}
for name, values in parts.items():
    exact_mean = np.sum(weights * values)
    exact[name] = exact_mean, np.sqrt(np.sum(weights * (values - exact_mean) ** 2))
    print(
        f"{name:6} exact {exact[name][0]:.3f} ± {exact[name][1]:.3f}   flow {np.mean(draws[name]):.3f} ± {np.std(draws[name]):.3f}"
    )
    assert abs(np.mean(draws[name]) - exact[name][0]) < (0.5 if SMOKE else 0.2) * exact[name][1]
    assert abs(np.std(draws[name]) / exact[name][1] - 1.0) < (0.4 if SMOKE else 0.2)

# %% nbgrader={"grade": false, "grade_id": "diagnose", "locked": true, "schema_version": 3, "solution": false, "task": false}
print(model.diagnose(num_samples=2000, seed=1))

# %% [markdown] nbgrader={"grade": false, "grade_id": "diagnose-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Read the table. The effective sample size is the share of the samples that remains after importance weighting. If it is close to 100 %, the flow is close to
# the posterior.

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-4", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. Neural posterior estimation
#
# `tff.NeuralPosterior(joint, observed="y", seed=1, ...)` draws parameters and data from the joint distribution and trains a conditional flow of
# the parameters, given the data. It never evaluates the likelihood.
#
# Complete `fit_neural`. Pass `num_layers=2` and `hidden_units=[32, 32]` to `tff.NeuralPosterior`, and `num_simulations`, `epochs`, `batch_size=200` and
# `verbose=0` to its `fit`.


# %% nbgrader={"grade": false, "grade_id": "fit-neural", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def fit_neural(joint, num_simulations, epochs):
    """A trained tff.NeuralPosterior of loc and scale given y."""
    ### BEGIN SOLUTION
    posterior = tff.NeuralPosterior(joint, observed="y", num_layers=2, hidden_units=[32, 32], seed=1)
    posterior.fit(num_simulations=num_simulations, epochs=epochs, batch_size=200, verbose=0)
    return posterior
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "fit-neural-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
neural = fit_neural(joint, num_simulations=2000 if SMOKE else 20_000, epochs=8 if SMOKE else 60)
assert isinstance(neural, tff.NeuralPosterior) and neural.flow is not None, "call fit"
assert neural.flow.conditional_size == 8, "`observed` must be the data"
amortized = neural.sample(4000, y, seed=1)
other = neural.sample(4000, y - 5.0, seed=1)
for name in exact:
    print(
        f"{name:6} exact {exact[name][0]:.3f} ± {exact[name][1]:.3f}   neural {np.mean(amortized[name]):.3f} ± {np.std(amortized[name]):.3f}"
    )
    assert abs(np.mean(amortized[name]) - exact[name][0]) < (3.0 if SMOKE else 0.7) * exact[name][1]
assert np.mean(amortized["loc"]) - np.mean(other["loc"]) > 3.0, "the posterior must follow the data"

# %% nbgrader={"grade": false, "grade_id": "posterior-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", sharex=True, sharey=True)
axes[0].contourf(side[..., 0], side[..., 1], weights.reshape(201, 201), levels=20)
axes[0].set(title="exact", xlabel="loc", ylabel="scale", xlim=(0.0, 4.5), ylim=(0.4, 3.5))
for axis, (title, found) in zip(axes[1:], {"variational": draws, "neural": amortized}.items()):
    axis.scatter(found["loc"][:1500], found["scale"][:1500], s=3, alpha=0.4)
    axis.contour(side[..., 0], side[..., 1], weights.reshape(201, 201), levels=5, colors="black", linewidths=0.7)
    axis.set(title=title, xlabel="loc")
plt.show()
# What the layers of the variational flow do, in the unconstrained space.
tff.plots.layers(model, num_samples=1000)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-5", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. Ranks
#
# One data set proves little. Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788) draws many parameters from the prior, simulates
# data for each, and counts how many of $L$ posterior draws are smaller than the true parameter. If the posterior is right, this rank is uniform
# on $0, \dots, L$.
#
# Complete `ranks`.


# %% nbgrader={"grade": false, "grade_id": "ranks", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def ranks(theta, draws):
    """Number of draws below the truth.

    Arguments: true parameters of shape [M, P], and posterior draws of shape [L, M, P].
    Returns: integers of shape [M, P], from 0 to L.
    """
    ### BEGIN SOLUTION
    return np.sum(draws < theta, axis=0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ranks-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_array_equal(
    ranks(np.array([[0.5, 0.5]]), np.array([[[0.1, 9.0]], [[0.4, 0.2]], [[0.6, 8.0]]])), [[2, 1]]
)
rng = np.random.default_rng(0)
few = ranks(rng.normal(size=[7, 2]), rng.normal(size=[9, 7, 2]))
assert few.shape == (7, 2) and few.min() >= 0 and few.max() <= 9 and np.issubdtype(few.dtype, np.integer)

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-ranks", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The next cell computes ranks for the model of part 1, with the exact posterior, with one whose standard deviation is 0.6 times the
# exact one, and with one that is 1.6 times as wide. Which histogram is flat, which has the shape of a cup, and which of a cap?
#
# ### BEGIN SOLUTION
# The exact posterior is flat. Too narrow: the truth often lies outside of all draws, so the ranks 0 and L are frequent: a cup. Too wide: the
# truth is always in the middle of the draws: a cap.
# ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "ranks-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
def simulated(width=1.0, shift=0.0, count=1000, seed=0):
    """Parameters [count, 1] of part 1 with tau = sigma = 1 and n = 1, and draws [100, count, 1] of a posterior with a flaw."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=[count, 1])
    y = theta + rng.normal(size=theta.shape)
    return theta, y / 2.0 + np.sqrt(0.5) * (shift + width * rng.normal(size=[100, count, 1]))


flaws = {"exact": {}, "too narrow": {"width": 0.6}, "too wide": {"width": 1.6}, "too high": {"shift": 0.5}}
figure, axes = plt.subplots(1, 4, figsize=(13, 2.8), layout="constrained", sharey=True)
for axis, (title, flaw) in zip(axes, flaws.items()):
    axis.hist(ranks(*simulated(**flaw))[:, 0], bins=np.linspace(-0.5, 100.5, 21))
    axis.set(title=title, xlabel="rank")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-6", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. Coverage
#
# A credible interval of level 0.9 should contain the truth in 90 % of the data sets. The central interval of level $c$ goes from the quantile
# $(1 - c) / 2$ of the draws to the quantile $(1 + c) / 2$. Complete `coverage`.


# %% nbgrader={"grade": false, "grade_id": "coverage", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def coverage(theta, draws, level):
    """Share of data sets whose central interval of this level contains the truth, for each parameter.

    Arguments: parameters of shape [M, P], draws of shape [L, M, P], and a level between 0 and 1.
    Returns: an array of shape [P].
    """
    ### BEGIN SOLUTION
    low, high = np.quantile(draws, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    return np.mean((theta >= low) & (theta <= high), axis=0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "coverage-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
for level in (0.5, 0.9):
    np.testing.assert_allclose(coverage(*simulated(count=4000), level), [level], atol=0.03)
    assert coverage(*simulated(width=0.6), level)[0] < level - 0.1
    assert coverage(*simulated(width=1.6), level)[0] > level + 0.05
    assert coverage(*simulated(shift=1.0), level)[0] < level - 0.1
theta, both = (
    np.zeros([50, 2]),
    np.stack([np.linspace(-1, 1, 99), np.linspace(5, 6, 99)], axis=-1)[:, None] + np.zeros([99, 50, 2]),
)
np.testing.assert_allclose(coverage(theta, both, 0.8), [1.0, 0.0])

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-7", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 7. A verdict
#
# `tff.calibration.sbc_ranks(theta, draws, seed=1)` tests the ranks. Its arrays `shift` and `width` have one entry per parameter, mean zero and the
# standard error `error` if the posterior is calibrated. `width` is positive if the posterior is too narrow. `shift` is positive if the truth is larger
# than the draws, so that the posterior is too low.
#
# Complete `verdict`. Return `"too narrow"` or `"too wide"` if `width` of the first parameter is more than three standard errors away from zero. Otherwise
# return `"too low"` or `"too high"` by the same rule for `shift`, and `"calibrated"` if neither is.


# %% nbgrader={"grade": false, "grade_id": "verdict", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def verdict(theta, draws):
    """Return what the ranks of the first parameter say: one of the five strings above."""
    ### BEGIN SOLUTION
    found = tff.calibration.sbc_ranks(theta, draws, seed=1)
    shift, width = found.shift[0] / found.error, found.width[0] / found.error
    if abs(width) > 3.0:
        return "too narrow" if width > 0 else "too wide"
    if abs(shift) > 3.0:
        return "too low" if shift > 0 else "too high"
    return "calibrated"
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "verdict-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert verdict(*simulated()) == "calibrated"
assert verdict(*simulated(width=0.6)) == "too narrow" and verdict(*simulated(width=1.6)) == "too wide"
assert verdict(*simulated(shift=0.3)) == "too high" and verdict(*simulated(shift=-0.3)) == "too low"
### BEGIN HIDDEN TESTS
assert verdict(*simulated(width=0.95, count=200)) == "calibrated"  # 200 data sets cannot show so little
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-neural", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** Is the neural posterior calibrated? If it is not, do you expect it to be too narrow or too wide? The cell tests it on
# new simulations.
#
# ### BEGIN SOLUTION
# Any reasoned answer counts. Training on few simulations tends to give too narrow posteriors, as the flow overfits the pairs; early
# stopping, as here, works against it. The test only finds flaws that are larger than its standard error.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "calibrate", "locked": true, "schema_version": 3, "solution": false, "task": false}
result = neural.calibrate(200 if SMOKE else 1000, seed=5)
print(result)
result.plot()
plt.show()

# %% nbgrader={"grade": false, "grade_id": "tarp", "locked": true, "schema_version": 3, "solution": false, "task": false}
theta, simulated_y = neural.simulate(200 if SMOKE else 1000, seed=6)
truth = np.stack([theta["loc"], theta["scale"]], axis=-1)
posterior_draws = neural.sample(100, simulated_y, seed=7)
stacked = np.stack([posterior_draws["loc"], posterior_draws["scale"]], axis=-1)
curve = tff.calibration.tarp(truth, stacked, seed=1)
print(curve)
curve.plot()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "small-data", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Advice for small data.** With 1000 simulations or less, use fewer layers and hidden units, and keep early stopping. Calibrate with
# as many data sets as you can afford: with $M$ of them, the standard error of `shift` and `width` is $1 / \sqrt{M}$.

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# **Question.** A posterior that ignores the data and always returns the prior passes the test of ranks. Why? Name a number that reveals it.
#
# ### BEGIN SOLUTION
# True parameters come from the prior, so among draws from the prior their ranks are uniform: it is calibrated, only wide. The expected
# log-density of the true parameters (the negative loss), or the posterior's standard deviation compared with the prior's, shows that nothing was learned.
# ### END SOLUTION
