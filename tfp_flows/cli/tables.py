"""Flows for tables in `tfp-flows fit`. Loads TensorFlow on first use."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import NamedTuple

import numpy as np

from tfp_flows import data
from tfp_flows.cli.output import UsageError


class Source(NamedTuple):
    """Rows to fit, and the density they were drawn from if it is known."""

    name: str
    values: np.ndarray
    columns: list[str]
    density: data.Density | None


def gaussian_nll(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the NLL of each row of `test` under the Gaussian with the mean and full covariance of `train`."""
    size = train.shape[1]
    covariance = np.cov(train, rowvar=False, bias=True).reshape(size, size)
    sign, log_det = np.linalg.slogdet(covariance)
    if sign <= 0:
        return np.full(len(test), np.nan)  # linearly dependent columns have no density
    d = test - train.mean(axis=0)
    square = np.sum(d * np.linalg.solve(covariance, d.T).T, axis=-1)
    return 0.5 * (square + log_det + size * np.log(2.0 * np.pi))


def warn_of_rows(source: str, train: np.ndarray, columns: list[str]) -> None:
    """Print the warnings of `FlowModel.fit`, one per line."""
    from tfp_flows.training.events import look_at_rows

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look_at_rows(source, train, train.astype(np.float32), scaled=True, columns=columns)
    for warning in caught:
        print(f"tfp-flows: warning: {warning.message}", file=sys.stderr)


def fit_default(args: argparse.Namespace, source: Source, train: np.ndarray, validation: np.ndarray, held_out: int):
    """Fit the default flow; return its model and history."""
    from tfp_flows.training.table import FEW_ROWS, NUM_FOLDS, fit_table

    rows = len(train) + len(validation)
    how = f"{rows} rows in {NUM_FOLDS} folds" if rows < FEW_ROWS else _rows(train, validation)
    print(f"{source.name}: {how}, {held_out} held out; spline_autoregressive over a fitted base", flush=True)
    options = {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": args.learning_rate}
    try:
        return fit_table(train, validation_data=validation, seed=args.seed, verbose=args.verbose, **options)
    except ValueError as error:
        raise UsageError(f"{args.source}: {error}") from error


def fit_flow(args: argparse.Namespace, source: Source, train: np.ndarray, validation: np.ndarray, held_out: int):
    """Train a recipe with early stopping on the validation rows; return its model and history."""
    import keras

    from tfp_flows.bijectors import standardize
    from tfp_flows.recipes.recipe import RECIPES
    from tfp_flows.training import FlowModel
    from tfp_flows.training.table import fit_rows, settings_for

    try:
        flow = RECIPES[args.flow](train.shape[1], preprocess=standardize(train), seed=args.seed)
    except ValueError as error:
        raise UsageError(f"{args.source}: {error}") from error
    model = FlowModel(flow, name="flow")
    settings = settings_for(len(train), args.epochs, args.batch_size, args.learning_rate)
    steps = settings.epochs * (len(train) // settings.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    print(
        f"{source.name}: {_rows(train, validation)}, {held_out} held out; {args.flow} with {model.count_params()} weights, "
        f"up to {settings.epochs} epochs",
        flush=True,
    )
    return model, fit_rows(model, train, validation, settings, args.seed, args.verbose)


def _rows(train: np.ndarray, validation: np.ndarray) -> str:
    return f"{len(train)} rows to train, {len(validation)} to validate"


def fit_gaussian(args: argparse.Namespace, source: Source, train: np.ndarray, validation: np.ndarray, held_out: int):
    """Fit a full-covariance Gaussian; return its model and a history of one epoch."""
    from tfp_flows.destructors import DestructorStack, GaussianDestructor
    from tfp_flows.training import FlowModel

    del args, held_out
    print(f"{source.name}: a full-covariance Gaussian, fitted to {len(train)} rows", flush=True)
    stack = DestructorStack(train.shape[1], GaussianDestructor(), max_layers=1)
    model = FlowModel(stack.fit(train, validation_data=validation, verbose=0), name="flow")
    losses = {"loss": train, "val_loss": validation}
    return model, {key: [-float(np.mean(model.log_prob(rows)))] for key, rows in losses.items()}
