# %% [markdown]
# # Conditional flows: regression, classes and forecasts
#
# A conditional flow models $p(y \mid x)$. This tutorial uses one for a regression whose noise is not normal, for
# classes and their probabilities by Bayes' rule, and for forecasts of a time series.
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
# ## Predict a distribution
#
# Pass `conditional_size=` to any recipe. In Keras, `fit(x, y)` then learns $p(y \mid x)$: conditions first, events
# second. Conditions are standardized automatically.
#
# In this example, the mean of $y$ is a bad prediction: for large $x$ there are two branches. For one number, use
# `spline_autoregressive`, since an affine flow of one dimension stays normal.

# %%
rng = np.random.default_rng(0)
x = rng.uniform(0, 1, [6000, 1])
branch = rng.choice([-1.0, 1.0], [6000, 1])
y = branch * np.maximum(0.0, x - 0.4) * 2 + rng.normal(0, 0.05 + 0.1 * x)
x, y = x.astype("float32"), y.astype("float32")

flow = tff.spline_autoregressive(
    1, num_layers=2, hidden_units=[64], conditional_size=1, preprocess=tff.standardize(y), seed=1
)
model = tff.FlowModel(flow)
rate = keras.optimizers.schedules.CosineDecay(5e-3, decay_steps=1000)
model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
history = model.fit(
    x[:5000], y[:5000], batch_size=200, epochs=40, validation_data=(x[5000:], y[5000:]), verbose=0
)
print("held-out NLL:", round(history.history["val_loss"][-1], 3))

# %% [markdown]
# The noise is known here, so you can compare with the truth, a mixture of two normal distributions:

# %%
width = 0.05 + 0.1 * x[5000:]
center = np.maximum(0.0, x[5000:] - 0.4) * 2
normal = [
    np.exp(-0.5 * ((y[5000:] - sign * center) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    for sign in (-1, 1)
]
print("NLL of the truth: ", round(float(-np.mean(np.log(np.mean(normal, axis=0)))), 3))

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), constrained_layout=True)
axes[0].scatter(x[:2000], y[:2000], s=2, color="black", label="data")
conditions = rng.uniform(0, 1, [2000, 1]).astype("float32")
axes[0].scatter(
    conditions,
    model.sample(2000, conditional_input=conditions, seed=1),
    s=2,
    color=tff.plots.SAMPLE_COLOR,
    label="samples",
)
axes[0].set(xlabel="x", ylabel="y")
axes[0].legend(markerscale=4)
values = np.linspace(-1.8, 1.8, 300, dtype="float32")[:, None]
for condition in (0.1, 0.5, 0.7, 0.9):
    axes[1].plot(
        values,
        np.exp(model.log_prob(values, conditional_input=[condition])),
        label=f"x = {condition}",
    )
axes[1].set(xlabel="y", ylabel="density")
axes[1].legend()
# %% [markdown]
# ## Classify by Bayes' rule
#
# A flow conditioned on the class models $p(x \mid \text{class})$. Bayes' rule turns it into a classifier,
# $p(\text{class} \mid x) \propto p(x \mid \text{class}) \, p(\text{class})$. The same model also tells you whether $x$
# looks like any class at all.
#
# Pass classes as one-hot rows. The data are three kinds of wine: the first four columns of scikit-learn's table.

# %%
wine = sklearn.datasets.load_wine()
order = np.random.default_rng(1).permutation(len(wine.data))
features, classes = wine.data[order, :4].astype("float32"), wine.target[order]
one_hot = np.eye(3, dtype="float32")
train, test = slice(0, 120), slice(120, None)

flow = tff.maf(
    4,
    num_layers=2,
    hidden_units=[16],
    conditional_size=3,
    preprocess=tff.standardize(features[train]),
    seed=1,
)
classifier = tff.FlowModel(flow)
classifier.compile(optimizer=keras.optimizers.Adam(3e-3, global_clipnorm=1.0))
stop = keras.callbacks.EarlyStopping(patience=15, restore_best_weights=True)
held_out = (one_hot[classes[90:120]], features[90:120])
history = classifier.fit(
    one_hot[classes[:90]],
    features[:90],
    batch_size=30,
    epochs=120,
    validation_data=held_out,
    callbacks=[stop],
    verbose=0,
)
print("epochs:", len(history.history["loss"]))

# %% [markdown]
# One call evaluates every event under every class: the leading axes of events and conditions broadcast against each
# other.

