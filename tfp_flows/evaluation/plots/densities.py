"""Density of a two-dimensional flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flows.evaluation.plots.drawing import (
    DATA_COLOR,
    SAMPLE_COLOR,
    check_points,
    density_image,
    density_on_grid,
    frame,
    limits_of,
    pyplot,
    scatter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    points = [(check_points(name, x, 2), color) for name, x, color in given if x is not None]
    if limits is None:
        if not points:
            raise ValueError("`limits` must be given where there are neither `data` nor `samples`.")
        limits = limits_of(np.concatenate([x for x, _ in points]))
    ax = ax if ax is not None else pyplot().subplots()[1]
    image = density_image(ax, *density_on_grid(flow, limits, resolution))
    ax.figure.colorbar(image, ax=ax, label="density", shrink=0.85)
    for x, color in points:
        scatter(ax, x[:2000], color)
    frame(ax, limits, columns)
    return ax
