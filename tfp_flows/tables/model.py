"""`TableModel`: rows with real, integer and categorical columns, as a Keras 3 model."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.data.frames import is_frame, pandas
from tfp_flows.seeds import graph_seed, resolve_seed
from tfp_flows.tables.columns import Columns
from tfp_flows.tables.distribution import TableDistribution
from tfp_flows.training.compilation import own_graph
from tfp_flows.training.flow_model import FlowModel
from tfp_flows.training.inputs import Glance, Inputs

CHUNK = 8192  # rows per call of a network


@keras.saving.register_keras_serializable(package="tfp_flows")
class TableModel(FlowModel):
    """A `FlowModel` for the rows of a table. Data frames go in and come out.

    `fit`, `evaluate`, `predict` and `log_prob` take rows with the columns of the distribution, and `sample` returns such
    rows: a data frame with the same names, dtypes, integers and categories, or an array if the columns were made from
    one. Use `tff.fit_table` to make and train a model in one call.

    With `any_order=True` in the distribution, rows may have missing values, and the model knows the conditional
    distributions for any set of observed columns: `given=` in `log_prob` and `sample`, and `quantile`. The training loss,
    `val_loss` and `evaluate` are then estimates of the NLL averaged over random orders of the columns. The NLL in the order
    of the columns is `-np.mean(model.predict(rows))`.

    Args:
      distribution: A `TableDistribution`.
      seed: Seed of the random orders.
      name: Name of the model.

    Raises:
      ValueError: If `distribution` is something else.

    Example:
      >>> import pandas as pd
      >>> rng = np.random.default_rng(0)
      >>> rows = pd.DataFrame({"size": rng.normal(size=200), "kind": rng.choice(["a", "b"], 200)})
      >>> distribution = tff.TableDistribution(tff.Columns.of(rows), any_order=True, hidden_units=[16], seed=1)
      >>> model = tff.TableModel(distribution, seed=1)
      >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
      >>> history = model.fit(rows, batch_size=50, epochs=2, verbose=0)
      >>> list(model.sample(5, seed=1).columns)
      ['size', 'kind']
      >>> model.sample(5, given={"kind": "a"}, seed=1)["kind"].tolist()
      ['a', 'a', 'a', 'a', 'a']
    """

    def __init__(self, distribution: TableDistribution, *, seed: int | None = None, name: str = "table_model"):
        if not isinstance(distribution, TableDistribution):
            raise ValueError(f"`distribution` must be a tff.TableDistribution, got {distribution!r}.")
        super().__init__(distribution, seed=resolve_seed(seed), name=name)
        self._inputs = TableInputs(self._inputs.event_shape, self._event_dtype, None, density=False)
        self._inputs.table, self._inputs.missing = distribution.columns, distribution.any_order
        rows = tf.TensorSpec([None, len(distribution.columns)], self._event_dtype)
        self._compiled_log_prob = own_graph(distribution.log_prob, rows)
        self._compiled_complete = own_graph(distribution.complete, rows, tf.TensorSpec([2], tf.int32))
        given = tf.TensorSpec(rows.shape, tf.bool)
        self._compiled_conditional = own_graph(distribution.conditional_log_prob, rows, given)
        self._quantiles, self._cdfs = {}, {}

    @property
    def table(self) -> Columns:
        """Description of the columns."""
        return self.distribution.columns

    def loss_terms(self, batch, seed, training):
        if not self.distribution.any_order:
            return super().loss_terms(batch, seed, training)
        rows, _, weight = self.unpack(batch)
        terms = {"loss": self.distribution.random_order_nll(rows, seed)}
        return terms if weight is None else {**terms, "weight": weight}

    def log_prob(self, x, given: Sequence[str] = ()) -> tf.Tensor:
        """Return the log-density of rows, `[N]`, in nats; for integers and categories it is a log-probability.

        Args:
          x: Rows. With `any_order`, values may be missing: the result is for those that are there.
          given: Names of columns: the result is the conditional log-density of the others. It needs `any_order`, and values
            inside of the bounds of these columns.

        Raises:
          ValueError: If the columns or values do not fit; the message names the column.
        """
        rows = self._encode("x", x)
        if isinstance(given, str):
            raise ValueError(f"`given` must be a list of column names, got {given!r}.")
        if not given:
            return self._by_chunks(self._compiled_log_prob, rows)
        self._needs_any_order("given")
        chosen = np.isin(np.arange(len(self.table)), [self.table.index(name) for name in given])
        self.table.check_known("x", np.where(chosen, rows, np.nan), self._event_dtype.as_numpy_dtype)
        return self._by_chunks(lambda part: self._compiled_conditional(part, np.tile(chosen, [len(part), 1])), rows)

    def sample(self, sample_shape: int | None = None, seed: int | None = None, given: Any = None) -> Any:
        """Return samples, the same for the same `seed`.

        Args:
          sample_shape: Number of rows.
          seed: Integer seed.
          given: Values to condition on: a dictionary of a value for each given column, the same for all rows, or rows
            with some of the columns, or with missing values. Rows are returned completed, which imputes missing values.
            It needs `any_order`.

        Raises:
          ValueError: If `given` does not fit or holds a value outside of the bounds of its column, or `sample_shape` is not
            its number of rows.
        """
        seed = graph_seed(seed)
        if given is None:
            rows, index = np.full([positive_int("sample_shape", sample_shape), len(self.table)], np.nan), None
        else:
            rows, index = self._given(given, sample_shape)
        chunk = itertools.count()  # each chunk has its own seed
        values = self._by_chunks(lambda part: self._compiled_complete(part, [seed, next(chunk)]), rows).numpy()
        # Given values keep their digits.
        return self.table.decode(np.where(np.isnan(rows), values, rows), index)

    def quantile(self, q, column: str, given: Any = None) -> np.ndarray:
        """Return conditional quantiles of a column.

        Each depends on the given values only; no sampling and no solver is involved. Cost: one pass of the network per row.

        Args:
          q: Probability, or a list of them. For real columns they are clipped to `[eps, 1 - eps]`, with 1.2e-7 in float32.
          column: Name of a column of numbers, or of an ordered category.
          given: As for `sample`; values of the column itself are not used.

        Returns:
          Quantiles `[N]` for one probability, `[N, len(q)]` for a list; `N` is 1 if `given` is a dictionary or `None`.

        Raises:
          ValueError: If an argument does not fit, or the model has a fixed order.
        """
        self._needs_any_order("quantile")
        j = self.table.index(column)
        described = self.table.columns[j]
        if described.kind == "category" and not described.ordered:
            raise ValueError(
                f"`column` must be one of numbers, or an ordered category, got {column!r} without an order."
            )
        levels = np.atleast_1d(np.asarray(q, np.float64))
        if levels.ndim != 1 or np.any((levels <= 0.0) | (levels >= 1.0)):
            raise ValueError(f"`q` must be a probability in (0, 1) or a list of them, got {q!r}.")
        rows = np.full([1, len(self.table)], np.nan) if given is None else self._given(given, None, unused=j)[0]
        if j not in self._quantiles:
            self._quantiles[j] = own_graph(functools.partial(self._quantile_of, column=j))
        repeated = np.repeat(np.c_[rows, np.zeros(len(rows))], len(levels), axis=0)
        repeated[:, -1] = np.tile(levels, len(rows))
        values = self._by_chunks(self._quantiles[j], repeated).numpy()
        if described.kind == "category":
            values = np.array([described.categories[int(code)] for code in values], object)
        elif described.kind == "integer":
            values = values.astype(np.int64)
        values = values.reshape([len(rows), len(levels)])
        return values[:, 0] if np.ndim(q) == 0 else values

    def cdf(self, x) -> Any:
        """Return the cumulative probability of each number of rows `x`, given the other values of its row.

        For rows from the model, it is uniform on (0, 1) in each real column: values near 0 or 1 are unusual in their
        row. An integer counts half of its own probability. For categories, it is the conditional probability of the
        value. It needs `any_order`. Cost: `D` passes of the network.

        Returns:
          A data frame or an array like `x`, NaN where a value is missing, or where another value of the row is impossible.
        """
        self._needs_any_order("cdf")
        rows = self._encode("x", x)
        result = np.empty_like(rows)
        for j in range(len(self.table)):
            if j not in self._cdfs:
                self._cdfs[j] = own_graph(functools.partial(self._cdf_of, column=j))
            result[:, j] = self._by_chunks(self._cdfs[j], rows).numpy()
        outside = self.table.outside(rows, self._event_dtype.as_numpy_dtype)
        others = outside.sum(axis=1, keepdims=True) > outside  # nothing can be conditioned on them
        result[np.isnan(rows) | others] = np.nan
        return pandas().DataFrame(result, columns=self.table.labels, index=x.index) if is_frame(x) else result

    def _quantile_of(self, x, column: int):
        """Return quantiles of a column for rows with the probability appended."""
        return self.distribution.conditional_quantile(x[:, -1], x[:, :-1], column)

    def _cdf_of(self, x, column: int):
        is_category = self.table.columns[column].kind == "category"
        return (self.distribution.conditional_probability if is_category else self.distribution.conditional_cdf)(
            x, column
        )

    def _by_chunks(self, function, rows: np.ndarray) -> tf.Tensor:
        """Return a function of encoded rows, which is called with a limited number of them."""
        parts = [rows[i : i + CHUNK] for i in range(0, max(len(rows), 1), CHUNK)]
        return tf.concat([function(tf.constant(part, self._event_dtype)) for part in parts], axis=0)

    def _encode(self, name: str, x: Any) -> np.ndarray:
        return self.table.encode(x, missing=self.distribution.any_order, name=name)

    def _given(self, given: Any, count: int | None, unused: int | None = None) -> tuple[np.ndarray, Any]:
        """Return encoded rows with NaN where a value is not given, and the index of their frame."""
        self._needs_any_order("given")
        if isinstance(given, Mapping):
            if not self.table.framed:
                raise ValueError("`given` must be an array with NaN where a value is not given, got a dictionary.")
            number = 1 if count is None else positive_int("sample_shape", count)
            given = pandas().DataFrame({key: [value] * number for key, value in given.items()}, index=range(number))
        rows = self.table.encode(given, missing=True, partial=True, name="given")
        if unused is not None:
            rows[:, unused] = np.nan
        self.table.check_known("given", rows, self._event_dtype.as_numpy_dtype)
        if count is not None and count != len(rows):
            raise ValueError(
                f"`sample_shape` must be left out, or {len(rows)}, the number of rows of `given`, got {count}."
            )
        return rows, getattr(given, "index", None)

    def _needs_any_order(self, name: str) -> None:
        if not self.distribution.any_order:
            raise ValueError(
                f"`{name}` needs a model of any order, and this one has a fixed order of columns: make it with "
                "tff.fit_table(x, any_order=True)."
            )


class TableInputs(Inputs):
    """Inputs of a `TableModel`, which encodes the rows. `table` and `missing` are set by the model."""

    def _events(self, name: str, x: Any) -> np.ndarray:
        rows = self.table.encode(x, missing=self.missing, name=name)
        return rows.astype(self.dtype.as_numpy_dtype)

    def validation_events(self, data: Any) -> None:
        return None

    def glance(self, x: Any, y: Any) -> Glance:
        return Glance("x")
