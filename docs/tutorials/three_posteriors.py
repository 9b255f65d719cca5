# %% [markdown]
# # The posterior of your model, three ways
#
# You have a TFP model and data. This tutorial finds the posterior by variational inference with a flow, by Hamiltonian
# Monte Carlo in the coordinates of that flow, and by neural posterior estimation. The model has two parameters, so a
# grid gives the true answer.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tfp_flows as tff

tfd = tfp.distributions
keras.utils.set_random_seed(1)

# %% [markdown]
# ## Write the model
#
# A bioassay (Racine et al. 1986; example of *Bayesian Data Analysis*): four groups of five animals get four doses of a
# drug, and 0, 1, 3 and 5 animals die. The log-odds of death are linear in the log-dose.

# %%
log_dose = tf.constant([-0.86, -0.30, -0.05, 0.73])
deaths = tf.constant([0.0, 1.0, 3.0, 5.0])


def deaths_given(intercept, slope):
    logits = (
        intercept[..., None] + slope[..., None] * log_dose
    )  # `[..., None]`: for any batch of parameters
    return tfd.Independent(tfd.Binomial(5.0, logits=logits), 1)


joint = tfd.JointDistributionNamed(
    {"intercept": tfd.Normal(0.0, 2.0), "slope": tfd.Normal(10.0, 10.0), "deaths": deaths_given}
)
pinned = joint.experimental_pin(deaths=deaths)
names = ["intercept", "slope"]

# %% [markdown]
# ## Compute the true answer on a grid
#
# This works because there are only two parameters. `truth` is the normalized density, `levels` are the densities at the
# borders of the regions of highest density with 50, 90 and 99 % of the mass.

# %%
intercepts, slopes = np.linspace(-4, 7, 221), np.linspace(-5, 45, 251)
grid = np.stack(np.meshgrid(intercepts, slopes), axis=-1).astype("float32")
log_truth = (
    pinned.unnormalized_log_prob(intercept=grid[..., 0], slope=grid[..., 1])
    .numpy()
    .astype("float64")
)
cell = (intercepts[1] - intercepts[0]) * (slopes[1] - slopes[0])
log_evidence = np.log(np.sum(np.exp(log_truth)) * cell)
truth = np.exp(log_truth - log_evidence)
ordered = np.sort(truth.ravel())[::-1]
levels = [ordered[np.searchsorted(np.cumsum(ordered) * cell, mass)] for mass in (0.99, 0.9, 0.5)]


def moments_on_grid(density):
    weights = (density / density.sum())[..., None]
    mean = np.sum(weights * grid, axis=(0, 1))
    return mean, np.sqrt(np.sum(weights * (grid - mean) ** 2, axis=(0, 1)))


true_mean, true_deviation = moments_on_grid(truth)
print("log evidence:", round(log_evidence, 3))
print("mean:", true_mean.round(2), " standard deviation:", true_deviation.round(2))

# %% [markdown]
# ## First way: variational inference
#
# `VariationalFlow.from_model` builds a flow over the unknown parts of the model, and maps it to their names, shapes and
# supports. It then trains by the reverse KL divergence, without data.

# %%
variational = tff.VariationalFlow.from_model(pinned, sample_size=128, path_derivative=True, seed=1)
rate = keras.optimizers.schedules.CosineDecay(5e-3, decay_steps=1500)
variational.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
history = variational.fit(steps_per_epoch=100, epochs=15, verbose=0)
variational_draws = variational.posterior.sample(4000, seed=1)
print("ELBO:", round(history.history["elbo"][-1], 3), " log evidence:", round(log_evidence, 3))

# %% [markdown]
# The ELBO cannot exceed the log evidence, and the gap is the divergence. You usually do not know the log evidence.
# `diagnose` then tells how far you can trust the approximation, from importance weights and a search for lost modes.

# %%
print(variational.diagnose(4000, seed=1))

# %% [markdown]
# ## Second way: Monte Carlo in the coordinates of the flow
#
# The flow maps a normal distribution approximately to the posterior. In its coordinates, the posterior is therefore
# nearly normal, which is easy for Hamiltonian Monte Carlo (NeuTra; Hoffman et al. 2019,
# [arXiv:1903.03704](https://arxiv.org/abs/1903.03704)). Monte Carlo corrects what is wrong in the flow: its draws are
# exact in the limit.
#
# `tff.mcmc.sample` takes the model and the flow. With `training_steps=0` it keeps the flow as it is; by default it trains one
# during warm-up. Printing the result shows R-hat, effective sample sizes and divergences, and says so if the chains did
# not mix.

