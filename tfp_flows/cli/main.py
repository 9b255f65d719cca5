"""`tfp-flows fit | sample | score | plot`: densities for tables of numbers, or for images, from the shell."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from tfp_flows import data
from tfp_flows.cli import images, mixed, output
from tfp_flows.cli.output import UsageError, load, path_to_write
from tfp_flows.cli.tables import BUILT_IN, FLOWS, TABLE_FLOWS, TableTask, columns_of


def fit(args: argparse.Namespace) -> int:
    """Fit a flow to SOURCE, score held-out rows, and write a folder."""
    out = output.free_folder(args.out, args.overwrite)  # fails before any work is done
    if args.flow in images.IMAGE_FLOWS:
        task = images.ImageTask(args)
    else:
        task = mixed.MixedTask(args) if mixed.is_mixed(args) else TableTask(args)
    out = out or output.next_name(f"{task.name}-{args.flow}")
    output.load_tensorflow()
    import keras

    keras.utils.set_random_seed(args.seed)
    model, history = task.fit()
    report = {"source": task.name, "flow": args.flow, "seed": args.seed, "epochs": len(history["loss"])}
    report |= {"held_out_rows": len(task.test), **task.report(model)}
    report["history"] = {key: [float(value) for value in values] for key, values in history.items()}
    task.print_report(report)
    output.write_folder(out, task, model, report, args.overwrite)
    print(f"wrote {out}{os.sep}")
    return 0


def sample(args: argparse.Namespace) -> int:
    """Write samples of a fitted flow to a file."""
    out = path_to_write(args.out)
    model, report = load(args.dir)
    if "kinds" in report:
        values = mixed.sample_table(args, model)
        values.to_csv(out, index=False)
        print(f"wrote {len(values)} rows of {', '.join(report['columns'])} to {out}")
        return 0
    if args.given:
        raise UsageError(f"--given {args.given}: {args.dir} is not a fit with --any-order, which this needs.")
    args.n = args.n or 1000
    values = model.sample(args.n, seed=args.seed).numpy()
    if "images" in report:
        if out.suffix.lower() != ".npy":
            raise UsageError(f"--out {args.out}: images are written to a .npy file.")
        with open(out, "wb") as file:
            np.save(file, values)
        what = "images"
    else:
        data.write_csv(out, values, report["columns"])
        what = f"samples of {', '.join(report['columns'])}"
    print(f"wrote {args.n} {what} to {out}")
    return 0


def score(args: argparse.Namespace) -> int:
    """Print the log-density of the rows of a file under a fitted flow."""
    if args.out:
        path_to_write(args.out)
    model, report = load(args.dir)
    if "images" in report:
        return images.score_images(args, model, report)
    if "kinds" in report:
        return mixed.score_table(args, model)
    table = data.read_table(args.file)
    values = columns_of(args.file, table, report["columns"])
    log_prob = np.asarray(model.log_prob(values), dtype=np.float64)
    worst = int(np.argmin(log_prob))
    error = np.std(log_prob) / np.sqrt(len(log_prob))
    print(f"{len(values)} rows: mean log-likelihood {np.mean(log_prob):.4f} nats (standard error {error:.4f})")
    print(f"least likely: data row {worst + 1}, log-density {log_prob[worst]:.4f}")
    if args.out:
        from tfp_flows.evaluation.levels import density_level

        columns = np.stack([log_prob, density_level(model, values, seed=0)], axis=1)
        data.write_csv(args.out, columns, ["log_prob", "density_level"])
        print(f"wrote log-density and density level (the p-value of a row) of each row to {args.out}")
    return 0


def plot(args: argparse.Namespace) -> int:
    """Plot a fitted flow again."""
    model, report = load(args.dir)
    folder = pathlib.Path(args.dir)
    out = path_to_write(args.out or folder / "flow.png")
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"--out {out}: expected a name that ends in .png, .pdf or .svg.")
    if "images" in report:
        task, held_out = images.ImageTask, images.read_images(str(folder / "held_out.npy"))
    elif "kinds" in report:
        task, held_out = mixed.MixedTask, mixed.read_frame(str(folder / "held_out.csv"), model.table)
    else:
        task, held_out = TableTask, data.read_table(folder / "held_out.csv").values
    if not output.draw(out, task.figure, model, report, held_out):
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
    """Return the parser of the command line."""
    main_parser = argparse.ArgumentParser(prog="tfp-flows", description="Normalizing flows for tables of numbers.")
    commands = main_parser.add_subparsers(dest="command", required=True)
    number = _positive(int)

    p = commands.add_parser("fit", help="fit a flow, and report how well it describes held-out rows")
    source = f"a .csv or .npy file, or one of {BUILT_IN}; for images a .npy file"
    p.add_argument("source", metavar="SOURCE", help=source)
    flows = (*TABLE_FLOWS, *FLOWS, *images.IMAGE_FLOWS)
    which = "which flow (default: auto, autoregressive splines over a base that is fitted to the rows)"
    p.add_argument("--flow", choices=flows, default="auto", help=which)
    order = "learn all conditional distributions, also from rows with missing values (.csv files)"
    p.add_argument("--any-order", action="store_true", help=order)
    p.add_argument("--epochs", type=number, help="number of epochs at most (default: by the number of rows)")
    rows = "at most this many rows per step (default: 256, and at most a quarter of the rows)"
    p.add_argument("--batch-size", type=number, default=256, help=rows)
    p.add_argument("--learning-rate", type=_positive(float), help="at the start (default: by the number of rows)")
    p.add_argument("--rows", type=number, default=20000, help="samples to draw of a built-in density (default: 20000)")
    p.add_argument("--seed", type=_seed, default=0, help="seed of data, weights and order (default: 0)")
    p.add_argument("--out", metavar="DIR", help="folder to write (default: SOURCE-FLOW)")
    p.add_argument("--overwrite", action="store_true", help="replace DIR if an earlier fit wrote it")
    p.add_argument("--verbose", type=int, choices=(0, 1, 2), default=1, help="Keras' progress: none, bar or lines")
    p.set_defaults(run=fit)

    p = commands.add_parser("sample", help="draw samples into a CSV file")
    p.add_argument("dir", metavar="DIR")
    p.add_argument("-n", type=number, help="number of samples (default: 1000), or of each row of --given (default: 1)")
    given = "CSV file with some of the columns, or missing values, to complete; for fits with --any-order"
    p.add_argument("--given", metavar="FILE", help=given)
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
    """Run the command line. Return the exit code: 0, 1 for a failed run, 2 for a usage error."""
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
