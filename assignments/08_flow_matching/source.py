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
# # Flow matching
#
# A continuous flow moves points along a velocity field, from noise at time 0 to data at time 1. Training it by maximum likelihood solves a
# differential equation in every step. Flow matching (Lipman et al. 2022, arXiv:2210.02747) trains the same field by regression, without solving
# anything. In this assignment you write its loss, a training step, a solver and the exact likelihood by hand, and then use
# `tff.FlowMatchingModel`.
#
# **Learning goals.** After this assignment you can
#
# - derive the regression target of conditional flow matching, and say why its loss does not reach zero;
# - train a velocity field with a few lines of TensorFlow;
# - sample by solving the equation forward, and compute a density by solving it backward;
# - compare independent pairs with pairs from optimal transport.
#
# **Prerequisites.** Assignment 01 (change of variables). Ordinary differential equations: Euler's method.
#
# **Time.** About 3 hours of work (an estimate). The finished notebook runs in about 3 minutes on two busy cores (182 s at a load of 8 to 10, of which 78 s of processor time), with 1.3 GB of memory.
#
# **Points.** 18 in total: 13 by tests, 5 by hand.
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
# ## 1. A path and its velocity
#
# Pair a noise sample $x_0 \sim N(0, I)$ with a data point $x_1$. The straight path between them, and its velocity, are
#
# $$x_t = (1 - t) x_0 + t x_1, \qquad \frac{d x_t}{d t} = x_1 - x_0.$$
#
# Complete `path`. Each row has its own time.


# %% nbgrader={"grade": false, "grade_id": "path", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def path(t, x0, x1):
    """Points on the straight paths, and their velocities.

    Arguments: times of shape [n], and tensors x0 and x1 of shape [n, D].
    Returns: two tensors of shape [n, D].
    """
    ### BEGIN SOLUTION
    t = t[:, tf.newaxis]
    return (1.0 - t) * x0 + t * x1, x1 - x0
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "path-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
x0, x1 = tf.constant([[0.0, 0.0], [1.0, 2.0]]), tf.constant([[4.0, 8.0], [3.0, 2.0]])
x_t, velocity = path(tf.constant([0.25, 0.5]), x0, x1)
np.testing.assert_allclose(x_t, [[1.0, 2.0], [2.0, 2.0]])
np.testing.assert_allclose(velocity, [[4.0, 8.0], [2.0, 0.0]])
assert path(tf.zeros([5]), tf.zeros([5, 3]), tf.ones([5, 3]))[0].shape == (5, 3)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-2", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. The loss
#
# The loss of conditional flow matching is the mean over the rows of $|v(t, x_t) - (x_1 - x_0)|^2$, the squared length of a vector. Complete `cfm_loss`.


# %% nbgrader={"grade": false, "grade_id": "cfm-loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def cfm_loss(velocity_fn, t, x0, x1):
    """Loss of conditional flow matching, a scalar tensor.

    Arguments: a function v(t, x) from [n] and [n, D] to [n, D]; times of shape [n]; tensors x0 and x1 of shape [n, D].
    """
    ### BEGIN SOLUTION
    x_t, target = path(t, x0, x1)
    return tf.reduce_mean(tf.reduce_sum((velocity_fn(t, x_t) - target) ** 2, axis=-1))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cfm-loss-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
t = tf.constant([0.25, 0.5])
np.testing.assert_allclose(cfm_loss(lambda t, x: tf.zeros_like(x), t, x0, x1), (16.0 + 64.0 + 4.0) / 2.0)
np.testing.assert_allclose(cfm_loss(lambda t, x: x1 - x0, t, x0, x1), 0.0)
np.testing.assert_allclose(cfm_loss(lambda t, x: x, t, x0, x1), (9.0 + 36.0 + 0.0 + 4.0) / 2.0)
np.testing.assert_allclose(
    cfm_loss(lambda t, x: t[:, None] + 0.0 * x, t, x0, x1), (3.75**2 + 7.75**2 + 1.5**2 + 0.5**2) / 2.0
)

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-loss", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** Many paths cross at the same point, with different velocities. Which value does the best field have there, and can the
# loss reach zero? What is the best field at time 0, where $x_t = x_0$ says nothing about $x_1$?
#
# ### BEGIN SOLUTION
# The best field is the conditional mean E[x1 - x0 | x_t]. The loss cannot be smaller than the mean conditional variance of the
# velocities, which is not zero. At time 0 the mean is E[x1] - x0: all arrows point at the mean of the data.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. A training step
#
# `layer = tff.ContinuousFlow(2)` holds a network and the solver. `layer.velocity(t, x)` is the field.
#
# Complete `train_step` for a batch of data. Draw `x0` from a standard normal distribution, and one time per row, uniform on $[0, 1]$. Compute the
# gradients of your loss, apply them, and return the loss. Use `tf.random.normal` and `tf.random.uniform`.


