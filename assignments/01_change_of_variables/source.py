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
# # Change of variables
#
# A normalizing flow is a simple density, pushed through an invertible map. In this assignment you compute such densities by hand,
# check them by an integral, a finite difference and a Jacobian, turn a normal distribution into one with two
# modes, and compose maps until they give a banana.
#
# **Learning goals.** After this assignment you can
#
# - compute the density of a transformed variable from the inverse map and its log-det;
# - check any log-det by an integral, a finite difference and a Jacobian;
# - explain how a monotone map turns one mode into two;
# - write a TFP bijector and compose several.
#
# **Prerequisites.** Derivatives, determinants, the normal distribution. Python and NumPy.
#
# **Time.** About 2 to 3 hours of work (an estimate). The finished notebook runs in less than a minute on two busy cores (11 s at a load of 7, of which 6 s of processor time), with 0.9 GB of memory.
#
# **Points.** 17 in total: 15 by tests, 2 by hand.
#
# Write your code in the cells that say `YOUR CODE HERE`. Do not change the names or arguments of the functions. The cells after them
# test your code and print nothing if it is correct.
#
# What you need to know: if $x = f(z)$ with an invertible $f$, and $z$ has the density $p_z$, then
#
# $$\log p_x(x) = \log p_z(f^{-1}(x)) + \log \left| \det \frac{\partial f^{-1}(x)}{\partial x} \right|.$$
#
# A review with all the formulas: Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference, arXiv:1912.02762.

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
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-1", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 1. One dimension
#
# Let $z \sim N(0, 1)$ and $x = f(z)$. Complete `log_prob_of`. Its arguments are the inverse of the map and the log of
# the derivative of the inverse.


# %% nbgrader={"grade": false, "grade_id": "log-prob-of", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def log_prob_of(x, inverse, inverse_log_det):
    """Log-density of x = f(z) for z ~ N(0, 1).

    Arguments: an array x; functions of x: the inverse of f, and log |d f^{-1}(x) / dx|.
    Returns: an array of the shape of x.
    """
    ### BEGIN SOLUTION
    z = inverse(x)
    return -0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) + inverse_log_det(x)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "log-prob-of-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
points = np.linspace(-3.0, 3.0, 7)
# x = 2 z + 1 is N(1, 4).
found = log_prob_of(points, lambda x: (x - 1.0) / 2.0, lambda x: np.full_like(x, -np.log(2.0)))
np.testing.assert_allclose(found, tfd.Normal(1.0, 2.0).log_prob(points), rtol=1e-5)
### BEGIN HIDDEN TESTS
# x = exp(z) is log-normal.
positive = np.linspace(0.1, 5.0, 9)
np.testing.assert_allclose(
    log_prob_of(positive, np.log, lambda x: -np.log(x)), tfd.LogNormal(0.0, 1.0).log_prob(positive), rtol=1e-5
)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-2", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. Two checks
#
# A density integrates to one, and a derivative is a limit of differences. You need both checks whenever you write a flow: with a wrong
# sign in a log-det, a model still trains, but its likelihoods are wrong.
#
# Complete `integral`, by the trapezoidal rule, and `numerical_log_det`, by a central difference.


# %% nbgrader={"grade": false, "grade_id": "integral", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def integral(log_prob, low, high, n=10_001):
    """Integral of exp(log_prob(x)) from low to high, from n equidistant points."""
    ### BEGIN SOLUTION
    x = np.linspace(low, high, n)
    p = np.exp(log_prob(x))
    return np.sum((p[1:] + p[:-1]) / 2.0) * (x[1] - x[0])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "integral-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_allclose(integral(lambda x: -0.5 * x**2, -10.0, 10.0), np.sqrt(2.0 * np.pi), rtol=1e-6)
np.testing.assert_allclose(integral(lambda x: 0.0 * x, 0.0, 3.0, n=11), 3.0)


