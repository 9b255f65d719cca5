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
# # RealNVP for images
#
# In this assignment you build RealNVP (Dinh et al. 2016, arXiv:1605.08803) from its parts: checkerboard and channel masks, the affine
# coupling layer, the squeeze, a block, and the multi-scale architecture. You add a logit for the pixels, train the model on images of
# handwritten digits, and look at its samples.
#
# **Learning goals.** After this assignment you can
#
# - write masks, an affine coupling layer and a squeeze for images;
# - assemble the multi-scale architecture of RealNVP;
# - dequantize images, and read bits per dimension.
#
# **Prerequisites.** Assignment 01, and convolutions. Assignment 03 helps.
#
# **Time.** About 3 to 4 hours of work (an estimate). The finished notebook needs about 3 minutes of processor time (168 s), and 1.4 GB of memory.
#
# **Points.** 15 in total: 13 by tests, 2 by hand.
#
# Write your code in the cells that say `YOUR CODE HERE`. Do not change the names or arguments of the functions. The cells after them
# test your code and print nothing if it is correct.
#
# As in the paper, the bijectors here go *forward* from the image to the latent values. The distribution of images therefore uses
# `tfb.Invert` of them.

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
# ## 1. The masks
#
# A coupling layer keeps the values where its mask is 1, and transforms the others. Complete the two masks of the paper's figure 3.
#
# - `checkerboard_binary_mask(shape, orientation)` has shape `(H, W, 1)`. With orientation 0 the upper left value is 0; orientation 1 is
#   the complement.
# - `channel_binary_mask(num_channels, orientation)` has shape `(1, 1, C)`. With orientation 0 the first half of the channels is 0 and the
#   rest is 1; orientation 1 is the complement.


# %% nbgrader={"grade": false, "grade_id": "checkerboard", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def checkerboard_binary_mask(shape, orientation=0):
    """The checkerboard for images of shape (H, W, ...), a float32 tensor of shape (H, W, 1)."""
    ### BEGIN SOLUTION
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    return tf.constant((rows + columns + orientation) % 2, tf.float32)[..., tf.newaxis]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "checkerboard-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert checkerboard_binary_mask((4, 4, 1)).shape == (4, 4, 1)
np.testing.assert_array_equal(checkerboard_binary_mask((2, 3))[..., 0], [[0, 1, 0], [1, 0, 1]])
np.testing.assert_array_equal(checkerboard_binary_mask((2, 2), orientation=1)[..., 0], [[1, 0], [0, 1]])


