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
# # Gaussianization and density destructors
#
# A flow can be fitted without a single gradient. Map each dimension to a normal distribution, rotate, and repeat: this is rotation-based
# iterative Gaussianization (RBIG; Laparra et al. 2011, arXiv:1602.00229). What the steps remove adds up to the total correlation, so the
# same loop measures information. In this assignment you write one layer and the estimates by hand, and compare them with `tff.rbig`.
#
# **Learning goals.** After this assignment you can
#
# - map any column of numbers to a normal distribution through its ranks;
# - explain why a rotation is needed, and why it leaves the entropy unchanged;
# - estimate entropy, total correlation and mutual information in nats, and say in which direction the estimates err;
# - fit, draw and judge a flow of destructors.
#
# **Prerequisites.** Assignment 01 (change of variables). Entropy and covariance.
#
# **Time.** About 3 hours of work (an estimate). The finished notebook runs in less than a minute on two busy cores (52 s at a load of 10, of which 15 s of processor time), with 0.9 GB of memory.
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

import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp

import tfp_flows as tff

tfd = tfp.distributions
standard_normal = tfd.Normal(np.float64(0.0), np.float64(1.0))
# The tests of this notebook run it at a small size. Leave this line as it is.
SMOKE = bool(os.environ.get("TFP_FLOWS_SMOKE"))

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-1", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 1. One dimension
#
# Let $F$ be the distribution function of a number $x$. Then $F(x)$ is uniform, and $\Phi^{-1}(F(x))$ is standard normal. Estimate $F$ by ranks:
# the value of rank $r = 0, \dots, n - 1$ among $n$ values gets $u = (r + 1/2) / n$, so that no value gets 0 or 1.
#
# Complete `gaussianize`. Use `standard_normal.quantile(u)` for $\Phi^{-1}$. The values of a column are different from each other.


# %% nbgrader={"grade": false, "grade_id": "gaussianize", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def gaussianize(x):
    """Each column of x mapped to a standard normal distribution through its ranks.

    Argument: an array of shape [n, D]. Returns: an array of the same shape.
    """
    ### BEGIN SOLUTION
    ranks = np.argsort(np.argsort(x, axis=0), axis=0)
    return standard_normal.quantile((ranks + 0.5) / len(x)).numpy()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "gaussianize-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
rng = np.random.default_rng(0)
skewed = np.exp(rng.normal(size=[2000, 2]) * [1.0, 2.0] + [0.0, 50.0])
normal = gaussianize(skewed)
assert normal.shape == (2000, 2) and np.all(np.isfinite(normal))
np.testing.assert_allclose(normal.mean(axis=0), 0.0, atol=1e-6)
np.testing.assert_allclose(normal.std(axis=0), 1.0, atol=0.01)
np.testing.assert_allclose(np.mean(normal**4, axis=0), 3.0, atol=0.1)
assert np.all(np.argsort(normal, axis=0) == np.argsort(skewed, axis=0)), "the map must increase"
np.testing.assert_allclose(gaussianize(np.array([[3.0], [1.0], [2.0]]))[:, 0], [0.9674216, -0.9674216, 0.0], atol=1e-6)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-2", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. A rotation
#
# Two normal columns are not a normal pair. To see what is left, look in another direction. Complete `principal_axes`: the orthogonal matrix
# $Q$ whose columns are the eigenvectors of the covariance matrix of $x$, so that the columns of $x Q$ are uncorrelated.


# %% nbgrader={"grade": false, "grade_id": "principal-axes", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def principal_axes(x):
    """The orthogonal matrix Q, of shape [D, D], such that x @ Q has uncorrelated columns."""
    ### BEGIN SOLUTION
    return np.linalg.eigh(np.cov(x, rowvar=False))[1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "principal-axes-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
mixed = rng.normal(size=[500, 3]) @ np.array([[2.0, 1.0, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 1.0]]) + [5.0, -3.0, 1.0]
q = principal_axes(mixed)
np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-9)
covariance = np.cov(mixed @ q, rowvar=False)
np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0.0, atol=1e-9)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. A layer
#
# A layer of RBIG first makes every column normal, and then rotates. Complete `rbig_layer`.


# %% nbgrader={"grade": false, "grade_id": "rbig-layer", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def rbig_layer(x):
    """One layer of RBIG: columns made normal, then rotated to their principal axes. Shape [n, D] to [n, D]."""
    ### BEGIN SOLUTION
    normal = gaussianize(x)
    return normal @ principal_axes(normal)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "rbig-layer-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
