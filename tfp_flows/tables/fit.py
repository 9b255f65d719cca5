"""`fit_table`: the default flow for a table, trained in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import Standardize, Support
from tfp_flows.data.arrays import column_names, to_array
from tfp_flows.data.degenerate import find_degenerate
from tfp_flows.data.frames import check_names, is_frame
from tfp_flows.distribution import FlowDistribution
from tfp_flows.recipes.table import TableTraining, adapt_table_flow, settings_for, table_flow
from tfp_flows.seeds import resolve_seed, split_seed
from tfp_flows.tables.columns import Columns
from tfp_flows.tables.distribution import TableDistribution
from tfp_flows.tables.model import TableModel
from tfp_flows.training.batch_order import without_autotuning
from tfp_flows.training.callbacks import EarlyStopping
from tfp_flows.training.flow_model import FlowModel

NUM_FOLDS = 5
FEW_ROWS = 1000  # below, a single validation set picks by chance


class TableFit(NamedTuple):
    """A trained model, and its losses in nats by epoch; with folds, the epochs of all folds in turn."""

    model: FlowModel
    history: dict[str, list[float]]


def fit_table(
    x,
    *,
    any_order: bool = False,
    support="real",
    kinds: Mapping[str, str] | None = None,
    validation_data=None,
    seed: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    verbose: int | str = 0,
) -> TableFit:
    """Fit the default model for a table, with the settings of `table_training`. Return the model and its history.

    For real columns this is a `FlowModel` over `table_flow`. For a data frame with integers, text, flags or categories,
    and with `any_order` or `kinds`, it is a `TableModel`, which is described there. Data frames go in and come out of both.

    Training stops early, by held-out rows. The untrained flow, a full-covariance Gaussian or a Student t, counts as an
    epoch. Below 1000 rows, a single validation set would pick by chance. Five flows are then trained from the same
    start, each with another fifth held out and stopped at its best epoch, and their weights are averaged. (A
    `TableModel` is trained once.)

    Args:
      x: Rows `[N, D]`, at least 10: array or data frame.
      any_order: Whether to learn the conditional distributions for all sets of observed columns. Rows may then have
        missing values.
      support: Support of the columns: one entry for all, a list with one for each, a dictionary by column name, or a
        `Support` (see there).
      kinds: Dictionary of `"real"` or `"integer"` by column name, for numbers whose dtype does not tell their kind. Without
        it, floating-point columns of whole numbers with missing values are integers (see `Columns`).
      validation_data: Rows for early stopping; 15 % of `x` if `None`. Below 1000 rows in all, they are added to `x`.
      seed: Integer seed of the weights and of the choice of rows.
      epochs: Maximal number of epochs; that of `table_training` if `None`.
      batch_size: Rows in a step; that of `table_training` if `None`, and never more.
      learning_rate: Initial learning rate of Adam, with a cosine decay; that of `table_training` if `None`.
      verbose: Verbosity of `keras.Model.fit`.

    Raises:
      ValueError: If `x` has another shape, too few rows, or a column that cannot be modeled; the message names the column.

    Example:
      >>> x = tff.data.moons().sample(120, seed=1)
      >>> model, history = tff.fit_table(x, seed=1, epochs=2)
      >>> model.log_prob(x).shape
      TensorShape([120])
    """
    if any_order or kinds or _is_mixed(x):
        options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        options |= {"support": support, "kinds": kinds}
        return _fit_columns(x, validation_data, any_order, resolve_seed(seed), verbose, **options)
    options = {"validation_data": validation_data, "epochs": epochs, "batch_size": batch_size}
    return _fit_numbers(x, support, resolve_seed(seed), verbose, learning_rate=learning_rate, **options)


def _fit_numbers(x, support, seed: int, verbose, *, validation_data, epochs, batch_size, learning_rate) -> TableFit:
    """Fit a `FlowModel` over `table_flow`."""
    frame, names = x, column_names(x)
    support = support_by_position(names or (np.shape(x)[1] if np.ndim(x) == 2 else 0), support)
    if names is not None and is_frame(validation_data):
        check_names("validation_data", column_names(validation_data), names)
    x = to_array("x", x)
    if x.ndim != 2 or len(x) < 10:
        raise ValueError(f"`x` must have shape [N, D] with at least 10 rows, got {list(x.shape)}.")
    support = Support.of(support, x.shape[1], tf.float32)
    support.check("x", x, names)
    rng = np.random.default_rng(split_seed(seed, 2)[1])
    if validation_data is None and len(x) >= FEW_ROWS:
        order, count = rng.permutation(len(x)), round(0.15 * len(x))
        x, validation_data = x[order[count:]], x[order[:count]]
    held = None if validation_data is None else to_array("validation_data", validation_data)
    if held is not None and (held.ndim != 2 or held.shape[1] != x.shape[1] or not len(held)):
        raise ValueError(f"`validation_data` must have shape [N, {x.shape[1]}], got {list(held.shape)}.")
    rows = x if held is None else np.concatenate([x, held])
    few = len(rows) < FEW_ROWS
    parts = (np.arange(len(rows)) % NUM_FOLDS)[rng.permutation(len(rows))]
    fitted = len(rows) - int(np.max(np.bincount(parts))) if few else len(x)
    settings = settings_for(fitted, epochs, batch_size, learning_rate)
    flow = table_flow(rows if few else x, support=support, seed=seed)
    model = FlowModel(flow, name="flow")
    model._remember_columns((names, None), frame)
    compile_for(model, settings, fitted)
    if not few:
        return TableFit(model, fit_rows(model, x, held, settings, seed, verbose))
    return TableFit(model, _fit_in_folds(model, flow, rows, parts, settings, seed, verbose))


def _is_mixed(x: Any) -> bool:
    """Return whether `x` is a data frame with a column that is not of real numbers."""
    return is_frame(x) and any(getattr(dtype, "kind", "O") != "f" for dtype in x.dtypes)


def support_by_position(names: list[str] | int, support: Any) -> Any:
    """Return a support that is given by column name as a list. `names` may be the number of columns `x1`, `x2`, ...

    Raises:
      ValueError: If there is no such column.
    """
    if not isinstance(support, Mapping):
        return support
    names = [f"x{j + 1}" for j in range(names)] if isinstance(names, int) else names
    support = {str(key): entry for key, entry in support.items()}
    if unknown := [key for key in support if key not in names]:
        raise ValueError(f"`support` has a column {unknown[0]!r}, expected {', '.join(map(repr, names))}.")
    return [support.get(key, "real") for key in names]


def _fit_columns(x, held, any_order: bool, seed: int, verbose, *, support, kinds, **options) -> TableFit:
    """Fit a `TableModel`."""
    count = len(x) if hasattr(x, "__len__") else 0
    if count < 10:
        raise ValueError(f"`x` must have shape [N, D] with at least 10 rows, got {count}.")
    order, size = np.random.default_rng(split_seed(seed, 2)[1]).permutation(count), round(0.15 * count)
    fit_rows = order[size:] if held is None else None
    columns = Columns.of(x, support=support, missing=any_order, kinds=kinds, fit_rows=fit_rows)
    rows = columns.encode(x, missing=any_order)
    _warn_of_columns(columns, rows)
    if held is None:
        rows, held = rows[order[size:]], rows[order[:size]]
    else:
        held = columns.encode(held, missing=any_order, name="validation_data")
    distribution = TableDistribution(columns, any_order=any_order, seed=seed)
    return _fit_encoded(distribution, rows, held, seed, verbose, options)


def _warn_of_columns(columns: Columns, rows: np.ndarray) -> None:
    """Warn if no density can be fitted to the real columns."""
    real = [j for j, column in enumerate(columns.columns) if column.kind == "real"]
    present = rows[:, real][~np.isnan(rows[:, real]).any(axis=1)]
    if real and len(present) > 1:
        for finding in find_degenerate(present, [columns.names[j] for j in real]):
            warnings.warn(f"`x`: {finding}.", stacklevel=4)


def fit_distribution(distribution: TableDistribution, x, held, seed: int, verbose, options: dict) -> TableFit:
    """Fit a `TableModel` of a new distribution to rows, with early stopping by the rows `held`."""
    columns, missing = distribution.columns, distribution.any_order
    rows, held = columns.encode(x, missing=missing), columns.encode(held, missing=missing, name="validation_data")
    _warn_of_columns(columns, rows)
    return _fit_encoded(distribution, rows, held, seed, verbose, options)


def _fit_encoded(distribution: TableDistribution, rows, held, seed: int, verbose, options: dict) -> TableFit:
    settings = settings_for(len(rows), **options)
    model = TableModel(distribution, seed=seed, name="table")
    compile_for(model, settings, len(rows))
    return TableFit(model, fit_rows(model, rows, held, settings, seed, verbose))


def compile_for(model: FlowModel, settings: TableTraining, rows: int) -> None:
    """Compile a model for `fit_rows` with Adam, a cosine decay and clipped gradients."""
    steps = settings.epochs * (rows // settings.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))


def fit_rows(
    model: FlowModel, x: np.ndarray, validation: np.ndarray, settings: TableTraining, seed: int, verbose
) -> dict[str, list[float]]:
    """Train a compiled model with early stopping by validation rows. Return the losses by epoch."""
    if isinstance(model, TableModel):  # rows are encoded
        held = tf.data.Dataset.from_tensor_slices(validation.astype(np.float32)).batch(min(len(validation), 8192))
        options = {"validation_data": held}
    else:
        held = validation
        options = {"validation_data": held, "validation_batch_size": min(len(validation), 8192)}
    rows = tf.data.Dataset.from_tensor_slices(x.astype(np.float32))
    rows = rows.shuffle(len(x), seed=seed % 2**31).batch(settings.batch_size, drop_remainder=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about these rows, which are only a part of the table
        history = model.fit(
            without_autotuning(rows.prefetch(2)),
            epochs=settings.epochs,
            shuffle=False,
            **options,
            callbacks=[EarlyStopping(held, patience=settings.patience)],
            verbose=verbose,
        )
    return history.history


def _fit_in_folds(model, flow: FlowDistribution, rows, parts, settings, seed, verbose) -> dict[str, list[float]]:
    weights = list(model.trainable_weights)
    start = [w.numpy() for w in weights]
    sums = [np.zeros(w.shape, np.float64) for w in start]
    history: dict[str, list[float]] = {}
    standardize = next(layer for layer in flow.bijector.bijectors if isinstance(layer, (Standardize, Support)))

    def begin(fitted):
        for weight, value in zip(weights, start, strict=True):
            weight.assign(value)
        for variable in model.optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        standardize.adapt(fitted)
        adapt_table_flow(flow, fitted)

    for k in range(NUM_FOLDS):
        begin(rows[parts != k])
        for key, values in fit_rows(model, rows[parts != k], rows[parts == k], settings, seed + k, verbose).items():
            history.setdefault(key, []).extend(values)
        sums = [total + w.numpy() for total, w in zip(sums, weights, strict=True)]
    begin(rows)
    for weight, total in zip(weights, sums, strict=True):
        weight.assign(total / NUM_FOLDS)
    return history
