"""Samples and a grid after each layer of a two-dimensional flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flows.checks import positive_int
from tfp_flows.evaluation.plots.drawing import DATA_COLOR, SAMPLE_COLOR, check_points, panels, scatter, square_limits
from tfp_flows.evaluation.plots.trajectories import Trajectory, draw_base, plane_flow, trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES, _PER_LINE = 13, 80  # grid lines in each direction, and points on a line
_GRID_COLOR = "tab:blue"


def layers(
    flow: Any,
    data: Any = None,
    *,
    num_samples: int = 1000,
    conditional_input: Any = None,
    grid: bool = True,
    max_panels: int = 6,
    seed: int = 0,
    figure: Figure | None = None,
) -> np.ndarray:
    """Plot samples and a grid before the first layer and after each layer of a two-dimensional flow.

    The first row goes from base to data: samples of the base, with a regular grid that each layer deforms. With `data`,
    the second row shows the inverse direction: read it from right to left, from the data and a regular grid to the base.
    Panels of a column have the same limits, so a good fit looks the same in both rows. Permutations only relabel the
    axes. They have no panel, and all panels have their axes in the order of the data. `Standardize` has no panel
    either. A `ContinuousFlow` counts as eight layers, its eighths in time.

    Args:
      flow: A flow with events of shape `[2]`, or a model over one.
      data: Points `[N, 2]` for the second row.
      num_samples: Number of samples, and maximal number of data points.
      conditional_input: The condition `[C]` of a conditional flow.
      grid: Whether to plot the grids.
      max_panels: Maximal number of columns. Deeper flows show the base, the data and evenly spaced layers between.
      seed: Seed of the samples, those of `FlowModel.sample(num_samples, seed=seed)`.
      figure: Figure to plot into.

    Returns:
      The axes, `[1, panels]`, or `[2, panels]` with `data`.

    Raises:
      ValueError: If events do not have shape `[2]`, data have another shape, or there are fewer than two panels.

    Example:
      >>> flow = tff.real_nvp(2, num_layers=4, seed=1)
      >>> axes = tff.plots.layers(flow, tff.data.moons().sample(200, seed=1), num_samples=200)
      >>> axes.shape  # base, and after each of four layers
      (2, 5)
    """
    flow = plane_flow("flow", flow)
    num_samples, max_panels = positive_int("num_samples", num_samples), positive_int("max_panels", max_panels, 2)
    rows = [(draw_base(flow, num_samples, seed), False, SAMPLE_COLOR, "base \N{RIGHTWARDS ARROW} data")]
    if data is not None:
        data = check_points("data", data, 2)[:num_samples]
        rows.append((data, True, DATA_COLOR, "base \N{LEFTWARDS ARROW} data"))
    given = {"conditional_input": conditional_input}
    moved = [trajectory(flow, np.concatenate([x, _grid(x)]), inverse=inverse, **given) for x, inverse, *_ in rows]
    count = len(moved[0].names)
    shown = np.unique(np.linspace(0, count - 1, min(count, max_panels)).round().astype(int))
    axes = panels(figure, len(rows), len(shown), (2.1, 2.2))
    for j, k in enumerate(shown):
        counts = [len(x) for x, *_ in rows]
        _draw_column(axes[:, j], [m.points[k] for m in moved], counts, [row[2] for row in rows], num_samples, grid)
        axes[0, j].set_title(_title(moved[0], k), fontsize=9)
    for ax, (*_, label) in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label, fontsize=9)
    return axes


def _draw_column(axes: Sequence, points: list, counts: list[int], colors: list[str], most: int, grid: bool) -> None:
    """Draw one place of both directions with the same limits. Points of the grid follow the first `counts` points."""
    limits = square_limits(np.concatenate([p[:n] for p, n in zip(points, counts, strict=True)]))
    for ax, p, n, color in zip(axes, points, counts, colors, strict=True):
        if grid:
            _draw_grid(ax, p[n:])
        scatter(ax, p[:n], color, alpha=0.5, count=most)
        ax.set(xlim=limits[0], ylim=limits[1], box_aspect=1)
        ax.tick_params(labelsize=7)


def _title(moved: Trajectory, k: int) -> str:
    if k == 0:
        return "base"
    end = " (data)" if k == len(moved.names) - 1 else ""
    return f"layer {k}{end}\n{moved.names[k]}"


def _grid(x: np.ndarray) -> np.ndarray:
    """Return the points of a regular grid over the bulk of `x`: first the vertical lines, then the horizontal ones."""
    low, high = np.quantile(x, [0.01, 0.99], axis=0)
    pad = np.maximum(0.1 * (high - low), 1e-3)
    low, high = low - pad, high + pad
    at, along = np.linspace(0.0, 1.0, _LINES), np.linspace(0.0, 1.0, _PER_LINE)
    vertical = np.stack(np.meshgrid(at, along, indexing="ij"), axis=-1).reshape(-1, 2)
    return low + (high - low) * np.concatenate([vertical, vertical[:, ::-1]])


def _draw_grid(ax: Axes, points: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    lines = points.reshape(-1, _PER_LINE, 2)
    ax.add_collection(LineCollection(lines, colors=_GRID_COLOR, linewidths=0.5, alpha=0.5), autolim=False)