# %% nbgrader={"grade": false, "grade_id": "channel-mask", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def channel_binary_mask(num_channels, orientation=0):
    """The mask of channels, a float32 tensor of shape (1, 1, num_channels)."""
    ### BEGIN SOLUTION
    second = (np.arange(num_channels) >= num_channels // 2).astype("float32")
    return tf.constant(second if orientation == 0 else 1.0 - second)[tf.newaxis, tf.newaxis]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "channel-mask-test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert channel_binary_mask(4).shape == (1, 1, 4)
np.testing.assert_array_equal(channel_binary_mask(4)[0, 0], [0, 0, 1, 1])
np.testing.assert_array_equal(channel_binary_mask(6, orientation=1)[0, 0], [1, 1, 1, 0, 0, 0])

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-2", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. The affine coupling layer
#
# With a mask $b$ and a network that returns a shift $t$ and a log-scale $s$ (equation 9 of the paper),
#
# $$y = b \odot x + (1 - b) \odot \left(x \odot e^{s(b \odot x)} + t(b \odot x)\right).$$
#
# The network sees the masked values $b \odot x$ only. Complete the three functions; `fn` returns `(shift, log_scale)`. The log-det is a sum
# over the last three axes.


# %% nbgrader={"grade": false, "grade_id": "coupling-forward", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def forward(x, b, fn):
    """y as in the formula, for images x of shape [n, H, W, C]."""
    ### BEGIN SOLUTION
    shift, log_scale = fn(b * x)
    return b * x + (1.0 - b) * (x * tf.exp(log_scale) + shift)
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "coupling-inverse", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def inverse(y, b, fn):
    """x from y. The masked values, which the network reads, are unchanged."""
    ### BEGIN SOLUTION
    shift, log_scale = fn(b * y)
    return b * y + (1.0 - b) * (y - shift) * tf.exp(-log_scale)
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "coupling-log-det", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def forward_log_det_jacobian(x, b, fn):
    """log |det dy/dx|, of shape [n]."""
    ### BEGIN SOLUTION
    _, log_scale = fn(b * x)
    return tf.reduce_sum((1.0 - b) * log_scale, axis=[-3, -2, -1])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "coupling-test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
test_network = tff.get_conv_resnet((4, 4, 1), filters=4)
images = tf.constant(np.random.default_rng(0).normal(size=[3, 4, 4, 1]).astype("float32"))
board = checkerboard_binary_mask((4, 4))
y = forward(images, board, test_network)
np.testing.assert_allclose(inverse(y, board, test_network), images, atol=1e-5)
np.testing.assert_allclose(board * y, board * images)
with tf.GradientTape() as tape:
    tape.watch(images)
    flat = tf.reshape(forward(images, board, test_network), [3, 16])
matrices = tf.reshape(tape.batch_jacobian(flat, images), [3, 16, 16])
np.testing.assert_allclose(
    forward_log_det_jacobian(images, board, test_network), np.linalg.slogdet(matrices)[1], rtol=1e-4, atol=1e-5
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "coupling-note", "locked": true, "schema_version": 3, "solution": false, "task": false}
# `tff.AffineCouplingLayer(fn, "checkerboard", orientation)` is this layer as a bijector, with variables that TFP and Keras track. Use it from
# here on. `tff.get_conv_resnet(input_shape, filters)` is the network: convolutions, batch normalization, residual connections.

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-3", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. The squeeze
#
# A squeeze turns each block of 2 x 2 pixels into four channels: `(H, W, C)` becomes `(H / 2, W / 2, 4 C)`. Complete it with `tf.reshape` and
# `tf.transpose`; the channels of a pixel are ordered by its place in the block, row by row.


# %% nbgrader={"grade": false, "grade_id": "squeeze", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def squeeze(x):
    """Images of shape [n, H, W, C] squeezed to [n, H / 2, W / 2, 4 C]."""
    ### BEGIN SOLUTION
    n, h, w, c = x.shape
    blocks = tf.reshape(x, [n, h // 2, 2, w // 2, 2, c])
    return tf.reshape(tf.transpose(blocks, [0, 1, 3, 2, 4, 5]), [n, h // 2, w // 2, 4 * c])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "squeeze-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
numbers = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
np.testing.assert_array_equal(squeeze(numbers)[0, 0, 0], [0.0, 1.0, 4.0, 5.0])
np.testing.assert_array_equal(squeeze(tf.ones([2, 6, 4, 3])), tf.ones([2, 3, 2, 12]))
np.testing.assert_array_equal(squeeze(numbers), tff.Squeeze().forward(numbers))
### BEGIN HIDDEN TESTS
colored = tf.reshape(tf.range(144.0), [2, 4, 6, 3])
np.testing.assert_array_equal(squeeze(colored), tff.Squeeze().forward(colored))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-4", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. A block
#
# A block has three couplings with checkerboard masks of orientation 0, 1, 0, an `ActNorm` (which takes the place of the paper's batch
# normalization), a squeeze, three couplings with channel masks of orientation 0, 1, 0, and another `ActNorm`. Complete `realnvp_block`. Its
# arguments are six networks, of which the last three see squeezed images, and it returns a `tfb.Chain`, forward from the image. Mind the order in
# which a chain lists its parts.
#
# `tff.ActNorm(channels)` goes forward to the image, as all of the package's bijectors; here you need `tfb.Invert` of it.


# %% nbgrader={"grade": false, "grade_id": "block", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def realnvp_block(shift_and_log_scale_fns, channels):
    """One block, forward from images with `channels` channels, as a tfb.Chain."""
    ### BEGIN SOLUTION
    fns = shift_and_log_scale_fns
    steps = [tff.AffineCouplingLayer(fn, "checkerboard", i % 2) for i, fn in enumerate(fns[:3])]
    steps += [tfb.Invert(tff.ActNorm(channels)), tff.Squeeze()]
    steps += [tff.AffineCouplingLayer(fn, "channel", i % 2) for i, fn in enumerate(fns[3:])]
    steps.append(tfb.Invert(tff.ActNorm(4 * channels)))
    return tfb.Chain(steps[::-1])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "block-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
networks = [tff.get_conv_resnet((4, 4, 1), 4) for _ in range(3)] + [tff.get_conv_resnet((2, 2, 4), 4) for _ in range(3)]
block = realnvp_block(networks, channels=1)
assert block.forward_event_shape([4, 4, 1]) == [2, 2, 4]
z = block.forward(images)
np.testing.assert_allclose(block.inverse(tf.identity(z)), images, atol=1e-4)
assert len(block.bijectors) == 9

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-5", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. The multi-scale architecture
#
# After a block, half of the channels become latent values. The other half passes through another block. `tff.MultiScale` takes the
# blocks, beginning at the image, and splits and joins the channels. Its own forward goes to the image, so pass `tfb.Invert` of your blocks.
#
# Complete `realnvp_multiscale` with two scales: your block, and then four couplings with checkerboard masks of orientation 0, 1, 0, 1 for
# images of shape `(H / 2, W / 2, 2 C)`. All networks are `tff.get_conv_resnet(shape, filters)`. Give the two blocks different names:
# `tfb.Invert(..., name="scale_0")`.


# %% nbgrader={"grade": false, "grade_id": "multiscale", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def realnvp_multiscale(image_shape, filters):
    """A tff.MultiScale of two scales, from latent vectors to images of shape (H, W, C)."""
    ### BEGIN SOLUTION
    h, w, c = image_shape
    networks = [tff.get_conv_resnet(image_shape, filters) for _ in range(3)]
    networks += [tff.get_conv_resnet((h // 2, w // 2, 4 * c), filters) for _ in range(3)]
    first = realnvp_block(networks, c)
    small = (h // 2, w // 2, 2 * c)
    last = [tff.AffineCouplingLayer(tff.get_conv_resnet(small, filters), "checkerboard", i % 2) for i in range(4)]
    blocks = [tfb.Invert(first, name="scale_0"), tfb.Invert(tfb.Chain(last[::-1]), name="scale_1")]
    return tff.MultiScale(blocks, image_shape)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "multiscale-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
multi_scale = realnvp_multiscale((4, 4, 1), filters=4)
assert multi_scale.latent_shapes == ((2, 2, 2), (2, 2, 2))
latent = multi_scale.inverse(images)
assert latent.shape == (3, 16)
np.testing.assert_allclose(multi_scale.forward(tf.identity(latent)), images, atol=1e-3)

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-6", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. The model
#
# Pixels lie in [0, 1], while a normal variable is unbounded. A logit maps one to the other. `tff.get_preprocess_bijector(alpha)` is
# $\mathrm{logit}(\alpha + (1 - 2 \alpha) x)$, forward from the image.
#
# Complete `realnvp_model`: a `tfd.TransformedDistribution` over images, with a `tfd.MultivariateNormalDiag` of size `H W C` as its base, your
# multi-scale architecture, and the preprocessing with `alpha = 0.05`.


# %% nbgrader={"grade": false, "grade_id": "model", "locked": false, "schema_version": 3, "solution": true, "task": false}
#### GRADED CELL ####
def realnvp_model(image_shape, filters):
    """The distribution of images of shape (H, W, C) with pixels in [0, 1]."""
    ### BEGIN SOLUTION
    size = int(np.prod(image_shape))
    base = tfd.MultivariateNormalDiag(tf.zeros(size), tf.ones(size))
    pixels = tfb.Invert(tff.get_preprocess_bijector(0.05))
    return tfd.TransformedDistribution(base, tfb.Chain([pixels, realnvp_multiscale(image_shape, filters)]))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "model-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
small_model = realnvp_model((4, 4, 1), filters=4)
drawn = small_model.sample(2, seed=1)
assert drawn.shape == (2, 4, 4, 1) and np.all((drawn > -0.06) & (drawn < 1.06))  # alpha leaves room on both sides
assert np.all(np.isfinite(small_model.log_prob(tf.identity(drawn))))
assert len(small_model.trainable_variables) > 100

# %% [markdown] nbgrader={"grade": false, "grade_id": "part-7", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 7. Training
#
# The digits have 17 levels. The likelihood of a density on discrete values is unbounded, so `dequantize=17` adds uniform noise of one level. The result is
# in **bits per dimension**, the number of bits that encode one pixel. Uniform guessing needs $\log_2 17 = 4.09$.

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-bits", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** How many bits per dimension do you expect on test images, and does the test curve or the training curve end lower?
#
# ### BEGIN SOLUTION
# Less than 4.09, because the borders of the images are almost always empty. The training curve usually ends lower: 1500 images are few for this
# network. A reasoned number counts.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "train", "locked": true, "schema_version": 3, "solution": false, "task": false}
digits = load_digits().images.astype("uint8")[..., np.newaxis]
train, test = digits[:1500], digits[1500:]
flow = realnvp_model((8, 8, 1), filters=4 if SMOKE else 32)
model = tff.FlowModel(flow, dequantize=17)
epochs = 1 if SMOKE else 60
steps = epochs * (len(train) // 100)
rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
# XLA would train faster, but it needs 3 GB of memory to compile this network.
model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0), steps_per_execution=1, jit_compile=False)
history = model.fit(train, batch_size=100, epochs=epochs, validation_data=test, verbose=0).history
print(f"bits per dimension: {history['val_bits_per_dim'][-1]:.2f} on the test images")

# %% nbgrader={"grade": false, "grade_id": "curve-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot(history["bits_per_dim"], label="training")
axis.plot(history["val_bits_per_dim"], label="test")
axis.set(xlabel="epoch", ylabel="bits per dimension")
axis.legend()
plt.show()

# %% [markdown] nbgrader={"grade": true, "grade_id": "predict-samples", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# **Predict, then run.** Do samples look like digits, and which property of the images does the model get right first?
#
# ### BEGIN SOLUTION
# Local structure comes first: dark borders, smooth strokes. The global shape is harder, since a coupling sees few pixels at a time.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "samples-figure", "locked": true, "schema_version": 3, "solution": false, "task": false}
canvas = plt.figure(figsize=(9, 4.8), layout="constrained")
parts = canvas.subfigures(1, 2)
for part, pictures, title in zip(parts, (test[:36], model.sample(36, seed=1).numpy()), ("test images", "samples")):
    tff.plots.image_grid(pictures, figure=part)
    part.suptitle(title)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# What do the samples have in common with digits, and what not? Train for longer, with more filters, or with a third scale, and watch the
# test curve.
#
# **Advice for small data.** There are 1500 training images. If the test curve rises while the training curve falls, the model overfits. Use fewer
# filters, stop early, or add shifted copies of the images.