# %% nbgrader={"grade": false, "grade_id": "train-step", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def train_step(layer, optimizer, x1):
    """One step of flow matching on a batch x1 of shape [n, D]. Changes the weights of `layer` and returns the loss."""
    ### BEGIN SOLUTION
    x0, t = tf.random.normal(tf.shape(x1)), tf.random.uniform(tf.shape(x1)[:1])
    with tf.GradientTape() as tape:
        loss = cfm_loss(layer.velocity, t, x0, x1)
    variables = layer.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    return loss
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "train-step-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
class Recorder:
    """A field v(t, x) = a, with a trainable a, which remembers what it was asked."""

    def __init__(self):
        self.a, self.asked = tf.Variable([0.0, 0.0]), []
        self.trainable_variables = [self.a]

    def velocity(self, t, x):
        self.asked.append((t, x))
        return self.a + 0.0 * x


tf.random.set_seed(0)
recorder = Recorder()
batch = tf.random.normal([2000, 2]) * 0.1 + [3.0, -1.0]
losses = [float(train_step(recorder, keras.optimizers.SGD(0.25), batch)) for _ in range(6)]
np.testing.assert_allclose(recorder.a, [3.0, -1.0], atol=0.15)  # the mean of x1 - x0
assert losses[0] > 10.0 and abs(losses[-1] - 2.02) < 0.3
times, points = (np.concatenate([np.asarray(part[i]) for part in recorder.asked]) for i in (0, 1))
assert times.shape == (12_000,) and times.min() >= 0.0 and times.max() <= 1.0
np.testing.assert_allclose([times.mean(), times.var()], [0.5, 1.0 / 12.0], atol=0.02)
# At time t the points have the mean t E[x1] and the variance (1 - t)^2 + 0.01 t^2.
noise = (points - times[:, None] * np.array([3.0, -1.0])) / np.sqrt((1.0 - times) ** 2 + 0.01 * times**2)[:, None]
np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 1.0], atol=0.05)

# %% nbgrader={"grade": false, "grade_id": "data", "locked": true, "schema_version": 3, "solution": false, "task": false}
moons = tff.data.moons()
raw = moons.sample(2000 if SMOKE else 20_000, seed=0)
center, spread = raw.mean(axis=0), raw.std(axis=0)
data = tf.constant((raw - center) / spread, tf.float32)
floor = moons.entropy() - np.log(spread).sum()

# %% nbgrader={"grade": false, "grade_id": "train", "locked": true, "schema_version": 3, "solution": false, "task": false}
keras.utils.set_random_seed(1)
layer = tff.ContinuousFlow(2, hidden_units=[64, 64], activation="silu", seed=1)
steps = 100 if SMOKE else 6000
optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps))
optimizer.build(layer.trainable_variables)


@tf.function
def compiled(x1):
    return train_step(layer, optimizer, x1)


rows = np.random.default_rng(0)
losses = [float(compiled(tf.gather(data, rows.integers(0, len(data), 256)))) for _ in range(steps)]
print(f"loss {np.mean(losses[:50]):.2f} at the beginning, {np.mean(losses[-50:]):.2f} at the end")

# %% nbgrader={"grade": false, "grade_id": "field-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
side = np.linspace(-2.5, 2.5, 15).astype("float32")
arrows = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for axis, time in zip(axes, (0.0, 0.5, 0.95)):
    field = layer.velocity(tf.fill([len(arrows)], time), arrows).numpy()
    axis.scatter(*data[:500].numpy().T, s=3, alpha=0.4)
    axis.quiver(*arrows.T, *field.T)
    axis.set(title=f"velocity at t = {time:g}", aspect="equal")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-4", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. Samples
#
# A sample is the solution of $dx / dt = v(t, x)$ that begins with noise. Euler's method takes $n$ steps of size $1 / n$, and evaluates the field at the
# beginning of each. Complete `euler`.


