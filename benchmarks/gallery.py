"""`python -m benchmarks gallery`: every recipe for vectors on the same eight densities, in one figure.

Each is fitted to 10,000 rows with its default sizes, 2000 steps of batch 256 (continuous flows: 1000 of 512), Adam from 3e-3
with a cosine schedule and the global norm clipped to 1, in a process of its own; RBIG is fitted without gradients. The row
`flow_matching` is a continuous flow of three hidden layers with Fourier features, matched in 5000 steps of 500 from 1e-2, with
an average of the weights (factor 0.999). The NLL is that of 20,000 fresh rows, the floor the entropy. A result that is already
in the output folder is not computed again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time

import numpy as np

from benchmarks.process import run
from tfp_flows.cli.recipes import recipe_names

DENSITIES = ("moons", "circles", "banana", "eight_gaussians", "pinwheel", "checkerboard", "two_spirals", "swiss_roll")
ROWS, TEST_ROWS, TIMED_ROWS, BATCH = 10_000, 20_000, 10_000, 256
PIXELS = 90
COLUMNS = ("mean", "parameters", "fitting, s", "density, ms", "sampling, ms")


def recipes() -> list[str]:
    """Those for vectors, `rbig`, and `flow_matching`: a continuous flow that is trained without solving its equation."""
    return [*recipe_names("event_size"), "rbig", "flow_matching"]


def limits(density) -> tuple[float, float, float, float]:
    x = density.sample(5000, seed=11)
    low, high = x.min(axis=0), x.max(axis=0)
    pad = 0.1 * (high - low)
    return low[0] - pad[0], high[0] + pad[0], low[1] - pad[1], high[1] + pad[1]


def fit(recipe: str, density_name: str, steps: int) -> dict:
    """One flow on one density."""
    import keras

    import tfp_flows as tff

    keras.utils.set_random_seed(1)
    density = tff.data.densities[density_name]()
    x, test = density.sample(ROWS, seed=1), density.sample(TEST_ROWS, seed=2)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    if recipe == "flow_matching":
        flow, model = match(x)
    elif recipe == "rbig":
        flow = tff.rbig(2, seed=1).fit(x, verbose=0)
        model = tff.FlowModel(flow)
    else:
        flow = getattr(tff, recipe)(2, preprocess=tff.standardize(x), seed=1)
        model = tff.FlowModel(flow)
        model.adapt(x)
        batch, steps = (2 * BATCH, steps // 2) if recipe == "continuous_flow" else (BATCH, steps)
        rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
        model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
        per_epoch = ROWS // batch
        model.fit(x, batch_size=batch, epochs=-(-steps // per_epoch), steps_per_epoch=per_epoch, verbose=0)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    left, right, low, high = limits(density)
    axes = np.meshgrid(np.linspace(left, right, PIXELS), np.linspace(low, high, PIXELS))
    grid = np.stack(axes, axis=-1).reshape(-1, 2).astype(np.float32)
    nll = -np.asarray(model.log_prob(test), np.float64)
    timed = test[:TIMED_ROWS]
    return {
        "recipe": recipe,
        "density": density_name,
        "nll": float(nll.mean()),
        "error": float(nll.std() / np.sqrt(len(nll))),
        "floor": float(density.entropy()),
        "parameters": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "density_ms": milliseconds(lambda: model.log_prob(timed)),
        "sampling_ms": milliseconds(lambda: model.sample(TIMED_ROWS, seed=1)),
        "picture": np.exp(np.asarray(model.log_prob(grid), np.float64)).round(4).tolist(),
    }


def match(x: np.ndarray, steps: int = 5000, batch: int = 500):
    """A continuous flow and its model after flow matching."""
    import keras
    import tensorflow as tf

    import tfp_flows as tff

    options = {"hidden_units": [64, 64, 64], "activation": "silu", "num_frequencies": 3}
    flow = tff.continuous_flow(2, preprocess=tff.standardize(x), seed=1, **options)
    model = tff.FlowMatchingModel(flow, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0, use_ema=True, ema_momentum=0.999))
    # Long epochs: each has an overhead of about 20 of these steps.
    rows = tf.data.Dataset.from_tensor_slices(x.astype(np.float32)).shuffle(len(x), seed=1).repeat().batch(batch)
    model.fit(rows, epochs=steps // 1000, steps_per_epoch=1000, verbose=0)
    return flow, model


def milliseconds(call, repetitions: int = 7) -> float:
    """The median of several calls after the first, which compiles."""
    taken = []
    for _ in range(1 + repetitions):
        begin = time.perf_counter()
        np.asarray(call())
        taken.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(taken[1:]))


def measure(options: argparse.Namespace) -> list[dict]:
    unknown = sorted(set(options.cases or []) - set(recipes()))
    if unknown:
        raise SystemExit(f"--cases: no recipe {', '.join(unknown)}; there are {', '.join(recipes())}")
    folder = options.output / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for recipe in recipes():
        for density in DENSITIES:
            path = folder / f"{recipe}-{density}.json"
            if not path.exists():
                if options.cases and recipe not in options.cases:
                    continue
                task = {"recipe": recipe, "density_name": density, "steps": 2000, "path": str(path)}
                if run("benchmarks.gallery", task, f"{recipe}, {density}", options.threads) is None:
                    continue
            results.append(json.loads(path.read_text(encoding="utf-8")))
    return results


def table(results: list[dict]) -> str:
    """Markdown: nats above the floor for each density, their mean, and medians of parameters, seconds, and milliseconds."""
    names = list(dict.fromkeys(r["density"] for r in results))
    lines = [
        "| | " + " | ".join(n.replace("_", " ") for n in [*names, *COLUMNS]) + " |",
        "|---" * (len(names) + len(COLUMNS) + 1) + "|",
    ]
    lines.append(
        "| floor | " + " | ".join(f"{_of(results, None, n)['floor']:.2f}" for n in names) + " |" * (len(COLUMNS) + 1)
    )
    for recipe in dict.fromkeys(r["recipe"] for r in results):
        rows = [_of(results, recipe, n) for n in names]
        above = [r["nll"] - r["floor"] if r else np.nan for r in rows]
        found = [r for r in rows if r]
        cells = ["" if np.isnan(a) else f"{a:.2f}" for a in above]
        cells += [f"{np.nanmean(above):.2f}"]
        cells += [
            f"{np.median([r[key] for r in found]):.0f}"
            for key in ("parameters", "seconds", "density_ms", "sampling_ms")
        ]
        lines.append(f"| `{recipe}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _of(results: list[dict], recipe: str | None, density: str) -> dict | None:
    return next((r for r in results if r["density"] == density and recipe in (None, r["recipe"])), None)


def figure(results: list[dict], path: pathlib.Path) -> None:
    """The truth in the first row, then a row for each recipe."""
    from matplotlib.figure import Figure
    from PIL import Image

    from tfp_flows.data import densities

    names = list(dict.fromkeys(r["density"] for r in results))
    rows = [None, *dict.fromkeys(r["recipe"] for r in results)]
    drawn = Figure(figsize=(1.55 * len(names) + 0.6, 1.72 * len(rows)), layout="constrained")
    axes = drawn.subplots(len(rows), len(names), squeeze=False)
    for j, name in enumerate(names):
        density = densities[name]()
        left, right, low, high = limits(density)
        grid = np.stack(np.meshgrid(np.linspace(left, right, PIXELS), np.linspace(low, high, PIXELS)), axis=-1)
        truth = np.exp(density.log_prob(grid.reshape(-1, 2))).reshape(PIXELS, PIXELS)
        for i, recipe in enumerate(rows):
            ax = axes[i, j]
            ax.set_xticks([])
            ax.set_yticks([])
            found = None if recipe is None else _of(results, recipe, name)
            if recipe is not None and found is None:
                ax.axis("off")
                continue
            picture = truth if found is None else np.reshape(found["picture"], [PIXELS, PIXELS])
            ax.imshow(picture, origin="lower", cmap="Blues", vmin=0.0, vmax=truth.max(), aspect="auto")
            title = name.replace("_", " ") if found is None else f"+{found['nll'] - found['floor']:.2f}"
            ax.set_title(title, fontsize=8, pad=2)
            if j == 0:
                ax.set_ylabel("truth" if recipe is None else recipe.replace("_", "\n"), fontsize=8)
    drawn.savefig(path, dpi=90)
    with Image.open(path) as image:
        # The colours are few: a quarter of the bytes.
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    path = pathlib.Path(task.pop("path"))
    result = fit(**task)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(path)
    print("RESULT", json.dumps({key: value for key, value in result.items() if key != "picture"}))
