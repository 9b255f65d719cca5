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
# # Masked autoregressive flows and their inverse
#
# In this assignment you build a masked autoregressive flow (MAF), from the mask of a MADE network to a model that learns two
# moons. Then you invert it into an inverse autoregressive flow (IAF), and measure which direction of each is fast.
#
# **Learning goals.** After this assignment you can
#
# - build the masks that make a network autoregressive, and check them by a Jacobian;
# - write both directions of an autoregressive layer;
# - train a flow by maximum likelihood and compare its loss with the smallest possible one;
# - choose between MAF and IAF by the direction that must be fast.
#
# **Prerequisites.** Assignment 01. Multilayer perceptrons.
#
# **Time.** About 3 to 4 hours of work (an estimate). The finished notebook runs in about a minute on two busy cores (67 s at a load of 7, of which 43 s of processor time), with 1.4 GB of memory.
#
# **Points.** 19 in total: 15 by tests, 4 by hand.
#
# Write your code in the cells that say `YOUR CODE HERE`. Do not change the names or arguments of the functions. The cells after them
# test your code and print nothing if it is correct.
#
# What you need to know:
#
# - The chain rule of probability: $p(x_1, \dots, x_D) = \prod_i p(x_i \mid x_1, \dots, x_{i-1})$.
# - The change of variables: if $x = f(u)$ and $u \sim p_u$, then
#   $\log p(x) = \log p_u(f^{-1}(x)) + \log |\det \partial f^{-1}(x) / \partial x|$.
#
# Papers: MADE (Germain et al. 2015, arXiv:1502.03509), MAF (Papamakarios et al. 2017, arXiv:1705.07057),
# IAF (Kingma et al. 2016, arXiv:1606.04934).

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
import time

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
# ## 1. The masks of MADE
#
# A MADE is a multilayer perceptron in which output $i$ must not see the inputs $i, i+1, \dots, D$. Every unit gets a
# *degree*. Input $i$ has degree $i$, counted from 1. A hidden unit of degree $d$ may see the inputs of degree up to $d$;
# its degree is one of $1, \dots, D - 1$. Output $i$ has degree $i$, and sees hidden units of degree **below** $i$ only.
#
# Complete `hidden_degrees`. It returns an integer array of `units` degrees that go through $1, \dots, D - 1$ in turn and then
# start again at 1. For example, `hidden_degrees(4, 5)` is `[1, 2, 3, 1, 2]`.


# %% nbgrader={"grade": false, "grade_id": "hidden-degrees", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def hidden_degrees(event_size, units):
    """Degrees of the units of a hidden layer.

    Arguments: the number D of inputs (at least 2), and the number of units.
    Returns: an integer array of shape [units].
    """
    ### BEGIN SOLUTION
    return np.arange(units) % (event_size - 1) + 1
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "hidden-degrees-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
np.testing.assert_array_equal(hidden_degrees(4, 5), [1, 2, 3, 1, 2])
np.testing.assert_array_equal(hidden_degrees(2, 3), [1, 1, 1])
assert hidden_degrees(6, 50).shape == (50,)
### BEGIN HIDDEN TESTS
assert set(hidden_degrees(6, 50)) == {1, 2, 3, 4, 5}
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "masks-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Now the masks. For a layer that goes from units with degrees `a` to units with degrees `b`, the mask has shape
# `[len(a), len(b)]` and is 1 where the connection is allowed, and 0 elsewhere. Between inputs and hidden units, and between
# hidden layers, the rule is `a <= b`; to the outputs it is `a < b`.


# %% nbgrader={"grade": false, "grade_id": "made-masks", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def made_masks(degrees):
    """Masks of all layers of a MADE.

    Argument: a list of integer arrays, the degrees of the inputs and of each hidden layer. The outputs have the
        degrees of the inputs.
    Returns: a list of float32 arrays of the same length, one mask for each layer, the last one to the outputs.
    """
    ### BEGIN SOLUTION
    masks = [a[:, None] <= b[None, :] for a, b in zip(degrees[:-1], degrees[1:])]
    masks.append(degrees[-1][:, None] < degrees[0][None, :])
    return [m.astype(np.float32) for m in masks]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "made-masks-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