# %% nbgrader={"grade": false, "grade_id": "euler", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def euler(velocity_fn, x0, num_steps):
    """x at time 1, from x0 at time 0, of shape [n, D], by Euler's method."""
    ### BEGIN SOLUTION
    x, dt = x0, 1.0 / num_steps
    for i in range(num_steps):
        x = x + dt * velocity_fn(tf.fill([len(x)], tf.cast(i * dt, x.dtype)), x)
    return x
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "euler-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
start = tf.constant([[1.0, -2.0], [0.5, 3.0]])
np.testing.assert_allclose(euler(lambda t, x: x, start, 2), 2.25 * start)
np.testing.assert_allclose(euler(lambda t, x: 0.0 * x + t[:, None], start, 4), start + 0.375)  # (0 + 1 + 2 + 3) / 16
np.testing.assert_allclose(euler(lambda t, x: x, start, 1000), np.e * start, rtol=2e-3)

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-euler", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** How do samples look with one step of Euler's method, and with 2, 8 and 64? Think of the arrows at time 0.
#
# ### BEGIN SOLUTION
# With one step all samples land near the mean of the data, because at time 0 all arrows point there. With more steps the paths bend
# toward the moons. With 64 steps they look like the data.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "euler-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
noise = tf.random.stateless_normal([1500, 2], [1, 2])
figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained", sharex=True, sharey=True)
for axis, num_steps in zip(axes, (1, 2, 8, 64)):
    axis.scatter(*euler(layer.velocity, noise, num_steps).numpy().T, s=3, color="tab:orange")
    axis.set(title=f"{num_steps} steps", aspect="equal")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-5", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. The exact likelihood
#
# Along a path, the log-density changes at the rate $-\operatorname{tr}(\partial v / \partial x)$. To evaluate the density of data, solve backward from
# $t = 1$ to $t = 0$ and integrate the trace:
#
# $$\log p(x_1) = \log N(x_0; 0, I) - \int_0^1 \operatorname{tr} \frac{\partial v}{\partial x}(t, x_t) \, dt.$$
#
# The given `velocity_and_trace` returns the field and the trace. Complete `log_likelihood` with the midpoint rule. A step of size $\Delta$ from time $t$
# back to $t - \Delta$ first moves half a step back with the field at $t$. It then takes the field and the trace at this midpoint, at time $t - \Delta / 2$, for
# the full step from the original point.