after = rbig_layer(skewed @ np.array([[1.0, 0.0], [2.0, 1.0]]))
assert after.shape == (2000, 2)
correlated = rng.normal(size=[4000, 2]) @ np.array([[1.0, 0.8], [0.0, 0.6]])
after = rbig_layer(np.exp(correlated))
np.testing.assert_allclose(np.cov(after, rowvar=False)[0, 1], 0.0, atol=1e-9)
# The eigenvalues of a correlation matrix are 1 - 0.8 and 1 + 0.8: a rotation keeps them, and does not whiten.
np.testing.assert_allclose(np.sort(after.var(axis=0)), [0.2, 1.8], atol=0.08)
np.testing.assert_allclose(after.var(axis=0).sum(), 2.0, atol=0.01)
### BEGIN HIDDEN TESTS
np.testing.assert_allclose(np.sum(after**2, axis=1), np.sum(gaussianize(np.exp(correlated)) ** 2, axis=1), atol=1e-9)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-rotation", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The next cell applies several layers to two moons, once with the rotation and once without it. What does the second
# layer change if there is no rotation?
#
# ### BEGIN SOLUTION
# Nothing. After the first layer each column is normal already, and its ranks do not change. Without a rotation, the dependence between the
# columns is never seen.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "layers-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
moons = tff.data.moons()
cloud = moons.sample(5000, seed=0).astype(np.float64)
shown = (0, 1, 2, 5, 20)
figure, axes = plt.subplots(2, len(shown), figsize=(12, 5), layout="constrained")
for row, layer, label in zip(axes, (rbig_layer, gaussianize), ("with rotation", "without")):
    points = cloud
    for i in range(max(shown) + 1):
        if i in shown:
            axis = row[shown.index(i)]
            axis.scatter(*points[:1500].T, s=2)
            axis.set(title=f"after {i} layers", aspect="equal")
        points = layer(points)
    row[0].set_ylabel(label)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-4", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. Entropy of a column
#
# A histogram with bins of width $\Delta$ and shares $p_k$ estimates the differential entropy of a column, in nats:
#
# $$H \approx -\sum_k p_k \log \frac{p_k}{\Delta}.$$
#
# Complete `column_entropy`. Use `np.histogram(values, bins)`, and leave out empty bins.


# %% nbgrader={"grade": false, "grade_id": "column-entropy", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def column_entropy(values, bins=50):
    """Differential entropy of one column, in nats, from a histogram of equal bins over its range."""
    ### BEGIN SOLUTION
    counts, edges = np.histogram(values, bins)
    p = counts[counts > 0] / len(values)
    return -np.sum(p * np.log(p / (edges[1] - edges[0])))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "column-entropy-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
uniform = np.linspace(0.0, 4.0, 10_001)
np.testing.assert_allclose(column_entropy(uniform), np.log(4.0), atol=1e-3)
np.testing.assert_allclose(column_entropy(uniform / 8.0, bins=20), np.log(0.5), atol=1e-3)
many = rng.normal(size=100_000)
np.testing.assert_allclose(column_entropy(2.0 * many), 0.5 * np.log(2.0 * np.pi * np.e) + np.log(2.0), atol=0.02)
assert np.isfinite(column_entropy(np.array([0.0, 0.0, 1.0, 10.0])))

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-5", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. Total correlation
#
# The total correlation $T(x) = \sum_d H(x_d) - H(x)$ is zero if and only if the columns are independent. An increasing map of each column does
# not change it. A rotation does not change $H(x)$, so the change of $T$ in a layer is that of $\sum_d H(x_d)$. Just before the rotation, all
# columns are standard normal, and this sum is $D h$ with $h = \frac{1}{2} \log(2 \pi e)$. Therefore a layer removes
#
# $$\Delta T = D h - \sum_d H(r_d)$$
#
# with the rotated columns $r_d$, and $T$ is the sum over all layers. Complete `total_correlation`.


# %% nbgrader={"grade": false, "grade_id": "total-correlation", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def total_correlation(x, num_layers=10):
    """Total correlation of the columns of x, in nats, from the layers of RBIG."""
    ### BEGIN SOLUTION
    total, dimensions = 0.0, x.shape[1]
    for _ in range(num_layers):
        x = rbig_layer(x)
        total += dimensions * 0.5 * np.log(2.0 * np.pi * np.e) - sum(column_entropy(r) for r in x.T)
    return total
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "total-correlation-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
exact = -0.5 * np.log(1.0 - 0.8**2)  # of a normal pair with correlation 0.8
pair = rng.normal(size=[20_000, 2]) @ np.array([[1.0, 0.8], [0.0, 0.6]])
np.testing.assert_allclose(total_correlation(pair), exact, atol=0.06)
np.testing.assert_allclose(total_correlation(np.exp(pair)), exact, atol=0.06)  # increasing maps change nothing
np.testing.assert_allclose(total_correlation(rng.normal(size=[20_000, 3])), 0.0, atol=0.12)
# This pair is uncorrelated but dependent: one layer is not enough.
sign = rng.choice([-1.0, 1.0], size=[20_000])
crossed = np.stack([pair[:, 0], sign * pair[:, 1]], axis=1)
np.testing.assert_allclose(total_correlation(crossed, num_layers=5), 0.197, atol=0.04)
assert total_correlation(crossed, num_layers=5) > total_correlation(crossed, num_layers=1) + 0.02

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-6", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. Mutual information
#
# The mutual information of two groups of columns is the total correlation of all columns, minus that inside each group. Complete
# `mutual_information`.