degrees = [np.arange(1, 5), hidden_degrees(4, 7), hidden_degrees(4, 6)]
masks = made_masks(degrees)
assert [m.shape for m in masks] == [(4, 7), (7, 6), (6, 4)]
assert all(m.dtype == np.float32 for m in masks)
# The product counts the paths from each input to each output: none may lead to an output of the same or a lower degree.
paths = masks[0] @ masks[1] @ masks[2]
assert np.all(paths[np.tril_indices(4)] == 0)
assert np.all(paths[np.triu_indices(4, 1)] > 0)
assert np.all(masks[2][:, 0] == 0)  # the first output depends on nothing

# %% [markdown] nbgrader={"grade": false, "grade_id": "network-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. The masked network
#
# A masked layer computes `activation(h @ (kernel * mask) + bias)`. The mask multiplies the kernel in **every** call: a mask
# that only sets the initial weights to zero is lost at the first step of the optimizer.


# %% nbgrader={"grade": false, "grade_id": "made-network", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def made_network(x, kernels, biases, masks):
    """Output of a masked network with ReLU activations in the hidden layers, and none at the end.

    Arguments: x of shape [batch, D], and lists of kernels, biases and masks, one of each for each layer.
    Returns: a tensor of shape [batch, D].
    """
    ### BEGIN SOLUTION
    h = x
    for i, (kernel, bias, mask) in enumerate(zip(kernels, biases, masks)):
        if i > 0:
            h = tf.nn.relu(h)
        h = h @ (kernel * mask) + bias
    return h
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "made-network-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
rng = np.random.default_rng(1)
kernels = [tf.constant(rng.normal(size=m.shape), tf.float32) for m in masks]
biases = [tf.constant(rng.normal(size=m.shape[1]), tf.float32) for m in masks]
x = tf.constant(rng.normal(size=[20, 4]), tf.float32)
with tf.GradientTape() as tape:
    tape.watch(x)
    out = made_network(x, kernels, biases, masks)
assert out.shape == (20, 4)
jacobian = tape.batch_jacobian(out, x).numpy()  # [batch, output, input]
rows, columns = np.triu_indices(4)
assert np.all(jacobian[:, rows, columns] == 0), "an output sees its own input, or a later one"
assert np.any(jacobian != 0)
one_layer = made_network(x, kernels[:1], biases[:1], masks[:1])
np.testing.assert_allclose(one_layer, x @ (kernels[0] * masks[0]) + biases[0], atol=1e-5)

# %% [markdown] nbgrader={"grade": false, "grade_id": "transform-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. One autoregressive layer, in both directions
#
# A MAF layer maps latent values $u$ to data $x$ by
#
# $$x_i = u_i \exp(\alpha_i) + \mu_i, \qquad \mu_i, \alpha_i \text{ functions of } x_1, \dots, x_{i-1}.$$
#
# From data to latent values everything is known at once: one pass of the network gives all $\mu_i$ and $\alpha_i$.
#
# Complete `to_latent`. `shift_and_log_scale_fn(x)` returns two tensors of the shape of `x`. Return $u$ and the log-determinant
# of $\partial u / \partial x$ for each row. (The Jacobian is triangular: what is on its diagonal?)


# %% nbgrader={"grade": false, "grade_id": "to-latent", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def to_latent(x, shift_and_log_scale_fn):
    """Data to latent values, in one pass of the network.

    Arguments: x of shape [batch, D], and a function from x to (shift, log_scale).
    Returns: u of shape [batch, D], and log |det du/dx| of shape [batch].
    """
    ### BEGIN SOLUTION
    shift, log_scale = shift_and_log_scale_fn(x)
    return (x - shift) * tf.exp(-log_scale), -tf.reduce_sum(log_scale, axis=-1)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "to-data-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# In the other direction, the network needs $x_1$ to compute $\mu_2$ and $\alpha_2$, and so on. The simple method: start from zeros, and