# %%
log_likelihood = classifier.log_prob(
    features[test][:, None], conditional_input=one_hot[None]
)  # [rows, classes]
log_prior = np.log(np.bincount(classes[train]) / 120)
probability = tf.nn.softmax(log_likelihood + log_prior.astype("float32"), axis=-1).numpy()
predicted = probability.argmax(axis=-1)
largest = np.bincount(classes[test]).max() / len(predicted)
print(
    f"right: {np.mean(predicted == classes[test]):.3f} of {len(predicted)} test rows; largest class: {largest:.3f}"
)

# %% [markdown]
# Probabilities are more than labels. The mean log-probability of the true class scores them. A uniform guess scores
# $-\log 3 = -1.099$. Rows with an uncertain prediction should be wrong more often:

# %%
print(
    "mean log-probability of the true class:",
    round(float(np.mean(np.log(probability[np.arange(len(predicted)), classes[test]]))), 3),
)
sure = probability.max(axis=-1) > 0.9
print(
    f"sure (over 0.9): {sure.sum()} rows, {np.mean(predicted == classes[test], where=sure):.3f} right"
)
print(
    f"not sure: {(~sure).sum()} rows, {np.mean(predicted == classes[test], where=~sure):.3f} right"
)

# %% [markdown]
# ## Forecast a time series
#
# A forecast is a conditional flow whose condition is the past. The series is a particle in a double well, with position
# and velocity, noise and random kicks. `sequence_windows` makes pairs of a window and the next row. A recurrent network
# encodes the window, and is trained with the flow.

# %%
series = tff.data.kicked_oscillator().sample(6000, seed=1)
past, future = series[:5000], series[5000:]
window = 4
pairs = tff.sequence_windows(past, window, batch_size=200, shuffle=True, seed=1)
scale = tff.standardize(past)
inner = tff.spline_autoregressive(
    2, num_layers=1, hidden_units=[64], conditional_size=16, preprocess=scale, seed=1
)
flow = tff.EncodedFlow(inner, keras.layers.GRU(16), [window, 2], preprocess=scale)
forecaster = tff.FlowModel(flow)
rate = keras.optimizers.schedules.CosineDecay(5e-3, decay_steps=500)
forecaster.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
history = forecaster.fit(pairs, epochs=20, verbose=0)
print("NLL:", round(history.history["loss"][0], 3), "->", round(history.history["loss"][-1], 3))

# %% [markdown]
# `rollout` draws paths row by row. Each row becomes part of the next window. The band contains 90 % of 300 paths.

# %%
steps = 60
paths = tff.rollout(forecaster, future[:window], steps=steps, n=300, seed=1).numpy()
low, high = np.quantile(paths, [0.05, 0.95], axis=0)
time = np.arange(window, window + steps)
figure, axes = plt.subplots(2, 1, figsize=(9, 4), constrained_layout=True, sharex=True)
for i, (ax, name) in enumerate(zip(axes, ("position", "velocity"), strict=True)):
    ax.fill_between(time, low[:, i], high[:, i], alpha=0.3, label="90 % of the paths")
    ax.plot(time, paths[:3, :, i].T, color=tff.plots.SAMPLE_COLOR, linewidth=0.8)
    ax.plot(future[: window + steps, i], color="black", label="what happened")
    ax.set_ylabel(name)
axes[0].legend(loc="lower left")
axes[1].set_xlabel("step")
# %% [markdown]
# Check one-step forecasts on the later part of the series: the rank of each outcome among the samples is uniform if the
# forecasts are calibrated. A bar then counts 99.6 rows, with a standard deviation of 9.5. Larger differences show what
# the flow has not learned yet.

# %%
windows, outcomes = next(iter(tff.sequence_windows(future, window, batch_size=996)))
samples = np.stack(
    [forecaster.sample(len(outcomes), conditional_input=windows, seed=i) for i in range(50)]
)
ranks = tff.diagnostics.probability_integral_transform(samples, outcomes, seed=1)
figure, axes = plt.subplots(1, 2, figsize=(7, 2.4), constrained_layout=True, sharey=True)
for ax, column, name in zip(axes, ranks.T, ("position", "velocity"), strict=True):
    ax.hist(column, bins=10, range=(0, 1))
    ax.axhline(len(outcomes) / 10, color="black", linewidth=0.8)
    ax.set(title=name, xlabel="rank")

# %% [markdown]
# ## Exercises
#
# 1. Fit `tff.maf(1, conditional_size=1)` to the first example. Its conditional densities are normal. How much worse is
#    its held-out NLL?
# 2. Use all 13 columns of the wine table. Does the classifier improve? Compare with
#    `sklearn.linear_model.LogisticRegression`.
# 3. Add a row of zeros to the test rows. It looks like no wine: compare its log-density under each class with those of
#    the other rows.
# 4. Draw the band of the forecast for `window = 1`. Does the longer past help?
