"""`python -m benchmarks first`: the waits of a first minute, each in a process of its own.

- From the start of a process to the end of the first epoch (2000 rows, batches of 100), imports included, and the first
  step of a second model of the same architecture, for each library. `--cases maf-2` chooses the flow.
- The first training step of each recipe at its default sizes, on two columns.
- `tfp-flows fit moons`, from the shell to the picture.
- Memory of a process after the first and the twentieth fit of a new model: `FlowModel`, `VariationalFlow`, `FlowVAE`.

`--cases` may also name `recipes`, `moons` or `memory`. By default, everything is measured.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.libraries import CASES, LIBRARIES, Case, chosen_libraries
from benchmarks.process import run
from tfp_flows.cli.recipes import recipe_names

EPOCH_ROWS, BATCH, FITS = 2000, 100, 20
KINDS = ("FlowModel", "VariationalFlow", "FlowVAE")
PARTS = ("recipes", "moons", "memory")


def first_epoch(library: str, case: Case, started: float) -> dict[str, float]:
    """Seconds from `started` to the end of the first epoch, then of the first step of a second model."""
    importlib.import_module(LIBRARIES[library][0])
    x = np.random.default_rng(0).normal(size=[EPOCH_ROWS, case.event_size]).astype(np.float32)
    LIBRARIES[library][1](case).fit(x, EPOCH_ROWS // BATCH, BATCH)
    epoch = time.time() - started
    second = LIBRARIES[library][1](case)
    begin = time.perf_counter()
    second.fit(x[:BATCH], 1, BATCH)
    return {"first_epoch": epoch, "second_model": time.perf_counter() - begin}


def first_step(recipe: str) -> dict[str, float]:
    """Seconds of the first `fit` of one batch, without imports and construction."""
    import keras

    import tfp_flows as tff

    x = tff.data.moons().sample(256, seed=0)
    model = tff.FlowModel(getattr(tff, recipe)(2, seed=1))
    model.compile(optimizer=keras.optimizers.Adam(1e-3, global_clipnorm=1.0))
    begin = time.perf_counter()
    model.fit(x, batch_size=256, epochs=1, verbose=0)
    return {"first_step": time.perf_counter() - begin}


def memory(kind: str) -> dict[str, float]:
    """Megabytes of the process after the first and the last fit of a new model."""
    import keras
    import tensorflow as tf

    import tfp_flows as tff

    x = tff.data.moons().sample(2000, seed=0)
    used = []
    for seed in range(FITS):
        if kind == "VariationalFlow":
            model = tff.VariationalFlow(tff.planar_flow(2, num_layers=32, seed=seed), tff.data.targets.u1(), seed=seed)
            data = {"steps_per_epoch": 20}
        elif kind == "FlowVAE":
            layers = keras.layers
            encoder = keras.Sequential([keras.Input((2,)), layers.Dense(32, "relu")])
            decoder = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
            posterior = tff.iaf(2, num_layers=2, conditional_size=32, seed=seed)
            model = tff.FlowVAE(encoder, decoder, latent_size=2, posterior=posterior, likelihood=_normal)
            data = {"x": x, "batch_size": BATCH}
        else:
            model, data = tff.FlowModel(tff.maf(2, seed=seed)), {"x": x, "batch_size": BATCH}
        model.compile(optimizer=keras.optimizers.Adam(1e-3))
        model.fit(**data, epochs=1, verbose=0)
        del model
        gc.collect()
        tf.keras.backend.clear_session()
        used.append(_resident())
    return {
        "first_mb": used[0],
        "last_mb": used[-1],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _normal(mean):
    import tensorflow_probability as tfp

    return tfp.distributions.MultivariateNormalDiag(mean, 0.1 * np.ones(2, np.float32))


def _resident() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def moons() -> float:
    """Seconds of `tfp-flows fit moons`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tfp_flows.cli", "fit", "moons", "--verbose", "0", "--out", f"{folder}/out"]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return time.perf_counter() - begin


def measure(options) -> list[dict]:
    """Return the measurements, medians over `options.repetitions`."""
    chosen = options.cases or [*CASES, *PARTS]
    results = []

    def repeat(label: str, facts: dict, once) -> None:
        runs = [r for r in (once() for _ in range(options.repetitions)) if r is not None]
        if runs:
            medians = {key: float(np.median([r[key] for r in runs])) for key in runs[0]}
            results.append({"case": label, **facts, **medians})

    def child(task: dict, label: str):
        return run("benchmarks.first", {**task, "started": time.time()}, label, options.threads)

    for name in (n for n in chosen if n in CASES):
        case = CASES[name]
        for library in chosen_libraries(options.libraries):
            task = {"library": library, "case": vars(case)}
            repeat(case.title, {"library": library}, lambda task=task, library=library: child(task, library))
    for recipe in recipe_names("event_size") if "recipes" in chosen else ():
        repeat("recipes", {"recipe": recipe}, lambda recipe=recipe: child({"recipe": recipe}, recipe))
    for kind in KINDS if "memory" in chosen else ():
        repeat("memory", {"model": kind}, lambda kind=kind: child({"memory": kind}, kind))
    if "moons" in chosen:
        repeat("moons", {}, lambda: {"seconds": moons()})
    return results


def tables(results: list[dict]) -> str:
    """Return the results as tables of Markdown."""
    titles = {
        "first_epoch": "start of the process to the first epoch, s",
        "second_model": "first step of a second model, s",
        "first_step": "first training step, s",
        "first_mb": "after the first fit, MB",
        "last_mb": f"after {FITS} fits, MB",
        "peak_mb": "peak, MB",
        "seconds": "`tfp-flows fit moons`, s",
    }
    lines = []
    for case in dict.fromkeys(r["case"] for r in results):
        rows = [r for r in results if r["case"] == case]
        numbers = [key for key in titles if key in rows[0]]
        lines += [f"**{case}**:", "", "| | " + " | ".join(titles[key] for key in numbers) + " |"]
        lines += ["|---" * (1 + len(numbers)) + "|"]
        for r in rows:
            label = r.get("library") or r.get("recipe") or r.get("model") or ""
            lines += [f"| {label} | " + " | ".join(f"{r[key]:.3g}" for key in numbers) + " |"]
        lines += [""]
    return "\n".join(lines)


def main() -> None:
    task = json.loads(sys.argv[1])
    if "recipe" in task:
        result = first_step(task["recipe"])
    elif "memory" in task:
        result = memory(task["memory"])
    else:
        case = Case(**{**task["case"], "hidden_units": tuple(task["case"]["hidden_units"])})
        result = first_epoch(task["library"], case, task["started"])
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
