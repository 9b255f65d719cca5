"""Grids of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flows.evaluation.plots.drawing import pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        pyplot()  # names the extra if Matplotlib is missing
        from matplotlib.figure import Figure

        figure = Figure(figsize=(0.7 * columns, 0.7 * rows * height / width), layout="constrained")
    ax = figure.subplots()
    ax.imshow(canvas[..., 0] if channels == 1 else canvas, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_axis_off()
    return figure
