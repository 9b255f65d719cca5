# %% [markdown]
# # Score anomalies
#
# A flow gives each row a log-density. Rows of low density are unusual. This tutorial trains a flow on normal rows,
# chooses a threshold with a known rate of false alarms, and counts what it finds.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import sklearn.metrics
import tfp_flows as tff

keras.utils.set_random_seed(1)

# %% [markdown]
# ## Split the rows
#
# The table holds 569 cell samples. 357 are benign, which is normal here. Malignant samples are the anomalies, and serve
# only to judge the result. You use eight columns: perimeter and area are left out, because they follow from the radius.
# The benign rows have three parts: to train the flow, to choose the threshold, and to test it.

# %%
cells = sklearn.datasets.load_breast_cancer()
used = [0, 1, 4, 5, 6, 7, 8, 9]
columns = [str(cells.feature_names[i]) for i in used]
table = np.log(cells.data[:, used] + 0.01).astype("float32")
benign = np.random.default_rng(0).permutation(table[cells.target == 1])
anomalies = table[cells.target == 0]
train, calibration, test = benign[:180], benign[180:270], benign[270:]
print(
    len(train),
    "to train,",
    len(calibration),
    "for the threshold,",
    len(test),
    "to test,",
    len(anomalies),
    "anomalies",
)

# %% [markdown]
# ## Fit a flow to the normal rows
#
# `fit_table` chooses the settings by the size of the table, and prevents overfitting by early stopping. The score of a
# row is its negative log-density: large means unusual.

# %%
model, history = tff.fit_table(train, seed=1)


def score(rows):
    return -model.log_prob(rows).numpy()


figure, ax = plt.subplots(figsize=(7, 2.8), constrained_layout=True)
bins = np.linspace(score(test).min(), np.quantile(score(anomalies), 0.95), 40)
for name, rows in {"benign, test": test, "malignant": anomalies}.items():
    ax.hist(score(rows), bins=bins, alpha=0.6, density=True, label=name)
ax.set(xlabel="score: negative log-density in nats")
ax.legend()
# %% [markdown]
# ## Choose a threshold
#
# You want at most 5 % false alarms. Do not take the 95 % quantile of the training rows: the flow has seen them, so
# their scores are too low. Use rows that the flow has not seen. With $n$ of them, the $\lceil 0.95 (n + 1) \rceil$-th
# smallest score guarantees a false alarm rate of at most 5 % on average, whatever the flow and the distribution of the
# data (conformal prediction).

# %%
rate = 0.05


def threshold_from(scores):
    return np.sort(scores)[int(np.ceil((1 - rate) * (len(scores) + 1))) - 1]


threshold = threshold_from(score(calibration))
print(f"threshold {threshold:.2f}")
print(
    f"false alarms {np.mean(score(test) > threshold):.3f}, anomalies found {np.mean(score(anomalies) > threshold):.3f}"
)

# %% [markdown]
# The guarantee holds on average over the choice of rows, and 90 and 87 rows are few. Split the unseen rows again, 1000
# times, to see the average. The threshold of the training rows gives more false alarms than asked for.

# %%
rng = np.random.default_rng(1)
unseen = score(np.concatenate([calibration, test]))
alarms = []
for _ in range(1000):
    shuffled = rng.permutation(unseen)
    alarms.append(np.mean(shuffled[90:] > threshold_from(shuffled[:90])))
print(
    f"threshold from unseen rows:   false alarms {np.mean(alarms):.3f}, deviation over the splits {np.std(alarms):.3f}"
)
print(
    f"threshold from training rows: false alarms {np.mean(unseen > threshold_from(score(train))):.3f}"
)

# %% [markdown]
# The area under the ROC curve summarizes all thresholds: the probability that a malignant sample has a larger score
# than a benign one. Compare with a Gaussian of full covariance. Its score is a Mahalanobis distance.

# %%
mean, covariance = train.mean(axis=0), np.cov(train, rowvar=False)


def distance(rows):
    return np.einsum("ni,ij,nj->n", rows - mean, np.linalg.inv(covariance), rows - mean)


labels = np.repeat([0, 1], [len(test), len(anomalies)])
rows = np.concatenate([test, anomalies])
for name, rank in {"flow": score, "Gaussian": distance}.items():
    print(
        f"{name:9} area under the ROC curve: {sklearn.metrics.roc_auc_score(labels, rank(rows)):.3f}"
    )

# %% [markdown]
# Both are equally good on this table. Always compare with a simple score before you deploy a flow.
#
# ## Explain an alarm
#
# Which columns make a row unusual? Replace one column at a time by its median among normal rows, and see how much the
# score falls.

# %%
row = anomalies[np.argmax(score(anomalies))]
replaced = np.repeat(row[None], len(columns), axis=0)
np.fill_diagonal(replaced, np.median(train, axis=0))
change = score(row[None]) - score(replaced)
figure, ax = plt.subplots(figsize=(7, 2.8), constrained_layout=True)
ax.barh(columns, change)
ax.invert_yaxis()
ax.set(xlabel="decrease of the score in nats")

# %% [markdown]
# A bar can be negative, because columns depend on each other: replacing only one of them can make the row even more
# unusual.
#
# ## Know the limits
#
# - A density depends on the units. After $y = f(x)$, the log-density changes by the log-det of $f$, so the order of the
#   scores changes too.
# - An unusual row is not always one of low density. In many dimensions, the point of highest density is itself unusual.
# - The threshold is valid for rows from the distribution of the unseen normal rows. Check it again when the data drift.
#
# ## Exercises
#
# 1. Move the threshold to a false alarm rate of 1 %. How many unseen rows do you need at least?
# 2. Use the columns without the logarithm. Which model, flow or Gaussian, loses more?
# 3. Use the distance of the latent values from the origin, the norm of `model.distribution.bijector.inverse(rows)`, as
#    score. Is it better or worse than the density?
