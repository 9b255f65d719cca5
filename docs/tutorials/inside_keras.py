# %% [markdown]
# # A flow inside your own Keras model
#
# A flow can be one part of a larger model: behind a network that reads images or sequences, beside a classifier, or in
# your own training step. This tutorial shows three ways, and the trap to avoid.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import tensorflow as tf
import tfp_flows as tff

keras.utils.set_random_seed(1)

# %% [markdown]
# ## Avoid the trap
#
# Keras 3 does not look into TFP objects. A plain `keras.Model` with a flow as attribute has no weights, and trains
# nothing. With `tff.layers.Model` as base class, it tracks the flow.


# %%
class Plain(keras.Model):
    def __init__(self):
        super().__init__()
        self.flow = tff.maf(2, num_layers=2, seed=1)

    def call(self, x):
        return self.flow.log_prob(x)


class Tracked(tff.layers.Model):
    def __init__(self):
        super().__init__()
        self.flow = tff.maf(2, num_layers=2, seed=1)

    def call(self, x):
        return self.flow.log_prob(x)


print("weights found by keras.Model:", len(Plain().trainable_weights))
print("weights found by tff.layers.Model:", len(Tracked().trainable_weights))

# %% [markdown]
# ## Predict a distribution from an image
#
# The input is an image of a digit, turned by a random angle. The output is the distribution of a point: the direction
# of the digit's upper end. This needs a network that reads the image, and a conditional flow for the point. In a
# functional model, call `flow.log_prob` on symbolic inputs. The density is the output, and its negative mean is the
# loss.
#
# Only the digits 0 and 7 are used. A 0 looks almost the same from above and below, so the distribution of its direction
# should have two modes, at opposite sides.

# %%
digits = sklearn.datasets.load_digits()
rng = np.random.default_rng(0)
chosen = rng.permutation(np.flatnonzero(np.isin(digits.target, [0, 7])))
pick = np.concatenate(
    [rng.choice(chosen[:280], 5000), rng.choice(chosen[280:], 1000)]
)  # other images for the test
angle = rng.uniform(-np.pi, np.pi, 6000)
rows, columns = np.mgrid[0:8, 0:8] - 3.5


def turned(image, angle):
    """Turn an image of 8 x 8 pixels around its center, by the nearest pixel."""
    r = np.cos(angle) * rows - np.sin(angle) * columns + 3.5
    c = np.sin(angle) * rows + np.cos(angle) * columns + 3.5
    inside = (r > -0.5) & (r < 7.5) & (c > -0.5) & (c < 7.5)
    return np.where(
        inside,
        image[np.clip(np.rint(r), 0, 7).astype(int), np.clip(np.rint(c), 0, 7).astype(int)],
        0,
    )


pictures = (
    np.stack([turned(digits.images[i], a) for i, a in zip(pick, angle, strict=True)])[..., None]
    / 16
)
points = np.stack([np.sin(angle), np.cos(angle)], axis=-1) + rng.normal(0, 0.1, [6000, 2])
pictures, points = pictures.astype("float32"), points.astype("float32")
train, test = slice(0, 5000), slice(5000, None)

image, point = keras.Input([8, 8, 1]), keras.Input([2])
h = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(image)
h = keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(h)
h = keras.layers.Dense(32, "relu")(keras.layers.Dropout(0.2)(keras.layers.Flatten()(h)))
features = keras.layers.Dense(16, "tanh")(h)

flow = tff.spline_autoregressive(2, num_layers=2, hidden_units=[64], conditional_size=16, seed=1)
log_prob = flow.log_prob(point, conditional_input=features)
model = keras.Model([image, point], log_prob)
rate = keras.optimizers.schedules.CosineDecay(2e-3, decay_steps=1500)
model.compile(
    optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0), loss=lambda _, log_prob: -log_prob
)
unused = np.zeros(6000, "float32")  # Keras wants targets
history = model.fit(
    [pictures[train], points[train]],
    unused[train],
    validation_data=([pictures[test], points[test]], unused[test]),
    batch_size=100,
    epochs=30,
    verbose=0,
)
print(
    f"held-out NLL: {history.history['val_loss'][0]:.3f} -> {history.history['val_loss'][-1]:.3f}"
)