# %% nbgrader={"grade": false, "grade_id": "numerical-log-det", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def numerical_log_det(f, x, step=1e-5):
    """log |f'(x)| of a function of one variable, from a central difference."""
    ### BEGIN SOLUTION
    return np.log(np.abs((f(x + step) - f(x - step)) / (2.0 * step)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "numerical-log-det-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_allclose(numerical_log_det(np.exp, points), points, atol=1e-8)
np.testing.assert_allclose(numerical_log_det(lambda x: -3.0 * x, points), np.log(3.0), atol=1e-8)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. Two modes from one
#
# The softsign map $f(z) = z / (1 + |z|)$ squeezes the real line into $(-1, 1)$. Its inverse is $f^{-1}(x) = x / (1 - |x|)$. Complete
# the bijector: TFP calls `_forward` to sample, `_inverse` and `_inverse_log_det_jacobian` to evaluate densities.


# %% nbgrader={"grade": false, "grade_id": "softsign", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
class Softsign(tfb.Bijector):
    """x = z / (1 + |z|), elementwise."""

    def __init__(self, name="softsign"):
        super().__init__(forward_min_event_ndims=0, name=name)

    def _forward(self, z):
        ### BEGIN SOLUTION
        return z / (1.0 + tf.abs(z))
        ### END SOLUTION

    def _inverse(self, x):
        ### BEGIN SOLUTION
        return x / (1.0 - tf.abs(x))
        ### END SOLUTION

    def _inverse_log_det_jacobian(self, x):
        ### BEGIN SOLUTION
        return -2.0 * tf.math.log(1.0 - tf.abs(x))
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "softsign-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
bijector = Softsign()
inside = np.linspace(-0.95, 0.95, 20)
np.testing.assert_allclose(bijector.forward(bijector.inverse(inside)), inside, rtol=1e-9)
np.testing.assert_allclose(
    bijector.inverse_log_det_jacobian(inside, event_ndims=0),
    numerical_log_det(lambda x: bijector.inverse(x).numpy(), inside),
    rtol=1e-6,
)
### BEGIN HIDDEN TESTS
np.testing.assert_allclose(Softsign().forward(np.array([-1.0, 0.0, 3.0])), [-0.5, 0.0, 0.75])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The next cell pushes normal distributions of standard deviation $s = 0.3, 1, 3$ through the map.

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-modes", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The map is monotone, and a normal distribution has one mode. How many modes does the result have, and does that
# depend on s?
#
# ### BEGIN SOLUTION
# Two, for every s. At zero the density of z is flat, but the slope of the map falls on both sides, so the density of x rises there. Many z end
# up close together where the map is flat. With a larger s the modes are farther apart.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "softsign-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
grid = np.linspace(-0.9999, 0.9999, 2001)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
z = np.linspace(-8.0, 8.0, 500)
axes[0].plot(z, Softsign().forward(z))
axes[0].set(title="the map", xlabel="z", ylabel="x")
for s in (0.3, 1.0, 3.0):
    pushed = tfd.TransformedDistribution(tfd.Normal(np.float64(0.0), s), Softsign())
    axes[1].plot(grid, pushed.prob(grid), label=f"s = {s:g}")
axes[1].set(title="the density of x", xlabel="x")
axes[1].legend(loc="upper center")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "modes-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Where are the modes? Written in $z \ge 0$, the log-density of $x$ is, up to a constant, $-z^2 / (2 s^2) + 2 \log(1 + z)$. Set its
# derivative to zero, solve for $z$, and map the solution to $x$. Complete `positive_mode`.


# %% nbgrader={"grade": false, "grade_id": "positive-mode", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def positive_mode(s):
    """The mode x > 0 of softsign(z) for z ~ N(0, s^2), as a float."""
    ### BEGIN SOLUTION
    z = (-1.0 + np.sqrt(1.0 + 8.0 * s**2)) / 2.0  # z (1 + z) = 2 s^2
    return z / (1.0 + z)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "positive-mode-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert abs(positive_mode(1.0) - 0.5) < 1e-12
for s in (0.3, 2.0):
    density = tfd.TransformedDistribution(tfd.Normal(np.float64(0.0), s), Softsign())
    half = np.linspace(1e-3, 0.999, 5000)
    assert abs(half[np.argmax(density.prob(half))] - positive_mode(s)) < 1e-3
    # And the density is one: it integrates to one.
    assert abs(integral(lambda x, p=density: p.log_prob(x).numpy(), -0.99999, 0.99999, 200_001) - 1.0) < 1e-3

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-4", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. More dimensions
#
# In $D$ dimensions the derivative becomes the Jacobian matrix, and its absolute value the determinant. Complete `jacobian_log_det`,
# with automatic differentiation: `tape.batch_jacobian(y, x)` gives the matrices for a batch of points, and `np.linalg.slogdet` the
# logarithms of their determinants.


# %% nbgrader={"grade": false, "grade_id": "jacobian-log-det", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def jacobian_log_det(f, x):
    """log |det df/dx| at each row of x, of shape [n, D], for a TensorFlow function f from [n, D] to [n, D].

    Returns: an array of shape [n].
    """
    ### BEGIN SOLUTION
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = f(x)
    return np.linalg.slogdet(tape.batch_jacobian(y, x))[1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "jacobian-log-det-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
rng = np.random.default_rng(0)
x2 = rng.normal(size=[5, 2])
matrix = np.array([[1.0, 2.0], [0.5, -3.0]])
np.testing.assert_allclose(jacobian_log_det(lambda x: x @ matrix, x2), np.log(4.0), rtol=1e-9)
np.testing.assert_allclose(jacobian_log_det(tf.exp, x2), x2.sum(axis=-1), rtol=1e-9)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-5", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. Composing maps
#
# Flows are compositions: $x = f_K(\dots f_2(f_1(z)))$. To evaluate the density of $x$, undo the maps from the last to the first, and add
# up the log-dets on the way. Complete `log_prob_of_chain`. Do not use `tfb.Chain`, because this function replaces it.


# %% nbgrader={"grade": false, "grade_id": "log-prob-of-chain", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def log_prob_of_chain(x, bijectors, base):
    """Log-density of x = f_K(... f_1(z)) for z ~ base.

    Arguments: x of shape [n, D]; the list [f_1, ..., f_K] of TFP bijectors of vectors; a TFP distribution over vectors.
    Returns: a tensor of shape [n].
    """
    ### BEGIN SOLUTION
    total = 0.0
    for bijector in reversed(bijectors):
        total += bijector.inverse_log_det_jacobian(x, event_ndims=1)
        x = bijector.inverse(x)
    return base.log_prob(x) + total
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "log-prob-of-chain-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
base = tfd.MultivariateNormalDiag(np.zeros(2), np.ones(2))
parts = [tfb.Scale([np.float64(2.0), 0.5]), tfb.Shift([np.float64(1.0), -1.0]), tfb.Softsign()]
inside2 = rng.uniform(-0.9, 0.9, size=[6, 2])
reference = tfd.TransformedDistribution(base, tfb.Chain(parts[::-1]))  # TFP's Chain lists the last map first
np.testing.assert_allclose(log_prob_of_chain(inside2, parts, base), reference.log_prob(inside2), rtol=1e-9)

# %% [markdown] nbgrader={"grade": false, "grade_id": "banana-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Two maps give the banana of the MAF paper: $x_2 \sim N(0, 4)$, and $x_1 \sim N(x_2^2 / 4, 1)$ given $x_2$. Complete the second
# map, `Bend`: it adds $z_2^2 / 4$ to the first of two coordinates. What is the determinant of its Jacobian?


# %% nbgrader={"grade": false, "grade_id": "bend", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
class Bend(tfb.Bijector):
    """(z1, z2) becomes (z1 + z2^2 / 4, z2)."""

    def __init__(self, name="bend"):
        super().__init__(forward_min_event_ndims=1, is_constant_jacobian=True, name=name)

    def _forward(self, z):
        ### BEGIN SOLUTION
        return tf.stack([z[..., 0] + z[..., 1] ** 2 / 4.0, z[..., 1]], axis=-1)
        ### END SOLUTION

    def _inverse(self, x):
        ### BEGIN SOLUTION
        return tf.stack([x[..., 0] - x[..., 1] ** 2 / 4.0, x[..., 1]], axis=-1)
        ### END SOLUTION

    def _inverse_log_det_jacobian(self, x):
        ### BEGIN SOLUTION
        return tf.zeros([], x.dtype)
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "bend-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
tff.testing.check_bijector(lambda: Bend(), event_shape=(2,))
stretch = tfb.Scale([np.float64(1.0), 2.0])
banana = tff.data.banana()
some = banana.sample(50, seed=1).astype(np.float64)
np.testing.assert_allclose(log_prob_of_chain(some, [stretch, Bend()], base), banana.log_prob(some), rtol=1e-6)

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-banana", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The log-det of `Bend` is zero. What does that say about areas, and where is the density of the banana largest?
#
# ### BEGIN SOLUTION
# Bend preserves areas, so each density value is that of the stretched normal distribution at the unbent point. The largest value is at the image of the
# origin, which is the origin.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "banana-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
flow = tfd.TransformedDistribution(base, tfb.Chain([Bend(), stretch]))
samples = flow.sample(3000, seed=1)
side = np.linspace(-6.0, 9.0, 200)
points = np.stack(np.meshgrid(side, side), axis=-1)
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True, sharey=True)
axes[0].scatter(*samples.numpy().T, s=3, alpha=0.4)
axes[0].set(title="samples", aspect="equal")
axes[1].contourf(side, side, flow.prob(points), levels=20)
axes[1].set(title="density", aspect="equal", xlim=(-5, 9), ylim=(-6, 6))
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Nothing here was trained. In the next assignments the maps have parameters, and training chooses them from data or an energy.
