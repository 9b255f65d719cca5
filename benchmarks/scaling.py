"""`python -m benchmarks scaling`: how cost grows with D, layers, width and batch, and what a second worker brings.

Each sweep changes one number of a base case. The exponent is the slope of log time over log size through the three largest
sizes; beside it stands the slope of the floating point operations of the networks over the same sizes.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import process

BASE = {"event_size": 16, "layers": 4, "width": 256, "batch": 1024}
SWEEPS = {
    "event_size": (4, 16, 64, 128, 256),
    "layers": (2, 4, 8, 16),
    "width": (64, 128, 256, 512, 1024),
    "batch": (64, 256, 1024, 4096, 16384),
}
FLOWS = ("real_nvp", "maf")
OPERATIONS = ("log_prob", "train_step", "sample")


def operations(flow: str, event_size: int, layers: int, width: int, batch: int) -> float:
    """Multiplications of the networks in one pass: of a masked network the zeros are multiplied too."""
    half = event_size // 2
    inputs, outputs = (event_size, 2 * event_size) if flow == "maf" else (half, 2 * half)
    return float(batch * layers * (inputs * width + width**2 + width * outputs))


def _least(call, seconds: float = 1.0) -> float:
    """The least time of calls over about so many seconds, after two to warm up."""
    call(), call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def cost(flow: str, event_size: int, layers: int, width: int, batch: int) -> dict[str, float]:
    """Seconds of each operation on `batch` rows."""
    import keras
    import tensorflow as tf

    from tfp_flows.recipes.recipe import RECIPES
    from tfp_flows.training import FlowModel

    keras.utils.set_random_seed(1)
    model = FlowModel(RECIPES[flow](event_size, num_layers=layers, hidden_units=[width, width], seed=1))
    model.compile(optimizer=keras.optimizers.Adam(1e-4))
    x = tf.random.stateless_normal([batch, event_size], seed=(1, 2))
    steps = 8
    data = tf.data.Dataset.from_tensors(x).repeat(steps)
    epochs = lambda: model.fit(data, epochs=1, verbose=0)  # noqa: E731
    return {
        "log_prob": _least(lambda: model.log_prob(x).numpy()),
        "sample": _least(lambda: model.sample(batch, seed=1).numpy()),
        "train_step": _least(epochs) / steps,
    }


def exponent(sizes, values) -> float:
    """Slope of log value over log size through the three largest sizes."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)[0])


WORKER = """
import json, os, sys, time
import tensorflow as tf
threads = int(os.environ["TF_NUM_INTRAOP_THREADS"])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
strategy = tf.distribute.MultiWorkerMirroredStrategy() if "TF_CONFIG" in os.environ else tf.distribute.get_strategy()
import keras, numpy as np
import tfp_flows as tff
width, batch, jit = map(int, sys.argv[1:])
with strategy.scope():
    model = tff.FlowModel(tff.real_nvp(43, num_layers=5, hidden_units=[width, width], seed=1))
    model.compile(optimizer=keras.optimizers.Adam(1e-4), jit_compile=bool(jit))
x = np.random.default_rng(0).normal(size=[16 * batch, 43]).astype("float32")
times = []
for _ in range(3):
    begin = time.perf_counter()
    model.fit(x, batch_size=batch, epochs=1, verbose=0)
    times.append(time.perf_counter() - begin)
print("RESULT", json.dumps({"rows": len(x) / min(times[1:]), "weights": model.count_params()}))
"""


def throughput(workers: int, threads: int, width: int, batch: int, jit: bool = False) -> dict[str, float]:
    """Rows per second of `fit` by so many processes (0: without a strategy) with so many threads each."""
    sockets = [socket.socket() for _ in range(workers)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    running = []
    for index in range(max(1, workers)):
        env = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        env["TF_CPP_MIN_LOG_LEVEL"] = "3"
        if workers:
            task = {"type": "worker", "index": index}
            env["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, "-c", WORKER, str(width), str(batch), str(int(jit))]
        with tempfile.TemporaryFile() as errors:
            running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True))
    lines = [p.communicate(timeout=900)[0].splitlines() for p in running]
    found = [json.loads(line[len("RESULT ") :]) for out in lines for line in out if line.startswith("RESULT ")]
    if len(found) != len(running):
        raise RuntimeError(f"{len(running) - len(found)} of {len(running)} workers failed")
    return found[0]


