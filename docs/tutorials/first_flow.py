# %% [markdown]
# # Fit your first flow
#
# A normalizing flow is a normal distribution transformed by a trained invertible map. You can evaluate its density and
# draw samples from it. In this tutorial you fit a flow to two moons, measure how good the fit is, and look inside.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tfp_flows as tff

keras.utils.set_random_seed(1)

# %% [markdown]
# ## Draw the data
#
# `tff.data.moons` is a density with a known entropy. No model has a smaller expected negative log-likelihood (NLL) than
# the entropy, so you know the best possible result. All numbers are in nats (natural logarithm).

# %%
moons = tff.data.moons(noise=0.05)
x, x_val = moons.sample(10_000, seed=0), moons.sample(5_000, seed=1)
print("shape:", x.shape, " entropy:", round(moons.entropy(), 3), "nats")

# %% [markdown]
# ## Build a flow
#
# A *recipe* is a function that returns a flow. `spline_coupling` is a good first choice. `preprocess` standardizes the
# data inside of the flow, so that densities stay in the units of the data.
#
# The untrained flow is a normal distribution in standardized units. Its NLL is the starting point of training.

# %%
flow = tff.spline_coupling(
    2, num_layers=4, hidden_units=[64, 64], preprocess=tff.standardize(x), seed=1
)
print("untrained NLL:", round(float(-tf.reduce_mean(flow.log_prob(x_val))), 3))

# %% [markdown]
# ## Train it
#
# `FlowModel` is a `keras.Model`. Its loss is the mean NLL, so `fit` takes the data alone: there is no `y`. A cosine
# schedule lowers the learning rate to zero, and `global_clipnorm` clips the rare large gradient.

# %%
model = tff.FlowModel(flow)
rate = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=30 * 40)
model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
history = model.fit(x, batch_size=250, epochs=30, validation_data=x_val, verbose=0)

tff.plots.history(history, floor=moons.entropy())
# %% [markdown]
# Compare the final NLL of held-out data with the entropy. The standard error tells which differences are noise. On a
# finite sample a good model can fall a little below the entropy.

# %%
nll = -model.log_prob(x_val).numpy()
error = nll.std() / np.sqrt(len(nll))
print(f"held-out NLL {nll.mean():.3f} +- {error:.3f}, entropy {moons.entropy():.3f}")

# %% [markdown]
# ## Look at the density and the samples
#
# `flow` and `model` share their weights, so both are trained now.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
tff.plots.density(model, x_val[:300], limits=[(-1.4, 2.4), (-0.9, 1.4)], ax=axes[0])
axes[0].set_title("density, held-out data")
axes[1].scatter(*model.sample(3000, seed=1).numpy().T, s=2, color=tff.plots.SAMPLE_COLOR)
axes[1].set(title="samples", xlim=(-1.4, 2.4), ylim=(-0.9, 1.4), aspect="equal")
# %% [markdown]
# A density integrates to one. Check this with a sum over a grid: the flow is normalized by construction, trained or
# not.

# %%
grid = np.linspace(-3, 4, 400)
points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2).astype("float32")
print(
    "integral:",
    round(float(tf.reduce_sum(tf.exp(model.log_prob(points)))) * (grid[1] - grid[0]) ** 2, 3),
)

# %% [markdown]
# ## Look inside
#
# `forward` of the bijector maps base samples to data, and `inverse` maps back. The picture shows samples and a regular
# grid after each layer. Read the second row from right to left: there the data move to the base. Both rows agree in
# each column if the fit is good.

# %%
tff.plots.layers(model, x_val, num_samples=700)
# %% [markdown]
# The inverse recovers the base samples up to rounding:

# %%
z = tf.random.stateless_normal([1000, 2], seed=[1, 2])
back = flow.bijector.inverse(tf.identity(flow.bijector.forward(z)))
print("largest error of a round trip:", float(tf.reduce_max(tf.abs(back - z))))

# %% [markdown]
# ## Save and load
#
# One file holds architecture, weights and optimizer. A new process must `import tfp_flows` before it loads the file.

# %%
model.save("moons.keras")
again = keras.models.load_model("moons.keras")
print("equal log-densities:", bool(np.all(again.log_prob(x_val) == model.log_prob(x_val))))

# %% [markdown]
# ## Exercises
#
# 1. Replace `spline_coupling` by `maf` and by `planar_flow`. Draw all of them with `tff.plots.compare`, with
#    `floor=moons.entropy()`.
# 2. Train with 500 rows only, and plot the history. When does the flow begin to overfit? Add
#    `keras.callbacks.EarlyStopping(restore_best_weights=True, patience=5)`.
# 3. Fit `tff.data.checkerboard()`. How far above the entropy does the NLL end, and what does the density look like at
#    the corners?
