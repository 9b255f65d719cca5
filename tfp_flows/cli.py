"""`tfp-flows fit | sample | score | plot`: a density for a table of numbers, from the shell."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfp_flows import data

if TYPE_CHECKING:
    from tfp_flows.models import FlowModel


class UsageError(Exception):
    """What the user can mend: one line, exit code 2."""


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hides what TensorFlow's C++ code prints while it is imported; Python's exceptions pass."""
    sys.stderr.flush()
    try:
        copy = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(copy, 2)
        os.close(copy)


def _load_tensorflow() -> None:
    """Loads what needs TensorFlow, which takes seconds, once the command line is known to be right."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet_stderr():
        import tensorflow_probability  # noqa: F401

        import tfp_flows.models  # noqa: F401


# The recipes by name: known before TensorFlow is loaded, for `--help` (a test holds them to `flows.RECIPES`).
FLOWS = ("iaf", "maf", "nice", "planar_flow", "real_nvp")
HELD_OUT = 0.15  # of the rows, for the test, and as many again for validation
STEPS = 3200  # of training, about, unless --epochs says otherwise


class Source(NamedTuple):
    """Where the data come from: the rows, and the density they were drawn from, if it is known."""

    name: str
    values: np.ndarray
    columns: list[str]
    density: data.Density | None


def load_source(source: str, rows: int, seed: int) -> Source:
    """The data that SOURCE names: a built-in density, `faithful`, or a file."""
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
    return Source(pathlib.Path(source).stem, table.values, table.columns, None)


def split(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test rows, shuffled."""
    order = np.random.default_rng(seed).permutation(len(values))
    held = max(1, round(HELD_OUT * len(values)))
    return values[order[2 * held :]], values[order[held : 2 * held]], values[order[:held]]


def gaussian_nll(train: np.ndarray, test: np.ndarray) -> float:
    """Mean NLL of `test` under the Gaussian with the mean and full covariance of `train`."""
    size = train.shape[1]
    covariance = np.cov(train, rowvar=False, bias=True).reshape(size, size)
    sign, log_det = np.linalg.slogdet(covariance)
    if sign <= 0:
        return float("nan")  # columns that depend on each other linearly: there is no such density
    d = test - train.mean(axis=0)
    square = np.sum(d * np.linalg.solve(covariance, d.T).T, axis=-1)
    return float(np.mean(0.5 * (square + log_det + size * np.log(2.0 * np.pi))))


