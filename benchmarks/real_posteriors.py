"""Posteriors of real data with published moments: cases of `python -m benchmarks posterior`.

`inference-gym` (from PyPI) has the moments, with their standard errors. It reads its data sets by `tensorflow_datasets`, which
downloads them. Here the folder `--data` has their original files: `german.data-numeric` (UCI, without a header), and
`srrs2.dat` and `cty.dat` (radon; Gelman and Hill 2007).
"""

from __future__ import annotations

import csv
import importlib
import pathlib
import time

import numpy as np

TRUTHS = {
    "eight_schools": "eight_schools",
    "german_credit": "german_credit_numeric_logistic_regression",
    "radon": "radon_contextual_effects_minnesota",
}


def eight_schools(folder):
    """The centered model of inference_gym."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    del folder
    tfd = tfp.distributions
    effects = tf.constant([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = tf.constant([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    joint = tfd.JointDistributionNamedAutoBatched(
        {
            "avg_effect": tfd.Normal(0.0, 10.0),
            "log_stddev": tfd.Normal(5.0, 1.0),
            "school_effects": lambda log_stddev, avg_effect: tfd.Sample(tfd.Normal(avg_effect, tf.exp(log_stddev)), 8),
            "y": lambda school_effects: tfd.Independent(tfd.Normal(school_effects, errors), 1),
        }
    )
    return joint.experimental_pin(y=effects)


def german_credit(folder):
    """Logistic regression on 24 standardized features and a bias, which is the last weight."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    tfd = tfp.distributions
    rows = np.loadtxt(folder / "german.data-numeric")
    x = (rows[:, :24] - rows[:, :24].mean(axis=0)) / rows[:, :24].std(axis=0)
    x = tf.constant(np.concatenate([x, np.ones([len(x), 1])], axis=1), tf.float32)
    good = tf.constant(rows[:, 24] == 1)  # class 1 of the file is a good credit
    labels = tf.cast(~good, tf.float32)

    def log_likelihood(weights):
        logits = tf.einsum("nd,...d->...n", x, weights)
        return -tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(tf.zeros_like(logits) + labels, logits), axis=-1)

    return tfd.Sample(tfd.Normal(0.0, 1.0), 25, name="weights"), log_likelihood


def _radon_rows(folder):
    """Return log uranium, floor, county, mean floor of the county and log radon of each house in Minnesota."""
    with open(folder / "cty.dat", encoding="utf-8") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
    uranium = {(int(r[0]), int(r[1])): float(r[6]) for r in reversed(lines[1:]) if len(r) > 6}
    with open(folder / "srrs2.dat", encoding="utf-8") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
    rows = [dict(zip(lines[0], line, strict=False)) for line in lines[1:] if line[1] == "MN"]
    floor = np.array([float(r["floor"]) for r in rows])
    radon = np.array([float(r["activity"]) for r in rows])
    _, county = np.unique([r["county"] for r in rows], return_inverse=True)
    log_uranium = np.log([uranium[27, int(r["cntyfips"])] for r in rows])  # 27 is Minnesota
    mean_floor = np.array([floor[county == i].mean() for i in range(county.max() + 1)])
    return log_uranium, floor, county, mean_floor[county], np.log(np.where(radon > 0, radon, 0.1))


def radon(folder):
    """A hierarchical model of 919 houses in 85 counties, with 90 unknown numbers."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    tfd = tfp.distributions
    log_uranium, floor, county, mean_floor, log_radon = _radon_rows(folder)
    features = tf.constant(np.stack([log_uranium, floor, mean_floor]), tf.float32)
    effect = lambda county_effect_mean, county_effect_scale: tfd.Sample(  # noqa: E731
        tfd.Normal(county_effect_mean, county_effect_scale), 85
    )
    joint = tfd.JointDistributionNamedAutoBatched(
        {
            "county_effect_mean": tfd.Normal(0.0, 1.0),
            "county_effect_scale": tfd.Uniform(0.0, 100.0),
            "county_effect": effect,
            "weight": tfd.Sample(tfd.Normal(0.0, 1.0), 3),
            "log_radon_scale": tfd.Uniform(0.0, 100.0),
            "y": lambda county_effect, weight, log_radon_scale: tfd.Independent(
                tfd.Normal(
                    tf.reduce_sum(weight[..., tf.newaxis] * features, axis=-2)
                    + tf.gather(county_effect, county, axis=-1),
                    log_radon_scale[..., tf.newaxis],
                ),
                1,
            ),
        }
    )
    return joint.experimental_pin(y=tf.constant(log_radon, tf.float32))


MODELS = {"eight_schools": eight_schools, "german_credit": german_credit, "radon": radon}


def truth(name: str, labels: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return published means, their standard errors, and deviations, in the order of the labels."""
    module = importlib.import_module(f"inference_gym.targets.ground_truth.{TRUTHS[name]}")
    found = []
    for what in ("MEAN", "MEAN_STANDARD_ERROR", "STANDARD_DEVIATION"):
        column = []
        for part in dict.fromkeys(label.split("[")[0] for label in labels):
            key = f"IDENTITY_{what}" if name == "german_credit" else f"IDENTITY_{part.upper()}_{what}"
            column.append(np.ravel(getattr(module, key)))
        found.append(np.concatenate(column))
    return tuple(found)


def compare(task: str, mean, deviation, error, known, seconds: float, **others) -> dict:
    """Return the largest differences from the published moments: in standard errors, in deviations, and of deviations."""
    center, center_error, width = known
    gap = np.abs(mean - center)
    return {
        "task": task,
        "parameters": len(mean),
        "mean, standard errors": float(np.max(gap / np.hypot(error, center_error))),
        "mean, deviations": float(np.max(gap / width)),
        "deviation, ratio - 1": float(np.max(np.abs(deviation / width - 1))),
        **others,
        "s": seconds,
    }


def measure(name: str, data: str | None) -> list[dict]:
    """Fit a flow by the defaults, and run chains in its coordinates."""
    import keras

    import tfp_flows as tff

    if name != "eight_schools" and not data:
        raise SystemExit(f"{name} needs `--data FOLDER`: see benchmarks/real_posteriors.py")
    pinned = MODELS[name](pathlib.Path(data or "."))
    begin = time.perf_counter()
    model = tff.VariationalFlow.from_model(pinned, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 2000)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    model.fit(steps_per_epoch=500, epochs=4, verbose=0)
    seconds = time.perf_counter() - begin
    target = model.target_log_prob_fn
    known = truth(name, target.labels)
    found = tff.diagnostics.posterior_diagnostics(model.flow, target, num_samples=10_000, seed=1)
    flow = compare(
        f"{name}, flow",
        found.mean,
        found.deviation,
        found.deviation / 100,
        known,
        seconds,
        effective=100 * found.effective_sample_size,
    )
    begin = time.perf_counter()
    chains = tff.mcmc.sample(
        target, model.flow, training_steps=0, num_chains=16, num_samples=500, num_warmup=100, seed=1
    )
    seconds = time.perf_counter() - begin
    rows = chains.values.reshape(-1, len(target.labels))
    deviation = rows.std(axis=0)
    mcmc = compare(
        f"{name}, chains in the flow",
        rows.mean(axis=0),
        deviation,
        deviation / np.sqrt(chains.ess_bulk),
        known,
        seconds,
        effective=float(np.min(chains.ess_bulk)),
    )
    return [flow, mcmc]
