"""Flows for the tables of the command `tfp-flows fit`. Loads TensorFlow at the first use."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import NamedTuple

import numpy as np

from tfp_flows import data
from tfp_flows.cli.output import UsageError

_STEPS = 3200  # of training, about, unless --epochs says otherwise


class Source(NamedTuple):
    """Rows to fit, and the density that they were drawn from, if it is known."""

    name: str
    values: np.ndarray
    columns: list[str]
    density: data.Density | None


def gaussian_nll(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """NLL of each row of `test` under the Gaussian with the mean and full covariance of `train`."""
    size = train.shape[1]
    covariance = np.cov(train, rowvar=False, bias=True).reshape(size, size)
    sign, log_det = np.linalg.slogdet(covariance)
    if sign <= 0:
        return np.full(len(test), np.nan)  # columns that depend on each other linearly: there is no such density
    d = test - train.mean(axis=0)
    square = np.sum(d * np.linalg.solve(covariance, d.T).T, axis=-1)
    return 0.5 * (square + log_det + size * np.log(2.0 * np.pi))


def warn_of_rows(source: str, train: np.ndarray, columns: list[str]) -> None:
    """Prints, line by line, what `FlowModel.fit` would warn of."""
    from tfp_flows.training.events import look_at_rows

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look_at_rows(source, train, train.astype(np.float32), scaled=True, columns=columns)
    for warning in caught:
        print(f"tfp-flows: warning: {warning.message}", file=sys.stderr)


def fit_flow(args: argparse.Namespace, source: Source, train: np.ndarray, validation: np.ndarray, held_out: int):
    """The default flow or a recipe, trained with early stopping on the validation rows, and its history."""
    import keras
    import tensorflow as tf

    from tfp_flows.bijectors import standardize
    from tfp_flows.recipes import table_flow, table_training
    from tfp_flows.recipes.recipe import RECIPES
    from tfp_flows.training import FlowModel
    from tfp_flows.training.callbacks import EarlyStopping
    from tfp_flows.training.order import without_autotuning

    try:
        if args.flow == "auto":
            flow = table_flow(train, seed=args.seed)
        else:
            flow = RECIPES[args.flow](train.shape[1], preprocess=standardize(train), seed=args.seed)
    except ValueError as error:
        raise UsageError(f"{args.source}: {error}") from error
    model = FlowModel(flow, name="flow")
    settings = table_training(len(train))
    batch = min(args.batch_size, settings.batch_size)
    steps = len(train) // batch
    epochs = args.epochs or max(20, min(200, -(-_STEPS // steps)))
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate or settings.learning_rate, epochs * steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    print(
        f"{source.name}: {len(train)} rows to train, {len(validation)} to validate, {held_out} held out; "
        f"{_title(args.flow)} with {model.count_params()} weights, up to {epochs} epochs",
        flush=True,
    )
    # Every batch of one size, and validation in one. Each epoch leaves out other rows.
    rows = tf.data.Dataset.from_tensor_slices(train.astype(np.float32))
    rows = rows.shuffle(len(train), seed=args.seed).batch(batch, drop_remainder=True)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of the rows, which `warn_of_rows` has told by their columns' names
        history = model.fit(
            without_autotuning(rows.prefetch(2)),
            epochs=epochs,
            shuffle=False,
            validation_data=validation,
            validation_batch_size=min(len(validation), 8192),
            callbacks=[EarlyStopping(validation, patience=max(10, epochs // 4))],
            verbose=args.verbose,
        )
    return model, history.history


def fit_gaussian(args: argparse.Namespace, source: Source, train: np.ndarray, validation: np.ndarray, held_out: int):
    """The Gaussian of full covariance as a model, and a history of one epoch."""
    from tfp_flows.destructors import DestructorStack, GaussianDestructor
    from tfp_flows.training import FlowModel

    del args, held_out
    print(f"{source.name}: a full-covariance Gaussian, fitted to {len(train)} rows", flush=True)
    stack = DestructorStack(train.shape[1], GaussianDestructor(), max_layers=1)
    model = FlowModel(stack.fit(train, validation_data=validation, verbose=0), name="flow")
    losses = {"loss": train, "val_loss": validation}
    return model, {key: [-float(np.mean(model.log_prob(rows)))] for key, rows in losses.items()}


def _title(flow: str) -> str:
    return "spline_autoregressive over a fitted base" if flow == "auto" else flow
