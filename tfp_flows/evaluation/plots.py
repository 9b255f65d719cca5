"""Plots of flows with matplotlib (`pip install tfp_flows[plots]`). Most take axes, or create them, and return them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DATA_COLOR, SAMPLE_COLOR = "black", "tab:orange"


def _pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("tfp_flows.evaluation.plots needs matplotlib: pip install 'tfp_flows[plots]'") from error
    return plt


def _points(name: str, x: Any, columns: int | None = None) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 2 or len(x) == 0 or (columns is not None and x.shape[1] != columns):
        raise ValueError(f"`{name}` must have shape [N, {columns or 'D'}], got {list(x.shape)}.")
    return x


def _limits(x: np.ndarray, margin: float = 0.12) -> list[tuple[float, float]]:
    low, high = x.min(axis=0), x.max(axis=0)
    pad = margin * np.where(high > low, high - low, 1.0)
    return list(zip(low - pad, high + pad, strict=True))


def _scatter(ax: Axes, x: np.ndarray, color: str, alpha: float = 0.35) -> None:
    size = float(np.clip(6000.0 / len(x), 2.0, 20.0))
    ax.scatter(x[:, 0], x[:, 1], s=size, color=color, alpha=alpha, linewidths=0)


def _plain(name: str) -> str:
    """Escape dollar signs, which matplotlib would parse as a formula."""
    return name.replace("$", r"\$")


def _frame(ax: Axes, limits: Sequence[tuple[float, float]], columns: Sequence[str] | None) -> None:
    ax.set(xlim=limits[0], ylim=limits[1])
    if columns is not None:
        ax.set(xlabel=_plain(columns[0]), ylabel=_plain(columns[1]))


def density(
    flow: Any,
    data: Any = None,
    *,
    samples: Any = None,
    limits: Sequence[tuple[float, float]] | None = None,
    columns: Sequence[str] | None = None,
    resolution: int = 200,
    ax: Axes | None = None,
) -> Axes:
    """Plot the density of a two-dimensional flow, with data or samples on top.

    Args:
      flow: A `FlowModel`, a distribution, or anything with `log_prob` for arrays `[N, 2]`.
      data, samples: Points `[N, 2]` to plot on top, in different colors.
      limits: `[(x_low, x_high), (y_low, y_high)]`; around data and samples if `None`.
      columns: Names of the two axes.
      resolution: Number of pixels along each axis.
      ax: Axes to plot into.

    Raises:
      ValueError: If neither points nor limits are given, or points are not two-dimensional.
    """
    given = (("data", data, DATA_COLOR), ("samples", samples, SAMPLE_COLOR))
    points = [(_points(name, x, 2), color) for name, x, color in given if x is not None]
    if limits is None:
        if not points:
            raise ValueError("`limits` must be given where there are neither `data` nor `samples`.")
        limits = _limits(np.concatenate([x for x, _ in points]))
    ax = ax if ax is not None else _pyplot().subplots()[1]
    xs, ys = (np.linspace(low, high, resolution) for low, high in limits)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
    p = np.exp(np.asarray(flow.log_prob(grid), dtype=np.float64)).reshape(resolution, resolution)
    image = ax.pcolormesh(xs, ys, p, cmap="Blues", shading="nearest", rasterized=True)
    ax.figure.colorbar(image, ax=ax, label="density", shrink=0.85)
    for x, color in points:
        _scatter(ax, x[:2000], color)
    _frame(ax, limits, columns)
    return ax


def data_and_samples(
    data: Any,
    samples: Any,
    *,
    columns: Sequence[str] | None = None,
    max_points: int = 3000,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Plot two-dimensional data beside as many samples, with the same limits.

    Args:
      data, samples: Arrays `[N, 2]`.
      columns: Names of the two axes.
      max_points: Maximal number of points.
      axes: Two axes to plot into.
    """
    data, samples = _points("data", data, 2), _points("samples", samples, 2)
    axes = axes if axes is not None else _pyplot().subplots(1, 2, figsize=(9, 4), constrained_layout=True)[1]
    n = min(max_points, len(data), len(samples))
    limits = _limits(data)
    for ax, x, color, title in zip(axes, (data, samples), (DATA_COLOR, SAMPLE_COLOR), ("data", "samples"), strict=True):
        _scatter(ax, x[:n], color, alpha=0.5)
        ax.set_title(f"{title} ({n})")
        _frame(ax, limits, columns)
    return axes


