"""Tables of numbers for the commands."""

from __future__ import annotations

import argparse
import pathlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfp_flows import data
from tfp_flows.cli.output import UsageError
from tfp_flows.cli.recipes import recipe_names

FLOWS = recipe_names("event_size")
TABLE_FLOWS = ("auto", "gaussian")  # the default, a flow over a fitted base, and the baseline
BUILT_IN = ", ".join([*data.densities, "faithful"])
HELD_OUT = 0.15  # fraction of the rows for the test, and again for validation


def load_source(source: str, rows: int, seed: int) -> tuple[str, np.ndarray, list[str], data.Density | None]:
    """Return name, rows, columns and density (if known) of a built-in density, `faithful`, or a file."""
    if source in data.densities:
        density = data.densities[source]()
        return source, density.sample(rows, seed=seed).astype(np.float64), ["x1", "x2"], density
    if source == "faithful":
        values, columns = data.faithful()
        return source, values.astype(np.float64), columns, None
    if pathlib.Path(source).suffix.lower() not in (".csv", ".npy"):
        raise UsageError(f"{source}: neither a .csv or .npy file nor one of {BUILT_IN}.")
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
    return pathlib.Path(source).stem, table.values, table.columns, None


def split(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shuffled training, validation and test rows."""
    order = np.random.default_rng(seed).permutation(len(values))
    held = max(1, round(HELD_OUT * len(values)))
    return values[order[2 * held :]], values[order[held : 2 * held]], values[order[:held]]


def gaussian_nll(train: np.ndarray, test: np.ndarray) -> np.ndarray | None:
    """Return the NLL of each row of `test` under the full-covariance Gaussian of `train`, `None` if that has no density."""
    size = train.shape[1]
    covariance = np.cov(train, rowvar=False, bias=True).reshape(size, size)
    sign, log_det = np.linalg.slogdet(covariance)
    if sign <= 0:
        return None  # linearly dependent columns
    d = test - train.mean(axis=0)
    square = np.sum(d * np.linalg.solve(covariance, d.T).T, axis=-1)
    return 0.5 * (square + log_det + size * np.log(2.0 * np.pi))


def warn_of_rows(source: str, train: np.ndarray, columns: list[str]) -> None:
    """Print the warnings of `FlowModel.fit`, one line each."""
    from tfp_flows.training.validation import look_at_rows

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            look_at_rows(source, train, train.astype(np.float32), scaled=True, columns=columns)
        except ValueError as error:
            raise UsageError(str(error)) from error
    for warning in caught:
        print(f"tfp-flows: warning: {warning.message}", file=sys.stderr)


class TableTask:
    """The steps of `tfp-flows fit` for a table, in the order of `cli.main.fit`."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.name, values, self.columns, self.density = load_source(args.source, args.rows, args.seed)
        self.train, self.validation, self.test = split(values, args.seed)
        self.sizes = f"{len(self.train)} rows to train, {len(self.validation)} to validate"
        spread = self.train.max(axis=0) - self.train.min(axis=0)
        if np.any(spread == 0):
            column = self.columns[int(np.argmin(spread))]
            raise UsageError(f"{args.source}: column {column!r} is constant in the training rows: leave it out.")

    def fit(self) -> tuple[Any, dict[str, list[float]]]:
        warn_of_rows(self.args.source, self.train, self.columns)
        fit = {"gaussian": self._fit_gaussian, "auto": self._fit_default}.get(self.args.flow, self._fit_recipe)
        return fit()

    def _fit_default(self):
        from tfp_flows.tables.fit import FEW_ROWS, NUM_FOLDS, fit_table

        args, rows = self.args, len(self.train) + len(self.validation)
        how = f"{rows} rows in {NUM_FOLDS} folds" if rows < FEW_ROWS else self.sizes
        print(f"{self.name}: {how}, {len(self.test)} held out; spline_autoregressive over a fitted base", flush=True)
        options = {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": args.learning_rate}
        options |= {"validation_data": self.validation, "seed": args.seed, "verbose": args.verbose}
        try:
            return fit_table(self.train, **options)
        except ValueError as error:
            raise UsageError(f"{args.source}: {error}") from error

    def _fit_recipe(self):
        from tfp_flows.bijectors import standardize
        from tfp_flows.recipes.recipe import RECIPES
        from tfp_flows.recipes.table import settings_for
        from tfp_flows.tables.fit import compile_for, fit_rows
        from tfp_flows.training import FlowModel

        args, train = self.args, self.train
        try:
            flow = RECIPES[args.flow](train.shape[1], preprocess=standardize(train), seed=args.seed)
        except ValueError as error:
            raise UsageError(f"{args.source}: {error}") from error
        model = FlowModel(flow, name="flow")
        settings = settings_for(len(train), args.epochs, args.batch_size, args.learning_rate)
        compile_for(model, settings, len(train))
        what = f"{args.flow} with {model.count_params()} weights, up to {settings.epochs} epochs"
        print(f"{self.name}: {self.sizes}, {len(self.test)} held out; {what}", flush=True)
        return model, fit_rows(model, train, self.validation, settings, args.seed, args.verbose)

    def _fit_gaussian(self):
        from tfp_flows.destructors import DestructorStack, GaussianDestructor
        from tfp_flows.training import FlowModel

        print(f"{self.name}: a full-covariance Gaussian, fitted to {len(self.train)} rows", flush=True)
        stack = DestructorStack(self.train.shape[1], GaussianDestructor(), max_layers=1)
        model = FlowModel(stack.fit(self.train, validation_data=self.validation, verbose=0), name="flow")
        losses = {"loss": self.train, "val_loss": self.validation}
        return model, {key: [-float(np.mean(model.log_prob(rows)))] for key, rows in losses.items()}

    def report(self, model: Any) -> dict[str, Any]:
        scores = -np.asarray(model.log_prob(self.test), dtype=np.float64)
        fitted = np.concatenate([self.train, self.validation]) if self.args.flow == "auto" else self.train
        gaussian = gaussian_nll(fitted, self.test)
        gain = None if gaussian is None else gaussian - scores
        if not np.all(np.isfinite(scores)):
            raise FloatingPointError(f"the held-out rows have NLL {np.mean(scores)}: look for outliers among them.")
        return {
            "columns": self.columns,
            "nll": float(np.mean(scores)),
            "nll_standard_error": float(np.std(scores) / np.sqrt(len(scores))),
            "gaussian_nll": None if gain is None else float(np.mean(gaussian)),
            "gain_over_gaussian": None if gain is None else float(np.mean(gain)),
            "gain_standard_error": None if gain is None else float(np.std(gain) / np.sqrt(len(scores))),
            "floor": self.density.entropy() if self.density else None,
            # The NLL of standardized rows is lower by the log of the deviations.
            "standardized_offset": -float(np.sum(np.log(self.train.std(axis=0)))),
        }

    def print_report(self, report: dict[str, Any]) -> None:
        offset = report["standardized_offset"]
        print(f"\nheld-out NLL in nats, {report['held_out_rows']} rows    data's units   standardized")
        error = f"  (standard error {report['nll_standard_error']:.3f})"
        rows = [(f"flow ({report['flow']})", report["nll"], error)]
        rows.append(("full-covariance Gaussian", report["gaussian_nll"], ""))
        if report["floor"] is not None:
            rows.append(("floor (entropy of the density)", report["floor"], ""))
        for label, value, note in rows:
            if value is None:
                print(f"  {label:34s} {'none':>12s}  (its covariance is singular: columns depend on each other)")
            else:
                print(f"  {label:34s} {value:12.3f} {value + offset:14.3f}{note}")
        if report["floor"] is not None:
            print(f"  {'flow above the floor':34s} {report['nll'] - report['floor']:12.3f}")
        gain, error = report["gain_over_gaussian"], report["gain_standard_error"]
        if report["flow"] != "gaussian" and gain is not None and gain < error:
            verdict = "is worse than" if gain < -error else "is no better than"
            print(
                f"\nThe flow {verdict} a Gaussian on these rows (by {-gain:.3f} nats, standard error {error:.3f}): "
                "`--flow gaussian` fits that, which is simpler."
            )
        print(flush=True)

    def write_held_out(self, folder: pathlib.Path) -> None:
        data.write_csv(folder / "held_out.csv", self.test, self.columns)

    @staticmethod
    def figure(model, report: dict, held_out: np.ndarray):
        """Return a plot of held-out rows and samples, for two columns with the density and the history."""
        from matplotlib.figure import Figure

        from tfp_flows.evaluation import plots

        samples = model.sample(max(3000, len(held_out)), seed=report["seed"]).numpy()
        columns = report["columns"]
        if len(columns) == 2:
            figure = Figure(figsize=(12, 8), layout="constrained")
            axes = figure.subplots(2, 2)
            plots.data_and_samples(held_out, samples, columns=columns, axes=axes[0])
            axes[0, 0].set_title(f"held-out data ({min(len(held_out), 3000)})")
            plots.density(model, held_out, columns=columns, ax=axes[1, 0])
            axes[1, 0].set_title(f"density of the flow, held-out data: {report['nll']:.3f} nats")
            plots.history(report["history"], floor=report["floor"], ax=axes[1, 1])
        else:
            k = min(len(columns), 8)
            figure = Figure(figsize=(6, 4) if k == 1 else (1.9 * k + 1, 1.9 * k + 1), layout="constrained")
            plots.corner(held_out, samples, columns=columns, figure=figure)
        return figure


def columns_of(path: str, table: data.Table, columns: Sequence[str]) -> np.ndarray:
    """Return the values of a file in the order of the flow's columns, by name if the file has names, else by position."""
    if table.named:
        missing = [name for name in columns if name not in table.columns]
        if missing:
            raise UsageError(f"{path}: has no column named {', '.join(map(repr, missing))}.")
    elif len(table.columns) != len(columns):
        names = ", ".join(columns)
        raise UsageError(f"{path}: has {len(table.columns)} columns, the flow has {len(columns)}: {names}.")
    values = table.values[:, [table.columns.index(name) for name in columns]] if table.named else table.values
    check_range(path, values, columns)
    return values


def check_range(path: str, values: np.ndarray, columns: Sequence[str]) -> None:
    """Raise a `UsageError` for values that are too large for float32."""
    for j, name in enumerate(columns):
        if np.max(np.abs(values[:, j])) > 1e30:
            raise UsageError(f"{path}: column {name!r} holds values beyond 1e30: rescale it.")