# apply the formula $D$ times to all dimensions. After $i$ rounds the first $i$ dimensions are correct.


# %% nbgrader={"grade": false, "grade_id": "to-data", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def to_data(u, shift_and_log_scale_fn):
    """Latent values to data, in D passes of the network.

    Arguments: u of shape [batch, D], and a function from x to (shift, log_scale).
    Returns: x of shape [batch, D].
    """
    ### BEGIN SOLUTION
    x = tf.zeros_like(u)
    for _ in range(u.shape[-1]):
        shift, log_scale = shift_and_log_scale_fn(x)
        x = u * tf.exp(log_scale) + shift
    return x
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "layer-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
made = tff.masked_autoregressive_template([16, 16], event_size=4, activation="tanh", dtype=tf.float64, seed=1)
for v in made.trainable_variables:  # a fresh network is the identity, which would hide errors
    v.assign(0.5 * rng.normal(size=v.shape))
u = tf.constant(rng.normal(size=[10, 4]))
x = to_data(u, made)
with tf.GradientTape() as tape:
    tape.watch(x)
    back, log_det = to_latent(x, made)
np.testing.assert_allclose(back, u, atol=1e-10)
np.testing.assert_allclose(log_det, np.linalg.slogdet(tape.batch_jacobian(back, x))[1], atol=1e-10)
assert np.max(np.abs(x - u)) > 0.1

# %% [markdown] nbgrader={"grade": false, "grade_id": "compare-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# `tff.MaskedAutoregressiveFlow` is this layer as a bijector. Its `inverse` is your `to_latent`, and its `forward` is your `to_data`, with
# one difference: in step $i$ it computes only the hidden units of degree $i$. It costs one pass of the network
# instead of $D$.

# %% nbgrader={"grade": false, "grade_id": "compare", "locked": true, "schema_version": 3, "solution": false, "task": false}
bijector = tff.MaskedAutoregressiveFlow(made)
np.testing.assert_allclose(bijector.forward(u), x, atol=1e-10)
np.testing.assert_allclose(bijector.inverse(tf.identity(x)), u, atol=1e-10)

# %% [markdown] nbgrader={"grade": false, "grade_id": "maf-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. A masked autoregressive flow
#
# One layer of a MAF in two dimensions is a Gaussian $p(x_1)$ and a Gaussian $p(x_2 \mid x_1)$, which cannot represent two moons. A
# stack of layers can, if the order of the dimensions changes from one layer to the next.
#
# Complete `make_maf`. Return a `tfd.TransformedDistribution` over a standard `tfd.MultivariateNormalDiag`, with a `tfb.Chain` of
# `num_layers` bijectors `tff.MaskedAutoregressiveFlow`. Make their networks by `tff.masked_autoregressive_template(hidden_units,
# event_size=2, input_order=...)`, with the orders `"left-to-right"` and `"right-to-left"` in turn.


# %% nbgrader={"grade": false, "grade_id": "make-maf", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def make_maf(num_layers, hidden_units):
    """A masked autoregressive flow in two dimensions.

    Arguments: the number of layers, and the list of sizes of the hidden layers of each network.
    Returns: a tfd.TransformedDistribution.
    """
    ### BEGIN SOLUTION
    orders = ["left-to-right", "right-to-left"]
    layers = [
        tff.MaskedAutoregressiveFlow(
            tff.masked_autoregressive_template(hidden_units, event_size=2, input_order=orders[i % 2])
        )
        for i in range(num_layers)
    ]
    base = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
    return tfd.TransformedDistribution(base, tfb.Chain(layers))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "make-maf-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
maf = make_maf(3, [16, 16])
assert len(maf.bijector.bijectors) == 3
assert len(maf.trainable_variables) == 3 * 6, "each network has three kernels and three biases"
sample = maf.sample(5)
assert sample.shape == (5, 2)
assert maf.log_prob(tf.identity(sample)).shape == (5,)
for v in maf.trainable_variables:
    v.assign(0.3 * rng.normal(size=v.shape))
