"""Densities of a conditional flow for several conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.evaluation.plots.drawing import (
    box_aspect,
    density_image,
    density_on_grid,
    frame,
    log_prob,
    outer_labels,
    panel_rows,
    panels,
    plain,
    pyplot,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

tfd = tfp.distributions
_DRAWS = 500  # for the limits, from each condition


def conditional(
    flow: Any,
    conditions: Any,
    *,
    labels: Sequence[str] | None = None,
    limits: Sequence | None = None,
    columns: Sequence[str] | None = None,
    resolution: int = 150,
    seed: int = 0,
    figure: Figure | None = None,
) -> np.ndarray:
    """Plot the density of a conditional flow for several conditions, in one figure.

    Events of two dimensions have one panel per condition, with the same limits and color scale. Events of one dimension
    have one curve per condition, all in one panel.

    Args:
      flow: A flow with conditions and events of shape `[2]`, `[1]` or `[]`, or a model over one.
      conditions: Array `[K, C]`, one condition in each row, or `[K]` if conditions have one number.
      labels: Names of the conditions; their values if `None`.
      limits: `[(x_low, x_high), (y_low, y_high)]`, or `(low, high)` for one dimension. By default, around samples.
      columns: Names of the dimensions of an event.
      resolution: Number of pixels along each axis. A curve has four times as many points.
      seed: Seed of the samples that choose the limits.
      figure: Figure to plot into.

    Returns:
      The axes: one for each condition, or a single one with all curves.

    Raises:
      ValueError: If the flow has no conditions or more than two dimensions, or conditions have another shape.

    Example:
      >>> flow = tff.maf(2, num_layers=2, conditional_size=1, seed=1)
      >>> axes = tff.plots.conditional(flow, [-1.0, 0.0, 1.0], resolution=20)
      >>> [ax.get_title() for ax in axes]
      ['condition -1', 'condition 0', 'condition 1']
    """
    distribution = flow if isinstance(flow, tfd.Distribution) else getattr(flow, "distribution", None)
    size = getattr(distribution, "conditional_size", None)
    if size is None:
        raise ValueError(
            f"`flow` must be a flow with conditions, such as tff.maf(2, conditional_size=1), got {flow!r}."
        )
    event_shape = distribution.event_shape.as_list()
    if event_shape not in ([], [1], [2]):
        raise ValueError(f"`flow` must have events of shape [2], [1] or [], got {event_shape}.")
    conditions = _check_conditions(conditions, size)
    labels = [_label(c) for c in conditions] if labels is None else [plain(str(label)) for label in labels]
    if len(labels) != len(conditions):
        raise ValueError(f"`labels` must name {len(conditions)} conditions, got {len(labels)} names.")
    limits = _around_samples(distribution, conditions, seed) if limits is None else np.asarray(limits)
    if limits.size != 2 * max([1, *event_shape]):
        raise ValueError(
            f"`limits` must hold (low, high) for each dimension of events {event_shape}, got {limits.tolist()}."
        )
    draw = _panels if event_shape == [2] else _curves
    return draw(flow, event_shape, conditions, labels, limits.reshape(-1, 2), columns, resolution, figure)


def _check_conditions(conditions: Any, size: int) -> np.ndarray:
    given = np.asarray(conditions)
    conditions = given[:, np.newaxis] if given.ndim == 1 and size == 1 else given
    if conditions.ndim != 2 or len(conditions) == 0 or conditions.shape[1] != size:
        raise ValueError(f"`conditions` must have shape [K, {size}], one row for each, got {list(given.shape)}.")
    return conditions


def _label(condition: np.ndarray) -> str:
    values = [f"{value:.3g}" for value in condition]
    return f"condition {values[0] if len(values) == 1 else '[' + ', '.join(values) + ']'}"


def _around_samples(distribution: tfd.Distribution, conditions: np.ndarray, seed: int) -> np.ndarray:
    """Return limits `[D, 2]` around almost all samples of each condition."""
    sets = [
        np.reshape(
            distribution.sample(_DRAWS, seed=tf.constant([seed, i], tf.int32), conditional_input=c), [_DRAWS, -1]
        )
        for i, c in enumerate(conditions)
    ]
    low = np.min([np.quantile(x, 0.005, axis=0) for x in sets], axis=0)
    high = np.max([np.quantile(x, 0.995, axis=0) for x in sets], axis=0)
    pad = 0.15 * np.where(high > low, high - low, 1.0)
    return np.stack([low - pad, high + pad], axis=1)


def _panels(flow, event_shape, conditions, labels, limits, columns, resolution, figure) -> np.ndarray:
    del event_shape
    images = [density_on_grid(flow, limits, resolution, conditional_input=c) for c in conditions]
    top = max(p.max() for *_, p in images)
    axes = panel_rows(figure, len(conditions), 5, (2.1, 1.9 * box_aspect(limits) + 0.5))
    for ax, image, label in zip(axes, images, labels, strict=True):
        mesh = density_image(ax, *image, vmax=top)
        frame(ax, limits, columns)
        ax.set_title(label, fontsize=9)
        ax.set_box_aspect(box_aspect(limits))
    outer_labels(axes)
    axes[0].figure.colorbar(mesh, ax=list(axes), label="density", shrink=0.85, aspect=30, pad=0.01)
    return axes


def _curves(flow, event_shape, conditions, labels, limits, columns, resolution, figure) -> np.ndarray:
    axes = panels(figure, 1, 1, (5.5, 3.6))[0]
    (ax,) = axes
    xs = np.linspace(*limits[0], 4 * resolution)
    colors = pyplot().get_cmap("viridis")(np.linspace(0.0, 0.9, len(conditions)))
    for condition, label, color in zip(conditions, labels, colors, strict=True):
        x = xs.reshape([-1, *event_shape])
        ax.plot(xs, np.exp(log_prob(flow, x, conditional_input=condition)), label=label, color=color)
    ax.set(xlim=limits[0], xlabel=plain(columns[0]) if columns is not None else "y", ylabel="density")
    ax.set_ylim(bottom=0.0)
    ax.legend(fontsize=9)
    return axes