# %% nbgrader={"grade": false, "grade_id": "velocity-and-trace", "locked": true, "schema_version": 3, "solution": false, "task": false}
def velocity_and_trace(velocity_fn, t, x):
    """v(t, x) of shape [n, D], and the trace of dv/dx of shape [n]."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        v = velocity_fn(t, x)
        columns = tf.unstack(v, axis=1)
    diagonal = [tape.gradient(c, x, unconnected_gradients="zero")[:, i] for i, c in enumerate(columns)]
    return v, tf.add_n(diagonal)


# %% nbgrader={"grade": false, "grade_id": "log-likelihood", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def log_likelihood(velocity_fn, x1, num_steps):
    """Log-density of data x1 of shape [n, D], in nats, a tensor of shape [n]."""
    ### BEGIN SOLUTION
    x, dt, integral = x1, 1.0 / num_steps, 0.0
    for i in range(num_steps):
        time = 1.0 - i * dt
        begin, middle = (tf.fill([len(x)], tf.cast(s, x.dtype)) for s in (time, time - dt / 2.0))
        half = x - dt / 2.0 * velocity_fn(begin, x)
        v, trace = velocity_and_trace(velocity_fn, middle, half)
        x, integral = x - dt * v, integral + dt * trace
    normal = tfd.MultivariateNormalDiag(tf.zeros_like(x[0]), tf.ones_like(x[0]))
    return normal.log_prob(x) - integral
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "log-likelihood-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
events = tf.constant([[0.3, -1.0], [2.0, 0.5], [0.0, 0.0]])
grow = log_likelihood(lambda t, x: 0.5 * x, events, 20)  # x1 = exp(1/2) x0
np.testing.assert_allclose(
    grow, tfd.MultivariateNormalDiag(tf.zeros(2), np.exp(0.5) * tf.ones(2)).log_prob(events), atol=1e-3
)
shift = log_likelihood(lambda t, x: 0.0 * x + 2.0 * t[:, None], events, 20)  # x1 = x0 + 1
np.testing.assert_allclose(shift, tfd.MultivariateNormalDiag(tf.ones(2), tf.ones(2)).log_prob(events), atol=1e-3)
turn = tf.constant([[0.0, 1.0], [-1.0, 0.0]])
spiral = log_likelihood(lambda t, x: 3.0 * (t[:, None] * x) @ turn + 2.0 * t[:, None] * x, events, 40)
np.testing.assert_allclose(
    spiral, tfd.MultivariateNormalDiag(tf.zeros(2), np.e * tf.ones(2)).log_prob(events), atol=5e-3
)

# %% nbgrader={"grade": false, "grade_id": "check-likelihood", "locked": true, "schema_version": 3, "solution": false, "task": false}
flow_by_hand = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), layer)
some = data[:200]
mine, solver = log_likelihood(layer.velocity, some, 20 if SMOKE else 100), flow_by_hand.log_prob(some)
print(f"largest difference from the adaptive solver: {np.max(np.abs(mine - solver)):.4f} nats")
nll = -float(np.mean(flow_by_hand.log_prob(data[:2000])))
print(f"NLL {nll:.3f} nats, {nll - floor:.3f} above the floor")

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-6", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. With Keras
#
# `tff.FlowMatchingModel` does all of this in `fit`. Its loss is not in nats, so judge the flow by `log_prob`. With
# `pairing="optimal_transport"`, noise and data of a batch are paired at the smallest total distance, which makes the paths straighter.
#
# Complete `fit_matching`. The flow is `tff.continuous_flow(2, hidden_units=[64, 64], activation="silu", preprocess=tff.standardize(x), seed=1)`. Put it
# into a `tff.FlowMatchingModel` with the pairing and `seed=1`, compile it with `keras.optimizers.Adam(rate, global_clipnorm=1.0)`, where `rate` is a
# `CosineDecay` from 1e-2 over all steps, and fit it with batches of 256 and `verbose=0`.


# %% nbgrader={"grade": false, "grade_id": "fit-matching", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def fit_matching(x, epochs, pairing):
    """A trained tff.FlowMatchingModel of events x of shape [N, 2]."""
    ### BEGIN SOLUTION
    flow = tff.continuous_flow(2, hidden_units=[64, 64], activation="silu", preprocess=tff.standardize(x), seed=1)
    model = tff.FlowMatchingModel(flow, pairing=pairing, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, epochs * -(-len(x) // 256))
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(x, batch_size=256, epochs=epochs, verbose=0)
    return model
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "fit-matching-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
matched, evaluations = {}, {}
x_test = moons.sample(2000, seed=1)
for pairing in ("independent", "optimal_transport"):
    fitted = fit_matching(raw[:1000] if SMOKE else raw, 15 if SMOKE else 40, pairing)
    assert isinstance(fitted, tff.FlowMatchingModel) and fitted.pairing == pairing
    nll = -float(np.mean(fitted.log_prob(x_test)))
    fitted.sample(1000, seed=1)
    equation = next(b for b in fitted.distribution.bijector.bijectors if isinstance(b, tff.ContinuousFlow))
    evaluations[pairing] = int(equation.num_evaluations)
    print(
        f"{pairing:18} NLL {nll:.3f} ({nll - moons.entropy():.3f} above the floor), {evaluations[pairing]} evaluations for samples"
    )
    assert moons.entropy() - 0.05 < nll < (1.6 if SMOKE else 0.6)
    z = fitted.distribution.bijector.inverse(tf.constant(x_test)).numpy()
    assert abs(z.std() - 1.0) < 0.2
    matched[pairing] = fitted

# %% nbgrader={"grade": false, "grade_id": "matched-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
tff.plots.layers(matched["independent"], x_test, num_samples=800)
plt.show()
tff.plots.compare(matched, x_test, floor=moons.entropy())
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "small-data", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Advice for small data.** A flow that is matched for too long to a few hundred points moves all of its mass onto them. Hold out a tenth of the
# rows, compute their NLL with `log_prob` now and then, and stop when it rises. The training loss does not show overfitting reliably: it is noisy,
# and not in nats.

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# **Question.** A step of flow matching costs one pass of the network. A density still costs dozens of passes, each with a trace. When would you take a
# coupling flow instead, and when a continuous flow?
#
# ### BEGIN SOLUTION
# A coupling flow, when densities or samples are needed often or fast: one pass each, and no solver error. A continuous flow, when training by
# regression matters more (large networks, many dimensions, no constraint on the architecture), or when smooth paths are wanted.
# ### END SOLUTION
