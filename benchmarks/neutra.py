"""`python -m benchmarks neutra`: Hamiltonian Monte Carlo on Neal's funnel, plain and preconditioned by an IAF.

Both chains have the same number of leapfrog steps; each adapts its step size by dual averaging. The figure is the least
effective sample size over the dimensions (of the values and of their squares, over all chains), for each gradient.
"""

from __future__ import annotations

import time

import numpy as np

CHAINS, RESULTS, BURN_IN, LEAPFROG = 32, 1000, 1000, 8


def fit_flow(event_size: int, steps: int, seed: int):
    """An IAF, fitted to the funnel by reverse KL."""
    import keras

    import tfp_flows as tff

    flow = tff.iaf(event_size, num_layers=3, hidden_units=[64, 64], base="trainable", seed=seed)
    model = tff.VariationalFlow(
        flow,
        tff.data.targets.funnel(event_size),
        sample_size=512,
        beta=tff.linear_annealing(0.1, 1.0, steps // 3),
        seed=seed,
    )
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(steps_per_epoch=steps, epochs=1, verbose=0)
    return flow


def run_chain(target, bijector, base, seed: int):
    """Draws `[results, chains, D]`, the acceptance rate, and seconds."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    mcmc = tfp.mcmc
    kernel = mcmc.HamiltonianMonteCarlo(target.log_prob, step_size=0.1, num_leapfrog_steps=LEAPFROG)
    kernel = mcmc.DualAveragingStepSizeAdaptation(kernel, int(0.8 * BURN_IN), target_accept_prob=0.8)
    start = base.sample(CHAINS, seed=(seed, 0))
    if bijector is not None:
        kernel = mcmc.TransformedTransitionKernel(kernel, bijector=bijector)
        start = bijector.forward(start)

    def accepted(_, results):
        results = results.inner_results if bijector is None else results.inner_results.inner_results
        return results.is_accepted

    @tf.function(jit_compile=True)
    def run():
        return mcmc.sample_chain(
            RESULTS, start, kernel=kernel, num_burnin_steps=BURN_IN, seed=(seed, 1), trace_fn=accepted
        )

    begin = time.perf_counter()
    draws, accept = run()
    return draws.numpy(), float(np.mean(accept)), time.perf_counter() - begin


def measure(options) -> list[dict]:
    import tensorflow as tf
    import tensorflow_probability as tfp

    import tfp_flows as tff

    size = 10
    target = tff.data.targets.funnel(size)
    results = []
    for seed in range(1, options.repetitions + 1):
        begin = time.perf_counter()
        flow = fit_flow(size, options.steps, seed)
        fitting = time.perf_counter() - begin
        found = tff.diagnostics.importance_diagnostics(flow, target, seed=seed)
        for name, bijector, base in (
            ("plain", None, tfp.distributions.MultivariateNormalDiag(tf.zeros(size), tf.ones(size))),
            ("NeuTra", flow.bijector, flow.distribution),
        ):
            draws, accept, seconds = run_chain(target, bijector, base, seed)
            ess = [
                tfp.mcmc.effective_sample_size(tf.constant(values), cross_chain_dims=1).numpy().min()
                for values in (draws, draws**2)
            ]
            row = {
                "kernel": name,
                "seed": seed,
                "ess": float(min(ess)),
                "ess_per_gradient": float(min(ess)) / (RESULTS * CHAINS * LEAPFROG),
                "accepted": accept,
                "seconds": seconds,
                "fitting": fitting if bijector is not None else 0.0,
                "kl": -found.elbo if bijector is not None else float("nan"),
                "mean_z1": float(draws[..., 0].mean()),
                "std_z1": float(draws[..., 0].std()),
            }
            print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
            results.append(row)
    return results


def table(results: list[dict]) -> str:
    lines = [
        "| | least effective samples per 1000 gradients | accepted | mean of z1 (0) | deviation (3) | chain, s | fit, s |",
        "|---|---|---|---|---|---|---|",
    ]
    medians = {}
    for kernel in dict.fromkeys(r["kernel"] for r in results):
        rows = [r for r in results if r["kernel"] == kernel]
        middle = {k: float(np.median([r[k] for r in rows])) for k in rows[0] if k not in ("kernel", "seed")}
        medians[kernel] = middle["ess_per_gradient"]
        lines.append(
            f"| {kernel} | {1e3 * middle['ess_per_gradient']:.3g} | {middle['accepted']:.2f} | {middle['mean_z1']:.2f} | "
            f"{middle['std_z1']:.2f} | {middle['seconds']:.0f} | {middle['fitting']:.0f} |"
        )
    lines += ["", f"Ratio: {medians['NeuTra'] / medians['plain']:.1f}."]
    return "\n".join(lines) + "\n"
