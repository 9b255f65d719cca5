"""`python -m benchmarks planar`: planar flows on the energies of Rezende and Mohamed, here and in normflows.

Both libraries train K planar layers over a normal distribution with trainable mean and scale: the same target, steps, batch,
annealing of beta from 0.01 to 1 over the first half, Adam, learning rates, cosine schedule and clipping. What differs: the
initial values, and the gradient, which here leaves out the score term (`path_derivative=True`). The divergence of every fit
is computed by the same quadrature: the weights of normflows' layers, which have no inverse for `tanh`, are copied into ours,
and the copy is checked on samples.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
import time

import numpy as np

from benchmarks.process import run

LAYERS = (2, 8, 32)
ENERGIES = ("u1", "u2", "u3", "u4")
BATCH, START = 256, 0.01


def train_ours(energy: str, layers: int, steps: int, rate: float, seed: int):
    import keras

    import tfp_flows as tff

    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    flow = tff.planar_flow(2, num_layers=layers, base="trainable", seed=seed)
    model = tff.VariationalFlow(
        flow,
        tff.data.targets.energies[energy](),
        sample_size=BATCH,
        beta=tff.linear_annealing(START, 1.0, steps // 2),
        path_derivative=True,
        seed=seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0))
    model.fit(steps_per_epoch=steps, epochs=1, verbose=0)
    return flow, time.perf_counter() - start


def _torch_target(energy: str):
    """The targets of `tfp_flows.data.targets`, in PyTorch."""
    import normflows
    import torch

    def log_prob(z):
        z1, z2 = z[:, 0], z[:, 1]
        wave = torch.sin(0.5 * np.pi * z1)
        if energy == "u1":
            bells = [-0.5 * ((z1 - side * 2.0) / 0.6) ** 2 for side in (1.0, -1.0)]
            return -0.5 * ((torch.linalg.norm(z, dim=1) - 2.0) / 0.4) ** 2 + torch.logaddexp(*bells)
        walls = -0.5 * torch.sum((torch.relu(torch.abs(z) - 4.0) / 0.1) ** 2, dim=1)
        offset = z2 - wave
        if energy == "u2":
            return -0.5 * (offset / 0.4) ** 2 + walls
        if energy == "u3":
            apart = 3.0 * torch.exp(-0.5 * ((z1 - 1.0) / 0.6) ** 2)
            arms = (-0.5 * (offset / 0.35) ** 2, -0.5 * ((offset + apart) / 0.35) ** 2)
        else:
            apart = 3.0 * torch.sigmoid((z1 - 1.0) / 0.3)
            arms = (-0.5 * (offset / 0.4) ** 2, -0.5 * ((offset + apart) / 0.35) ** 2)
        return torch.logaddexp(*arms) + walls

    target = normflows.distributions.Target(torch.zeros(2), torch.ones(2))
    target.log_prob = log_prob
    return target


def train_normflows(energy: str, layers: int, steps: int, rate: float, seed: int):
    import normflows
    import torch

    import tfp_flows as tff

    torch.manual_seed(seed)
    start = time.perf_counter()
    flows = [normflows.flows.Planar((2,)) for _ in range(layers)]
    target = _torch_target(energy)
    model = normflows.NormalizingFlow(q0=normflows.distributions.DiagGaussian(2), flows=flows, p=target)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        beta = min(1.0, START + (1.0 - START) * step / (steps // 2))
        loss = model.reverse_kld(BATCH, beta=beta)
        if not (torch.isnan(loss) | torch.isinf(loss)):  # as in the library's examples
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - start

    copy = tff.planar_flow(2, num_layers=layers, base="trainable", seed=0)
    loc, scale = model.q0.loc.detach().numpy()[0], np.exp(model.q0.log_scale.detach().numpy()[0])
    copy.distribution.loc.assign(loc)
    copy.distribution.scale.trainable_variables[0].assign(np.log(scale))
    for ours, theirs in zip(reversed(copy.bijector.bijectors), flows, strict=True):
        for variable, value in ((ours.u, theirs.u[0]), (ours.w, theirs.w[0]), (ours.b, theirs.b[0])):
            variable.assign(value.detach().numpy())
    with torch.no_grad():
        z, log_q = model.sample(2000)
    difference = np.abs(copy.log_prob(z.numpy()).numpy() - log_q.numpy())
    if np.median(difference) > 1e-2:
        raise RuntimeError(f"The copy of normflows' flow is another one: log q differs by {np.median(difference)}.")
    return copy, seconds


TRAIN = {"tfp_flows": train_ours, "normflows": train_normflows}


def worker(task: dict) -> None:
    """One fit in this process; prints its result, and saves its density."""
    if task["library"] == "normflows":  # before TensorFlow: after it, what PyTorch's Adam imports crashes the process
        import normflows  # noqa: F401
        import torch._dynamo  # noqa: F401

    import tensorflow as tf

    import tfp_flows as tff
    import tfp_flows.training  # imports are not training time

    flow, seconds = TRAIN[task["library"]](*(task[key] for key in ("energy", "layers", "steps", "rate", "seed")))
    target = tff.data.targets.energies[task["energy"]]()
    found = tff.diagnostics.reverse_kl(flow, target)
    weights = tff.diagnostics.importance_diagnostics(flow, target, num_samples=50_000, seed=1)
    result = {"kl": found.kl, "mass": found.mass, "elbo": weights.elbo, "elbo_error": weights.elbo_error}
    if task["density"]:
        side = np.linspace(-4.5, 4.5, 120).astype(np.float32)
        grid = tf.constant(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2))
        np.savez(
            task["density"],
            density=flow.prob(grid).numpy().reshape(120, 120),
            target=np.exp(target.log_prob(grid).numpy() - target.log_normalizer).reshape(120, 120),
        )
    print("RESULT " + json.dumps({**result, "seconds": seconds}))


def measure(options) -> list[dict]:
    """All cells, one process each, the libraries in turn."""
    libraries = [name for name in options.libraries or TRAIN if importlib.util.find_spec(name)]
    results = []
    densities = options.output / "planar"
    densities.mkdir(parents=True, exist_ok=True)
    for energy in ENERGIES:
        for layers in LAYERS:
            for seed in range(1, options.repetitions + 1):
                for library in libraries:
                    drawn = library == "tfp_flows" and seed == 1
                    task = {
                        "library": library,
                        "energy": energy,
                        "layers": layers,
                        "steps": options.steps,
                        "rate": options.learning_rate,
                        "seed": seed,
                        "density": str(densities / f"{energy}-{layers}.npz") if drawn else "",
                    }
                    result = run(
                        "benchmarks.planar", task, f"{library} {energy} K={layers} seed {seed}", options.threads
                    )
                    if result is not None:
                        results.append({**task, **result})
    return results


def table(results: list[dict]) -> str:
    """Reverse KL (mean and standard error over the seeds), seconds, and the ratios to normflows."""
    lines = [
        "| | K | tfp_flows, nats | normflows, nats | ratio | tfp_flows, s | normflows, s |",
        "|---|---|---|---|---|---|---|",
    ]
    ratios = []
    for energy in ENERGIES:
        for layers in LAYERS:
            cells = {}
            for library in TRAIN:
                rows = [r for r in results if (r["library"], r["energy"], r["layers"]) == (library, energy, layers)]
                if rows:
                    kl = np.array([r["kl"] for r in rows])
                    error = kl.std(ddof=1) / np.sqrt(len(kl)) if len(kl) > 1 else float("nan")
                    cells[library] = (kl.mean(), error, float(np.median([r["seconds"] for r in rows])))
            if set(cells) != set(TRAIN):
                continue
            (a, da, sa), (b, db, sb) = cells["tfp_flows"], cells["normflows"]
            ratios.append(a / b)
            lines.append(
                f"| {energy.upper()} | {layers} | {a:.3f} ± {da:.3f} | {b:.3f} ± {db:.3f} | {a / b:.2f} | {sa:.0f} | {sb:.0f} |"
            )
    if ratios:
        lines += ["", f"Geometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.2f}."]
    return "\n".join(lines) + "\n"


def figure(results: list[dict], folder: pathlib.Path, path: pathlib.Path) -> None:
    """The targets, and beside each the densities of its fits."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    drawn = [(e, k) for e in ENERGIES for k in LAYERS if (folder / f"{e}-{k}.npz").exists()]
    if len(drawn) < len(ENERGIES) * len(LAYERS):
        return
    canvas, axes = plt.subplots(len(ENERGIES), 1 + len(LAYERS), figsize=(8, 8.4), layout="constrained")
    for row, energy in zip(axes, ENERGIES, strict=True):
        for axis, layers in zip(row[1:], LAYERS, strict=True):
            with np.load(folder / f"{energy}-{layers}.npz") as data:
                density, target = data["density"], data["target"]
            kl = next(
                r["kl"]
                for r in results
                if (r["library"], r["energy"], r["layers"], r["seed"]) == ("tfp_flows", energy, layers, 1)
            )
            axis.imshow(density, origin="lower", cmap="viridis")
            axis.set_title(f"K = {layers}: KL {kl:.2f}", fontsize=9)
        row[0].imshow(target, origin="lower", cmap="viridis")
        row[0].set_title(f"target {energy.upper()}", fontsize=9)
    for axis in axes.ravel():
        axis.set_axis_off()
    canvas.savefig(path, dpi=100)
    plt.close(canvas)


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