def history(log: Any, *, label: str | None = None, floor: float | None = None, ax: Axes | None = None) -> Axes:
    """Plot the training history in nats.

    Args:
      log: The Keras `History` that `fit` returns, or its `history` dictionary.
      label: Name of the run, for the legend. By default, runs in the same axes are numbered.
      floor: Entropy of the data, plotted as a line.
      ax: Axes to plot into. Several histories in the same axes have different colors.
    """
    log = getattr(log, "history", log)
    if not log.get("loss"):
        raise ValueError("`log` must hold at least one epoch of 'loss'.")
    ax = ax if ax is not None else _pyplot().subplots()[1]
    epochs = np.arange(1, len(log["loss"]) + 1)
    runs = ax.__dict__.setdefault("_tfp_flows_runs", [])  # NLLs of all histories in these axes
    number = len(runs)
    of_run = f"{label}, " if label else f"run {number + 1}, " if number else ""
    single = not number and label is None
    colors = (DATA_COLOR, SAMPLE_COLOR) if single else (f"C{number}",) * 2
    ax.plot(epochs, log["loss"], label=f"{of_run}training", color=colors[0])
    if log.get("val_loss"):
        style = "-" if single else "--"
        ax.plot(epochs, log["val_loss"], label=f"{of_run}validation", color=colors[1], linestyle=style)
    shown = [v for key in ("loss", "val_loss") for v in log.get(key, []) if np.isfinite(v)]
    if floor is not None:
        ax.axhline(floor, label="floor", color="tab:green", linestyle=":")
        shown.append(floor)
    runs.append(shown)
    # The high NLLs of the first epochs would flatten the rest.
    low, high = min(map(min, runs)), max(np.quantile(run, 0.97) for run in runs)
    ax.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.1 * (high - low) + 1e-3)
    ax.set(xlabel="epoch", ylabel="NLL (nats)")
    ax.legend()
    return ax


def corner(
    data: Any,
    samples: Any,
    *,
    columns: Sequence[str] | None = None,
    max_columns: int = 8,
    max_points: int = 1500,
    figure: Figure | None = None,
) -> np.ndarray:
    """Plot data against samples for every pair of dimensions, with histograms on the diagonal.

    Args:
      data, samples: Arrays `[N, D]`.
      columns: Names of the `D` columns.
      max_columns: Maximal number of leading columns.
      max_points: Maximal number of points.
      figure: Figure to plot into.
    """
    data = _points("data", data)
    samples = _points("samples", samples, data.shape[1])
    k = min(data.shape[1], max_columns)
    columns = list(columns) if columns is not None else [f"x{i + 1}" for i in range(data.shape[1])]
    if figure is None:
        figure = _pyplot().figure(figsize=(1.9 * k + 1, 1.9 * k + 1), layout="constrained")
    axes = figure.subplots(k, k, squeeze=False)
    limits = _limits(data, 0.05)
    sets = (("data", data, DATA_COLOR), ("samples", samples, SAMPLE_COLOR))
    for i, j in np.ndindex(k, k):
        ax = axes[i, j]
        if j > i:
            ax.axis("off")
            continue
        for name, x, color in sets:
            if i == j:
                bins = np.linspace(*limits[i], 40)
                ax.hist(x[:, i], bins, color=color, density=True, histtype="step", label=name)
            else:
                _scatter(ax, x[:max_points, [j, i]], color)
                ax.set_ylim(limits[i])
        ax.set_xlim(limits[j])
        ax.tick_params(labelsize=7)
        if j > 0 or i == j:
            ax.set_yticklabels([])
        if i < k - 1:
            ax.set_xticklabels([])
        else:
            ax.set_xlabel(_plain(columns[j]))
        if j == 0 and i > 0:
            ax.set_ylabel(_plain(columns[i]))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper right")
    return axes


def image_grid(images: Any, *, columns: int | None = None, figure: Figure | None = None) -> Figure:
    """Plot images on a nearly square grid, and return the figure.

    Args:
      images: Array `[N, H, W, C]` with one or three channels: floats in [0, 1], or integers, whose maximum is white.
      columns: Number of images in a row.
      figure: Figure to plot into.

    Raises:
      ValueError: If the shape is different.
    """
    images = np.asarray(images)
    if images.ndim != 4 or len(images) == 0 or images.shape[-1] not in (1, 3):
        raise ValueError(f"`images` must have shape [N, H, W, 1 or 3], got {list(images.shape)}.")
    if np.issubdtype(images.dtype, np.integer):
        images = images / max(1, images.max())
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    height, width, channels = images.shape[1:]
    canvas = np.ones([rows * (height + 1) + 1, columns * (width + 1) + 1, channels])
    for i, image in enumerate(np.clip(images, 0.0, 1.0)):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    if figure is None:
        _pyplot()  # names the extra if Matplotlib is missing
        from matplotlib.figure import Figure

        figure = Figure(figsize=(0.7 * columns, 0.7 * rows * height / width), layout="constrained")
    ax = figure.subplots()
    ax.imshow(canvas[..., 0] if channels == 1 else canvas, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_axis_off()
    return figure
