"""Tables of numbers for the commands."""

from __future__ import annotations

import argparse
import pathlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfp_flows import data
from tfp_flows.cli.output import UsageError, draw
from tfp_flows.cli.recipes import recipe_names

FLOWS = recipe_names("event_size")
# The default, a flow over a fitted base, and the baseline.
TABLE_FLOWS = ("auto", "gaussian")
HELD_OUT = 0.15  # fraction of the rows for the test, and again for validation


class Source(NamedTuple):
    """Rows to fit, and their density if it is known."""

    name: str
    values: np.ndarray
    columns: list[str]
    density: data.Density | None


def load_source(source: str, rows: int, seed: int) -> Source:
    """Return the data of a built-in density, `faithful`, or a file."""
    if source in data.densities:
        density = data.densities[source]()
        return Source(source, density.sample(rows, seed=seed).astype(np.float64), ["x1", "x2"], density)
    if source == "faithful":
        values, columns = data.faithful()
        return Source(source, values.astype(np.float64), columns, None)
    if pathlib.Path(source).suffix.lower() not in (".csv", ".npy"):
        names = ", ".join([*data.densities, "faithful"])
        raise UsageError(f"{source}: neither a .csv or .npy file nor one of {names}.")
    table = data.read_table(source)
    data.check_trainable(source, table)
    if len(table.values) < 10:
        raise UsageError(f"{source}: {len(table.values)} rows are too few to hold some out; at least 10 are needed.")
    check_range(source, table.values, table.columns)
    for name, column in zip(table.columns, table.values.T, strict=True):
        if np.spacing(np.float32(np.max(np.abs(column)))) > 1e-2 * np.std(column):
            raise UsageError(
                f"{source}: column {name!r} varies by {np.std(column):.3g} around {np.mean(column):.6g}, which is too "
                "little to be seen in float32: subtract a constant from it."
            )
    return Source(pathlib.Path(source).stem, table.values, table.columns, None)


