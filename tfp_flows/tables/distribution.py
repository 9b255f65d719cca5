"""Autoregressive distribution of the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.numerics import real_dtype
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed
from tfp_flows.tables.columns import Columns
from tfp_flows.tables.conditionals import conditional_of
from tfp_flows.tables.network import TableNetwork
from tfp_flows.tracking import Mirror

tfb, tfd = tfp.bijectors, tfp.distributions


@serializable
class TableDistribution(tfd.Distribution):
    """Distribution of rows with real, integer and categorical columns.

    `log p(x) = sum_d log p(x[d] | x[:d])`. The conditional of a real column is a spline flow over a normal distribution
    (Durkan et al. 2019, arXiv:1906.04032). That of an integer or categorical column is a probability, so the result is a
    log-density with respect to the real columns, and a log-probability of the others. Networks read categories and bins
    of integers one-hot.

    With `any_order`, one network gives the conditionals for all sets of observed columns (Uria et al. 2014,
    arXiv:1310.1757; Strauss and Oliva 2021, arXiv:2104.01678). NaN is then a missing value: `log_prob` is the
    log-density of the values that are there. Each of these densities is normalized. Two orders of the same columns agree only
    as far as the network has learned; the order of the columns is used.

    Rows are numbers `[..., D]`, as `Columns.encode` returns them. Cost of `log_prob`: one pass of the network, or `D`
    passes with `any_order`; of a sample, `D` passes.

    Args:
      columns: The `Columns`.
      any_order: Whether to train on all orders of the columns.
      hidden_units: Sizes of the hidden layers of the network.
      num_bins, bound: Bins of the splines, and half their width in standard deviations.
      seed: Integer seed of the initial weights.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the distribution.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> columns = tff.Columns.of(np.array([[0.5, 1.0], [1.5, 3.0], [2.5, 2.0]]))
      >>> distribution = tff.TableDistribution(columns, any_order=True, hidden_units=[8], seed=1)
      >>> distribution.log_prob([[1.0, 2.0], [1.0, np.nan]]).shape
      TensorShape([2])
    """

    def __init__(
        self,
        columns: Columns,
        *,
        any_order: bool = False,
        hidden_units: Sequence[int] = (256, 256),
        num_bins: int = 8,
        bound: float = 4.0,
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "table",
    ):
        parameters = dict(locals())
        if not isinstance(columns, Columns):
            raise ValueError(f"`columns` must be a tff.Columns, such as Columns.of(rows), got {columns!r}.")
        dtype, self.columns, self.any_order = real_dtype(dtype), columns, bool(any_order)
        with tf.name_scope(name) as scope:
            num_bins = positive_int("num_bins", num_bins)
            self._conditionals = [conditional_of(column, num_bins, bound, dtype) for column in columns.columns]
            network = TableNetwork(
                [c.num_features for c in self._conditionals],
                [c.num_params for c in self._conditionals],
                hidden_units,
                any_order=self.any_order,
                seed=resolve_seed(seed),
                dtype=dtype.name,
            )
            self._network = Mirror(network)
            super().__init__(
                dtype=dtype,
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=True,
                parameters=parameters,
                name=scope,
            )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    @property
    def event_size(self) -> int:
        return len(self.columns)

    def _event_shape(self):
        return tf.TensorShape([self.event_size])

    def _event_shape_tensor(self):
        return tf.constant([self.event_size])

    def _default_event_space_bijector(self):
        return tfb.Identity(validate_args=self.validate_args)

    def _features(self, x) -> list[tf.Tensor]:
        """Return the features of each column, from values that are not NaN."""
        return [c.features(x[:, d]) for d, c in enumerate(self._conditionals)]

    def _joined(self, features, observed) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the inputs of the network: features, which are zero in columns that are not observed, and flags."""
        observed = tf.cast(observed, self.dtype)
        if self.any_order:
            features = [part * observed[:, d, tf.newaxis] for d, part in enumerate(features)]
        return tf.concat(features, axis=-1), observed

    def _params(self, features, observed, column: int) -> tf.Tensor:
        """Return the parameters of one column, given the observed ones."""
        network = self._network.fn
        return network.head(network.trunk(*self._joined(features, observed)), column)

    def _terms(self, x, observed) -> tf.Tensor:
        """Return the conditional log-densities of all columns, `[N, D]`, with one pass of the network."""
        x = _filled(x)
        sizes = [c.num_params for c in self._conditionals]
        params = tf.split(self._network.fn(*self._joined(self._features(x), observed)), sizes, axis=-1)
        terms = [c.log_prob(x[:, d], p) for d, (c, p) in enumerate(zip(self._conditionals, params, strict=True))]
        return tf.stack(terms, axis=-1)

    def _log_prob(self, x):
        batch = tf.shape(x)[:-1]
        rows = tf.reshape(x, [-1, self.event_size])
        if self.any_order:
            result = self.conditional_log_prob(rows, tf.zeros_like(rows, tf.bool))
        else:
            terms = tf.reduce_sum(self._terms(rows, tf.ones_like(rows)), axis=-1)
            missing = tf.reduce_any(tf.math.is_nan(rows), axis=-1)
            result = tf.where(missing, tf.cast(np.nan, x.dtype), terms)
        return tf.ensure_shape(tf.reshape(result, batch), x.shape[:-1])

    def conditional_log_prob(self, x, given) -> tf.Tensor:
        """Return the log-density `[N]` of the values of `x` `[N, D]` that are there, given those where `given` is true.

        Given values must lie inside of the bounds of their columns. This is not checked here, but by `TableModel`.
        """
        x = tf.convert_to_tensor(x, self.dtype)
        present = ~tf.math.is_nan(x)
        observed, total = present & given, tf.zeros_like(x[:, 0])
        x = _filled(x)
        features = self._features(x)
        for d, conditional in enumerate(self._conditionals):
            term = conditional.log_prob(x[:, d], self._params(features, observed, d))
            total += tf.where(present[:, d] & ~given[:, d], term, tf.zeros_like(term))
            observed |= present & (tf.range(self.event_size) == d)
        return total

    def complete(self, x, seed) -> tf.Tensor:
        """Return `x` `[N, D]` with samples of the missing values, given those that are there; `seed` is stateless.

        Without `any_order`, only the last columns may be missing.
        """
        x = tf.convert_to_tensor(x, self.dtype)
        uniform = tf.random.stateless_uniform(tf.shape(x), seed, dtype=self.dtype)
        columns, present = tf.unstack(x, axis=-1), ~tf.math.is_nan(x)
        features = self._features(_filled(x))
        for d, conditional in enumerate(self._conditionals):
            observed = present | (tf.range(self.event_size) < d)
            drawn = conditional.quantile(uniform[:, d], self._params(features, observed, d))
            columns[d] = tf.where(present[:, d], columns[d], drawn)
            features[d] = conditional.features(columns[d])
        return tf.stack(columns, axis=-1)

    def conditional_quantile(self, q, x, column: int) -> tf.Tensor:
        """Return the quantiles `q` `[N]` of one column, given the values of the others in `x` `[N, D]` that are there."""
        return self._conditionals[column].quantile(tf.cast(q, self.dtype), self._given_others(x, column))

    def conditional_cdf(self, x, column: int) -> tf.Tensor:
        """Return the cumulative probability `[N]` of the value in one column, given the others of `x` `[N, D]`."""
        params = self._given_others(x, column)
        return self._conditionals[column].cdf(_filled(tf.convert_to_tensor(x, self.dtype))[:, column], params)

    def conditional_probability(self, x, column: int) -> tf.Tensor:
        """Return the density or probability `[N]` of the value in one column, given the others of `x` `[N, D]`."""
        params = self._given_others(x, column)
        return tf.exp(
            self._conditionals[column].log_prob(_filled(tf.convert_to_tensor(x, self.dtype))[:, column], params)
        )

    def _given_others(self, x, column: int) -> tf.Tensor:
        x = tf.convert_to_tensor(x, self.dtype)
        others = ~tf.math.is_nan(x) & (tf.range(self.event_size) != column)
        return self._params(self._features(_filled(x)), others, column)

    def _sample_n(self, n, seed=None):
        nothing = tf.fill([tf.cast(n, tf.int32), self.event_size], tf.cast(np.nan, self.dtype))
        return self.complete(nothing, tfp.random.sanitize_seed(seed))

    def random_order_nll(self, x, seed) -> tf.Tensor:
        """Return an unbiased estimate of the NLL `[N]` of the values that are there, averaged over all orders.

        Draws an order of the present values and a number of observed ones, and scales the mean term of the others (Uria et al.
        2014, arXiv:1310.1757, eq. 12). Cost: one pass.
        """
        x = tf.convert_to_tensor(x, self.dtype)
        present = ~tf.math.is_nan(x)
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        keys = tf.where(
            present, tf.random.stateless_uniform(tf.shape(x), seeds[0], dtype=x.dtype), tf.cast(2.0, x.dtype)
        )
        rank = tf.reduce_sum(tf.cast(keys[:, tf.newaxis, :] < keys[:, :, tf.newaxis], x.dtype), axis=-1)
        count = tf.reduce_sum(tf.cast(present, x.dtype), axis=-1)
        number = tf.floor(count * tf.random.stateless_uniform(tf.shape(count), seeds[1], dtype=x.dtype))
        observed = present & (rank < number[:, tf.newaxis])
        scored = present & ~observed
        terms = self._terms(x, observed)
        total = tf.reduce_sum(tf.where(scored, terms, tf.zeros_like(terms)), axis=-1)
        return -total * count / tf.maximum(count - number, 1.0)


def _filled(x):
    return tf.where(tf.math.is_nan(x), tf.zeros_like(x), x)
