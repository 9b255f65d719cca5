# %% [markdown]
# # Planar flows and variational inference
#
# Rezende and Mohamed (2015, [arXiv:1505.05770](https://arxiv.org/abs/1505.05770)) introduced normalizing flows to
# variational inference with a map that bends space along one direction:
#
# $$f(z) = z + u \tanh(w \cdot z + b), \qquad \log |\det J| = \log |1 + (u \cdot w)(1 - \tanh^2(w \cdot z + b))|.$$
#
# In this tutorial you fit chains of planar maps to an unnormalized density, and measure the divergence that is left.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tfp_flows as tff

keras.utils.set_random_seed(1)

# %% [markdown]
# ## See what one planar map does
#
# The picture shows a regular grid after one map with $w = (1, 0)$ and $b = 0$, for three lengths of $u$. Near the line
# $w \cdot z + b = 0$, the map compresses space if $u \cdot w < 0$ and stretches it if $u \cdot w > 0$. Far away, it
# only shifts. `PlanarFlow` keeps $u \cdot w > -1$, so that the map stays invertible.


# %%
def planar(z, w, u, b):
    return z + u * np.tanh(z @ w + b)[:, None]


ticks, along = np.linspace(-3, 3, 25), np.linspace(-3, 3, 200)
lines = [np.stack([np.full(200, tick), along], axis=-1) for tick in ticks]
lines += [line[:, ::-1] for line in lines]
figure, axes = plt.subplots(
    1, 3, figsize=(10, 2.4), constrained_layout=True, sharex=True, sharey=True
)
for ax, length in zip(axes, (-0.9, 1.0, 3.0), strict=True):
    for line in lines:
        mapped = planar(line, np.array([1.0, 0.0]), np.array([length, 0.0]), 0.0)
        ax.plot(*mapped.T, color="tab:blue", linewidth=0.6)
    ax.set(title=f"u · w = {length}", aspect="equal")

# %% [markdown]
# ## Choose a target
#
# A target is known up to a constant: $\log p(z) = -U(z) + \text{const}$. The second energy of the paper is a wave. Its
# normalizer is known here from quadrature, so that you can measure the divergence exactly.

# %%
target = tff.data.targets.u2()
print(target, " log Z =", round(target.log_normalizer, 4))

# %% [markdown]
# ## Fit flows of 2, 8 and 16 layers
#
# `VariationalFlow` needs no data. Each step draws samples from the flow and minimizes $E_q[\log q(z) - \beta \log
# p(z)]$. With $\beta = 1$ this is the reverse KL divergence minus $\log Z$. `linear_annealing` starts with a small
# $\beta$, so that the flow first spreads out. With `path_derivative=True`, the variance of the gradient vanishes as the
# flow approaches the target.

# %%
models, histories = {}, {}
for layers in (2, 8, 16):
    flow = tff.planar_flow(2, num_layers=layers, base="trainable", seed=3)
    beta = tff.linear_annealing(0.01, 1.0, steps=500)
    model = tff.VariationalFlow(
        flow, target, sample_size=256, beta=beta, path_derivative=True, seed=3
    )
    rate = keras.optimizers.schedules.CosineDecay(1e-2, decay_steps=1500)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    histories[layers] = model.fit(steps_per_epoch=100, epochs=15, verbose=0).history
    models[layers] = model
    print(
        f"{layers} layers: KL {histories[layers]['kl'][0]:.3f} after epoch 1, {histories[layers]['kl'][-1]:.3f} at the end"
    )

# %%
side = np.linspace(-4.5, 4.5, 150).astype("float32")
points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), constrained_layout=True)
top = np.exp(np.max(target.log_prob(points)) - target.log_normalizer)
densities = {"target": np.exp(target.log_prob(points) - target.log_normalizer)}
densities |= {f"{layers} layers": np.exp(models[layers].flow.log_prob(points)) for layers in models}
for ax, (title, density) in zip(axes, densities.items(), strict=True):
    ax.pcolormesh(
        side, side, density.reshape(150, 150), vmin=0, vmax=top, cmap="Blues", rasterized=True
    )
    ax.set(title=title, aspect="equal")

# %% [markdown]
# ## Measure the divergence
#
# In two dimensions, `reverse_kl` integrates by quadrature, so the result has no Monte Carlo error. `mass` is the mass
# of the flow in the square of integration, and should be 1. In more dimensions, use `importance_diagnostics`: the ELBO
# is a lower bound of $\log Z$, and the gap is the reverse KL divergence.

# %%
for layers, model in models.items():
    exact = tff.diagnostics.reverse_kl(model.flow, target)
    weights = tff.diagnostics.importance_diagnostics(model.flow, target, num_samples=5000, seed=1)
    gap = target.log_normalizer - weights.elbo
    print(
        f"{layers:2d} layers: reverse KL {exact.kl:.4f} (mass {exact.mass:.4f}), "
        f"log Z - ELBO {gap:.4f} +- {weights.elbo_error:.4f}, "
        f"effective sample size {weights.effective_sample_size:.2f}"
    )

# %% [markdown]
# Both estimates of the divergence should agree within two or three standard errors.
#
# ## Look for lost modes
#
# A flow that ignores half of the target can still have a small reverse KL divergence: losing half of the mass costs
# only $\log 2 = 0.69$ nats. The target here is eight Gaussians on a circle. Count the share of the samples in each of
# the modes, with and without annealing. The weights of importance sampling cannot show modes without samples.
# `coverage` of `posterior_diagnostics` can, since it searches for optima of the target.

# %%
target = tff.data.targets.eight_gaussians()
angles = np.arange(8) * np.pi / 4
centers = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
for name, beta in {
    "annealing": tff.linear_annealing(0.01, 1.0, steps=700),
    "no annealing": 1.0,
}.items():
    flow = tff.planar_flow(2, num_layers=8, base="trainable", seed=1)
    model = tff.VariationalFlow(flow, target, sample_size=256, beta=beta, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2, global_clipnorm=10.0))
    history = model.fit(steps_per_epoch=100, epochs=12, verbose=0)
    z = flow.sample(10_000, seed=1).numpy()
    nearest = np.argmin(np.linalg.norm(z[:, None] - centers, axis=-1), axis=-1)
    shares = np.bincount(nearest, minlength=8) / len(z)
    found = tff.diagnostics.posterior_diagnostics(flow, target, num_samples=4000, seed=1)
    print(
        f"{name:13} KL {history.history['kl'][-1]:.2f}, coverage {found.coverage:.2f}, shares {shares.round(2)}"
    )

# %% [markdown]
# Without annealing, the flow keeps two of the eight modes. Its divergence is close to $\log 4 = 1.39$ nats, the cost of
# losing three quarters of the mass. With annealing it reaches all modes, in unequal shares.
#
# ## Exercises
#
# 1. Fit `tff.data.targets.u3()` and `u4()` with 8 and 16 layers. Which of them needs more layers?
# 2. Use `tff.radial_flow` and `tff.spline_coupling(2, num_layers=3)` in place of planar flows. How small does the
#    divergence become?
# 3. Fit the eight Gaussians with `objective="forward_kl"`. What are the shares of the modes now?
# 4. Omit `path_derivative=True` for 16 layers, and compare the last ten values of `kl` in both histories.
