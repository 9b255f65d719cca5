"""Tables and figures of the results."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform

from benchmarks import dynamics, first, gallery, images, neutra, planar, posterior, scaling, vae

OPERATIONS = {
    "train_step": "train step, batch 100",
    "log_prob": "log_prob, 10k rows",
    "sample": "sample, 1k rows",
    "eager_log_prob": "eager log_prob, batch 100",
}
OPERATIONS_INVERSE = {"log_prob": "log_prob, 1k rows", "sample": "sample, 10k rows"}
PACKAGES = (
    "tfp_flows",
    "tensorflow",
    "tensorflow-probability",
    "keras",
    "zuko",
    "nflows",
    "normflows",
    "torch",
    "flowjax",
    "jax",
)


def environment() -> str:
    """Machine, versions and date, in one line."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU, Python {platform.python_version()}"
    return f"{machine}; {', '.join(versions)}; {datetime.date.today().isoformat()}"


def _number(value: float, scale: float = 1.0) -> str:
    value *= scale
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def speed_table(results: list[dict]) -> str:
    """Milliseconds, and in brackets the ratio to this package."""
    lines = []
    for case in dict.fromkeys(r["case"] for r in results):
        rows = [r for r in results if r["case"] == case]
        ours = next((r for r in rows if r["library"] == "tfp_flows"), None)
        titles, first = OPERATIONS, ["train_step", "sample"]
        if case.startswith("iaf"):
            titles, first = OPERATIONS_INVERSE, ["log_prob", "sample"]
        heads = [*titles.values(), *(f"first {key.replace('_', ' ')}, s" for key in first), "peak memory, MB"]
        lines += [f"**{case}**, milliseconds (ratio to tfp_flows):", ""]
        lines += ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        for row in rows:
            cells = []
            for key in titles:
                ratio = f" ({row[key] / ours[key]:.2g})" if ours and row is not ours else ""
                cells.append(_number(row[key], 1e3) + ratio)
            cells += [_number(row[f"{key} first"]) for key in first] + [_number(row["memory"], 1e-6)]
            lines.append(f"| {row['library']} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def quality_table(results: list[dict]) -> str:
    """Test log-likelihood, distance from the floor where it is known, and seconds with compilation."""
    lines = []
    for data, case in dict.fromkeys((r["data"], r["case"]) for r in results):
        rows = [r for r in results if (r["data"], r["case"]) == (data, case)]
        lines += [
            f"**{data}**, {case}:",
            "",
            "| | test log-likelihood, nats | above the floor | seconds |",
            "|---|---|---|---|",
        ]
        for row in rows:
            if not math.isfinite(row["test"]):
                lines.append(f"| {row['library']} | diverged | | {_number(row['seconds'])} |")
                continue
            gap = "" if row["floor"] is None else f"{-row['test'] - row['floor']:.3f}"
            lines.append(
                f"| {row['library']} | {row['test']:.3f} ± {row['error']:.3f} | {gap} | {_number(row['seconds'])} |"
            )
        lines.append("")
    return "\n".join(lines)


def speed_figure(results: list[dict], path: pathlib.Path) -> None:
    """One panel for each operation: time over the event size, for each library (MAF only)."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = [r for r in results if r["case"].startswith("maf")]
    if not rows:
        return
    figure, axes = plt.subplots(1, len(OPERATIONS), figsize=(14, 3.6), layout="constrained")
    markers = "osv^DPX*<>"
    for axis, (key, title) in zip(axes, OPERATIONS.items(), strict=True):
        for i, library in enumerate(dict.fromkeys(r["library"] for r in rows)):
            own = [r for r in rows if r["library"] == library]
            sizes = [int(r["case"].split("D=")[1].split(",")[0]) for r in own]
            width = 2.5 if library == "tfp_flows" else 1.2
            axis.loglog(
                sizes, [1e3 * r[key] for r in own], marker=markers[i], label=library, linewidth=width, markersize=5
            )
        ticks = sorted({int(r["case"].split("D=")[1].split(",")[0]) for r in rows})
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("event size D")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds")
    figure.suptitle(
        "Masked autoregressive flows: time of each operation (networks grow with D, see the table)", fontsize=11
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(what: str, results: list[dict], folder: pathlib.Path) -> None:
    """Writes `<what>.json`, `<what>.md` and, of some, `<what>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{what}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    tables = {
        "speed": speed_table,
        "quality": quality_table,
        "planar": planar.table,
        "neutra": neutra.table,
        "posterior": posterior.table,
        "first": first.tables,
        "vae": vae.table,
        "images": images.table,
        "scaling": scaling.table,
        "dynamics": dynamics.table,
        "gallery": gallery.table,
    }
    table = tables[what](results)
    (folder / f"{what}.md").write_text(f"{environment()}\n\n{table}", encoding="utf-8")
    if what == "speed":
        speed_figure(results, folder / "speed.png")
    if what == "gallery":
        gallery.figure(results, folder / "gallery.png")
    if what == "images":
        images.figure(results, folder / "images.png")
    if what == "scaling":
        scaling.figure(results, folder / "scaling.png")
    if what == "planar":
        planar.figure(results, folder / "planar", folder / "planar.png")
    print(table)
