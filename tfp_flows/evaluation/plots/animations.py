"""Particles on their way from the base to the data, as an animation."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flows.checks import positive_int
from tfp_flows.evaluation.plots.drawing import DATA_COLOR, check_points, pyplot, scatter, square_limits
from tfp_flows.evaluation.plots.trajectories import draw_base, plane_flow, trajectory

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

_STILL = 8  # frames of the base before the first layer


def animation(
    flow: Any,
    path: str | pathlib.Path | None = None,
    *,
    data: Any = None,
    num_particles: int = 1000,
    frames: int = 60,
    fps: int = 20,
    conditional_input: Any = None,
    seed: int = 0,
    dpi: int = 80,
    figure: Figure | None = None,
) -> FuncAnimation:
    """Animate how a two-dimensional flow moves particles from the base to the data, layer by layer.

    Within a layer, particles move on straight lines from its input to its output. Within a `ContinuousFlow`, they move
    along its trajectories. Each keeps the color of its angle in
    the base. The limits follow the particles. In a notebook, the returned animation shows itself with controls.

    Args:
      flow: A flow with events of shape `[2]`, or a model over one.
      path: File to write, which replaces an existing one: `.gif`, or `.html` with controls. `None` writes no file.
      data: Points `[N, 2]` to plot beside the particles.
      num_particles: Number of particles, and maximal number of data points.
      frames: Number of frames of the movement.
      fps: Frames per second.
      conditional_input: The condition `[C]` of a conditional flow.
      seed: Seed of the particles, which end as `FlowModel.sample(num_particles, seed=seed)`.
      dpi: Pixels per inch. A panel is 3.4 inches wide.
      figure: Figure to plot into.

    Returns:
      Matplotlib's `FuncAnimation`, with methods `save` and `to_jshtml`.

    Raises:
      ValueError: If events do not have shape `[2]`, data have another shape, or `path` has another ending.

    Example:
      >>> flow = tff.real_nvp(2, num_layers=2, seed=1)
      >>> movie = tff.plots.animation(flow, "flow.gif", num_particles=50, frames=3)
    """
    flow = plane_flow("flow", flow)
    num_particles, frames = positive_int("num_particles", num_particles), positive_int("frames", frames, 2)
    path = None if path is None else pathlib.Path(path)
    if path is not None and path.suffix not in (".gif", ".html"):
        raise ValueError(f"`path` must end in .gif or .html, got {str(path)!r}.")
    data = None if data is None else check_points("data", data, 2)[:num_particles]
    base = draw_base(flow, num_particles, seed)
    points = trajectory(flow, base, conditional_input=conditional_input).points
    limits = [np.asarray(square_limits(p)) for p in points]
    movie = _movie(points, limits, data, frames, fps, figure)
    if path is not None:
        _save(movie, path, fps, dpi)
    return movie


def _movie(points: list, limits: list, data: Any, frames: int, fps: int, figure: Figure | None) -> FuncAnimation:
    plt = pyplot()
    from matplotlib.animation import FuncAnimation

    axes = _axes(figure, 1 if data is None else 2)
    angle = np.arctan2(*points[0].T)
    size = float(np.clip(6000.0 / len(angle), 3.0, 20.0))
    particles = axes[0].scatter(*points[0].T, c=angle, cmap=plt.get_cmap("hsv"), s=size, alpha=0.7, linewidths=0)
    if data is not None:
        scatter(axes[1], data, DATA_COLOR, 0.5, count=len(angle))
        axes[1].set(title="data", xlim=limits[-1][0], ylim=limits[-1][1])
    last = len(points) - 1
    times = np.concatenate([np.zeros(_STILL), np.linspace(0.0, last, frames)])

    def update(frame: int) -> Sequence:
        layer = max(int(np.ceil(times[frame])) - 1, 0)
        u = times[frame] - layer
        u = u * u * (3.0 - 2.0 * u)  # a short rest after each layer
        after = min(layer + 1, last)
        particles.set_offsets((1.0 - u) * points[layer] + u * points[after])
        xlim, ylim = (1.0 - u) * limits[layer] + u * limits[after]
        done = "base" if times[frame] == 0.0 else f"layer {after} of {last}"
        axes[0].set(xlim=xlim, ylim=ylim, title=done)
        return (particles,)

    movie = FuncAnimation(axes[0].figure, update, frames=len(times), interval=1000 / fps)
    movie._repr_html_ = movie.to_jshtml  # Matplotlib's own shows nothing unless a setting of Matplotlib is changed
    return movie


def _axes(figure: Figure | None, count: int) -> np.ndarray:
    """Return `count` square panels, in a figure that pyplot does not know: notebooks would show it once more."""
    if figure is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.4 * count, 3.7))
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.9, wspace=0.04)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax in axes:
        ax.set(xticks=[], yticks=[], box_aspect=1)
    return axes


def _save(movie: FuncAnimation, path: pathlib.Path, fps: int, dpi: int) -> None:
    from tfp_flows.evaluation.plots.gifs import GifWriter, write_whole

    if path.suffix == ".gif":
        path.parent.mkdir(parents=True, exist_ok=True)
        movie.save(path, writer=GifWriter(fps=fps), dpi=dpi)
        return
    page = f'<!DOCTYPE html>\n<meta charset="utf-8">\n{movie.to_jshtml(fps=fps)}'
    write_whole(path, lambda part: pathlib.Path(part).write_text(page, encoding="utf-8"))