def measure(options) -> list[dict]:
    results = []
    flows = [flow for flow in FLOWS if not options.cases or flow in options.cases]
    for flow in flows:
        for name, sizes in SWEEPS.items():
            for size in sizes:
                case = {**BASE, name: size}
                found = process.run(
                    "benchmarks.scaling", {"flow": flow, **case}, f"{flow} {name}={size}", options.threads
                )
                if found is not None:
                    results.append(
                        {"flow": flow, "sweep": name, "size": size, "work": operations(flow, **case), **found}
                    )
    if options.cases and "workers" not in options.cases:
        return results
    for width, batch in ((256, 1024), (256, 8192), (1024, 4096)):
        for label, workers, threads, jit in (
            ("1 process, 1 thread", 0, 1, False),
            ("1 process, 1 thread, XLA", 0, 1, True),
            ("1 process, 2 threads", 0, 2, False),
            ("2 workers, 1 thread each", 2, 1, False),
        ):
            found = throughput(workers, threads, width, batch, jit)
            print(f"{label}, width {width}, batch {batch}: {found['rows']:.4g} rows/s", flush=True)
            results.append({"workers": label, "width": width, "batch": batch, **found})
    return results


def table(results: list[dict]) -> str:
    """Times, exponents and throughput."""
    lines = []
    for flow in FLOWS:
        rows = [r for r in results if r.get("flow") == flow]
        if not rows:
            continue
        lines += [
            f"**{flow}**, exponents over the three largest sizes (times in ms of the smallest and the largest):",
            "",
        ]
        lines += ["| | multiplications | " + " | ".join(OPERATIONS) + " |", "|---" * (len(OPERATIONS) + 2) + "|"]
        for name, _ in SWEEPS.items():
            sweep = [r for r in rows if r["sweep"] == name]
            sizes = [r["size"] for r in sweep]
            if len(sizes) < 3:
                continue
            cells = [f"{exponent(sizes, [r['work'] for r in sweep]):.2f}"]
            for key in OPERATIONS:
                times = [r[key] for r in sweep]
                cells.append(f"{exponent(sizes, times):.2f} ({1e3 * times[0]:.3g} to {1e3 * times[-1]:.3g})")
            lines.append(f"| {name} {sizes[0]} to {sizes[-1]} | " + " | ".join(cells) + " |")
        lines.append("")
    rows = [r for r in results if "workers" in r]
    if rows:
        lines += ["Rows per second in `fit`, real_nvp D=43, five layers (ratio to one process with one thread):", ""]
        labels = list(dict.fromkeys(r["workers"] for r in rows))
        lines += ["| | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
        for width, batch in dict.fromkeys((r["width"], r["batch"]) for r in rows):
            found = {r["workers"]: r for r in rows if (r["width"], r["batch"]) == (width, batch)}
            one = found[labels[0]]["rows"]
            cells = [f"{found[k]['rows']:.3g} ({found[k]['rows'] / one:.2f})" for k in labels]
            title = f"[{width}, {width}], batch {batch}, {found[labels[0]]['weights'] / 1e6:.2g} M weights"
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(results: list[dict], path: pathlib.Path) -> None:
    """Time over each size, on logarithmic axes, with the multiplications of the networks as a dotted line."""
    import matplotlib.pyplot as plt

    plot, axes = plt.subplots(len(FLOWS), len(SWEEPS), figsize=(14, 6), layout="constrained", squeeze=False)
    for row, flow in enumerate(FLOWS):
        for column, name in enumerate(SWEEPS):
            sweep = [r for r in results if r.get("flow") == flow and r.get("sweep") == name]
            if not sweep:
                continue
            axis, sizes = axes[row, column], np.array([r["size"] for r in sweep])
            for key in OPERATIONS:
                axis.loglog(sizes, [1e3 * r[key] for r in sweep], "o-", label=key.replace("_", " "))
            work = np.array([r["work"] for r in sweep])
            axis.loglog(sizes, 1e3 * sweep[-1]["log_prob"] * work / work[-1], ":", color="0.5", label="multiplications")
            axis.set_xticks(sizes, [str(n) for n in sizes])
            axis.minorticks_off()
            axis.set(title=f"{flow}: {name.replace('_', ' ')}", xlabel=name.replace("_", " "), ylabel="ms")
    plot.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    plot.savefig(path, dpi=110)
    plt.close(plot)


if __name__ == "__main__":
    print("RESULT " + json.dumps(cost(**json.loads(sys.argv[1]))))
