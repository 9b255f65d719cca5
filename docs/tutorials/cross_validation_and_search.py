# %% [markdown]
# # Cross-validation and search
#
# How good is a flow on data that it has not seen, and which settings are best? In this tutorial you answer both with
# scikit-learn: `tff.sklearn.FlowDensity` is a density estimator with the methods of `KernelDensity`. Then you tune a
# `FlowModel` with keras-tuner, which sees every Keras setting.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import keras
import keras_tuner
import matplotlib.pyplot as plt
import numpy as np
import tfp_flows as tff
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KernelDensity

keras.utils.set_random_seed(1)

# %% [markdown]
# ## Fit the estimator
#
# The data are two moons with a known entropy, so you know the best possible score. `fit` trains a flow with early
# stopping. `score_samples` returns the log-density of each row, and `score` its mean, in nats: larger is better. You
# need no scaler, because the flow standardizes its data.

# %%
moons = tff.data.moons(noise=0.1)
x, x_test = moons.sample(600, seed=0), moons.sample(5000, seed=1)
estimator = tff.sklearn.FlowDensity(
    "spline_coupling",
    num_layers=3,
    hidden_units=(32,),
    epochs=60,
    learning_rate=5e-3,
    random_state=1,
)
flow = estimator.fit(x)
print("log-densities:", flow.score_samples(x_test[:3]).round(2))
print(f"test score {flow.score(x_test):.3f} nats, best possible {-moons.entropy():.3f}")
print("samples:", flow.sample(2, random_state=1).round(2).tolist())

# %% [markdown]
# ## Compare by cross-validation
#
# One split into training and test rows can favor a model by chance. Cross-validation trains on three different parts
# and scores the rest. Each fold fits a clone of the estimator. Pass the same `cv` to all estimators, so that they see
# the same parts. The score of `KernelDensity` is a sum over rows, so divide it by the size of a fold.

# %%
folds = KFold(3, shuffle=True, random_state=0)
estimators = {
    "normal distribution": GaussianMixture(1),
    "mixture of 8 normals": GaussianMixture(8, random_state=0),
    "kernel density": KernelDensity(bandwidth=0.12),
    "flow": estimator,
}
scores = {name: cross_val_score(each, x, cv=folds) for name, each in estimators.items()}
scores["kernel density"] /= len(x) // 3
for name, each in scores.items():
    print(f"{name:20} {each.mean():7.3f} nats, folds from {each.min():.3f} to {each.max():.3f}")

# %% [markdown]
# Differences between estimators are more certain than the scores themselves, because the folds are shared. Look at the
# difference in each fold:

# %%
print("flow minus kernel density:", (scores["flow"] - scores["kernel density"]).round(3))

# %% [markdown]
# ## Search over settings
#
# `GridSearchCV` fits every setting in every fold, and then the best one to all rows. Each fit costs seconds, so keep
# the grid small. Any argument of the recipe can be searched: name it, or put it into `options`.

# %%
search = GridSearchCV(estimator, {"num_layers": [2, 4]}, cv=folds)
search.fit(x)
for mean, parameters in zip(
    search.cv_results_["mean_test_score"], search.cv_results_["params"], strict=True
):
    print(f"{mean:7.3f} nats  {parameters}")
print(f"best: {search.best_params_}, test score {search.score(x_test):.3f}")

# %% [markdown]
# The best score of a search is too good, because it was chosen. The score of the test rows, which the search never saw,
# is the honest one.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
axes[0].scatter(*x.T, s=4, color="black")
axes[0].set(title="data", xlim=(-1.5, 2.5), ylim=(-1.0, 1.5), aspect="equal")
best = search.best_estimator_.model_
tff.plots.density(best, limits=[(-1.5, 2.5), (-1.0, 1.5)], ax=axes[1])
axes[1].set_title("density of the best flow")

# %% [markdown]
# ## Tune the training with keras-tuner
#
# keras-tuner calls a function that builds and compiles a model. It can change everything in Keras, such as the learning
# rate, and it sees the loss of each epoch. A `FlowModel` needs nothing special: `val_loss` is the NLL of held-out rows.


# %%
def build(hp):
    flow = tff.spline_coupling(
        2,
        num_layers=hp.Int("num_layers", 2, 4),
        hidden_units=[hp.Choice("units", [16, 64])],
        preprocess=tff.standardize(x[:450]),
        seed=1,
    )
    model = tff.FlowModel(flow)
    rate = hp.Float("learning_rate", 3e-4, 3e-2, sampling="log")
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    return model


tuner = keras_tuner.RandomSearch(
    build, objective="val_loss", max_trials=3, seed=1, directory="tuning", overwrite=True
)
tuner.search(x[:450], validation_data=x[450:], batch_size=75, epochs=40, verbose=0)
for trial in tuner.oracle.get_best_trials(3):
    print(round(trial.score, 3), {k: round(v, 4) for k, v in trial.hyperparameters.values.items()})

# %% [markdown]
# The loss on the validation rows was the objective, so score the best model on the test rows.

# %%
(tuned,) = tuner.get_best_models(1)
print(f"test score {float(np.mean(tuned.log_prob(x_test))):.3f} nats")

# %% [markdown]
# ## Exercises
#
# 1. Search over `recipe`: compare `"maf"`, `"spline_coupling"` and `"real_nvp"` with `GridSearchCV`.
# 2. Choose the bandwidth of `KernelDensity` by a search too. How much closer to the flow does it come, and what happens
#    with 6000 rows?
# 3. Replace `RandomSearch` by `keras_tuner.Hyperband` with `max_epochs=40`. Does it find better settings in the same
#    time?
