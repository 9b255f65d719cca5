"""Shared parts of the plots: colors, limits, checks of points, and densities on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DATA_COLOR, SAMPLE_COLOR = "black", "tab:orange"
_CHUNK = 8192  # rows of a call, so that large networks fit into memory


def pyplot():
    """Return `matplotlib.pyplot`. Raise an `ImportError` that names the extra if Matplotlib is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("tfp_flows.plots needs matplotlib: pip install 'tfp_flows[plots]'") from error
    return plt


def panels(figure: Figure | None, rows: int, columns: int, size: tuple[float, float]) -> np.ndarray:
    """Return axes `[rows, columns]` in `figure`, or in a new figure with panels of `size` inches."""
    if figure is None:
        figure = pyplot().figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure.subplots(rows, columns, squeeze=False)


def panel_rows(figure: Figure | None, count: int, per_row: int, size: tuple[float, float]) -> np.ndarray:
    """Return `count` axes, `[count]`, in rows of nearly equal length, at most `per_row`. Removes axes that are not needed."""
    rows = -(-count // per_row)
    axes = panels(figure, rows, -(-count // rows), size).ravel()
    for ax in axes[count:]:
        ax.remove()
    return axes[:count]


def box_aspect(limits: Sequence[tuple[float, float]]) -> float:
    """Return the height of a panel over its width: equal units on both axes, or a square if that would be narrow or flat."""
    (left, right), (low, high) = limits
    ratio = float((high - low) / (right - left))
    return ratio if 1 / 3 < ratio < 3 else 1.0


def outer_labels(axes: np.ndarray) -> None:
    """Remove the labels of panels, from `panel_rows`, that have a neighbor below or on their left. All have the same limits."""
    per_row = axes[0].get_gridspec().ncols
    for i, ax in enumerate(axes):
        ax.tick_params(labelsize=7, labelleft=i % per_row == 0, labelbottom=i + per_row >= len(axes))
        if i % per_row:
            ax.set_ylabel("")
        if i + per_row < len(axes):
            ax.set_xlabel("")


def check_points(name: str, x: Any, columns: int | None = None) -> np.ndarray:
    """Return `x` as an array `[N, D]`. Raise a `ValueError` for another shape, or another number of columns."""
    x = np.asarray(x)
    if x.ndim != 2 or len(x) == 0 or (columns is not None and x.shape[1] != columns):
        raise ValueError(f"`{name}` must have shape [N, {columns or 'D'}], got {list(x.shape)}.")
    return x


def limits_of(x: np.ndarray, margin: float = 0.12) -> list[tuple[float, float]]:
    """Return `(low, high)` around the points for each axis."""
    low, high = x.min(axis=0), x.max(axis=0)
    pad = margin * np.where(high > low, high - low, 1.0)
    return list(zip(low - pad, high + pad, strict=True))


def square_limits(x: np.ndarray) -> Sequence[tuple[float, float]]:
    """Return limits around almost all points, with equal units on both axes unless their ranges differ by a factor of 4."""
    x = x[np.all(np.isfinite(x), axis=1)]
    low, high = np.quantile(x, [0.002, 0.998], axis=0)
    half = 0.6 * np.maximum(high - low, 1e-6)
    if half.max() < 4.0 * half.min():
        half = np.full(2, half.max())
    center = 0.5 * (low + high)
    return list(zip(center - half, center + half, strict=True))


def scatter(ax: Axes, x: np.ndarray, color: str, alpha: float = 0.35, *, count: int | None = None) -> None:
    """Plot points `[N, 2]`, of a size that suits `count` points (`N` if `None`): small if there are many."""
    size = float(np.clip(6000.0 / (count or len(x)), 2.0, 20.0))
    ax.scatter(x[:, 0], x[:, 1], s=size, color=color, alpha=alpha, linewidths=0)


def plain(name: str) -> str:
    """Escape dollar signs, which matplotlib would parse as a formula."""
    return name.replace("$", r"\$")


def frame(ax: Axes, limits: Sequence[tuple[float, float]], columns: Sequence[str] | None) -> None:
    """Set the limits and the labels of both axes."""
    ax.set(xlim=limits[0], ylim=limits[1])
    if columns is not None:
        ax.set(xlabel=plain(columns[0]), ylabel=plain(columns[1]))


def number_ticks(axis: Any, size: int, most: int, **options: Any) -> None:
    """Label the `size` cells along an axis of an image from 1, with at most `most` evenly spaced ticks."""
    ticks = np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int))
    axis.set_ticks(ticks, [str(tick + 1) for tick in ticks], **options)


def log_prob(flow: Any, x: np.ndarray, **condition: Any) -> np.ndarray:
    """Return log-densities `[N]` in float64, in nats. Casts `x` to the dtype of the flow."""
    dtype = getattr(flow, "dtype", None)
    x = x.astype(np.float32 if dtype is None else tf.as_dtype(dtype).as_numpy_dtype)
    chunks = np.array_split(x, max(1, -(-len(x) // _CHUNK)))
    return np.concatenate([np.asarray(flow.log_prob(chunk, **condition), np.float64) for chunk in chunks])


def density_on_grid(
    flow: Any, limits: Sequence[tuple[float, float]], resolution: int, **condition: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coordinates of both axes and the density `[resolution, resolution]`, one row for each ordinate."""
    xs, ys = (np.linspace(low, high, resolution) for low, high in limits)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    return xs, ys, np.exp(log_prob(flow, grid, **condition)).reshape(resolution, resolution)


def density_image(ax: Axes, xs: np.ndarray, ys: np.ndarray, p: np.ndarray, vmax: float | None = None):
    """Draw a density `[len(ys), len(xs)]` in shades of blue, and return the mesh."""
    return ax.pcolormesh(xs, ys, p, cmap="Blues", shading="nearest", rasterized=True, vmin=0.0, vmax=vmax)
