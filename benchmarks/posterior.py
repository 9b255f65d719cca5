"""`python -m benchmarks posterior [--cases TASK ...]`: posteriors with known answers.

- `two_moons`, `gaussian_linear`, `gaussian_mixture`, `slcp`: tasks of Lueckmann et al. (2021, arXiv:2101.04653), by
  `NeuralPosterior` from 1000 and 10,000 simulations; mean accuracy of the classifier two-sample test over 5 observations
  against draws from the exact posterior.
- `eight_schools`, `german_credit`, `radon`: real data with published moments (`benchmarks.real_posteriors`).
- `funnel`: Neal's funnel in 101 dimensions, by `tff.mcmc.sample` with a flow that warm-up trains, and without.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks import real_posteriors

SIMULATIONS, OBSERVATIONS, DRAWS = (1000, 10_000), 5, 2000
# Published figures of neural posterior estimation from 1000 and 10,000 simulations.
PUBLISHED = {
    "two_moons": (0.725, 0.606),
    "slcp": (0.975, 0.901),
    "gaussian_mixture": (0.716, 0.615),
    "gaussian_linear": (0.694, 0.552),
}


def _generator(seed) -> np.random.Generator:
    return np.random.default_rng([int(s) for s in seed])


def two_moons():
    """Prior, simulator, and exact posterior draws, by inverting the simulator for random noise."""

    def noise(n, rng):
        angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
        return np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)

    def simulator(theta, seed):
        a, b = np.asarray(theta, np.float64).T
        return noise(len(a), _generator(seed)) + np.stack([-np.abs(a + b), b - a], axis=1) / np.sqrt(2)

    def exact(x, n, rng):
        found = np.zeros([0, 2])
        while len(found) < n:
            gap = (noise(n, rng) - x) * np.sqrt(2)
            total, difference = rng.choice([-1.0, 1.0], n) * gap[:, 0], -gap[:, 1]
            theta = np.stack([total - difference, total + difference], axis=1) / 2
            found = np.concatenate([found, theta[(gap[:, 0] >= 0) & np.all(np.abs(theta) < 1, axis=1)]])
        return found[:n]

    return _box(2, 1.0), simulator, exact


def gaussian_linear():
    """Conjugate: the posterior is normal."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    prior = tfp.distributions.MultivariateNormalDiag(tf.zeros(10), np.sqrt(0.1) * tf.ones(10), name="theta")

    def simulator(theta, seed):
        return np.asarray(theta) + np.sqrt(0.1) * _generator(seed).normal(size=theta.shape)

    return prior, simulator, lambda x, n, rng: x / 2 + np.sqrt(0.05) * rng.normal(size=[n, 10])


def gaussian_mixture():
    """A normal mean with two widths; the exact posterior is truncated to the prior's box by rejection."""

    def simulator(theta, seed):
        rng = _generator(seed)
        scale = np.where(rng.uniform(size=[len(theta), 1]) < 0.5, 1.0, 0.1)
        return np.asarray(theta) + scale * rng.normal(size=theta.shape)

    def exact(x, n, rng):
        found = np.zeros([0, 2])
        while len(found) < n:
            scale = np.where(rng.uniform(size=[n, 1]) < 0.5, 1.0, 0.1)
            theta = x + scale * rng.normal(size=[n, 2])
            found = np.concatenate([found, theta[np.all(np.abs(theta) < 10, axis=1)]])
        return found[:n]

    return _box(2, 10.0), simulator, exact


