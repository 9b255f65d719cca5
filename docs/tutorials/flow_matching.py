# %% [markdown]
# # Flow matching
#
# A continuous flow moves points along a velocity field, from a normal distribution at time 0 to the data at time 1.
# Maximum likelihood solves the differential equation in each step. Flow matching (Lipman et al. 2022,
# [arXiv:2210.02747](https://arxiv.org/abs/2210.02747)) fits the velocity by regression and solves nothing. This
# tutorial trains one, draws its paths, and straightens them.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tfp_flows as tff

keras.utils.set_random_seed(1)
moons = tff.data.moons()
x, x_val = moons.sample(10_000, seed=0), moons.sample(2_000, seed=1)

# %% [markdown]
# ## Train by regression
#
# The loss is $|f(t, (1 - t) x_0 + t x_1) - (x_1 - x_0)|^2$ for a base sample $x_0$, an event $x_1$ and a time $t$. It
# is not in nats, and not zero for the best flow, because many pairs cross at the same point. Judge the density by
# `log_prob`.


# %%
def train(pairing):
    flow = tff.continuous_flow(
        2, hidden_units=[64, 64, 64], activation="silu", preprocess=tff.standardize(x), seed=1
    )
    model = tff.FlowMatchingModel(flow, pairing=pairing, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, decay_steps=2400)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    begin = time.perf_counter()
    history = model.fit(x, batch_size=250, epochs=60, verbose=0)
    print(f"{pairing}: {time.perf_counter() - begin:.0f} s, loss {history.history['loss'][-1]:.3f}")
    return model


model = train("independent")
print(f"held-out NLL {-np.mean(model.log_prob(x_val)):.3f}, entropy {moons.entropy():.3f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
tff.plots.density(model, limits=[(-1.4, 2.4), (-0.9, 1.4)], resolution=100, ax=axes[0])
axes[0].set_title("density")
axes[1].scatter(*model.sample(2000, seed=1).numpy().T, s=2, color=tff.plots.SAMPLE_COLOR)
axes[1].set(title="samples", xlim=(-1.4, 2.4), ylim=(-0.9, 1.4), aspect="equal")
# %% [markdown]
# ## See how points move
#
# `layers` shows samples and a grid at several times. `tff.plots.animation(model, "paths.gif")` writes the same as a
# movie.

# %%
tff.plots.layers(model, num_samples=800)
# %% [markdown]
# ## Straighten the paths
#
# Pairs of base samples and events are drawn independently, so their lines cross and the paths of the flow bend. With
# `pairing="optimal_transport"`, each batch is paired at the smallest total distance (Tong et al. 2023,
# [arXiv:2302.00482](https://arxiv.org/abs/2302.00482)).

# %%
straight = train("optimal_transport")
print(f"held-out NLL {-np.mean(straight.log_prob(x_val)):.3f}, entropy {moons.entropy():.3f}")

# %% [markdown]
# To draw paths, follow the velocity yourself. `velocity(t, y)` of the layer is $f$. A simple Euler method with 100
# steps is good enough for a picture.


# %%
def paths_of(model, points, num_steps=100):
    layer = next(
        b for b in model.distribution.bijector.bijectors if isinstance(b, tff.ContinuousFlow)
    )
    path = [points]
    for step in range(num_steps):
        path.append(path[-1] + layer.velocity(step / num_steps, path[-1]) / num_steps)
    return np.stack(path)


start = tf.random.stateless_normal([150, 2], seed=[1, 2])
figure, axes = plt.subplots(1, 2, figsize=(9, 4), constrained_layout=True, sharex=True, sharey=True)
for ax, (name, each) in zip(
    axes, {"independent": model, "optimal transport": straight}.items(), strict=True
):
    path = paths_of(each, start)
    ax.plot(path[..., 0], path[..., 1], color="tab:blue", linewidth=0.5)
    ax.scatter(*path[0].T, s=4, color="black", label="base")
    ax.scatter(*path[-1].T, s=4, color=tff.plots.SAMPLE_COLOR, label="data, standardized", zorder=3)
    length = np.linalg.norm(np.diff(path, axis=0), axis=-1).sum(axis=0) / np.linalg.norm(
        path[-1] - path[0], axis=-1
    )
    ax.set(title=f"{name}: length over distance {np.median(length):.2f}", aspect="equal")
axes[0].legend()
# %% [markdown]
# Straight paths need fewer evaluations of the network. `num_evaluations` counts those of the last call:

# %%
for name, each in {"independent": model, "optimal transport": straight}.items():
    layer = next(
        b for b in each.distribution.bijector.bijectors if isinstance(b, tff.ContinuousFlow)
    )
    each.distribution.sample(1000, seed=1)
    print(f"{name}: {int(layer.num_evaluations)} evaluations for sampling")

# %% [markdown]
# ## Continue with maximum likelihood
#
# The trained flow is an ordinary distribution, so `FlowModel` can continue. Each step now solves the differential
# equation.

# %%
refined = tff.FlowModel(straight.distribution)
refined.compile(optimizer=keras.optimizers.Adam(5e-4, global_clipnorm=1.0))
begin = time.perf_counter()
refined.fit(x[:5000], batch_size=500, epochs=2, verbose=0)
print(
    f"20 steps: {time.perf_counter() - begin:.0f} s, held-out NLL {-np.mean(refined.log_prob(x_val)):.3f}"
)

# %% [markdown]
# ## Exercises
#
# 1. Sample with Euler steps: 2, 5 and 20 of them, from both flows. How many does each flow need until the moons are
#    visible?
# 2. Train on `tff.data.checkerboard()`, and compare the NLL with the entropy and with that of `spline_coupling`.
# 3. Train a conditional flow, with `conditional_size=2` and the moon (upper or lower) as one-hot row. Draw the paths
#    for both conditions.
