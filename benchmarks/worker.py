"""Measures one library on one case, in a process of its own: `python -m benchmarks.worker '{...}'` prints JSON."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.libraries import LIBRARIES, Case

ROWS = {"train_step": 100, "log_prob": 10_000, "sample": 1_000, "eager_log_prob": 100}
ROWS_INVERSE = {"log_prob": 1_000, "sample": 10_000}  # an IAF is the mirror image of a MAF


def timed(function, *args, at_least: float = 2.0, most: int = 30) -> tuple[float, float]:
    """Seconds of the first call, and the median of those after it: three or more, for about two seconds."""
    times = []
    begin = time.perf_counter()
    while len(times) < 4 or (time.perf_counter() - begin < at_least and len(times) < most):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
        if len(times) == 2 and times[1] > 20.0:  # a call that takes long need not be repeated
            break
    return times[0], float(np.median(times[1:]))


def speed(library: str, case: Case) -> dict[str, float]:
    flow = LIBRARIES[library][1](case)
    x = np.random.default_rng(0).normal(size=[10_000, case.event_size]).astype(np.float32)
    result = {}
    for operation, rows in (ROWS_INVERSE if case.flow == "iaf" else ROWS).items():
        argument = rows if operation == "sample" else x[:rows]
        result[f"{operation} first"], result[operation] = timed(getattr(flow, operation), argument)
    # Kilobytes on Linux; the peak of the whole process, library included.
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return result


def quality(library: str, case: Case, data: dict[str, np.ndarray], batch_size: int) -> dict[str, float]:
    """Test log-likelihood after training, and the seconds it took, from building the flow and with all compilation."""
    importlib.import_module(LIBRARIES[library][0])
    if library.startswith("tfp_flows"):
        importlib.import_module("tfp_flows.training")
    start = time.perf_counter()
    flow = LIBRARIES[library][1](case)
    flow.fit(data["train"], case.steps, batch_size)
    seconds = time.perf_counter() - start
    test = np.concatenate([flow.log_prob(part) for part in np.array_split(data["test"], 10)])
    return {"seconds": seconds, "test": float(np.mean(test)), "error": float(np.std(test) / np.sqrt(len(test)))}


def main() -> None:
    task = json.loads(sys.argv[1])
    case = Case(**{**task["case"], "hidden_units": tuple(task["case"]["hidden_units"])})
    if task["data"] is None:
        result = speed(task["library"], case)
    else:
        with np.load(task["data"]) as data:
            result = quality(task["library"], case, dict(data), task["batch_size"])
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
