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
# # Spline flows, and an autoencoder with flows
#
# An affine map only shifts and stretches. A spline bends, so a flow of splines needs fewer layers. In this assignment you write the
# rational-quadratic spline of Durkan et al. (2019, arXiv:1906.04032) and its inverse, compare a spline flow with an affine flow, and
# put flows into a variational autoencoder (VAE) of handwritten digits.
#
# **Learning goals.** After this assignment you can
#
# - turn the raw outputs of a network into the knots of an increasing spline;
# - evaluate the spline, its derivative and its inverse, and check all three by numbers;
# - explain what a spline flow gains over an affine flow, and measure it in nats;
# - write the loss of a VAE, and say which part of it a flow posterior and a flow prior improve.
#
# **Prerequisites.** Assignments 01 and 04 (change of variables, coupling layers). For part 6: what a VAE is.
#
# **Time.** About 4 hours of work (an estimate). The finished notebook runs in about 4 minutes on two busy cores (251 s at a load of 9, of which 75 s of processor time), with 1.3 GB of memory.
#
# **Points.** 20 in total: 15 by tests, 5 by hand.
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
from sklearn.datasets import load_digits

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions
keras.utils.set_random_seed(0)
# The tests of this notebook run it at a small size. Leave this line as it is.
SMOKE = bool(os.environ.get("TFP_FLOWS_SMOKE"))

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-1", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 1. Knots
#
# The spline maps $[-B, B]$ to $[-B, B]$ and is the identity outside. It has $K$ bins. A network returns $K$ unbounded numbers for the
# widths of the bins. A softmax makes them positive with sum one. Scale them to the interval, and add them up.
#
# Complete `knots`. The heights of the bins are computed the same way.


# %% nbgrader={"grade": false, "grade_id": "knots", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def knots(raw, bound):
    """Knots of a spline on one axis.

    Arguments: an array of shape [K], and half the width of the interval.
    Returns: an increasing array of shape [K + 1] that begins with -bound and ends with bound.
    """
    ### BEGIN SOLUTION
    widths = np.exp(raw - np.max(raw))
    widths = 2.0 * bound * widths / np.sum(widths)
    return -bound + np.concatenate([[0.0], np.cumsum(widths)])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "knots-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_allclose(knots(np.zeros(4), 2.0), [-2.0, -1.0, 0.0, 1.0, 2.0])
np.testing.assert_allclose(knots(np.log([1.0, 3.0]), 1.0), [-1.0, -0.5, 1.0])
assert np.all(np.diff(knots(np.array([-3.0, 5.0, 0.0, 1.0]), 5.0)) > 0)
### BEGIN HIDDEN TESTS
np.testing.assert_allclose(knots(np.array([700.0, 700.0, 800.0]), 3.0)[[0, -1]], [-3.0, 3.0])  # no overflow
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-2", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. One bin
#
# A bin has the width $w$, the height $h$ and the mean slope $s = h / w$. Let $t \in [0, 1]$ be the position in the bin, and let $d_0$ and
# $d_1$ be the slopes at its two ends. With $u = t (1 - t)$, the relative height and the derivative of the map are
#
# $$r(t) = \frac{s t^2 + d_0 u}{s + (d_0 + d_1 - 2 s) u}, \qquad
# \frac{dy}{dx} = \frac{s^2 \left(d_1 t^2 + 2 s u + d_0 (1 - t)^2\right)}{\left(s + (d_0 + d_1 - 2 s) u\right)^2}.$$
#
# Complete `rational_quadratic`.


