"""`python -m benchmarks WHAT`: measured on this machine, in this run. Each WHAT is described in the module of its name."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks import dynamics, first, gallery, images, neutra, planar, posterior, process, report, scaling, vae
from benchmarks.libraries import CASES, LIBRARIES, Case, chosen_libraries


def run(library: str, case: Case, threads: int, data: str | None = None, batch_size: int = 256) -> dict | None:
    """One measurement in a fresh process; `None`, and a line on stderr, if it fails."""
    task = {"library": library, "case": dataclasses.asdict(case), "data": data, "batch_size": batch_size}
    return process.run("benchmarks.worker", task, f"{library}, {case.title}", threads)


def speed(options) -> list[dict]:
    results = []
    cases = [case for name, case in CASES.items() if not options.cases or name in options.cases]
    for case in cases:
        libraries = chosen_libraries(options.libraries)
        runs: dict[str, list[dict]] = {library: [] for library in libraries}
        # Rounds, so that a slow minute of the machine hits all alike. One where a call takes half a minute.
        for _ in range(1 if case.event_size > 100 and case.flow == "maf" else options.repetitions):
            for library in libraries:
                # D passes of a wide network, in eager mode, take minutes for one call.
                if library == "TFP eager" and (case.event_size > 100 or case.flow == "iaf"):
                    continue
                result = run(library, case, options.threads)
                if result is not None:
                    runs[library].append(result)
        for library, measured in runs.items():
            if measured:
                medians = {key: float(np.median([m[key] for m in measured])) for key in measured[0]}
                results.append({"case": case.title, "library": library, **medians})
    return results


def power_15k(path: str) -> dict[str, np.ndarray]:
    """POWER-15k as the MAF paper prepares POWER (arXiv:1705.07057, appendix D): see the documentation of the benchmarks."""
    x = np.loadtxt(path, delimiter=",", skiprows=1)
    rng = np.random.RandomState(42)
    rng.shuffle(x)
    x += rng.uniform(size=x.shape) * np.array([0.001, 0.01, 1.0, 1.0, 1.0, 0.0])
    test, rest = x[-len(x) // 10 :], x[: -len(x) // 10]
    mean, deviation = rest.mean(axis=0), rest.std(axis=0)
    train = rest[: -len(rest) // 10]
    return {name: ((part - mean) / deviation).astype(np.float32) for name, part in (("train", train), ("test", test))}


def moons() -> dict[str, np.ndarray]:
    from tfp_flows.data import moons as density

    x = density(noise=0.05).sample(12_800 + 20_000, seed=1)
    mean, deviation = x[:12_800].mean(axis=0), x[:12_800].std(axis=0)
    z = ((x - mean) / deviation).astype(np.float32)
    return {
        "train": z[:12_800],
        "test": z[12_800:],
        "floor": np.array(density(noise=0.05).entropy() - np.log(deviation).sum()),
    }


def quality(options) -> list[dict]:
    results = []
    sets = {"two moons": (moons(), (64, 64), 3000, 2)}
    if options.power:
        sets["POWER-15k"] = (power_15k(options.power), (128, 128), 2000, 6)
    else:
        print("without POWER-15k: give its file with --power power_15k.csv.gz", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        for name, (data, hidden, steps, size) in sets.items():
            path = str(pathlib.Path(folder) / "data.npz")
            np.savez(path, **data)
            for flow, layers in (("maf", 5), ("spline", 3)):
                case = Case(flow, size, layers, hidden, options.learning_rate, steps)
                for library in chosen_libraries(options.libraries):
                    if library in ("TFP eager", "tfp_flows jit_compile"):  # too long; as tfp_flows
                        continue
                    if library.startswith("TFP") and flow == "spline":  # TFP has no spline conditioner
                        continue
                    runs = [run(library, case, options.threads, path) for _ in range(options.repetitions)]
                    runs = [r for r in runs if r is not None]
                    if runs:
                        medians = {key: float(np.median([r[key] for r in runs])) for key in runs[0]}
                        floor = float(data["floor"]) if "floor" in data else None
                        results.append(
                            {"data": name, "case": case.title, "library": library, "floor": floor, **medians}
                        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        choices=(
            "speed",
            "first",
            "quality",
            "planar",
            "neutra",
            "posterior",
            "vae",
            "images",
            "scaling",
            "dynamics",
            "gallery",
        ),
    )
    parser.add_argument(
        "--libraries", nargs="+", choices=[*LIBRARIES, "normflows"], help="default: all that are installed"
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        help="of the speed and first runs, such as maf-43, of images, such as glow or step, of scaling, such as maf or "
        "workers, of the gallery, such as made",
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=3,
        help="fresh processes for each measurement (default: 3; maf-784: always 1)",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (default: 2)")
    parser.add_argument("--power", help="the file power_15k.csv.gz, for quality and dynamics")
    parser.add_argument(
        "--learning-rate", type=float, help="of the quality runs (default: 3e-3, cosine) and of planar (3e-2, cosine)"
    )
    parser.add_argument("--steps", type=int, default=5000, help="of planar and neutra (default: 5000)")
    parser.add_argument("--epochs", type=int, default=20, help="of vae and dynamics (default: 20)")
    parser.add_argument("--minutes", type=float, default=20, help="of images, for each model (default: 20)")
    parser.add_argument("--data", help="folder of the data files of posterior's cases german_credit and radon")
    parser.add_argument("--mnist", help="folder of MNIST's IDX files, for vae and images")
    parser.add_argument("--rows", type=int, default=60_000, help="training images, for images (default: all)")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("benchmarks/results"), help="folder to write to"
    )
    options = parser.parse_args()
    if options.learning_rate is None:
        options.learning_rate = 3e-2 if options.what == "planar" else 3e-3
    measures = {
        "speed": speed,
        "first": first.measure,
        "quality": quality,
        "planar": planar.measure,
        "neutra": neutra.measure,
        "posterior": posterior.measure,
        "vae": vae.measure,
        "images": images.measure,
        "scaling": scaling.measure,
        "dynamics": dynamics.measure,
        "gallery": gallery.measure,
    }
    report.write(options.what, measures[options.what](options), options.output)


if __name__ == "__main__":
    main()
