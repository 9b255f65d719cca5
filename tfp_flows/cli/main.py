"""`tfp-flows fit | sample | score | plot`: a density for a table of numbers, from the shell."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfp_flows import data
from tfp_flows.cli import images
from tfp_flows.cli.output import UsageError, draw, free_folder, load, load_tensorflow, next_name, write_folder
from tfp_flows.cli.recipes import recipe_names
from tfp_flows.cli.tables import Source, fit_default, fit_flow, fit_gaussian, gaussian_nll, warn_of_rows

FLOWS = recipe_names("event_size")
# The default, a flow over a fitted base, and the density that flows are compared with.
TABLE_FLOWS = ("auto", "gaussian")
HELD_OUT = 0.15  # fraction of the rows for the test, and the same again for validation
STEPS = 3200  # approximate number of training steps on images, unless --epochs is given


def load_source(source: str, rows: int, seed: int) -> Source:
    """Return the data that SOURCE names: a built-in density, `faithful`, or a file."""
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
    _check_range(source, table.values, table.columns)
    for name, column in zip(table.columns, table.values.T, strict=True):
        if np.spacing(np.float32(np.max(np.abs(column)))) > 1e-2 * np.std(column):
            raise UsageError(
                f"{source}: column {name!r} varies by {np.std(column):.3g} around {np.mean(column):.6g}, which is too "
                "little to be seen in float32: subtract a constant from it."
            )
    return Source(pathlib.Path(source).stem, table.values, table.columns, None)


def split(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split shuffled rows into training, validation and test rows."""
    order = np.random.default_rng(seed).permutation(len(values))
    held = max(1, round(HELD_OUT * len(values)))
    return values[order[2 * held :]], values[order[held : 2 * held]], values[order[:held]]


def fit(args: argparse.Namespace) -> int:
    """Fit a flow to SOURCE, report its NLL on held-out rows, and write a folder."""
    out = free_folder(args.out, args.overwrite)  # before any work is done
    if args.flow in images.IMAGE_FLOWS:
        out = out or next_name(f"{pathlib.Path(args.source).stem}-{args.flow}")
        return images.fit_images(args, out, HELD_OUT, STEPS)
    source = load_source(args.source, args.rows, args.seed)
    out = out or next_name(f"{source.name}-{args.flow}")
    train, validation, test = split(source.values, args.seed)
    spread = train.max(axis=0) - train.min(axis=0)
    if np.any(spread == 0):
        column = source.columns[int(np.argmin(spread))]
        raise UsageError(f"{args.source}: column {column!r} is constant in the training rows: leave it out.")

    load_tensorflow()
    import keras

    keras.utils.set_random_seed(args.seed)
    warn_of_rows(args.source, train, source.columns)
    fit_model = {"gaussian": fit_gaussian, "auto": fit_default}.get(args.flow, fit_flow)
    model, history = fit_model(args, source, train, validation, len(test))
    scores = -np.asarray(model.log_prob(test), dtype=np.float64)
    fitted = np.concatenate([train, validation]) if args.flow == "auto" else train
    gaussian = gaussian_nll(fitted, test)
    units = float(np.sum(np.log(train.std(axis=0))))  # standardized nats = nats - units
    report: dict[str, Any] = {
        "source": source.name,
        "columns": source.columns,
        "flow": args.flow,
        "seed": args.seed,
        "epochs": len(history["loss"]),
        "held_out_rows": len(test),
        "nll": float(np.mean(scores)),
        "nll_standard_error": float(np.std(scores) / np.sqrt(len(scores))),
        "gaussian_nll": float(np.mean(gaussian)),
        "gain_over_gaussian": float(np.mean(gaussian - scores)),
        "gain_standard_error": float(np.std(gaussian - scores) / np.sqrt(len(scores))),
        "floor": source.density.entropy() if source.density else None,
        "standardized_offset": -units,
        "history": {k: [float(v) for v in vs] for k, vs in history.items()},
    }
    if not np.isfinite(report["nll"]):
        raise FloatingPointError(f"the held-out rows have NLL {report['nll']}: look for outliers among them.")
    _print_report(report)
    write_folder(
        out,
        model,
        report,
        lambda folder: data.write_csv(folder / "held_out.csv", test, report["columns"]),
        lambda path: draw(path, model, report, test),
        args.overwrite,
    )
    print(f"wrote {out}{os.sep}")
    return 0


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


def _columns_of(path: str, table: data.Table, columns: Sequence[str]) -> np.ndarray:
    """Return the values of a file in the order of the flow's columns: by name if the file has names, else by position."""
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
    _check_range(path, values, columns)
    return values


def _check_range(path: str, values: np.ndarray, columns: Sequence[str]) -> None:
    """Raise a `UsageError` for values that overflow in float32, the dtype of the flow."""
    for j, name in enumerate(columns):
        if np.max(np.abs(values[:, j])) > 1e30:
            raise UsageError(f"{path}: column {name!r} holds values beyond 1e30: rescale it.")


