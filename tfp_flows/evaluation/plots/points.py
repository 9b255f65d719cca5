"""Data against samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flows.evaluation.plots.drawing import (
    DATA_COLOR,
    SAMPLE_COLOR,
    check_points,
    frame,
    limits_of,
    plain,
    pyplot,
    scatter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    data, samples = check_points("data", data, 2), check_points("samples", samples, 2)
    axes = axes if axes is not None else pyplot().subplots(1, 2, figsize=(9, 4), constrained_layout=True)[1]
    n = min(max_points, len(data), len(samples))
    limits = limits_of(data)
    for ax, x, color, title in zip(axes, (data, samples), (DATA_COLOR, SAMPLE_COLOR), ("data", "samples"), strict=True):
        scatter(ax, x[:n], color, alpha=0.5)
        ax.set_title(f"{title} ({n})")
        frame(ax, limits, columns)
    return axes


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
    data = check_points("data", data)
    samples = check_points("samples", samples, data.shape[1])
    k = min(data.shape[1], max_columns)
    columns = list(columns) if columns is not None else [f"x{i + 1}" for i in range(data.shape[1])]
    if figure is None:
        figure = pyplot().figure(figsize=(1.9 * k + 1, 1.9 * k + 1), layout="constrained")
    axes = figure.subplots(k, k, squeeze=False)
    limits = limits_of(data, 0.05)
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
                scatter(ax, x[:max_points, [j, i]], color)
                ax.set_ylim(limits[i])
        ax.set_xlim(limits[j])
        ax.tick_params(labelsize=7)
        if j > 0 or i == j:
            ax.set_yticklabels([])
        if i < k - 1:
            ax.set_xticklabels([])
        else:
            ax.set_xlabel(plain(columns[j]))
        if j == 0 and i > 0:
            ax.set_ylabel(plain(columns[i]))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper right")
    return axes
