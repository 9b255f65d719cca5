# %% [markdown]
# # Images
#
# An image flow is a distribution over images, with convolutional coupling layers at several scales. This tutorial
# trains one on small images of digits, measures it in bits per dimension, draws digits of a chosen class, and
# classifies.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import tfp_flows as tff

keras.utils.set_random_seed(1)

# %% [markdown]
# ## Load the images
#
# Scikit-learn's digits are 1797 images of 8 x 8 pixels with 17 levels of gray.

# %%
digits = sklearn.datasets.load_digits()
order = np.random.default_rng(0).permutation(len(digits.images))
images, classes = digits.images[order, ..., None].astype("uint8"), digits.target[order]
one_hot = np.eye(10, dtype="float32")[classes]
train, test = slice(0, 1400), slice(1400, None)
print(images.shape, images.dtype, "levels 0 to", images.max())
tff.plots.image_grid(images[:20], columns=10, figure=plt.figure(figsize=(8, 1.7)))
# %% [markdown]
# ## Build and train a conditional flow
#
# Pixels are integers and have no density. `dequantize=17` adds uniform noise and divides by the number of levels. The
# loss is then an upper bound on the NLL of the integers. *Bits per dimension* are the bound in bits, divided by the
# number of pixels. A uniform guess scores $\log_2 17 = 4.09$ bits.
#
# `conditional_size=10` lets each network read the class of the digit as a one-hot row.

# %%
flow = tff.image_real_nvp(
    (8, 8, 1), num_scales=2, num_couplings=2, filters=32, num_blocks=1, conditional_size=10, seed=1
)
model = tff.FlowModel(flow, dequantize=17, seed=1)
rate = keras.optimizers.schedules.CosineDecay(2e-3, decay_steps=25 * 40)
model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0), jit_compile=False)
history = model.fit(
    one_hot[train],
    images[train],
    batch_size=56,
    epochs=40,
    validation_data=(one_hot[test], images[test]),
    verbose=0,
)
bits = history.history["val_bits_per_dim"]
print(
    f"{model.count_params()} weights; bits per dimension of held-out images: {bits[0]:.3f} -> {bits[-1]:.3f}"
)

# %%
figure, ax = plt.subplots(figsize=(6, 2.8), constrained_layout=True)
ax.plot(history.history["bits_per_dim"], label="training")
ax.plot(bits, label="held-out")
ax.set(
    xlabel="epoch",
    ylabel="bits per dimension",
    ylim=(min(history.history["bits_per_dim"]) - 0.05, np.quantile(bits, 0.9)),
)
ax.legend()
# %% [markdown]
# ## Draw digits of a class
#
# One column per class. The first rows are samples. In the last rows, the deviation of the base is multiplied by 0.7:
# the samples vary less.

# %%
wanted = np.tile(np.eye(10, dtype="float32"), [3, 1])
cool = tff.FlowModel(tff.at_temperature(flow, 0.7), dequantize=17)
drawn = [each.sample(30, conditional_input=wanted, seed=1).numpy() for each in (model, cool)]
tff.plots.image_grid(np.concatenate(drawn), columns=10, figure=plt.figure(figsize=(8, 4.9)))
# %% [markdown]
# ## Interpolate
#
# A straight line between two images shows a double exposure. A path between their latent values stays among plausible
# images. Both images are of the same class here, since the path has one condition.

# %%
rows = []
for digit in (0, 3, 5, 8):
    first, last = (images[test][classes[test] == digit][:2] + 0.5) / 17
    rows.append(
        tff.interpolate(
            flow, first, last, num_steps=9, conditional_input=np.eye(10, dtype="float32")[digit]
        )
    )
tff.plots.image_grid(
    np.clip(np.concatenate(rows), 0, 1), columns=9, figure=plt.figure(figsize=(8, 3.7))
)
# %% [markdown]
# ## Classify
#
# By Bayes' rule, the most probable class of an image is the one under which its log-density is largest. All classes are
# about equally frequent.

# %%
log_prob = [
    model.predict(
        np.tile(np.eye(10, dtype="float32")[k], [len(images[test]), 1]), y=images[test], verbose=0
    )
    for k in range(10)
]
predicted = np.argmax(log_prob, axis=0)
print(f"{np.mean(predicted == classes[test]):.3f} of {len(predicted)} held-out images are right")

# %% [markdown]
# The flow was not trained to classify, only to give each class a density.
#
# ## Exercises
#
# 1. Train with `VariationalDequantization((8, 8, 1), levels=17, filters=8)` in place of `dequantize=17`. How many bits
#    does the tighter bound save?
# 2. Train `tff.glow` with the same number of weights and epochs, and compare the bits.
# 3. Which held-out images have the lowest log-density under their own class? Draw them.
# 4. Interpolate between images of two classes with a flow without `conditional_size`.
