"""`python -m benchmarks dynamics`: flows as transition densities, against the truth and a vector autoregression.

The simulated system has a known transition density; the score is the mean difference of log-densities on a fresh path. The
series of POWER-15k, five columns in the order of time, is divided into its first 80%, 10% for validation, and the last 10% for
the test. It has gaps: no window crosses one. Both models see the same window. The vector autoregression is the least squares
fit with Gaussian noise of full covariance, its order (up to the window) chosen on the validation rows. Errors of means are
those of the means of blocks of 60 successive rows, which are nearly independent where single rows are not.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

RESOLUTION = np.array([0.001, 0.01, 1.0, 1.0, 1.0])  # of the columns of POWER-15k, as in docs/benchmarks.md
BLOCK = 60


def blocks_error(values: np.ndarray) -> float:
    """Standard error of the mean of dependent values."""
    means = [part.mean() for part in np.array_split(values, max(2, len(values) // BLOCK))]
    return float(np.std(means, ddof=1) / np.sqrt(len(means)))


def pairs_of(parts: list[np.ndarray], window: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of `sequence_windows`, as arrays."""
    import tfp_flows as tff

    batches = list(tff.sequence_windows(parts, window, batch_size=8192).as_numpy_iterator())
    return tuple(np.concatenate(side) for side in zip(*batches, strict=True))


def transition_flow(size: int, window: int, train: np.ndarray, seed: int):
    """A spline flow of the next row, given a GRU's state after the window, and the last row itself."""
    import keras

    import tfp_flows as tff

    keras.utils.set_random_seed(seed)
    scale = tff.standardize(train)
    past = keras.Input((window, size))
    code = keras.layers.Concatenate()([keras.layers.GRU(32)(past), past[:, -1]])
    flow = tff.spline_autoregressive(
        size, num_layers=3, num_bins=16, conditional_size=32 + size, preprocess=scale, seed=seed
    )
    return tff.EncodedFlow(flow, keras.Model(past, code), [window, size], preprocess=scale)