def fit(args: argparse.Namespace) -> int:
    """Fits a flow to SOURCE, reports its NLL on held-out rows, and writes a folder."""
    out = _free_folder(args.out, args.overwrite)  # before any work is done
    source = load_source(args.source, args.rows, args.seed)
    out = out or _next_name(f"{source.name}-{args.flow}")
    train, validation, test = split(source.values, args.seed)
    if np.any(train.std(axis=0) == 0):
        column = source.columns[int(np.argmin(train.std(axis=0)))]
        raise UsageError(f"{args.source}: column {column!r} is constant in the training rows: leave it out.")

    _load_tensorflow()
    import keras
    import tensorflow as tf

    from tfp_flows.bijectors import standardize
    from tfp_flows.flows import RECIPES
    from tfp_flows.models import FlowModel

    keras.utils.set_random_seed(args.seed)
    try:
        flow = RECIPES[args.flow](train.shape[1], preprocess=standardize(train), seed=args.seed)
    except ValueError as error:
        raise UsageError(f"{args.source}: {error}") from error
    model = FlowModel(flow, name="flow")
    batch = min(args.batch_size, max(1, len(train) // 4))
    steps = len(train) // batch
    epochs = args.epochs or max(20, min(200, -(-STEPS // steps)))
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, epochs * steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    patience = max(10, epochs // 4)
    print(
        f"{source.name}: {len(train)} rows to train, {len(validation)} to validate, {len(test)} held out; "
        f"{args.flow} with {model.count_params()} weights, up to {epochs} epochs",
        flush=True,
    )
    # Every batch of one size, and validation in one: XLA compiles anew for each size. Each epoch leaves out other rows.
    rows = tf.data.Dataset.from_tensor_slices(train.astype(np.float32))
    rows = rows.shuffle(len(train), seed=args.seed).batch(batch, drop_remainder=True).prefetch(2)
    history = model.fit(
        rows,
        epochs=epochs,
        shuffle=False,
        validation_data=validation,
        validation_batch_size=min(len(validation), 8192),
        callbacks=[keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)],
        verbose=args.verbose,
    )
    scores = -np.asarray(model.log_prob(test), dtype=np.float64)
    units = float(np.sum(np.log(train.std(axis=0))))  # standardized nats = nats - units
    report: dict[str, Any] = {
        "source": source.name,
        "columns": source.columns,
        "flow": args.flow,
        "seed": args.seed,
        "epochs": len(history.history["loss"]),
        "held_out_rows": len(test),
        "nll": float(np.mean(scores)),
        "nll_standard_error": float(np.std(scores) / np.sqrt(len(scores))),
        "gaussian_nll": gaussian_nll(train, test),
        "floor": source.density.entropy() if source.density else None,
        "standardized_offset": -units,
        "history": {k: [float(v) for v in vs] for k, vs in history.history.items()},
    }
    _print_report(report)
    _write_folder(out, model, report, test, args.overwrite)
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
    print(flush=True)


def _next_name(name: str) -> pathlib.Path:
    candidates = [name] + [f"{name}-{i}" for i in range(2, 10000)]
    return next(pathlib.Path(c) for c in candidates if not os.path.lexists(c))


def _free_folder(out: str | None, overwrite: bool) -> pathlib.Path | None:
    if out is None:
        return None
    path = pathlib.Path(out)
    if not path.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {path.parent} does not exist.")
    if os.path.lexists(path):
        if not overwrite:
            raise UsageError(f"--out {out}: exists already. Choose another name, or add --overwrite.")
        if not (path / "report.json").is_file():
            raise UsageError(f"--out {out}: exists, and was not written by tfp-flows, so it is not overwritten.")
    return path


def _write_folder(out: pathlib.Path, model, report: dict, held_out: np.ndarray, overwrite: bool) -> None:
    """Writes everything into a new folder beside `out`, and gives it its name when it is complete."""
    part = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        part.chmod(0o755)
        model.save(part / "flow.keras")
        data.write_csv(part / "held_out.csv", held_out, report["columns"])
        (part / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        _draw(part / "flow.png", model, report, held_out)
        if overwrite and out.exists():
            old = part.with_name(part.name + "-old")
            os.replace(out, old)
            os.replace(part, out)
            shutil.rmtree(old)
        else:
            os.rename(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _draw(path: pathlib.Path, model, report: dict, held_out: np.ndarray) -> bool:
    """Draws the picture of a folder; without matplotlib it says how to get it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture was drawn: it needs matplotlib (pip install 'tfp_flows[plots]')", file=sys.stderr)
        return False
    from tfp_flows import plots

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
    elif len(columns) == 1:
        figure = Figure(figsize=(6, 4), layout="constrained")
        plots.corner(held_out, samples, columns=columns, figure=figure)
    else:
        k = min(len(columns), 8)
        figure = Figure(figsize=(1.9 * k + 1, 1.9 * k + 1), layout="constrained")
        plots.corner(held_out, samples, columns=columns, figure=figure)
    figure.savefig(path, dpi=110)
    return True


def _load(folder: str) -> tuple[FlowModel, dict[str, Any]]:
    path = pathlib.Path(folder)
    missing = [name for name in ("flow.keras", "report.json") if not (path / name).is_file()]
    if missing:
        raise UsageError(f"{folder}: no {' and no '.join(missing)} here; expected a folder that `tfp-flows fit` wrote.")
    _load_tensorflow()
    import keras

    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        report["columns"], report["seed"], report["history"]
        return keras.models.load_model(path / "flow.keras"), report
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]}).") from error


def _columns_of(path: str, table: data.Table, columns: Sequence[str]) -> np.ndarray:
    """The values of a file in the order of the flow's columns: by name where the file has names, else by position."""
    missing = [name for name in columns if name not in table.columns]
    if not missing:
        return table.values[:, [table.columns.index(name) for name in columns]]
    unnamed = table.columns == [f"x{i + 1}" for i in range(len(table.columns))]
    if unnamed and len(table.columns) == len(columns):
        return table.values
    if unnamed:
        raise UsageError(
            f"{path}: has {len(table.columns)} columns, the flow has {len(columns)}: {', '.join(columns)}."
        )
    raise UsageError(f"{path}: has no column named {', '.join(map(repr, missing))}.")


def sample(args: argparse.Namespace) -> int:
    """Draws samples of a fitted flow into a CSV file."""
    out = pathlib.Path(args.out)
    if not out.parent.is_dir():
        raise UsageError(f"--out {args.out}: the folder {out.parent} does not exist.")
    model, report = _load(args.dir)
    values = model.sample(args.n, seed=args.seed).numpy()
    data.write_csv(out, values, report["columns"])
    print(f"wrote {args.n} samples of {', '.join(report['columns'])} to {out}")
    return 0


def score(args: argparse.Namespace) -> int:
    """Prints the log-density of the rows of a file under a fitted flow."""
    if args.out and not pathlib.Path(args.out).parent.is_dir():
        raise UsageError(f"--out {args.out}: the folder {pathlib.Path(args.out).parent} does not exist.")
    table = data.read_table(args.file)
    model, report = _load(args.dir)
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
    """Draws the picture of a fitted flow again."""
    model, report = _load(args.dir)
    held_out = data.read_table(pathlib.Path(args.dir) / "held_out.csv").values
    out = pathlib.Path(args.out) if args.out else pathlib.Path(args.dir) / "flow.png"
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"--out {out}: expected a name that ends in .png, .pdf or .svg.")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist.")
    if not _draw(out, model, report, held_out):
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
    """The command line and its help."""
    main_parser = argparse.ArgumentParser(prog="tfp-flows", description="Normalizing flows for tables of numbers.")
    commands = main_parser.add_subparsers(dest="command", required=True)
    number = _positive(int)

    p = commands.add_parser("fit", help="fit a flow, and report how well it describes held-out rows")
    names = ", ".join([*data.densities, "faithful"])
    p.add_argument("source", metavar="SOURCE", help=f"a .csv or .npy file, or one of {names}")
    p.add_argument("--flow", choices=FLOWS, default="maf", help="which flow (default: maf)")
    p.add_argument("--epochs", type=number, help="number of epochs at most (default: by the number of rows)")
    p.add_argument("--batch-size", type=number, default=256, help="rows for each step (default: 256)")
    p.add_argument("--learning-rate", type=_positive(float), default=3e-3, help="at the start (default: 0.003)")
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
    p.add_argument("--out", metavar="FILE", required=True, help="CSV file to write")
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
    """Runs the command line; returns the exit code: 0, 1 for a failed run, 2 for what the user can mend."""
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


if __name__ == "__main__":
    sys.exit(main())