both = np.array([[1.0, 2.0], [1.5, 2.0], [1.0, 2.5]], np.float32)
latent = maf.bijector.inverse(tf.constant(both)).numpy()
assert np.all(latent[1] != latent[0]) and np.all(latent[2] != latent[0]), (
    "every latent value depends on both dimensions"
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "data-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. Training
#
# The data: two moons, standardized. Their density is known, and so is its entropy: the lowest mean negative log-likelihood
# (NLL) that any model can have. A model that seems to do better has an error in its log-determinant.
#
# **Advice for small data.** With 1000 rows or less, the NLL of held-out data soon rises while that of the training data falls. Use fewer hidden
# units and layers, stop early (`tff.callbacks.EarlyStopping`), and report held-out values only.

# %% nbgrader={"grade": false, "grade_id": "data", "locked": true, "schema_version": 3, "solution": false, "task": false}
moons = tff.data.moons(noise=0.05)
raw = moons.sample(2_000 if SMOKE else 12_000, seed=0)
mean, deviation = raw.mean(axis=0), raw.std(axis=0)
data = ((raw - mean) / deviation).astype(np.float32)
x_train, x_test = data[: len(data) * 5 // 6], data[len(data) * 5 // 6 :]
floor = moons.entropy() - np.log(deviation).sum()
gaussian = np.log(2 * np.pi * np.e)
print(f"A standard normal has an NLL of {gaussian:.3f} nats, the truth one of {floor:.3f}.")

# %% [markdown] nbgrader={"grade": false, "grade_id": "train-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Complete `train`. Put the flow into a `tff.FlowModel`, compile it with `keras.optimizers.Adam(learning_rate, global_clipnorm=1.0)`,
# and `fit` it with batches of 256. You need no loss: a `FlowModel` minimizes the NLL. Return the model and its history.


# %% nbgrader={"grade": false, "grade_id": "train", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def train(flow, x_train, x_test, epochs, learning_rate):
    """Maximum likelihood with Keras.

    Arguments: a distribution, arrays of shape [N, 2] to train and to validate with, the number of epochs, and the
        learning rate, which may be a schedule.
    Returns: the FlowModel, and the Keras History, which has the keys "loss" and "val_loss".
    """
    ### BEGIN SOLUTION
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(learning_rate, global_clipnorm=1.0))
    history = model.fit(x_train, validation_data=x_test, batch_size=256, epochs=epochs, verbose=0)
    return model, history
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "train-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
maf = make_maf(5, [64, 64])
before = [v.numpy() for v in maf.trainable_variables]
epochs = 3 if SMOKE else 60
rate = keras.optimizers.schedules.CosineDecay(5e-3, epochs * -(-len(x_train) // 256))
model, history = train(maf, x_train, x_test, epochs, 3e-3 if SMOKE else rate)
assert isinstance(model, tff.FlowModel)
assert all(np.any(v.numpy() != b) for v, b in zip(maf.trainable_variables, before)), "not every weight was trained"
nll = history.history["val_loss"][-1]
print(f"NLL on held-out data: {nll:.3f} nats, {nll - floor:.3f} above the floor")
assert nll < gaussian - (0.1 if SMOKE else 1.2)
assert nll > floor - 0.1, "better than the truth: an error in a log-determinant"

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-density", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** The moons are separate. Is the density of the MAF zero between them? Think of what a continuous
# invertible map does to a round cloud of points.
#
# ### BEGIN SOLUTION
# No. The map is continuous and invertible, so the image of the plane stays connected: a thin bridge of small density joins the moons.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "pictures", "locked": true, "schema_version": 3, "solution": false, "task": false}
figure, axes = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
axes[0].plot(history.history["loss"], label="training")
axes[0].plot(history.history["val_loss"], label="held out")
axes[0].axhline(floor, color="black", linestyle=":", label="floor")
axes[0].set(title="NLL", xlabel="epoch", ylabel="nats")
axes[0].legend()
axes[1].scatter(*x_test[:1000].T, s=3)
axes[1].set(title="held-out data", aspect="equal")
axes[2].scatter(*model.sample(1000, seed=1).numpy().T, s=3, color="tab:orange")
axes[2].set(title="samples of the MAF", aspect="equal", xlim=axes[1].get_xlim(), ylim=axes[1].get_ylim())
tff.plots.density(model, limits=[axes[1].get_xlim(), axes[1].get_ylim()], ax=axes[3])
axes[3].set(title="density of the MAF")
plt.show()
# What each layer does: read the second row from right to left.
tff.plots.layers(model, x_test, num_samples=1000)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "iaf-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. The inverse autoregressive flow
#
# An IAF is the same map in the opposite direction. Its networks read the latent values, $x_i = (u_i - \mu_i) \exp(-\alpha_i)$ with $\mu_i,
# \alpha_i$ functions of $u_1, \dots, u_{i-1}$. So samples need one pass of each network, and the density of given data is the
# sequential direction.
#
# Complete `make_iaf`. It differs from `make_maf` in one thing: every layer is wrapped in `tfb.Invert`.


# %% nbgrader={"grade": false, "grade_id": "make-iaf", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def make_iaf(num_layers, hidden_units):
    """An inverse autoregressive flow in two dimensions.

    Arguments: the number of layers, and the list of sizes of the hidden layers of each network.
    Returns: a tfd.TransformedDistribution.
    """
    ### BEGIN SOLUTION
    maf = make_maf(num_layers, hidden_units)
    layers = [tfb.Invert(layer) for layer in maf.bijector.bijectors]
    return tfd.TransformedDistribution(maf.distribution, tfb.Chain(layers))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "make-iaf-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
iaf = make_iaf(5, [64, 64])
assert len(iaf.trainable_variables) == 5 * 6
assert all("invert" in b.name for b in iaf.bijector.bijectors)
iaf_model, iaf_history = train(iaf, x_train, x_test, epochs, 3e-3 if SMOKE else rate)
iaf_nll = iaf_history.history["val_loss"][-1]
print(f"NLL on held-out data: {iaf_nll:.3f} nats, {iaf_nll - floor:.3f} above the floor")
assert floor - 0.1 < iaf_nll < gaussian - (0.1 if SMOKE else 1.0)

# %% [markdown] nbgrader={"grade": false, "grade_id": "speed-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 7. Time both directions
#
# The next cell times both directions of one layer in 64 dimensions, and your own `to_data`, which runs the network $D$ times.

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-speed", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** Which of the three is fastest, which slowest, and by what factor do they differ?
#
# ### BEGIN SOLUTION
# The inverse is fastest: one pass. to_data runs the network 64 times and is slowest. The bijector's forward does the work of about one
# pass, but in 64 small steps. The factors depend on the machine; a reasoned guess counts.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "speed", "locked": true, "schema_version": 3, "solution": false, "task": false}
size = 8 if SMOKE else 64
network = tff.masked_autoregressive_template([256, 256], event_size=size)
layer = tff.MaskedAutoregressiveFlow(network)
z = tf.random.stateless_normal([1000, size], [1, 2])
directions = {
    "inverse (density), one pass": tf.function(lambda z: layer.inverse(z)),
    "forward (samples), one pass in D steps": tf.function(lambda z: layer.forward(z)),
    "to_data (samples), D passes": tf.function(lambda z: to_data(z, network)),
}
for name, fn in directions.items():
    fn(z)  # compiles
    start = time.perf_counter()
    for _ in range(5):
        fn(z)[0].numpy()
    print(f"{name:40} {200 * (time.perf_counter() - start):8.1f} ms")

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# **Question.** You want to (a) score a million events with a trained flow, (b) draw a sample and its log-density at every step of a
# variational inference, with no other data to score. Do you choose MAF or IAF for each, and why?
#
# ### BEGIN SOLUTION
# (a) MAF: the density of given data needs one pass of each network, all dimensions at once. (b) IAF: a sample needs one pass, and
# its log-density comes from the same pass, because the latent values are known. The sequential direction of either can be
# evaluated for about the work of one pass, but still in D steps that wait for each other.
# ### END SOLUTION
