# %% [markdown]
# # Splines on a real table
#
# This tutorial fits a flow to tables of measurements, and reports the result honestly: against a Gaussian, on held-out
# rows, with standard errors.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats
import sklearn.datasets
import tensorflow_probability as tfp
import tfp_flows as tff

tfd = tfp.distributions
keras.utils.set_random_seed(1)

# %% [markdown]
# ## See what a spline can do
#
# A spline layer applies a monotone function to each number. Its knots are the output of a network, so they depend on
# the other columns. Between the knots it is a rational quadratic function, which has an exact inverse and derivative
# (Durkan et al. 2019, [arXiv:1906.04032](https://arxiv.org/abs/1906.04032)). In one dimension nothing is left but the
# spline: it maps a normal distribution to two modes.

# %%
rng = np.random.default_rng(0)
two_modes = np.concatenate([rng.normal(-1.5, 0.4, 3000), rng.normal(1.0, 0.7, 5000)]).astype(
    "float32"
)[:, None]
flow = tff.spline_autoregressive(
    1, num_layers=1, num_bins=8, preprocess=tff.standardize(two_modes), seed=1
)
model = tff.FlowModel(flow)
model.compile(optimizer=keras.optimizers.Adam(2e-2, global_clipnorm=1.0))
model.fit(two_modes, batch_size=500, epochs=30, verbose=0)

z = np.linspace(-3, 3, 400, dtype="float32")[:, None]
values = np.linspace(-4, 4, 400, dtype="float32")[:, None]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
axes[0].plot(z, flow.bijector.forward(z))
axes[0].set(xlabel="base", ylabel="data", title="the spline")
axes[1].hist(two_modes, bins=60, density=True, color="lightgray", label="data")
axes[1].plot(values, np.exp(model.log_prob(values)), label="flow")
axes[1].set(xlabel="data", title="density")
axes[1].legend()
# %% [markdown]
# ## Fit a small table
#
# The Old Faithful geyser: 272 rows with the length of an eruption and the waiting time to the next one, in minutes.
# Hold out a quarter of the rows.
#
# `tff.fit_table` chooses flow, batch size, epochs and learning rate by the size of the table. Below 1000 rows it trains
# five flows, each with another fifth held out for early stopping, and averages their weights. The untrained flow is a
# Gaussian or a Student t distribution, and counts as an epoch.

# %%
rows, columns = tff.data.faithful()
order = np.random.default_rng(0).permutation(len(rows))
test, train = rows[order[: len(rows) // 4]], rows[order[len(rows) // 4 :]]
model, history = tff.fit_table(train, seed=1)
print(len(train), "rows to train,", len(test), "held out")

# %% [markdown]
# The Gaussian with full covariance is the model to beat. The rows are the same for both, so the error of the difference
# is smaller than the errors of the two numbers. Report the difference with its own error.


# %%
def report(model, train, test):
    mean, covariance = train.mean(axis=0), np.cov(train, rowvar=False, bias=True)
    gaussian = tfd.MultivariateNormalTriL(mean, np.linalg.cholesky(covariance).astype("float32"))
    flow_nll, gaussian_nll = -np.asarray(model.log_prob(test)), -np.asarray(gaussian.log_prob(test))
    scores = {
        "flow": flow_nll,
        "Gaussian": gaussian_nll,
        "Gaussian - flow": gaussian_nll - flow_nll,
    }
    for name, nll in scores.items():
        print(f"{name:16} {nll.mean():8.3f} +- {nll.std() / np.sqrt(len(nll)):.3f} nats per row")
    return gaussian


gaussian = report(model, train, test)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
for ax, (name, density) in zip(axes, {"Gaussian": gaussian, "flow": model}.items(), strict=True):
    tff.plots.density(density, test, limits=[(1, 5.8), (35, 105)], columns=columns, ax=ax)
    ax.set_title(f"{name}, held-out rows")

# %% [markdown]
# ## Fit a table of more columns
#
# Five measurements of 569 cell samples, from scikit-learn's table of breast cancer. Heavy right tails suggest the
# logarithm: it is part of the model, and you choose it. Densities are then those of the logarithms.

# %%
cells = sklearn.datasets.load_breast_cancer()
chosen = ["mean radius", "mean texture", "mean smoothness", "mean compactness", "mean symmetry"]
table = np.log(cells.data[:, [list(cells.feature_names).index(name) for name in chosen]]).astype(
    "float32"
)
order = np.random.default_rng(0).permutation(len(table))
test, train = table[order[:142]], table[order[142:]]
model, history = tff.fit_table(train, seed=1)
report(model, train, test)
# %% [markdown]
# The difference is smaller here, and hardly more than its error. Early stopping keeps the flow from being worse than a
# Gaussian by much. A report must say so: for these logarithms, a Gaussian is nearly as good.
#
# Samples against held-out rows, for every pair of columns:

# %%
tff.plots.corner(test, model.sample(len(test), seed=1), columns=chosen)
# %% [markdown]
# ## Check the calibration
#
# The flow maps held-out rows to its base, here a Student t distribution. If the density is right, the ranks of the
# latent values among samples of the base are uniform. The p-value is that of a Kolmogorov-Smirnov test. It is small for
# a column that the flow gets wrong.

# %%
base = model.distribution.distribution
latent = model.distribution.bijector.inverse(test)
samples = base.sample(2000, seed=1)
ranks = np.mean(samples[:, None] < latent[None], axis=0)
figure, axes = plt.subplots(1, 5, figsize=(11, 2.4), constrained_layout=True, sharey=True)
for ax, column, name in zip(axes, ranks.T, chosen, strict=True):
    ax.hist(column, bins=10, range=(0, 1))
    ax.axhline(len(test) / 10, color="black", linewidth=0.8)
    ax.set(title=f"{name}\np = {scipy.stats.kstest(column, 'uniform').pvalue:.2f}", xlabel="rank")

# %% [markdown]
# The smallest p-value is 0.01. Among five columns of a calibrated model, one as small appears in 5 % of the cases: a reason
# to look closer, but no proof.
#
# The same from a shell, for a CSV file: `tfp-flows fit table.csv`. It prints the report and writes the model and
# pictures to a folder.
#
# ## Exercises
#
# 1. Fit a mixture of two Gaussians to the geyser, with `sklearn.mixture.GaussianMixture`. Does the flow beat it on the
#    held-out rows? Is the difference larger than its error?
# 2. Repeat the split with five seeds. How much does the difference to the Gaussian vary, compared with its standard
#    error?
# 3. Fit the columns of the second table without the logarithm. To compare the NLL with the one above, add the mean of
#    `sum(log x)`, the log-det of the logarithm. Which model is better?