def fit(parts: list[np.ndarray], validation: list[np.ndarray], window: int, epochs: int, seed: int):
    import keras

    import tfp_flows as tff

    flow = transition_flow(parts[0].shape[1], window, np.concatenate(parts), seed)
    model = tff.FlowModel(flow)
    data = tff.sequence_windows(parts, window, shuffle=True, seed=seed)
    held_out = tff.sequence_windows(validation, window, batch_size=4096)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * int(data.cardinality()))
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    best = keras.callbacks.EarlyStopping(patience=max(5, epochs // 4), restore_best_weights=True)
    start = time.perf_counter()
    model.fit(data, epochs=epochs, verbose=0, validation_data=held_out, callbacks=[best])
    return model, time.perf_counter() - start


def autoregression(train, validation, size: int, window: int):
    """The best linear Gaussian model of up to `window` rows: order, and a function of log-densities and one of samples."""

    def design(past, order):
        return np.concatenate([np.ones([len(past), 1]), past[:, (window - order) * size :]], axis=1).astype(np.float64)

    best = None
    for order in range(1, window + 1):
        weights, *_ = np.linalg.lstsq(design(train[0], order), train[1], rcond=None)
        covariance = np.cov((train[1] - design(train[0], order) @ weights).T)

        def log_prob(past, y, order=order, weights=weights, covariance=covariance):
            d = y - design(past, order) @ weights
            square = np.sum(d * np.linalg.solve(covariance, d.T).T, axis=1)
            return -0.5 * (square + np.linalg.slogdet(2.0 * np.pi * covariance)[1])

        def sample(past, n, rng, order=order, weights=weights, covariance=covariance):
            return design(past, order) @ weights + rng.multivariate_normal(np.zeros(size), covariance, [n, len(past)])

        score = float(np.mean(log_prob(*validation)))
        if best is None or score > best[0]:
            best = (score, order, log_prob, sample)
    return best[1:]


def power_series(path: str) -> list[list[np.ndarray]]:
    """Training, validation and test parts of POWER-15k, in the order of time; each is a list of runs without a gap."""
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    minute = table[:, 5]
    gaps = np.flatnonzero((np.diff(minute) % 1440) != 1) + 1
    values = table[:, :5] + np.random.default_rng(42).uniform(size=[len(table), 5]) * RESOLUTION
    ends = [int(0.8 * len(values)), int(0.9 * len(values))]
    runs = np.split(values, np.union1d(gaps, ends))
    places = np.concatenate([[0], np.union1d(gaps, ends)])
    return [
        [run for run, place in zip(runs, places, strict=True) if low <= place < high]
        for low, high in zip([0, *ends], [*ends, len(values)], strict=True)
    ]


def power(options: argparse.Namespace, window: int = 8) -> list[dict]:
    from tfp_flows.evaluation.diagnostics import energy_score, probability_integral_transform

    parts = [[run for run in part if len(run) > window] for part in power_series(options.power)]
    train, validation, (past, y) = (pairs_of(part, window) for part in parts)
    model, seconds = fit(parts[0], parts[1], window, options.epochs, seed=1)
    order, linear_log_prob, linear_sample = autoregression(train, validation, 5, window)
    flow_score = np.asarray(model.log_prob(y, conditional_input=past), np.float64)
    linear_score = linear_log_prob(past, y)
    n, rng = 100, np.random.default_rng(3)
    conditions = np.broadcast_to(past, [n, *past.shape]).reshape(-1, past.shape[1])
    drawn = np.concatenate(
        [model.sample(len(c), seed=i, conditional_input=c) for i, c in enumerate(np.array_split(conditions, 20))]
    )
    deviation = np.concatenate(parts[0]).std(axis=0)
    results = []
    for name, score, samples in (
        ("flow", flow_score, drawn.reshape(n, *y.shape)),
        (f"vector autoregression ({order})", linear_score, linear_sample(past, n, rng)),
    ):
        u = probability_integral_transform(samples, y, seed=4)
        distance = np.max([np.max(np.abs(np.sort(c) - (np.arange(len(c)) + 0.5) / len(c))) for c in u.T])
        energy = energy_score(samples / deviation, y / deviation)
        results.append(
            {
                "data": "POWER-15k series",
                "model": name,
                "rows": len(y),
                "log-likelihood": float(score.mean()),
                "error": blocks_error(score),
                "energy score": float(energy.mean()),
                "energy error": blocks_error(energy),
                "largest PIT distance": float(distance),
                "seconds": seconds if name == "flow" else None,
            }
        )
    difference = flow_score - linear_score
    results.append(
        {
            "data": "POWER-15k series",
            "model": "flow less autoregression",
            "rows": len(y),
            "log-likelihood": float(difference.mean()),
            "error": blocks_error(difference),
        }
    )
    return results


def simulated(options: argparse.Namespace, window: int = 4, rows: int = 20_000) -> list[dict]:
    import tfp_flows as tff

    system = tff.data.kicked_oscillator()
    train, validation, test = (system.sample(n, seed=i) for i, n in ((1, rows), (2, rows // 10), (3, rows)))
    model, seconds = fit([train], [validation], window, options.epochs, seed=1)
    past, y = pairs_of([test], window)
    score = np.asarray(model.log_prob(y, conditional_input=past), np.float64)
    truth = system.log_prob(y, past[:, -2:])
    results = [
        {
            "data": system.name,
            "model": name,
            "rows": len(y),
            "log-likelihood": float(v.mean()),
            "error": blocks_error(v),
        }
        for name, v in (("truth", truth), ("flow", score), ("flow less truth", score - truth))
    ]
    results[1]["seconds"] = seconds
    return results


def measure(options: argparse.Namespace) -> list[dict]:
    results = simulated(options)
    if options.power:
        results += power(options)
    else:
        print("without POWER-15k: give its file with --power power_15k.csv.gz")
    return results


def table(results: list[dict]) -> str:
    """Markdown, a line for each model."""
    heads = [
        "data",
        "model",
        "rows",
        "log-likelihood",
        "error",
        "energy score",
        "energy error",
        "largest PIT distance",
        "seconds",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in results:
        cells = [row.get(key) for key in heads]
        cells = ["" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