def sample(args: argparse.Namespace) -> int:
    """Write samples of a fitted flow to a CSV file, or to a .npy file for images."""
    out = pathlib.Path(args.out)
    if not out.parent.is_dir():
        raise UsageError(f"--out {args.out}: the folder {out.parent} does not exist.")
    model, report = load(args.dir)
    values = model.sample(args.n, seed=args.seed).numpy()
    if "images" in report:
        if out.suffix.lower() != ".npy":
            raise UsageError(f"--out {args.out}: images are written to a .npy file.")
        with open(out, "wb") as file:
            np.save(file, values)
        print(f"wrote {args.n} images to {out}")
        return 0
    data.write_csv(out, values, report["columns"])
    print(f"wrote {args.n} samples of {', '.join(report['columns'])} to {out}")
    return 0


def score(args: argparse.Namespace) -> int:
    """Print the log-density of the rows of a file under a fitted flow."""
    if args.out and not pathlib.Path(args.out).parent.is_dir():
        raise UsageError(f"--out {args.out}: the folder {pathlib.Path(args.out).parent} does not exist.")
    model, report = load(args.dir)
    if "images" in report:
        return images.score_images(args, model, report)
    table = data.read_table(args.file)
    values = _columns_of(args.file, table, report["columns"])
    log_prob = np.asarray(model.log_prob(values), dtype=np.float64)
    worst = int(np.argmin(log_prob))
    error = np.std(log_prob) / np.sqrt(len(log_prob))
    print(f"{len(values)} rows: mean log-likelihood {np.mean(log_prob):.4f} nats (standard error {error:.4f})")
    print(f"least likely: data row {worst + 1}, log-density {log_prob[worst]:.4f}")
    if args.out:
        data.write_csv(args.out, log_prob[:, None], ["log_prob"])
        print(f"wrote the log-density of each row to {args.out}")
    return 0


def plot(args: argparse.Namespace) -> int:
    """Draw the picture of a fitted flow again."""
    model, report = load(args.dir)
    out = pathlib.Path(args.out) if args.out else pathlib.Path(args.dir) / "flow.png"
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"--out {out}: expected a name that ends in .png, .pdf or .svg.")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist.")
    folder = pathlib.Path(args.dir)
    if "images" in report:
        drawn = images.draw_images(out, model, report, images.read_images(str(folder / "held_out.npy")))
    else:
        drawn = draw(out, model, report, data.read_table(folder / "held_out.csv").values)
    if not drawn:
        return 1
    print(f"wrote {out}")
    return 0


def _positive(kind):
    def parse(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be positive, got {text}")
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"must be between 0 and 2**31 - 1, got {text}")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the argument parser of the command line."""
    main_parser = argparse.ArgumentParser(prog="tfp-flows", description="Normalizing flows for tables of numbers.")
    commands = main_parser.add_subparsers(dest="command", required=True)
    number = _positive(int)

    p = commands.add_parser("fit", help="fit a flow, and report how well it describes held-out rows")
    names = ", ".join([*data.densities, "faithful"])
    p.add_argument("source", metavar="SOURCE", help=f"a .csv or .npy file, or one of {names}; for images a .npy file")
    p.add_argument(
        "--flow",
        choices=(*TABLE_FLOWS, *FLOWS, *images.IMAGE_FLOWS),
        default="auto",
        help="which flow (default: auto, autoregressive splines over a base that is fitted to the rows)",
    )
    p.add_argument("--epochs", type=number, help="number of epochs at most (default: by the number of rows)")
    p.add_argument("--batch-size", type=number, default=256, help="rows for each step (default: 256)")
    p.add_argument("--learning-rate", type=_positive(float), help="at the start (default: by the number of rows)")
    p.add_argument("--rows", type=number, default=20000, help="samples to draw of a built-in density (default: 20000)")
    p.add_argument("--seed", type=_seed, default=0, help="seed of data, weights and order (default: 0)")
    p.add_argument("--out", metavar="DIR", help="folder to write (default: SOURCE-FLOW)")
    p.add_argument("--overwrite", action="store_true", help="replace DIR if an earlier fit wrote it")
    p.add_argument("--verbose", type=int, choices=(0, 1, 2), default=1, help="Keras' progress: none, bar or lines")
    p.set_defaults(run=fit)

    p = commands.add_parser("sample", help="draw samples into a CSV file")
    p.add_argument("dir", metavar="DIR")
    p.add_argument("-n", type=number, default=1000, help="number of samples (default: 1000)")
    p.add_argument("--seed", type=_seed, default=0, help="seed (default: 0)")
    p.add_argument("--out", metavar="FILE", required=True, help="CSV file to write; .npy for images")
    p.set_defaults(run=sample)

    p = commands.add_parser("score", help="the log-density of the rows of a file")
    p.add_argument("dir", metavar="DIR")
    p.add_argument("file", metavar="FILE", help=".csv or .npy file with the flow's columns")
    p.add_argument("--out", metavar="FILE", help="CSV file for the log-density of each row")
    p.set_defaults(run=score)

    p = commands.add_parser("plot", help="draw the picture of a fitted flow again")
    p.add_argument("dir", metavar="DIR")
    p.add_argument("--out", metavar="FILE", help="picture to write (default: DIR/flow.png)")
    p.set_defaults(run=plot)
    return main_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 for a failed run, 2 for a usage error."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except (UsageError, data.TableError) as error:
        print(f"tfp-flows: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"tfp-flows: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"tfp-flows: error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 2