# %% nbgrader={"grade": false, "grade_id": "rational-quadratic", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def rational_quadratic(t, s, d0, d1):
    """One bin of the spline.

    Arguments: positions t in the bin, the mean slope s, and the slopes at both ends, which all broadcast.
    Returns: the relative height r(t), from 0 to 1, and the derivative dy/dx.
    """
    ### BEGIN SOLUTION
    u = t * (1.0 - t)
    below = s + (d0 + d1 - 2.0 * s) * u
    derivative = s**2 * (d1 * t**2 + 2.0 * s * u + d0 * (1.0 - t) ** 2) / below**2
    return (s * t**2 + d0 * u) / below, derivative
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "rational-quadratic-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
t = np.linspace(0.0, 1.0, 11)
np.testing.assert_allclose(rational_quadratic(t, 1.0, 1.0, 1.0), [t, np.ones(11)])  # the identity
r, derivative = rational_quadratic(t, 1.5, 0.5, 4.0)
np.testing.assert_allclose([r[0], r[-1]], [0.0, 1.0], atol=1e-12)
np.testing.assert_allclose([derivative[0], derivative[-1]], [0.5, 4.0])
# dy/dx = (h / w) dr/dt = s dr/dt
step = 1e-6
inner = t[1:-1]
difference = rational_quadratic(inner + step, 1.5, 0.5, 4.0)[0] - rational_quadratic(inner - step, 1.5, 0.5, 4.0)[0]
np.testing.assert_allclose(derivative[1:-1], 1.5 * difference / (2.0 * step), rtol=1e-6)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. The spline
#
# Complete `spline` for values on the whole line. Find the bin of each value with `np.searchsorted`, map it there, and return the log of
# the derivative. Outside of the knots the map is the identity.