# %%
result = tff.mcmc.sample(
    pinned,
    variational.flow,
    training_steps=0,
    num_chains=8,
    num_samples=500,
    num_warmup=100,
    kernel="hmc",
    seed=1,
)
print(result)
chain_draws = {name: np.ravel(result.draws[name]) for name in names}

# %% [markdown]
# ## Third way: neural posterior estimation
#
# `NeuralPosterior` never evaluates the likelihood. It simulates parameters and data from the joint distribution, and
# trains a conditional flow $q(\theta \mid x)$ on the pairs. It then answers for any observation, so this is the way for
# many data sets, or for a simulator without a density.

# %%
neural = tff.NeuralPosterior(joint, observed="deaths", num_layers=2, hidden_units=[64, 64], seed=1)
history = neural.fit(num_simulations=20_000, epochs=40, batch_size=200, patience=10, verbose=0)
print(
    "epochs:",
    len(history.history["loss"]),
    " held-out loss:",
    round(min(history.history["val_loss"]), 3),
)
neural_draws = neural.sample(4000, deaths, seed=1)

# %% [markdown]
# ## Compare the three posteriors
#
# Lines are the borders of the regions with 50, 90 and 99 % of the true posterior. Points are draws. A few draws of the
# neural posterior are far outside: it has learned from simulations only.

# %%
found = {
    "variational flow": variational_draws,
    "HMC in the flow": chain_draws,
    "neural posterior": neural_draws,
}
colors = dict(zip(found, ("tab:blue", "tab:orange", "tab:green"), strict=True))
figure, axes = plt.subplots(
    1, 3, figsize=(11, 3.6), constrained_layout=True, sharex=True, sharey=True
)
for ax, (name, draws) in zip(axes, found.items(), strict=True):
    ax.scatter(draws["intercept"][:2000], draws["slope"][:2000], s=2, color=colors[name])
    ax.contour(intercepts, slopes, truth, levels=levels, colors="black", linewidths=0.8)
    ax.set(title=name, xlabel="intercept", xlim=(-3, 5), ylim=(-3, 38))
axes[0].set_ylabel("slope")
# %% [markdown]
# The histograms lie over each other, with the exact marginal densities in black:

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
marginals = (
    truth.sum(axis=0) * (slopes[1] - slopes[0]),
    truth.sum(axis=1) * (intercepts[1] - intercepts[0]),
)
for ax, part, values, marginal in zip(axes, names, (intercepts, slopes), marginals, strict=True):
    for name, draws in found.items():
        ax.hist(
            np.asarray(draws[part]),
            bins=50,
            density=True,
            histtype="step",
            color=colors[name],
            label=name,
        )
    ax.plot(values, marginal, color="black", label="grid")
    ax.set(xlabel=part, xlim=(-3, 5) if part == "intercept" else (-3, 40))
axes[1].legend()
# %%
print(f"{'':17} {'mean':^15} {'standard deviation':^20}")
print(f"{'grid':17} {true_mean.round(2)!s:^15} {true_deviation.round(2)!s:^20}")
for name, draws in found.items():
    values = np.stack([draws[part] for part in names], axis=-1)
    print(f"{name:17} {values.mean(axis=0).round(2)!s:^15} {values.std(axis=0).round(2)!s:^20}")

# %% [markdown]
# | | needs | answers | error |
# |---|---|---|---|
# | `VariationalFlow` | the log-density of the model | for one data set | the divergence that is left; `diagnose` shows it |
# | HMC in the flow | the log-density and its gradient | for one data set | Monte Carlo error, if the chains mix |
# | `NeuralPosterior` | simulations | for any data set | that of the network; check it by calibration |
#
# ## Exercises
#
# 1. Let 1, 1, 4 and 4 animals die. Which of the three ways must you run again?
# 2. Run the chains without the flow, by `tff.mcmc.sample(pinned, None, kernel="hmc")`, and compare the effective sample sizes.
# 3. Replace the prior of the slope by `tfd.LogNormal(2.0, 1.0)`, which is positive. Nothing else needs to change:
#    compute the three posteriors and the grid again.
# 4. Train the neural posterior on 2000 simulations. Which of its moments become wrong?
