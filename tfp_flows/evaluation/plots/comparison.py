"""Densities of several flows, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_probability as tfp

from tfp_flows.evaluation.plots.drawing import (
    DATA_COLOR,
    box_aspect,
    check_points,
    density_image,
    density_on_grid,
    frame,
    limits_of,
    log_prob,
    outer_labels,
    panel_rows,
    plain,
    scatter,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

tfd = tfp.distributions
_SHOWN = 2000  # data points


def compare(
    flows: Mapping[str, Any] | Sequence[Any],
    data: Any,
    floor: float | None = None,
    *,
    limits: Sequence[tuple[float, float]] | None = None,
    columns: Sequence[str] | None = None,
    resolution: int = 120,
    figure: Figure | None = None,
) -> np.ndarray:
    """Plot held-out data beside the densities of several fitted flows, with the NLL of each.

    This is the row of the gallery for your own data. All panels have the same limits, and the color scale of the flow with
    the lowest NLL.

    Args:
      flows: Fitted flows or models, as a dictionary by name, or as a list. A list is named after the distributions.
      data: Held-out points `[N, 2]`, which the flows were not trained on.
      floor: Entropy of the data in nats, the lowest expected NLL. If given, titles show how far above it each flow is. On a
        finite sample, a good flow may be a little below.
      limits: `[(x_low, x_high), (y_low, y_high)]`; around the data if `None`.
      columns: Names of the two axes.
      resolution: Number of pixels along each axis.
      figure: Figure to plot into.

    Returns:
      The axes `[1 + flows]`. The first ones show the data.

    Raises:
      ValueError: If there is no flow, or data are not two-dimensional.

    Example:
      >>> moons = tff.data.moons()
      >>> flows = {"before": tff.maf(2, num_layers=1, seed=1), "truth": moons}
      >>> axes = tff.plots.compare(flows, moons.sample(500, seed=1), floor=moons.entropy(), resolution=20)
      >>> [ax.get_title().splitlines()[0] for ax in axes]
      ['held-out data', 'before', 'truth']
    """
    named = _named(flows)
    data = check_points("data", data, 2)
    limits = limits_of(data) if limits is None else limits
    nlls = [-float(np.mean(log_prob(flow, data))) for flow in named.values()]
    images = [density_on_grid(flow, limits, resolution) for flow in named.values()]
    best = int(np.argmin(np.where(np.isfinite(nlls), nlls, np.inf)))
    axes = panel_rows(figure, 1 + len(named), 5, (2.4, 2.2 * box_aspect(limits) + 0.6))
    scatter(axes[0], data[:_SHOWN], DATA_COLOR)
    axes[0].set_title("held-out data" if floor is None else f"held-out data\nfloor {floor:.2f} nats", fontsize=9)
    for ax, name, nll, image in zip(axes[1:], named, nlls, images, strict=True):
        density_image(ax, *image, vmax=float(images[best][2].max()))
        above = "" if floor is None else f" ({nll - floor:+.2f})"
        ax.set_title(f"{plain(name)}\nNLL {nll:.2f} nats{above}", fontsize=9)
    for ax in axes:
        frame(ax, limits, columns)
        ax.set_box_aspect(box_aspect(limits))
    outer_labels(axes)
    return axes


def _named(flows: Any) -> dict[str, Any]:
    """Return flows by name. Numbers flows of a list that have the same name."""
    if isinstance(flows, Mapping):
        named = {str(name): flow for name, flow in flows.items()}
    elif isinstance(flows, (list, tuple)):
        named = {}
        for flow in flows:
            named_one = flow if isinstance(flow, tfd.Distribution) else getattr(flow, "distribution", flow)
            name = first = str(getattr(named_one, "name", type(flow).__name__))
            number = 1
            while name in named:
                number += 1
                name = f"{first} {number}"
            named[name] = flow
    else:
        raise ValueError(f"`flows` must be a dictionary or a list of fitted flows, got {flows!r}.")
    if not named:
        raise ValueError("`flows` must hold at least one flow, got none.")
    for name, flow in named.items():
        if not callable(getattr(flow, "log_prob", None)):
            raise ValueError(f"`flows` must have a method `log_prob`, got {flow!r} for {name!r}.")
    return named
