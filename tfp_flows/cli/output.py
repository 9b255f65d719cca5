"""The folder that `tfp-flows fit` writes and the other commands read."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tfp_flows.training import FlowModel

WRITTEN = {"flow.keras", "report.json", "held_out.csv", "held_out.npy", "flow.png"}  # all files that `fit` writes


class UsageError(Exception):
    """Usage error: a one-line message, exit code 2."""


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hide output of TensorFlow's C++ code during import. Python's exceptions are raised."""
    sys.stderr.flush()
    try:
        copy = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(copy, 2)
        os.close(copy)


def load_tensorflow() -> None:
    """Import TensorFlow, which takes seconds, after the checks of the command line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet_stderr():
        import tensorflow_probability  # noqa: F401

        import tfp_flows.tables  # noqa: F401


def next_name(name: str) -> pathlib.Path:
    """Return `name`, or the first of `name-2`, `name-3`, ... that does not exist."""
    candidates = [name] + [f"{name}-{i}" for i in range(2, 10000)]
    return next(pathlib.Path(c) for c in candidates if not os.path.lexists(c))


def path_to_write(out: str) -> pathlib.Path:
    """Return `--out` as a path, whose folder must exist."""
    path = pathlib.Path(out)
    if not path.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {path.parent} does not exist.")
    return path


def free_folder(out: str | None, overwrite: bool) -> pathlib.Path | None:
    """Check `--out` before any work is done. An existing folder is only replaced if it holds nothing but the files of `fit`."""
    if out is None:
        return None
    path = path_to_write(out)
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--out {out}: no permission to write into {path.parent}.")
    if os.path.lexists(path):
        if not overwrite:
            raise UsageError(f"--out {out}: exists already. Choose another name, or add --overwrite.")
        names = set(os.listdir(path)) if path.is_dir() else set()
        if not {"flow.keras", "report.json"} <= names:
            raise UsageError(f"--out {out}: exists, and was not written by tfp-flows, so it is not overwritten.")
        if names - WRITTEN:
            others = ", ".join(sorted(names - WRITTEN))
            raise UsageError(f"--out {out}: holds other files too ({others}), so it is not overwritten.")
    return path


def write_folder(out: pathlib.Path, task, model, report: dict, overwrite: bool) -> None:
    """Write the folder of a task atomically: model, report, held-out data and plot."""
    part = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        part.chmod(0o755)
        model.save(part / "flow.keras")
        task.write_held_out(part)
        (part / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        try:
            draw(part / "flow.png", task.figure, model, report, task.test)
        except Exception as error:  # a failed plot must not lose the trained model
            print(f"no picture was drawn: {error}", file=sys.stderr)
        old = part.with_name(part.name + "-old")
        if overwrite and out.exists():
            os.rename(out, old)
        os.rename(part, out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def draw(path: pathlib.Path, figure: Callable, model, report: dict, held_out: np.ndarray) -> bool:
    """Plot a fitted flow to a file by `figure(model, report, held_out)`. Return whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("no picture was drawn: it needs matplotlib (pip install 'tfp_flows[plots]')", file=sys.stderr)
        return False
    figure(model, report, held_out).savefig(path, dpi=110)
    return True


def load(folder: str) -> tuple[FlowModel, dict[str, Any]]:
    """Return the model and the report of a folder."""
    path = pathlib.Path(folder)
    missing = [name for name in ("flow.keras", "report.json") if not (path / name).is_file()]
    if missing:
        raise UsageError(f"{folder}: no {' and no '.join(missing)} here; expected a folder that `tfp-flows fit` wrote.")
    load_tensorflow()
    import keras

    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        report["columns"], report["seed"], report["history"]
        return keras.models.load_model(path / "flow.keras"), report
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]}).") from error