def slcp():
    """Four draws of a normal distribution whose mean and covariance are functions of five parameters."""

    def parts(theta):
        s = np.square(theta[:, 2:4])
        return theta[:, :2], s, np.tanh(theta[:, 4])

    def simulator(theta, seed):
        mean, s, rho = parts(np.asarray(theta, np.float64))
        e = _generator(seed).normal(size=[len(theta), 4, 2])
        second = rho[:, None] * e[..., 0] + np.sqrt(1 - rho[:, None] ** 2) * e[..., 1]
        x = mean[:, None] + s[:, None] * np.stack([e[..., 0], second], axis=-1)
        return x.reshape(len(theta), 8)

    def log_likelihood(theta, x):
        mean, s, rho = parts(theta)
        s = s + 1e-12
        a, b = np.moveaxis((x.reshape(1, 4, 2) - mean[:, None]) / s[:, None], -1, 0)
        rest = 1 - rho**2 + 1e-12
        square = (a**2 - 2 * rho[:, None] * a * b + b**2).sum(axis=1) / rest
        return -0.5 * square - 4 * (np.log(s).sum(axis=1) + 0.5 * np.log(rest))

    def exact(x, n, rng):
        """Importance resampling, from boxes that hold nearly all of the posterior of the mean, then random-walk steps."""
        center, spread = x.reshape(4, 2).mean(axis=0), x.reshape(4, 2).std(axis=0) + 0.05
        low, high = np.maximum(center - 8 * spread, -3), np.minimum(center + 8 * spread, 3)
        theta, weight = [], []
        for _ in range(20):
            draw = rng.uniform(-3, 3, size=[200_000, 5])
            draw[:, :2] = rng.uniform(low, high, size=[len(draw), 2])
            log_w = log_likelihood(draw, x)
            keep = np.argsort(log_w)[-20_000:]
            theta.append(draw[keep])
            weight.append(log_w[keep])
        theta, weight = np.concatenate(theta), np.concatenate(weight)
        weight = np.exp(weight - weight.max())
        state = theta[rng.choice(len(theta), n, p=weight / weight.sum())]
        value = log_likelihood(state, x)
        scale = np.std(state, axis=0) * 0.3
        for _ in range(500):  # duplicates of the resampling move apart, and the posterior stays invariant
            step = state + scale * rng.choice([0.1, 0.3, 1.0], [n, 1]) * rng.normal(size=state.shape)
            new = np.where(np.all(np.abs(step) < 3, axis=1), log_likelihood(step, x), -np.inf)
            accept = np.log(rng.uniform(size=n)) < new - value
            state, value = np.where(accept[:, None], step, state), np.where(accept, new, value)
        return state

    return _box(5, 3.0), simulator, exact


def _box(size: int, bound: float):
    import tensorflow as tf
    import tensorflow_probability as tfp

    tfd = tfp.distributions
    return tfd.Independent(tfd.Uniform(-bound * tf.ones(size), bound * tf.ones(size)), 1, name="theta")


TASKS = {"two_moons": two_moons, "gaussian_linear": gaussian_linear, "gaussian_mixture": gaussian_mixture, "slcp": slcp}


def estimate(name: str, simulations: int, seed: int) -> dict:
    """Fit one posterior, and compare its draws with exact ones."""
    import tfp_flows as tff

    prior, simulator, exact = TASKS[name]()
    begin = time.perf_counter()
    posterior = tff.NeuralPosterior(prior, simulator, seed=seed)
    posterior.fit(num_simulations=simulations, verbose=0)
    seconds = time.perf_counter() - begin
    _, observations = posterior.simulate(OBSERVATIONS, seed=1000 + seed)
    rng = np.random.default_rng(seed)
    accuracy = [
        tff.calibration.c2st(exact(x, DRAWS, rng), posterior.sample(DRAWS, x, seed=seed), seed=1).accuracy
        for x in observations
    ]
    published = PUBLISHED[name][SIMULATIONS.index(simulations)]
    return {
        "task": name,
        "simulations": simulations,
        "c2st": float(np.mean(accuracy)),
        "published": published,
        "s": seconds,
    }


def funnel(flow, seed: int, num_samples: int) -> dict:
    """Draw from the funnel in 101 dimensions."""
    import tfp_flows as tff

    begin = time.perf_counter()
    result = tff.mcmc.sample(
        tff.data.targets.funnel(101),
        flow,
        num_chains=16,
        num_samples=num_samples,
        num_warmup=175,
        training_steps=4000,
        seed=seed,
    )
    flat = result.values.reshape(-1, 101)
    return {
        "task": "funnel, flow" if flow else "funnel, plain",
        "gradients": sum(result.num_gradients.values()),
        "least ESS": float(np.min(result.ess_bulk)),
        "least tail ESS": float(np.min(result.ess_tail)),
        "largest R-hat": float(np.max(result.rhat)),
        "divergences": result.num_divergences,
        "deviation of z1 (3)": float(np.std(flat[:, 0])),
        "s": time.perf_counter() - begin,
    }


def measure(options) -> list[dict]:
    results = []
    for name in options.cases or [*TASKS, *real_posteriors.MODELS, "funnel"]:
        if name in real_posteriors.MODELS:
            results += real_posteriors.measure(name, options.data)
        elif name == "funnel":
            results += [funnel("train", 1, 150), funnel(None, 1, 150)]
        else:
            results += [estimate(name, simulations, 1) for simulations in SIMULATIONS]
        print(*results[-2:], sep="\n")
    return results


def table(results: list[dict]) -> str:
    """A table for each kind of task."""
    lines = []
    for kind in ("c2st", "gradients", "parameters"):
        rows = [r for r in results if kind in r]
        if rows:
            names = list(rows[0])
            lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
            lines += [
                "| " + " | ".join(r[n] if isinstance(r[n], str) else f"{r[n]:.4g}" for n in names) + " |" for r in rows
            ]
            lines.append("")
    return "\n".join(lines)