def split(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shuffled training, validation and test rows."""
    order = np.random.default_rng(seed).permutation(len(values))
    held = max(1, round(HELD_OUT * len(values)))
    return values[order[2 * held :]], values[order[held : 2 * held]], values[order[:held]]


def gaussian_nll(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the NLL of each row of `test` under the full-covariance Gaussian of `train`."""
    size = train.shape[1]
    covariance = np.cov(train, rowvar=False, bias=True).reshape(size, size)
    sign, log_det = np.linalg.slogdet(covariance)
    if sign <= 0:
        return np.full(len(test), np.nan)  # linearly dependent columns have no density
    d = test - train.mean(axis=0)
    square = np.sum(d * np.linalg.solve(covariance, d.T).T, axis=-1)
    return 0.5 * (square + log_det + size * np.log(2.0 * np.pi))


def warn_of_rows(source: str, train: np.ndarray, columns: list[str]) -> None:
    """Print the warnings of `FlowModel.fit`, one line each."""
    from tfp_flows.training.validation import look_at_rows

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look_at_rows(source, train, train.astype(np.float32), scaled=True, columns=columns)
    for warning in caught:
        print(f"tfp-flows: warning: {warning.message}", file=sys.stderr)


class TableTask:
    """The steps of `tfp-flows fit` for a table, in the order of `cli.main.fit`."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.source = load_source(args.source, args.rows, args.seed)
        self.name = self.source.name
        self.train, self.validation, self.test = split(self.source.values, args.seed)
        spread = self.train.max(axis=0) - self.train.min(axis=0)
        if np.any(spread == 0):
            column = self.source.columns[int(np.argmin(spread))]
            raise UsageError(f"{args.source}: column {column!r} is constant in the training rows: leave it out.")

    def fit(self) -> tuple[Any, dict[str, list[float]]]:
        warn_of_rows(self.args.source, self.train, self.source.columns)
        fit_model = {"gaussian": fit_gaussian, "auto": fit_default}.get(self.args.flow, fit_flow)
        return fit_model(self.args, self.source, self.train, self.validation, len(self.test))

    def report(self, model: Any) -> dict[str, Any]:
        scores = -np.asarray(model.log_prob(self.test), dtype=np.float64)
        fitted = np.concatenate([self.train, self.validation]) if self.args.flow == "auto" else self.train
        gaussian = gaussian_nll(fitted, self.test)
        if not np.all(np.isfinite(scores)):
            raise FloatingPointError(f"the held-out rows have NLL {np.mean(scores)}: look for outliers among them.")
        return {
            "columns": self.source.columns,
            "nll": float(np.mean(scores)),
            "nll_standard_error": float(np.std(scores) / np.sqrt(len(scores))),
            "gaussian_nll": float(np.mean(gaussian)),
            "gain_over_gaussian": float(np.mean(gaussian - scores)),
            "gain_standard_error": float(np.std(gaussian - scores) / np.sqrt(len(scores))),
            "floor": self.source.density.entropy() if self.source.density else None,
            # The NLL of standardized rows is lower by the log of the deviations.
            "standardized_offset": -float(np.sum(np.log(self.train.std(axis=0)))),
        }

    def print_report(self, report: dict[str, Any]) -> None:
        _print_report(report)

    def write_held_out(self, folder: pathlib.Path) -> None:
        data.write_csv(folder / "held_out.csv", self.test, self.source.columns)

    def draw(self, path: pathlib.Path, model: Any, report: dict[str, Any]) -> None:
        draw(path, model, report, self.test)


def _print_report(report: dict[str, Any]) -> None:
    offset = report["standardized_offset"]
    print(f"\nheld-out NLL in nats, {report['held_out_rows']} rows    data's units   standardized")
    error = f"  (standard error {report['nll_standard_error']:.3f})"
    rows = [(f"flow ({report['flow']})", report["nll"], error)]
    rows.append(("full-covariance Gaussian", report["gaussian_nll"], ""))
    if report["floor"] is not None:
        rows.append(("floor (entropy of the density)", report["floor"], ""))
    for label, value, note in rows:
        print(f"  {label:34s} {value:12.3f} {value + offset:14.3f}{note}")
    if report["floor"] is not None:
        print(f"  {'flow above the floor':34s} {report['nll'] - report['floor']:12.3f}")
    gain, error = report["gain_over_gaussian"], report["gain_standard_error"]
    if report["flow"] != "gaussian" and gain < error:
        verdict = "is worse than" if gain < -error else "is no better than"
        print(
            f"\nThe flow {verdict} a Gaussian on these rows (by {-gain:.3f} nats, standard error {error:.3f}): "
            "`--flow gaussian` fits that, which is simpler."
        )
    print(flush=True)


def columns_of(path: str, table: data.Table, columns: Sequence[str]) -> np.ndarray:
    """Return the values of a file in the order of the flow's columns, by name if the file has names, else by position."""
    if table.named:
        missing = [name for name in columns if name not in table.columns]
        if missing:
            raise UsageError(f"{path}: has no column named {', '.join(map(repr, missing))}.")
        values = table.values[:, [table.columns.index(name) for name in columns]]
    elif len(table.columns) == len(columns):
        values = table.values
    else:
        raise UsageError(
            f"{path}: has {len(table.columns)} columns, the flow has {len(columns)}: {', '.join(columns)}."
        )
    check_range(path, values, columns)
    return values


def check_range(path: str, values: np.ndarray, columns: Sequence[str]) -> None:
    """Raise a `UsageError` for values that are too large for float32."""
    for j, name in enumerate(columns):
        if np.max(np.abs(values[:, j])) > 1e30:
            raise UsageError(f"{path}: column {name!r} holds values beyond 1e30: rescale it.")


def fit_default(args: argparse.Namespace, source: Source, train: np.ndarray, validation: np.ndarray, held_out: int):
    """Return the default flow and its history."""
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
    """Return a recipe's flow, trained with early stopping on the validation rows, and its history."""
    from tfp_flows.bijectors import standardize
    from tfp_flows.recipes.recipe import RECIPES
    from tfp_flows.recipes.table import settings_for
    from tfp_flows.training import FlowModel
    from tfp_flows.training.table import compile_for, fit_rows

    try:
        flow = RECIPES[args.flow](train.shape[1], preprocess=standardize(train), seed=args.seed)
    except ValueError as error:
        raise UsageError(f"{args.source}: {error}") from error
    model = FlowModel(flow, name="flow")
    settings = settings_for(len(train), args.epochs, args.batch_size, args.learning_rate)
    compile_for(model, settings, len(train))
    print(
        f"{source.name}: {_rows(train, validation)}, {held_out} held out; {args.flow} with {model.count_params()} weights, "
        f"up to {settings.epochs} epochs",
        flush=True,
    )
    return model, fit_rows(model, train, validation, settings, args.seed, args.verbose)


def _rows(train: np.ndarray, validation: np.ndarray) -> str:
    return f"{len(train)} rows to train, {len(validation)} to validate"


def fit_gaussian(args: argparse.Namespace, source: Source, train: np.ndarray, validation: np.ndarray, held_out: int):
    """Return the full-covariance Gaussian as a model, and a history of one epoch."""
    from tfp_flows.destructors import DestructorStack, GaussianDestructor
    from tfp_flows.training import FlowModel

    del args, held_out
    print(f"{source.name}: a full-covariance Gaussian, fitted to {len(train)} rows", flush=True)
    stack = DestructorStack(train.shape[1], GaussianDestructor(), max_layers=1)
    model = FlowModel(stack.fit(train, validation_data=validation, verbose=0), name="flow")
    losses = {"loss": train, "val_loss": validation}
    return model, {key: [-float(np.mean(model.log_prob(rows)))] for key, rows in losses.items()}
