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
# # Planar flows
#
# Rezende and Mohamed (2015) introduced normalizing flows to variational inference with a map that bends space along one direction:
#
# $$f(z) = z + u \tanh(w \cdot z + b).$$
#
# In this assignment you write it, with its log-det and the constraint that keeps it invertible, compose $K = 2, 8, 32$ of them, and
# fit them to the four energies of the paper's figure 3. You measure how good the fits are, in nats.
#
# **Learning goals.** After this assignment you can
#
# - write the planar map, its log-det and the constraint that keeps it invertible;
# - estimate the evidence lower bound (ELBO) by Monte Carlo;
# - fit a flow to an unnormalized density, and measure the fit in nats;
# - say which shapes a few planar layers cannot make.
#
# **Prerequisites.** Assignment 01. The Kullback-Leibler divergence.
#
# **Time.** About 3 hours of work (an estimate). The finished notebook runs in about 8 minutes on two busy cores (500 s at a load of 8, of which 236 s of processor time), with 2.8 GB of memory.
#
# **Points.** 13 in total: 11 by tests, 2 by hand.
#
# Write your code in the cells that say `YOUR CODE HERE`. Do not change the names or arguments of the functions. The cells after them
# test your code and print nothing if it is correct.
#
# The paper: Variational Inference with Normalizing Flows, arXiv:1505.05770.

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
# ## 1. The map
#
# Complete `planar` for a batch of points `z` of shape `[n, D]`, vectors `w` and `u` of shape `[D]` and a number `b`. The
# determinant of its Jacobian is $1 + (u \cdot w)(1 - \tanh^2(w \cdot z + b))$: a matrix of the form $I + u v^\top$ has the determinant
# $1 + u \cdot v$.


