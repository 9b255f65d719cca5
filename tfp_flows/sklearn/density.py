"""`FlowDensity`: a flow as a density estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tfp_flows.bijectors import Support, standardize
from tfp_flows.checks import one_of, positive_int
from tfp_flows.recipes.recipe import RECIPES
from tfp_flows.recipes.table import settings_for
from tfp_flows.tables.fit import TableFit, compile_for, fit_rows, fit_table, support_by_position
from tfp_flows.training.flow_model import FlowModel

BLOCK = 1024  # rows of one pass of `score_samples`
MIN_ROWS = 10
HELD_OUT = 0.15


class FlowDensity(DensityMixin, BaseEstimator):
    """Density estimator of scikit-learn that fits a flow to the rows of a table.

    It has the methods of `sklearn.neighbors.KernelDensity`, and works in `Pipeline`, `cross_val_score` and `GridSearchCV`.
    The default fits `table_flow` by `fit_table`. Name another recipe to choose its sizes. Its flow is standardized by the
    training rows, and trained with Adam, a cosine decay of the learning rate, and early stopping on 15 % of the rows.

    All densities are in the units of `X`, in nats, and computed in float32. A scaler before the estimator in a `Pipeline`
    is not needed, and would change the density by a constant.

    Args:
      recipe: `"table"`, the name of a recipe for vectors such as `"maf"`, or a function that is called like one.
      num_layers: Number of layers of the recipe; its default if `None`. Not for `"table"`.
      hidden_units: Sizes of the hidden layers of each network, such as `(64, 64)`; the recipe's default if `None`. Not for
        `"table"`.
      options: Dictionary of more arguments of the recipe, such as `{"num_bins": 8}`, without `seed` and `support`, which
        are arguments of the estimator. Not for `"table"`.
      support: Support of the columns: one entry for all, a list with one for each, a dictionary by column name (`x1`, `x2`,
        ... for arrays), or a `Support` (see there).
      epochs: Maximal number of epochs; that of `table_training` if `None`.
      batch_size: Rows in a step; that of `table_training` if `None`, and never more.
      learning_rate: Initial learning rate of Adam; that of `table_training` if `None`.
      random_state: Integer, `numpy.random.RandomState` or `None`, as in scikit-learn. It determines the initial weights and
        the choice of rows for early stopping.
      verbose: Verbosity of `keras.Model.fit`.

    Attributes:
      model_: The trained `FlowModel`.
      history_: Losses in nats by epoch, as lists.
      n_features_in_: Number of columns `D`.
      feature_names_in_: Names of the columns, if `X` was a data frame with names.

    Cost: `fit` compiles and trains a network, seconds to minutes where `KernelDensity.fit` takes none. With fewer than 1000
    rows, `"table"` trains five times (see `fit_table`). `score_samples` and `sample` cost as for the recipe.

    Example:
      >>> x = tff.data.moons().sample(200, seed=1)
      >>> estimator = tff.sklearn.FlowDensity("maf", num_layers=2, epochs=2, random_state=1).fit(x)
      >>> estimator.score_samples(x).shape, estimator.sample(3, random_state=2).shape
      ((200,), (3, 2))
      >>> from sklearn.model_selection import cross_val_score
      >>> len(cross_val_score(estimator, x, cv=2))
      2
    """

    def __init__(
        self,
        recipe: str | Callable = "table",
        *,
        num_layers: int | None = None,
        hidden_units=None,
        options: dict | None = None,
        support="real",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        random_state=None,
        verbose: int | str = 0,
    ):
        self.recipe = recipe
        self.num_layers = num_layers
        self.hidden_units = hidden_units
        self.options = options
        self.support = support
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None) -> FlowDensity:
        """Fit the flow to rows. Return the estimator.

        Args:
          X: Rows `[N, D]`, at least 10: array or data frame.
          y: Ignored.

        Raises:
          ValueError: If `X` has another shape, too few rows, a constant column or a value that is not finite, or a parameter
            is not valid.
        """
        X = validate_data(self, X, dtype=np.float32, ensure_min_samples=MIN_ROWS)
        names = list(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None
        support = support_by_position(names or X.shape[1], self.support)
        Support.of(support, X.shape[1], tf.float32).check("X", X, names)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        fit = self._fit_table if self.recipe == "table" else self._fit_recipe
        self.model_, self.history_ = fit(X, support, seed)
        return self

    def score_samples(self, X) -> np.ndarray:
        """Return the log-density of each row in nats, `[N]`, in float64.

        Args:
          X: Rows `[N, D]`.

        Raises:
          sklearn.exceptions.NotFittedError: Before `fit`.
          ValueError: If `X` has another shape, or a value is not finite.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        scores = []
        for begin in range(0, len(X), BLOCK):
            # Blocks of equal size need one trace, and the density of a row does not depend on the other rows.
            rows = X[begin : begin + BLOCK]
            padded = np.concatenate([rows, np.repeat(rows[:1], BLOCK - len(rows), axis=0)])
            scores.append(self.model_.log_prob(tf.constant(padded)).numpy()[: len(rows)])
        return np.concatenate(scores).astype(np.float64)

    def score(self, X, y=None) -> float:
        """Return the mean log-density of the rows in nats: the negative of the NLL. Larger is better.

        `KernelDensity.score` returns the sum instead. The mean compares folds of different sizes.

        Args:
          X: Rows `[N, D]`.
          y: Ignored.
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state=None) -> np.ndarray:
        """Return rows drawn from the flow, `[n_samples, D]`, in float32.

        Args:
          n_samples: Number of rows.
          random_state: Integer, `numpy.random.RandomState` or `None`.

        Raises:
          sklearn.exceptions.NotFittedError: Before `fit`.
          ValueError: If `n_samples` is not a positive integer.
        """
        check_is_fitted(self)
        count = positive_int("n_samples", n_samples)
        return self.model_.sample(count, seed=int(check_random_state(random_state).randint(2**31 - 1))).numpy()

    def _settings(self) -> dict:
        return {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}

    def _recipe_options(self) -> dict:
        sizes = {"num_layers": self.num_layers, "hidden_units": self.hidden_units}
        options = dict(self.options or {})
        for name, own in (("seed", "random_state"), ("support", "support")):
            if name in options:
                raise ValueError(
                    f"`options` must not hold {name!r}, got {options[name]!r}: give the argument `{own}` of FlowDensity."
                )
        return {name: value for name, value in sizes.items() if value is not None} | options

    def _fit_table(self, x: np.ndarray, support, seed: int) -> TableFit:
        given = self._recipe_options()
        if given:
            raise ValueError(
                f"`num_layers`, `hidden_units` and `options` are for a recipe, and `recipe` is 'table', got {given}. "
                "Name a recipe, such as recipe='spline_autoregressive'."
            )
        return fit_table(x, support=support, seed=seed, verbose=self.verbose, **self._settings())

    def _fit_recipe(self, x: np.ndarray, support, seed: int) -> TableFit:
        build = self.recipe
        if not callable(build):
            names = [name for name, each in RECIPES.items() if not each.facts.of_images]
            build = RECIPES[one_of("recipe", build, ["table", *names])]
        order = np.random.default_rng(seed).permutation(len(x))
        held, rows = np.split(x[order], [max(1, round(HELD_OUT * len(x)))])
        options = {"support": support, "preprocess": standardize(rows), "seed": seed} | self._recipe_options()
        model = FlowModel(build(x.shape[1], **options), name="flow")
        settings = settings_for(len(rows), **self._settings())
        compile_for(model, settings, len(rows))
        return TableFit(model, fit_rows(model, rows, held, settings, seed, self.verbose))