# %% [markdown]
# Compare with a distribution that ignores the image: points on the unit circle with normal noise. Its entropy is the
# best NLL without the image.

# %%
radius = np.hypot(*np.random.default_rng(1).normal([[1.0], [0.0]], 0.1, [2, 1_000_000]))
density, edges = np.histogram(radius, bins=200, density=True)
center = (edges[1:] + edges[:-1]) / 2
used = density > 0
entropy = -np.sum(
    (density * np.log(density / (2 * np.pi * center), where=used, out=np.zeros(200)))[used]
) * (edges[1] - edges[0])
print("NLL without the image:", round(entropy, 3))

# %% [markdown]
# ## Use a part of the trained model
#
# The network is an ordinary Keras model from image to features, and the flow an ordinary distribution. Together they
# draw points for new images. Lines show the true direction.

# %%
encoder = keras.Model(image, features)
shown = np.concatenate([np.flatnonzero(digits.target[pick[5000:]] == k)[:3] for k in (7, 0)])
codes = encoder.predict(pictures[test][shown], verbose=0)
figure, axes = plt.subplots(2, 6, figsize=(10, 3.6), constrained_layout=True)
for column, (i, code) in enumerate(zip(shown, codes, strict=True)):
    axes[0, column].imshow(pictures[test][i, ..., 0], cmap="gray_r")
    axes[0, column].set_axis_off()
    axes[1, column].scatter(*flow.sample(500, conditional_input=code, seed=1).numpy().T, s=2)
    axes[1, column].plot([0, np.sin(angle[5000 + i])], [0, np.cos(angle[5000 + i])], color="black")
    axes[1, column].set(
        xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1]
    )

# %% [markdown]
# For a 7, the draws are around the true direction. For a 0 they lie on both sides, but not in equal shares: the network
# takes small asymmetries as evidence, and is too sure of itself. It has seen 280 different images only.
#
# ## Save it
#
# The flow is saved with the model. The loss is a function of yours, which a file does not hold: load with
# `compile=False` to predict, and compile again to train.

# %%
model.save("direction.keras")
again = keras.models.load_model("direction.keras", compile=False)
both = [each.predict([pictures[test], points[test]], verbose=0) for each in (model, again)]
print("largest difference of log-densities:", float(np.max(np.abs(both[0] - both[1]))))

# %% [markdown]
# ## Write your own training step
#
# The third way needs no Keras model. `flow.trainable_variables` is complete, and works with any optimizer and your own
# loss. This loop fits a flow to moons, and punishes samples in the right half: the loss is the NLL plus a penalty on
# samples.

# %%
x = tff.data.moons().sample(5000, seed=0)
flow = tff.spline_coupling(
    2, num_layers=3, hidden_units=[32], preprocess=tff.standardize(x), seed=1
)
optimizer = keras.optimizers.Adam(3e-3, global_clipnorm=1.0)
optimizer.build(flow.trainable_variables)


@tf.function
def step(batch, weight):
    with tf.GradientTape() as tape:
        nll = -tf.reduce_mean(flow.log_prob(batch))
        penalty = tf.reduce_mean(tf.nn.relu(flow.sample(200)[:, 0] - 0.5))
        loss = nll + weight * penalty
    optimizer.apply(tape.gradient(loss, flow.trainable_variables), flow.trainable_variables)
    return nll, penalty


data = tf.data.Dataset.from_tensor_slices(x).shuffle(5000, seed=1).batch(250, drop_remainder=True)
for weight in (0.0, 10.0):
    for _ in range(15):
        for batch in data:
            nll, penalty = step(batch, tf.constant(weight))
    share = float(tf.reduce_mean(tf.cast(flow.sample(5000, seed=1)[:, 0] > 0.5, tf.float32)))
    print(
        f"weight {weight:4.1f}: NLL {nll:.3f}, penalty {penalty:.3f}, share of the samples in the right half {share:.2f}"
    )

# %% [markdown]
# ## Exercises
#
# 1. Replace the flow by `tff.maf(2, conditional_size=16)`. What do the points of the digit 0 look like now, and what is
#    the NLL?
# 2. Add a second output to the model, the class of the digit, with the loss `sparse_categorical_crossentropy`. Train
#    both together.
# 3. Write the model of the direction as a subclass of `tff.layers.Model` with its own `train_step`.