# %% nbgrader={"grade": false, "grade_id": "planar", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def planar(z, w, u, b):
    """The planar map and its log-det.

    Arguments: z of shape [n, D], w and u of shape [D], b a number.
    Returns: f(z) of shape [n, D], and log |det df/dz| of shape [n].
    """
    ### BEGIN SOLUTION
    t = tf.tanh(tf.linalg.matvec(z, w) + b)
    return z + u * t[:, tf.newaxis], tf.math.log(tf.abs(1.0 + tf.reduce_sum(u * w) * (1.0 - t**2)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "planar-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
rng = np.random.default_rng(0)
z = tf.constant(rng.normal(size=[6, 3]))
w, u, b = (
    tf.constant([1.0, -0.5, 0.3], tf.float64),
    tf.constant([0.4, 0.1, -0.2], tf.float64),
    tf.constant(0.2, tf.float64),
)
with tf.GradientTape() as tape:
    tape.watch(z)
    y, log_det = planar(z, w, u, b)
assert y.shape == (6, 3) and log_det.shape == (6,)
np.testing.assert_allclose(np.linalg.slogdet(tape.batch_jacobian(y, z))[1], log_det, rtol=1e-9)
### BEGIN HIDDEN TESTS
np.testing.assert_allclose(planar(z, w, 0.0 * u, b)[0], z)
np.testing.assert_allclose(planar(z, w, u, b)[0][0], z[0] + u * np.tanh(np.dot(w, z[0]) + 0.2))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-2", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. The constraint
#
# Along $w$ the map is $s \mapsto s + (w \cdot u) \tanh(s)$, up to a shift. It increases everywhere if and only if $w \cdot u > -1$;
# otherwise it folds, and has no inverse. The paper's appendix A.1 moves $u$ along $w$ until it fits:
#
# $$\hat u = u + \left(m(w \cdot u) - w \cdot u\right) \frac{w}{|w|^2}, \qquad m(x) = -1 + \log(1 + e^x).$$
#
# Complete `constrain`.


# %% nbgrader={"grade": false, "grade_id": "constrain", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def constrain(u, w):
    """The vector u_hat of the paper, for vectors u and w of shape [D]."""
    ### BEGIN SOLUTION
    wu = tf.reduce_sum(w * u)
    return u + (tf.math.softplus(wu) - 1.0 - wu) * w / tf.reduce_sum(w**2)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "constrain-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
u_hat = constrain(tf.constant([-2.0, 0.5]), tf.constant([1.0, -0.4]))
np.testing.assert_allclose(np.dot(u_hat, [1.0, -0.4]), -0.894917, atol=1e-5)
for _ in range(50):
    u_random, w_random = tf.constant(3.0 * rng.normal(size=4)), tf.constant(rng.normal(size=4))
    assert np.dot(constrain(u_random, w_random), w_random) > -1.0

# %% [markdown] nbgrader={"grade": false, "grade_id": "fold-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The next cell draws the map along $w$ for several products $w \cdot u$.

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-fold", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** What does the map look like for a product below -1, and why is that no flow?
#
# ### BEGIN SOLUTION
# It falls around zero and rises on both sides. Three points have the same image, so there is no inverse.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "fold-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
s = np.linspace(-4.0, 4.0, 300)
figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
for product in (2.0, 0.0, -0.9, -3.0):
    axis.plot(s, s + product * np.tanh(s), label=f"w.u = {product:g}", linestyle="--" if product < -1 else "-")
axis.legend()
axis.set(title="one layer along w: below -1 it folds")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. The energies
#
# The targets are unnormalized densities $p(z) = e^{-U(z)}$ on the plane. The first two energies are, with $w_1(z) = \sin(2 \pi z_1 / 4)$,
#
# $$U_1(z) = \frac{1}{2} \left(\frac{|z| - 2}{0.4}\right)^2
# - \log\left(e^{-\frac{1}{2} ((z_1 - 2) / 0.6)^2} + e^{-\frac{1}{2} ((z_1 + 2) / 0.6)^2}\right),
# \qquad U_2(z) = \frac{1}{2} \left(\frac{z_2 - w_1(z)}{0.4}\right)^2.$$
#
# Complete `energy_1` and `energy_2`. The other two come with the package: `tff.data.targets.u3()` and `u4()`. Energies 2 to 4 are flat
# along the wave, so they can be normalized only within a box. Those of the package have steep walls around $[-4, 4]^2$.


# %% nbgrader={"grade": false, "grade_id": "energy-1", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def energy_1(z):
    """U_1 at points z of shape [n, 2], as a tensor of shape [n]."""
    ### BEGIN SOLUTION
    ring = 0.5 * ((tf.norm(z, axis=-1) - 2.0) / 0.4) ** 2
    modes = tf.stack([-0.5 * ((z[:, 0] - 2.0) / 0.6) ** 2, -0.5 * ((z[:, 0] + 2.0) / 0.6) ** 2])
    return ring - tf.reduce_logsumexp(modes, axis=0)
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "energy-2", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def energy_2(z):
    """U_2 at points z of shape [n, 2], as a tensor of shape [n]."""
    ### BEGIN SOLUTION
    return 0.5 * ((z[:, 1] - tf.sin(2.0 * np.pi * z[:, 0] / 4.0)) / 0.4) ** 2
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "energy-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
some = tf.constant(rng.uniform(-3.5, 3.5, size=[20, 2]))
np.testing.assert_allclose(-energy_1(some), tff.data.targets.u1().log_prob(some), rtol=1e-9)
np.testing.assert_allclose(-energy_2(some), tff.data.targets.u2().log_prob(some), rtol=1e-9)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-4", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. The bound
#
# A flow $q$ is fitted by maximizing the evidence lower bound, $\mathrm{ELBO} = E_q[\log p(z) - \log q(z)]$. It is at most $\log Z$, the
# logarithm of $\int p$. The difference is the Kullback-Leibler divergence of $q$ from $p / Z$.
#
# Complete `elbo`, by Monte Carlo. `flow.experimental_sample_and_log_prob(n, seed=seed)` returns samples and their log-density from
# one pass.


# %% nbgrader={"grade": false, "grade_id": "elbo", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def elbo(flow, log_prob_fn, n, seed):
    """Monte Carlo estimate of the ELBO in nats, a scalar tensor, from n samples of the flow.

    Arguments: a TFP distribution, a function from [n, 2] to [n], the number of samples, a seed.
    """
    ### BEGIN SOLUTION
    z, log_q = flow.experimental_sample_and_log_prob(n, seed=seed)
    return tf.reduce_mean(log_prob_fn(z) - log_q)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "elbo-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
normal = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
np.testing.assert_allclose(elbo(normal, lambda z: normal.log_prob(z) + 1.5, 100, seed=(1, 2)), 1.5, rtol=1e-5)
# KL(N(0, 1) || N(1, 1)) is a half in each dimension.
np.testing.assert_allclose(elbo(normal, lambda z: normal.log_prob(z - 1.0), 100_000, seed=(1, 2)), -1.0, atol=0.02)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-5", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. Fitting
#
# Complete `planar_flow`: a `tfd.TransformedDistribution` of a standard `MultivariateNormalDiag` in two dimensions and a `tfb.Chain` of
# `num_layers` layers `tff.PlanarFlow(2)`, which has your map, your constraint, and an inverse.


# %% nbgrader={"grade": false, "grade_id": "planar-flow", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def planar_flow(num_layers):
    """A flow of num_layers planar layers over a standard normal distribution in two dimensions."""
    ### BEGIN SOLUTION
    base = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
    return tfd.TransformedDistribution(base, tfb.Chain([tff.PlanarFlow(2) for _ in range(num_layers)]))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "planar-flow-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
flow = planar_flow(4)
assert flow.event_shape == (2,) and len(flow.trainable_variables) == 12
assert all(isinstance(layer, tff.PlanarFlow) for layer in flow.bijector.bijectors)
z, log_q = flow.experimental_sample_and_log_prob(5, seed=1)
np.testing.assert_allclose(flow.log_prob(tf.identity(z)), log_q, rtol=1e-3, atol=1e-3)

# %% [markdown] nbgrader={"grade": false, "grade_id": "fit-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# `tff.VariationalFlow` minimizes the divergence, with any Keras optimizer. As in the paper, the target is annealed: $\beta \log p$ with
# $\beta$ from 0.01 to 1. The cell takes most of the time of this notebook.

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-layers", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** How does the divergence change from 2 to 8 to 32 layers, and on which energy are two layers worst?
#
# ### BEGIN SOLUTION
# It falls with the number of layers. Each layer bends space along one direction, so curved and split targets need many. The
# prediction counts if it is reasoned; the printed table shows which energy is worst.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "fit", "locked": true, "schema_version": 3, "solution": false, "task": false}
layers = (1, 2) if SMOKE else (2, 8, 32)
steps = 20 if SMOKE else 2000
names = ["u1", "u4"] if SMOKE else ["u1", "u2", "u3", "u4"]
fitted = {}
for name in names:
    target = tff.data.targets.energies[name]()
    for num_layers in layers:
        keras.utils.set_random_seed(1)
        flow = planar_flow(num_layers)
        model = tff.VariationalFlow(
            flow, target, sample_size=256, beta=tff.linear_annealing(0.01, 1.0, steps // 2), seed=1
        )
        rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
        model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
        history = model.fit(steps_per_epoch=steps // 10, epochs=10, verbose=0).history
        fitted[name, num_layers] = flow
        print(f"{name}, K = {num_layers}: ELBO {history['elbo'][-1]:.3f}, log Z {target.log_normalizer:.3f}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-6", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. How good are they?
#
# In two dimensions you can compute the divergence without Monte Carlo, as an integral over the plane. Complete `table`, which returns the reverse KL
# divergence of each fit in a dictionary with the same keys. `tff.diagnostics.reverse_kl(flow, target).kl` computes one.


# %% nbgrader={"grade": false, "grade_id": "table", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def table(flows):
    """Reverse KL divergences in nats, by (name of the energy, number of layers), of a dictionary of flows with these keys."""
    ### BEGIN SOLUTION
    return {
        key: tff.diagnostics.reverse_kl(flow, tff.data.targets.energies[key[0]]()).kl for key, flow in flows.items()
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "table-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
divergences = table(fitted)
assert set(divergences) == set(fitted)
for (name, num_layers), value in divergences.items():
    assert value > -1e-3
    target = tff.data.targets.energies[name]()
    bound = elbo(fitted[name, num_layers], target.log_prob, 20_000, seed=(3, 4))
    assert abs(target.log_normalizer - bound - value) < 0.1
if not SMOKE:
    assert all(divergences[name, 32] < divergences[name, 2] for name in names)

# %% nbgrader={"grade": false, "grade_id": "figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
side = np.linspace(-4.5, 4.5, 150).astype(np.float32)
grid = np.stack(np.meshgrid(side, side), axis=-1)
figure, axes = plt.subplots(
    len(names), 1 + len(layers), figsize=(3 * (1 + len(layers)), 3 * len(names)), layout="constrained"
)
for row, name in zip(axes, names):
    target = tff.data.targets.energies[name]()
    row[0].imshow(np.exp(target.log_prob(tf.constant(grid))), origin="lower", extent=[-4.5, 4.5, -4.5, 4.5])
    row[0].set_title(f"{name}")
    for axis, num_layers in zip(row[1:], layers):
        density = fitted[name, num_layers].prob(tf.constant(grid.reshape(-1, 2))).numpy().reshape(150, 150)
        axis.imshow(density, origin="lower", extent=[-4.5, 4.5, -4.5, 4.5])
        axis.set_title(f"K = {num_layers}: {divergences[name, num_layers]:.2f} nats")
for axis in axes.ravel():
    axis.set_axis_off()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Which features of the targets do two layers miss, and which need many? Look at the split of $U_3$ and at the two modes of $U_1$, and
# think of what one planar layer does to a round cloud of points.