# %% nbgrader={"grade": false, "grade_id": "spline", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def spline(x, xs, ys, slopes):
    """The rational-quadratic spline.

    Arguments: values x of shape [n], and arrays of shape [K + 1]: the knots on both axes, and the slopes at the knots.
    Returns: y of shape [n], and log |dy/dx| of shape [n].
    """
    ### BEGIN SOLUTION
    k = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(xs) - 2)
    w, h = np.diff(xs)[k], np.diff(ys)[k]
    t = np.clip((x - xs[k]) / w, 0.0, 1.0)
    r, derivative = rational_quadratic(t, h / w, slopes[k], slopes[k + 1])
    inside = (x > xs[0]) & (x < xs[-1])
    return np.where(inside, ys[k] + h * r, x), np.where(inside, np.log(derivative), 0.0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "spline-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
rng = np.random.default_rng(0)
xs, ys = knots(rng.normal(size=5), 3.0), knots(rng.normal(size=5), 3.0)
slopes = np.concatenate([[1.0], rng.uniform(0.3, 3.0, size=4), [1.0]])
x = np.linspace(-4.0, 4.0, 400)
y, log_det = spline(x, xs, ys, slopes)
assert y.shape == log_det.shape == (400,) and np.all(np.diff(y) > 0)
outside = np.abs(x) > 3.0
np.testing.assert_allclose(y[outside], x[outside])
np.testing.assert_allclose(log_det[outside], 0.0, atol=1e-12)
np.testing.assert_allclose(spline(xs[1:-1], xs, ys, slopes)[0], ys[1:-1], atol=1e-9)
away = np.min(np.abs(x[:, None] - xs), axis=1) > 1e-3  # the second derivative jumps at the knots
slope = (spline(x + 1e-6, xs, ys, slopes)[0] - spline(x - 1e-6, xs, ys, slopes)[0]) / 2e-6
np.testing.assert_allclose(np.exp(log_det[away]), slope[away], rtol=1e-5)

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-slope", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The next cell draws a spline whose slope at one knot is 0.05, and the density of a standard normal variable pushed
# through it. Where does the density have a peak, and why? Write your prediction down before you run the cell.
#
# ### BEGIN SOLUTION
# The density is largest where the map is flat: around the image of that knot. Many values of z end up close together there. The
# height is the normal density divided by the slope.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "slope-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
knots_x = knots(np.zeros(4), 4.0)
z = np.linspace(-5.0, 5.0, 2001)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for slope_of_knot in (1.0, 0.05):
    pushed, log_slope = spline(z, knots_x, knots_x, np.array([1.0, 1.0, slope_of_knot, 1.0, 1.0]))
    axes[0].plot(z, pushed, label=f"slope {slope_of_knot:g} at 0")
    axes[1].plot(pushed, np.exp(-0.5 * z**2 - log_slope) / np.sqrt(2.0 * np.pi))
axes[0].legend()
axes[0].set(title="the map", xlabel="z", ylabel="x")
axes[1].set(title="the density of x", xlabel="x", yscale="log", ylim=(1e-3, 20.0))
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-4", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. The inverse
#
# To invert a bin, solve $r(t) = v$ for $t$. It is a quadratic equation $a t^2 + b t + c = 0$ with
#
# $$a = s - d_0 + v (d_0 + d_1 - 2 s), \qquad b = d_0 - v (d_0 + d_1 - 2 s), \qquad c = -s v.$$
#
# The root in $[0, 1]$ is $t = 2 c / \left(-b - \sqrt{b^2 - 4 a c}\right)$. The textbook's form of the same root divides by $a$, which is zero for
# a straight bin. Complete `spline_inverse`.


# %% nbgrader={"grade": false, "grade_id": "spline-inverse", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def spline_inverse(y, xs, ys, slopes):
    """x of shape [n] such that spline(x, xs, ys, slopes) is y."""
    ### BEGIN SOLUTION
    k = np.clip(np.searchsorted(ys, y, side="right") - 1, 0, len(ys) - 2)
    w, h = np.diff(xs)[k], np.diff(ys)[k]
    s, d0, d1 = h / w, slopes[k], slopes[k + 1]
    v = np.clip((y - ys[k]) / h, 0.0, 1.0)
    bend = v * (d0 + d1 - 2.0 * s)
    a, b, c = s - d0 + bend, d0 - bend, -s * v
    t = 2.0 * c / (-b - np.sqrt(b**2 - 4.0 * a * c))
    inside = (y > ys[0]) & (y < ys[-1])
    return np.where(inside, xs[k] + w * t, y)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "spline-inverse-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_allclose(spline_inverse(spline(x, xs, ys, slopes)[0], xs, ys, slopes), x, atol=1e-8)
straight = np.linspace(-3.0, 3.0, 5)
np.testing.assert_allclose(spline_inverse(x, straight, straight, np.ones(5)), x, atol=1e-9)
### BEGIN HIDDEN TESTS
np.testing.assert_allclose(spline(spline_inverse(x, xs, ys, slopes), xs, ys, slopes)[0], x, atol=1e-8)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "compare-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# `tff.SplineTransformer(num_bins, bound)` is this map for batches. It takes the raw outputs of a network, and keeps bins and slopes away from
# zero. The cell checks that it agrees with your spline.

# %% nbgrader={"grade": false, "grade_id": "compare", "locked": true, "schema_version": 3, "solution": false, "task": false}
raw = rng.normal(size=[3 * 6 - 1])
transformer = tff.SplineTransformer(num_bins=6, bound=3.0)(tf.constant(np.tile(raw, [400, 1])))
inner_slopes = 1e-3 + np.log1p(np.exp(raw[12:] + np.log(np.expm1(1.0 - 1e-3))))
with_bounds = [1e-3 + (1.0 - 6e-3) * np.diff(knots(part, 0.5)) for part in (raw[:6], raw[6:12])]
xs_raw, ys_raw = (np.concatenate([[-3.0], -3.0 + 6.0 * np.cumsum(part)]) for part in with_bounds)
by_hand = spline(x, xs_raw, ys_raw, np.concatenate([[1.0], inner_slopes, [1.0]]))[0]
np.testing.assert_allclose(transformer.inverse(tf.constant(x)), by_hand, atol=1e-6)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-5", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. A spline flow
#
# In a coupling flow, a network reads one half of the dimensions and computes the parameters of the map of the other half. Complete
# `coupling`. It returns a `tff.coupling_flow` of events of size 2. If `num_bins` is 0, its transformer is `tff.AffineTransformer()`. Otherwise
# it is a `tff.SplineTransformer` with this number of bins and a bound of 4. Pass `num_layers`, `hidden_units=[64, 64]`, `seed=1` and
# `preprocess=tff.standardize(data)`.


# %% nbgrader={"grade": false, "grade_id": "coupling", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def coupling(data, num_layers, num_bins):
    """A coupling flow in two dimensions: affine if num_bins is 0, and of splines otherwise."""
    ### BEGIN SOLUTION
    transformer = tff.SplineTransformer(num_bins, bound=4.0) if num_bins else tff.AffineTransformer()
    return tff.coupling_flow(
        2, transformer, num_layers=num_layers, hidden_units=[64, 64], preprocess=tff.standardize(data), seed=1
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "coupling-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
board = tff.data.checkerboard()
x_train, x_test = board.sample(2000 if SMOKE else 20_000, seed=0), board.sample(5000, seed=1)
affine, splines = coupling(x_train, 4, 0), coupling(x_train, 4, 8)
sizes = [sum(int(np.prod(v.shape)) for v in flow.trainable_variables) for flow in (affine, splines)]
assert sizes == [4 * (64 * 2 + 64 * 65 + 2 * 65), 4 * (64 * 2 + 64 * 65 + 23 * 65)], sizes
for flow in (affine, splines):
    z = flow.bijector.inverse(tf.constant(x_test)).numpy()
    assert abs(z.std() - 1.0) < 0.1, "preprocess is missing"
found = splines.bijector.forward(tf.constant([[100.0, 0.0]])).numpy()
assert np.all(np.isfinite(found))

# %% [markdown] nbgrader={"grade": false, "grade_id": "train-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The data is a checkerboard, with sharp edges. Its entropy is the smallest mean negative log-likelihood (NLL) that any model can reach.

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-board", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** Both flows have four layers. Which one represents the gaps between the squares better, and what does the other one draw
# there?
#
# ### BEGIN SOLUTION
# The spline flow. A layer of it can squeeze a gap to almost nothing, with a steep piece of the spline for each gap. An affine layer has
# one scale for each value of the other half, so it only moves and stretches mass. It leaves the mass between the squares.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "train-boards", "locked": true, "schema_version": 3, "solution": false, "task": false}
models = {}
for name, flow in {"affine": affine, "spline": splines}.items():
    epochs = 1 if SMOKE else 30
    model = tff.FlowModel(flow)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * (len(x_train) // 500))
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(x_train, batch_size=500, epochs=epochs, verbose=0)
    models[name] = model
    nll = -np.mean(model.log_prob(x_test))
    print(f"{name}: NLL {nll:.3f} nats, {nll - board.entropy():.3f} above the floor")

# %% nbgrader={"grade": false, "grade_id": "board-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
tff.plots.compare(models, x_test, floor=board.entropy())
plt.show()
tff.plots.layers(models["spline"], x_test, num_samples=1000)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-6", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. A variational autoencoder
#
# A VAE has latent values $z$ with a prior $p(z)$, a decoder $p(x \mid z)$ and a posterior $q(z \mid x)$. It minimizes the negative evidence
# lower bound (ELBO)
#
# $$-\mathrm{ELBO}(x) = -\log p(x \mid z) + \log q(z \mid x) - \log p(z), \qquad z \sim q(z \mid x).$$
#
# Here $x$ is an image of 64 pixels that are 0 or 1, and the decoder returns one logit per pixel. Complete `negative_elbo`.


# %% nbgrader={"grade": false, "grade_id": "negative-elbo", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def negative_elbo(x, logits, log_q, log_prior):
    """Negative ELBO of each image, in nats, from one sample of z.

    Arguments: images x and logits, of shape [n, 64]; log q(z | x) and log p(z), of shape [n].
    Returns: a tensor of shape [n].
    """
    ### BEGIN SOLUTION
    log_likelihood = tf.reduce_sum(tfd.Bernoulli(logits=logits).log_prob(x), axis=-1)
    return -log_likelihood + log_q - log_prior
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "negative-elbo-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
pixels = tf.constant(rng.integers(0, 2, size=[3, 64]), tf.float32)
zero = tf.zeros([3])
np.testing.assert_allclose(
    negative_elbo(pixels, tf.zeros([3, 64]), zero, zero), 64.0 * np.log(2.0) * np.ones(3), rtol=1e-5
)
np.testing.assert_allclose(
    negative_elbo(pixels, 50.0 * (2.0 * pixels - 1.0), zero + 3.0, zero - 1.0), 4.0 * np.ones(3), rtol=1e-5
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# `tff.FlowVAE` is this model. Its posterior is a normal distribution whose mean and scale come from the encoder, followed by a flow that also
# reads the features of the encoder. Its prior may be a flow too.
#
# Complete `make_vae`. The encoder and the decoder are given. The posterior is `tff.iaf` with two layers, `hidden_units=[32]`, `seed=1` and
# `conditional_size` equal to the number of features, or `None`. The prior is `tff.spline_coupling` with four layers, `hidden_units=[32]` and
# `seed=2`, or `None`. Pass `seed=3` to the model.

# %% nbgrader={"grade": false, "grade_id": "networks", "locked": true, "schema_version": 3, "solution": false, "task": false}
FEATURES, LATENT = 64, 2


def encoder_and_decoder():
    keras.utils.set_random_seed(4)
    dense = keras.layers.Dense
    encoder = keras.Sequential([keras.Input((64,)), dense(64, "relu"), dense(FEATURES, "relu")])
    decoder = keras.Sequential([keras.Input((LATENT,)), dense(64, "relu"), dense(64, "relu"), dense(64)])
    return encoder, decoder


# %% nbgrader={"grade": false, "grade_id": "make-vae", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def make_vae(flow_posterior, flow_prior):
    """A tff.FlowVAE of the networks above.

    Arguments: two booleans, whether the posterior and whether the prior are flows.
    """
    ### BEGIN SOLUTION
    encoder, decoder = encoder_and_decoder()
    posterior, prior = None, None
    if flow_posterior:
        posterior = tff.iaf(LATENT, num_layers=2, hidden_units=[32], conditional_size=FEATURES, seed=1)
    if flow_prior:
        prior = tff.spline_coupling(LATENT, num_layers=4, hidden_units=[32], seed=2)
    return tff.FlowVAE(encoder, decoder, latent_size=LATENT, posterior=posterior, prior=prior, seed=3)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "make-vae-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
plain, both = make_vae(False, False), make_vae(True, True)
assert isinstance(plain, tff.FlowVAE) and plain.posterior is None and not plain.prior.trainable_variables
assert both.posterior.conditional_size == FEATURES, "the posterior does not read the features"
assert len(both.posterior.trainable_variables) > 0 and len(both.prior.trainable_variables) > 0
assert both.prior.event_shape == (LATENT,) and getattr(both.prior, "conditional_size", None) is None
assert make_vae(True, False).posterior is not None and not make_vae(True, False).prior.trainable_variables
assert make_vae(False, True).posterior is None and make_vae(False, True).prior.trainable_variables

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-vae", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The ELBO is at most $\log p(x)$, and what is missing is the divergence of $q(z \mid x)$ from the true posterior. Which
# of the two flows makes the bound tighter, and which one changes $p(x)$ itself?
#
# ### BEGIN SOLUTION
# The flow posterior makes the bound tighter: it can take shapes that a normal distribution with a diagonal covariance cannot. The flow
# prior is a part of the model, so it changes p(x), and with it the samples.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "train-vae", "locked": true, "schema_version": 3, "solution": false, "task": false}
images = (load_digits().data > 7.5).astype("float32")
images = images[np.random.default_rng(0).permutation(len(images))]
train, test = images[:1400], images[1400:]
vaes = {}
for name, kind in {"neither": (False, False), "flow posterior": (True, False), "both flows": (True, True)}.items():
    if SMOKE and name == "flow posterior":
        continue
    vae = make_vae(*kind)
    epochs = 1 if SMOKE else 100
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * 14)
    vae.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    vae.fit(train, batch_size=100, epochs=epochs, verbose=0)
    result = vae.evaluate(test, verbose=0, return_dict=True)
    likelihood = np.mean(vae.log_likelihood(test, num_samples=20 if SMOKE else 500, seed=1))
    gap = result["negative_elbo"] + likelihood
    print(
        f"{name:15} -ELBO {result['negative_elbo']:6.2f}   -log p(x) {-likelihood:6.2f}   gap {gap:5.2f} nats per image"
    )
    vaes[name] = vae

# %% nbgrader={"grade": false, "grade_id": "samples-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
canvas = plt.figure(figsize=(11, 3.8), layout="constrained")
pictures = {"test images": test[:36]} | {name: vae.sample(36, seed=1).numpy() for name, vae in vaes.items()}
for part, (title, values) in zip(np.ravel(canvas.subfigures(1, len(pictures))), pictures.items()):
    tff.plots.image_grid(values.reshape(-1, 8, 8, 1), figure=part)
    part.suptitle(title)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "small-data", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Advice for small data.** There are 1400 training images. If the test -ELBO rises while the training -ELBO falls, use fewer hidden units, stop
# earlier with `tff.callbacks.EarlyStopping`, or add weight decay (`keras.optimizers.AdamW`). Spline flows with many bins overfit first:
# try 4 bins before 8.

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# **Question.** A colleague uses `tff.SplineTransformer(bound=1.0)` on data with standard deviation 10, without standardization. The flow trains
# without an error. What is wrong with the result?
#
# ### BEGIN SOLUTION
# The spline is the identity outside of [-1, 1], and almost all of the data lies there. The layers cannot change the density of these
# points, so the flow stays close to its base. Standardize the data, or raise the bound.
# ### END SOLUTION
