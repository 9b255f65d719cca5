"""Tables with integers, categories or missing values for the commands. They are read and written by pandas."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from tfp_flows import data
from tfp_flows.cli.output import UsageError
from tfp_flows.cli.tables import load_source, split
from tfp_flows.data.frames import pandas

SIGNS = ["#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "None", "n/a", "null", "-NaN", "-nan", "#N/A N/A"]


def is_mixed(args) -> bool:
    """Return whether SOURCE is a CSV file with text or whole numbers, or is fitted in any order.

    Raises:
      TableError: For text in a column of numbers, which is more likely an error than a category.
    """
    path = pathlib.Path(args.source)
    is_file = args.source not in data.densities and path.suffix.lower() == ".csv" and path.is_file()
    if args.any_order:
        if not is_file or args.flow != "auto":
            raise UsageError("--any-order needs a .csv file, and no other --flow than auto.")
        return True
    if not is_file or args.flow != "auto":
        return False
    try:
        table = data.read_table(path)
    except data.TableError as error:
        try:
            frame = read_frame(args.source)
        except (ImportError, UsageError):
            raise error from None
        texts = [frame[name] for name in frame if frame[name].dtype.kind == "O"]
        if not texts or any(pandas().to_numeric(text, errors="coerce").notna().mean() >= 0.5 for text in texts):
            raise
        return True
    if not table.named:
        return False
    try:
        whole = any(dtype.kind in "iu" for dtype in read_frame(args.source).dtypes)
    except ImportError:
        return False
    if whole:
        load_source(args.source, args.rows, args.seed)  # for its checks
    return whole


def read_frame(path: str, columns=None, gaps: bool = False) -> Any:
    """Return a CSV file as a data frame, with text where the columns of a model have it.

    An empty field and `NaN` are missing values. So are the other signs of pandas, such as `NA` and `None`, in columns of
    numbers or flags; in columns of text they are categories. With `gaps`, "?" is a missing value too, unless it is a
    category of the model.
    """
    texts = (
        [c.name for c in columns.columns if c.kind == "category" and isinstance(c.categories[0], str)]
        if columns
        else []
    )
    known = {category for c in columns.columns for category in c.categories} if columns else set()
    missing = [sign for sign in ("", "NaN", "nan", *["?"] * bool(gaps or columns)) if sign not in known]
    options = {"skipinitialspace": True, "na_values": missing, "keep_default_na": False}
    try:
        frame = pandas().read_csv(path, dtype=dict.fromkeys(texts, str), **options)
        return frame.assign(**{name: _without_signs(frame[name]) for name in frame if name not in texts})
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file.") from None
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are among them
        raise UsageError(f"{path}: cannot be read as CSV ({str(error).splitlines()[0]}).") from error


def _without_signs(column: Any) -> Any:
    """Return a column of text as numbers or flags if all else are signs of missing values."""
    if column.dtype.kind != "O":
        return column
    gaps = column.isna() | column.isin(SIGNS)
    rest = column[~gaps]
    if len(rest) == len(column) or not len(rest):
        return column
    numbers = pandas().to_numeric(rest, errors="coerce")
    flags = rest.astype(str).str.lower().map({"true": True, "false": False})
    found = numbers if numbers.notna().all() else flags
    return found.reindex(column.index) if found.notna().all() else column


class MixedTask:
    """The steps of `tfp-flows fit` for a table with columns of every kind, in the order of `cli.main.fit`."""

    def __init__(self, args):
        self.args, self.name, self.columns = args, pathlib.Path(args.source).stem, None
        frame = read_frame(args.source, gaps=args.any_order)
        if len(frame) < 10:
            raise UsageError(f"{args.source}: {len(frame)} rows are too few to hold some out; at least 10 are needed.")
        gaps = frame.isna().sum()
        if gaps.any() and not args.any_order:
            column = gaps.idxmax()
            raise UsageError(
                f"{args.source}: column {column!r} must have a value in each row, got {gaps[column]} missing values, the first "
                f"in data row {int(frame[column].isna().to_numpy().argmax()) + 1}: use --any-order, which learns from the "
                "others, or leave such rows out."
            )
        order = split(np.arange(len(frame)), args.seed)
        self.train, self.validation, self.test = (frame.iloc[rows] for rows in order)
        self.frame, self.train_rows = frame, order[0]

    def fit(self) -> tuple[Any, dict[str, list[float]]]:
        from tfp_flows.tables import Columns, TableDistribution, TableModel
        from tfp_flows.tables.fit import fit_distribution

        args = self.args
        try:
            # Only the categories and the ranges are those of all rows: frequencies of held-out rows would flatter the NLL.
            options = {"missing": args.any_order, "fit_rows": self.train_rows}
            self.columns = Columns.of(self.frame, **options, name=args.source)
            kinds = [column.kind for column in self.columns.columns]
            counts = ", ".join(
                f"{kinds.count(kind)} {kind}" for kind in ("real", "integer", "category") if kind in kinds
            )
            order = "any order" if args.any_order else "the order of the columns"
            sizes = f"{len(self.train)} rows to train, {len(self.validation)} to validate, {len(self.test)} held out"
            print(f"{self.name}: {sizes}; columns: {counts}; conditionals in {order}", flush=True)
            distribution = TableDistribution(self.columns, any_order=args.any_order, seed=args.seed)
            self.independent = -np.mean(TableModel(distribution).log_prob(self.test))  # while it is new
            options = {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": args.learning_rate}
            return fit_distribution(distribution, self.train, self.validation, args.seed, args.verbose, options)
        except ValueError as error:
            raise UsageError(f"{args.source}: {error}") from error

    def report(self, model: Any) -> dict[str, Any]:
        scores = -np.asarray(model.log_prob(self.test), dtype=np.float64)
        if not np.all(np.isfinite(scores)):
            raise FloatingPointError(f"the held-out rows have NLL {np.mean(scores)}: look for outliers among them.")
        return {
            "columns": self.columns.names,
            "kinds": [column.kind for column in self.columns.columns],
            "any_order": self.args.any_order,
            "nll": float(np.mean(scores)),
            "nll_standard_error": float(np.std(scores) / np.sqrt(len(scores))),
            "independent_nll": float(self.independent),
        }

    def print_report(self, report: dict[str, Any]) -> None:
        print(f"\nheld-out NLL in nats, {report['held_out_rows']} rows")
        print(f"  {'model':34s} {report['nll']:12.3f}  (standard error {report['nll_standard_error']:.3f})")
        print(f"  {'independent columns':34s} {report['independent_nll']:12.3f}\n", flush=True)

    def write_held_out(self, folder: pathlib.Path) -> None:
        self.test.to_csv(folder / "held_out.csv", index=False)

    @staticmethod
    def figure(model, report: dict, held_out):
        """Return a plot of each column: held-out rows and samples."""
        from matplotlib.figure import Figure

        samples = model.sample(max(3000, len(held_out)), seed=report["seed"])
        columns = model.table.columns[:16]
        rows = -(-len(columns) // 4)
        figure = Figure(figsize=(14, 2.6 * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, 4)).ravel()
        for ax, column in zip(axes, columns, strict=False):
            both = [held_out[column.name].dropna(), samples[column.name]]
            if column.kind == "category":
                shares = [part.astype(str).value_counts(normalize=True) for part in both]
                names = shares[0].index[:8]
                for k, share in enumerate(shares):
                    ax.barh(np.arange(len(names)) + 0.4 * k, [share.get(name, 0.0) for name in names], height=0.4)
                ax.set_yticks(np.arange(len(names)) + 0.2, [str(name)[:14] for name in names], fontsize=7)
            else:
                both = [part.astype(float) for part in both]
                edges = np.linspace(*np.quantile(both[0], [0.0, 0.995]), 30)
                for part in both:
                    ax.hist(part, bins=edges, density=True, histtype="step")
            ax.set_title(column.name, fontsize=9)
        for ax in axes[len(columns) :]:
            ax.set_axis_off()
        figure.suptitle("held-out rows (blue) and samples (orange)", fontsize=10)
        return figure


def sample_table(args, model) -> tuple[Any, int]:
    """Return samples, or the rows of `--given` with samples of their missing values."""
    if not args.given:
        return model.sample(args.n or 1000, seed=args.seed)
    given = read_frame(args.given, model.table)
    if args.n is not None:
        given = given.loc[given.index.repeat(args.n)]
    try:
        return model.sample(given=given, seed=args.seed)
    except ValueError as error:
        raise UsageError(f"{args.given}: {error}") from error


def score_table(args, model) -> int:
    """Print the log-density of the rows of a file. Write it with the density level, and the level of each value."""
    from tfp_flows.evaluation.levels import density_level

    frame, names = read_frame(args.file, model.table), model.table.names
    try:
        missing = [name for name in names if name not in frame]
        rows = frame if missing else frame[names]  # columns are found by name
        log_prob = np.asarray(model.log_prob(rows), np.float64)
    except ValueError as error:
        raise UsageError(f"{args.file}: {error}") from error
    worst, error = int(np.argmin(log_prob)), np.std(log_prob) / np.sqrt(len(log_prob))
    print(f"{len(rows)} rows: mean log-likelihood {np.mean(log_prob):.4f} nats (standard error {error:.4f})")
    print(f"least likely: data row {worst + 1}, log-density {log_prob[worst]:.4f}")
    if args.out:
        levels = density_level(model, rows, seed=0)
        result = pandas().DataFrame({"log_prob": log_prob, "density_level": levels}, index=rows.index)
        if rows.isna().any(axis=None):
            result["density_level"] = np.where(rows.isna().any(axis=1), np.nan, levels)
            print("rows with missing values have no density level: their log-density is that of fewer columns")
        if model.distribution.any_order:
            result = result.join(model.cdf(rows).add_suffix("_level"))
        result.to_csv(args.out, index=False)
        what = "log-density, density level" + (", level of each value" if model.distribution.any_order else "")
        print(f"wrote {what} of each row to {args.out}")
    return 0
