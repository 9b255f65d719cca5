# %% [markdown]
# # Simulation-based inference, with calibration
#
# A simulator draws data for given parameters, but has no density that you can evaluate. Neural posterior estimation
# learns $p(\theta \mid x)$ from simulations alone. This tutorial fits such a posterior and checks whether you can trust
# it.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp
import tfp_flows as tff

tfd = tfp.distributions
keras.utils.set_random_seed(1)

# %% [markdown]
# ## Write the simulator
#
# Two moons is a task of the benchmark of Lueckmann et al. (2021, [arXiv:2101.04653](https://arxiv.org/abs/2101.04653)).
# Data are a point on a small crescent, shifted by a function of the parameters. Because of the absolute value, two sets
# of parameters explain the same data, and the posterior is two crescents.


# %%
prior = tfd.Independent(tfd.Uniform([-1.0, -1.0], [1.0, 1.0]), 1, name="theta")


def crescent(rng, n):
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
    return np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=-1)


def simulator(theta, seed):
    theta = np.asarray(theta)
    shift = np.stack(
        [-np.abs(theta[:, 0] + theta[:, 1]), theta[:, 1] - theta[:, 0]], axis=-1
    ) / np.sqrt(2)
    return (crescent(np.random.default_rng(np.asarray(seed)), len(theta)) + shift).astype("float32")


# %% [markdown]
# The exact posterior is known for this task: draw a crescent, solve for the parameters with either sign, and reject
# those outside of the prior. It serves only to judge the result below.


# %%
def exact_posterior(x, n, seed=0):
    rng = np.random.default_rng(seed)
    shift = np.asarray(x) - crescent(rng, 20 * n)
    shift = shift[shift[:, 0] < 0]
    plus = rng.choice([-1.0, 1.0], len(shift)) * np.sqrt(2) * shift[:, 0]
    minus = np.sqrt(2) * shift[:, 1]
    theta = np.stack([plus - minus, plus + minus], axis=-1) / 2
    return theta[np.all(np.abs(theta) < 1, axis=-1)][:n].astype("float32")


# %% [markdown]
# ## Train the posterior
#
# `NeuralPosterior` simulates, holds out a tenth of the pairs, trains a conditional flow and stops early. The flow works
# on unconstrained parameters, so that all draws are inside of the prior's support.

# %%
posterior = tff.NeuralPosterior(prior, simulator, num_layers=4, hidden_units=[64, 64], seed=1)
history = posterior.fit(num_simulations=20_000, epochs=40, batch_size=200, verbose=0)
tff.plots.history(history)
# %% [markdown]
# ## Draw from it
#
# The answer for an observation needs no further training.

# %%
observations = np.array([[0.0, 0.0], [-0.5, 0.3]], "float32")
figure, axes = plt.subplots(1, 2, figsize=(8, 4), constrained_layout=True)
for ax, x in zip(axes, observations, strict=True):
    ax.scatter(*posterior.sample(2000, x, seed=1).numpy().T, s=2, label="neural posterior")
    ax.scatter(*exact_posterior(x, 2000).T, s=2, label="exact posterior")
    ax.set(
        title=f"x = ({x[0]:g}, {x[1]:g})",
        xlabel="theta 1",
        ylabel="theta 2",
        xlim=(-1, 1),
        ylim=(-1, 1),
        aspect="equal",
    )
axes[0].legend(loc="upper left", markerscale=4)
# %% [markdown]
# ## Check the ranks
#
# Simulate new parameters from the prior and data from them. If the posterior is right, the rank of the true parameter
# among draws for its data is uniform (simulation-based calibration; Talts et al. 2018,
# [arXiv:1804.06788](https://arxiv.org/abs/1804.06788)). The gray band holds 99 % of the counts of a calibrated
# posterior.

# %%
ranks = posterior.calibrate(500, seed=2)
print(ranks)
ranks.plot()
# %% [markdown]
# Ranks look at one parameter at a time. The marginal distributions can be right while the dependence is wrong. `tarp`
# measures the coverage of balls around random points and sees both (Lemos et al. 2023,
# [arXiv:2302.03026](https://arxiv.org/abs/2302.03026)).

# %%
theta, x = posterior.simulate(500, seed=3)
draws = posterior.sample(200, x, seed=4)
coverage = tff.calibration.tarp(theta, draws, seed=5)
print(f"p-value {coverage.p_value:.3f}, bias {coverage.bias:.3f} +- {coverage.bias_error:.3f}")
coverage.plot()
# %% [markdown]
# ## See what a failure looks like
#
# The same tests must fail for a wrong posterior. Here the draws are moved toward their mean, so that the posterior is
# too narrow. The other wrong posterior has correct marginal distributions: it draws both parameters independently of
# each other.

# %%
draws = draws.numpy()
narrow = draws.mean(axis=0) + 0.7 * (draws - draws.mean(axis=0))
independent = np.stack(
    [draws[..., 0], np.random.default_rng(0).permutation(draws[..., 1], axis=0)], axis=-1
)
for name, wrong in {
    "neural posterior": draws,
    "too narrow": narrow,
    "independent": independent,
}.items():
    by_rank = tff.calibration.sbc_ranks(theta, wrong, seed=6).p_value
    by_tarp = tff.calibration.tarp(theta, wrong, seed=6).p_value
    print(f"{name:17} p-value of the ranks {by_rank:.2g}, of TARP {by_tarp:.2g}")

# %% [markdown]
# Both tests notice the narrow posterior. The ranks cannot notice the missing dependence, because each parameter alone
# is right. TARP can, though its p-value is not as small.
#
# ## Compare with the exact posterior
#
# A classifier is trained to tell draws of both posteriors apart. Its accuracy is 0.5 if they are equal, and 1 if they
# do not overlap. You need draws from the exact posterior, so this is a test for benchmarks.

# %%
for x in observations:
    found = tff.calibration.c2st(
        posterior.sample(1000, x, seed=1), exact_posterior(x, 1000), seed=1
    )
    print(f"x = {x}: accuracy {found.accuracy:.3f} +- {found.error:.3f}")

# %% [markdown]
# ## Exercises
#
# 1. Train on 1000 and on 5000 simulations. Which of the three checks notices the difference first?
# 2. Calibration is an average over the prior. Write a posterior that passes `sbc_ranks` and is useless. (Hint: ignore
#    the data.) Does TARP notice it?
# 3. Let the simulator return ten crescents, `[n, 10, 2]`, and pass `encoder="set"`. How much narrower does the
#    posterior become?