# %% nbgrader={"grade": false, "grade_id": "mutual-information", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def mutual_information(x, y, num_layers=10):
    """Mutual information of arrays x [n, D] and y [n, E], in nats. A group of one column has total correlation 0."""
    ### BEGIN SOLUTION
    found = total_correlation(np.concatenate([x, y], axis=1), num_layers)
    for group in (x, y):
        if group.shape[1] > 1:
            found -= total_correlation(group, num_layers)
    return found
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "mutual-information-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_allclose(mutual_information(pair[:, :1], pair[:, 1:]), exact, atol=0.06)
# The columns of x depend on each other, and y on the first one only.
y = 0.6 * pair[:, :1] + 0.8 * rng.normal(size=[20_000, 1])
np.testing.assert_allclose(mutual_information(pair, y), -0.5 * np.log(1.0 - 0.36), atol=0.08)
np.testing.assert_allclose(mutual_information(y, pair), -0.5 * np.log(1.0 - 0.36), atol=0.08)

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-bias", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The columns in the next cell are independent, so that the true value is zero. Do you expect your estimate to be too low, too
# high, or equally often both, with few rows? And the estimate of `tff.destructors.total_correlation`, which scores each half of the rows by a
# flow that was fitted to the other half?
#
# ### BEGIN SOLUTION
# The estimate by hand is too high: the rotation and the histogram see the noise of the same rows that they score, and each layer adds its
# share. The cross-fitted estimate scores rows that the fit has not seen, so noise lowers it: it is near zero or negative.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "bias", "locked": true, "schema_version": 3, "solution": false, "task": false}
for n in (500, 2000) if SMOKE else (500, 2000, 8000):
    noise = np.random.default_rng(n).normal(size=[n, 3])
    found = tff.destructors.total_correlation(noise, max_layers=3 if SMOKE else 10, seed=1)
    print(
        f"{n:5} rows: by hand {total_correlation(noise):6.3f}, cross-fitted {found.value:6.3f} ± {found.standard_error:.3f}, truth 0"
    )

# %% [markdown] nbgrader={"grade": false, "grade_id": "small-data", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Advice for small data.** Use fewer bins and fewer layers: each layer adds noise. With 1000 rows or less, prefer the cross-fitted
# estimates, pass `num_bins=10`, and report the standard error. A value from a histogram without an error is not a measurement.

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-7", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 7. The flow
#
# `tff.rbig` keeps the maps of all layers, so the result is a flow with a density and samples. Each column goes through a monotone spline instead
# of ranks. A layer that does not improve the likelihood of held-out rows is dropped.
#
# Complete `fit_rbig`. Build `tff.rbig` for the number of columns of `x_train` with `max_layers` and `seed=1`, fit it to `x_train` with
# `verbose=0`, and return the flow and its mean NLL on `x_test` in nats.


# %% nbgrader={"grade": false, "grade_id": "fit-rbig", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def fit_rbig(x_train, x_test, max_layers):
    """A flow fitted by RBIG to x_train, and its mean negative log-likelihood on x_test as a float."""
    ### BEGIN SOLUTION
    flow = tff.rbig(x_train.shape[1], max_layers=max_layers, seed=1).fit(x_train, verbose=0)
    return flow, -float(np.mean(flow.log_prob(x_test)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "fit-rbig-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
x_train, x_test = moons.sample(2000 if SMOKE else 10_000, seed=2), moons.sample(5000, seed=3)
flow, nll = fit_rbig(x_train, x_test, max_layers=6 if SMOKE else 40)
print(f"NLL {nll:.3f} nats, {nll - moons.entropy():.3f} above the floor")
assert isinstance(nll, float) and flow.event_shape == (2,)
np.testing.assert_allclose(nll, -np.mean(flow.log_prob(x_test)), rtol=1e-5)
assert nll < (1.1 if SMOKE else 0.6) and nll > moons.entropy() - 0.05
assert fit_rbig(x_train, x_test, max_layers=1)[1] > nll + 0.2

# %% nbgrader={"grade": false, "grade_id": "flow-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
tff.plots.density(flow, x_test[:500], ax=axes[0])
axes[1].scatter(*flow.sample(1500, seed=1).numpy().T, s=3, color="tab:orange")
axes[1].set(title="samples", aspect="equal")
plt.show()
tff.plots.layers(flow, x_test, num_samples=1000)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "entropy-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The package also estimates entropies. For two moons the truth is known.

# %% nbgrader={"grade": false, "grade_id": "entropy", "locked": true, "schema_version": 3, "solution": false, "task": false}
found = tff.destructors.entropy(x_train, max_layers=4 if SMOKE else 40, seed=1)
print(f"entropy {found.value:.3f} ± {found.standard_error:.3f} nats, truth {moons.entropy():.3f}")

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# **Question.** The estimate of the entropy is several standard errors above the truth. The fit has no error in its code. Why is that no
# contradiction, and what would bring the estimate down?
#
# ### BEGIN SOLUTION
# The estimate is the mean NLL of held-out rows, which exceeds the entropy by the divergence of the truth from the fitted flow. The standard error
# only covers the number of scored rows, not this bias. More rows, more layers, or a better flow reduce it.
# ### END SOLUTION
