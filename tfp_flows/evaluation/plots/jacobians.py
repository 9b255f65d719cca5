"""Mean absolute Jacobian of a bijector, which shows which output depends on which input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import layers_of
from tfp_flows.bijectors.conditioning import conditional_kwargs
from tfp_flows.checks import one_of, positive_int
from tfp_flows.evaluation.plots.drawing import check_points, number_ticks, pyplot
from tfp_flows.evaluation.plots.trajectories import bijector_kwargs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

tfb, tfd = tfp.bijectors, tfp.distributions
_MOST_VALUES = 2**22  # of the copies of the points in one gradient
_ZERO_COLOR = "0.88"


def jacobian(
    bijector: Any,
    x: Any = None,
    *,
    direction: str = "forward",
    conditional_input: Any = None,
    num_points: int = 32,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Plot the mean of `|dy_i / dx_j|` over points, by automatic differentiation, as a heat map.

    Entry `(i, j)` shows how much output `i` depends on input `j`. The color scale is logarithmic. Entries that are
    exactly zero at all points are gray and hatched: the output does not depend on this input.

    Args:
      bijector: Any `tfb.Bijector` from vectors to vectors of the same size, a flow, or a model over one.
      x: Points `[N, D]`: latent values for `"forward"`, data for `"inverse"`. By default, draws from a standard normal
        distribution.
      direction: `"forward"`, from latent values to data, or `"inverse"`.
      conditional_input: The condition `[C]` of a conditional bijector.
      num_points, seed: Number and seed of the points, if `x` is `None`.
      ax: Axes to plot into.

    Returns:
      The axes. `ax.images[0].get_array()` holds the means, `[D, D]`, with zeros masked.

    Raises:
      ValueError: If `bijector` does not map vectors, `x` has another shape, or the size of events is not known.

    Example:
      >>> made = tff.masked_autoregressive_template([16], event_size=4, seed=1)
      >>> ax = tff.plots.jacobian(tff.MaskedAutoregressiveFlow(made))
      >>> ax.images[0].get_array().mask[0].tolist()  # the first output depends on the first input alone
      [False, True, True, True]
    """
    one_of("direction", direction, ("forward", "inverse"))
    bijector, kwargs, size = _resolve(bijector, conditional_input)
    if x is None:
        if size is None:
            raise ValueError(
                "`x` must be given, an array [N, D], since the bijector does not know the size of its events."
            )
        x = np.random.default_rng(seed).normal(size=[positive_int("num_points", num_points), size])
    x = check_points("x", x, size)
    mean = _mean_absolute(lambda value: getattr(bijector, direction)(value, **kwargs), tf.cast(x, _dtype(bijector)))
    return _heat_map(mean, ("y", "x") if direction == "forward" else ("x", "y"), ax)


def _resolve(bijector: Any, conditional_input: Any) -> tuple[tfb.Bijector, dict, int | None]:
    """Return the bijector of a flow or model, the keywords of its condition, and the size of its events if it is known."""
    flow = (
        bijector if isinstance(bijector, (tfb.Bijector, tfd.Distribution)) else getattr(bijector, "distribution", None)
    )
    if isinstance(flow, tfd.Distribution) and isinstance(getattr(flow, "bijector", None), tfb.Bijector):
        if flow.event_shape.rank != 1:
            raise ValueError(f"`bijector` must map vectors, got a flow with events of shape {flow.event_shape}.")
        return flow.bijector, bijector_kwargs(flow, conditional_input), flow.event_shape[0]
    if not isinstance(flow, tfb.Bijector):
        raise ValueError(f"`bijector` must be a tfb.Bijector, a flow, or a model over one, got {bijector!r}.")
    if flow.forward_min_event_ndims > 1:
        raise ValueError(f"`bijector` must map vectors, got one for events of rank {flow.forward_min_event_ndims}.")
    kwargs = {} if conditional_input is None else conditional_kwargs(flow, tf.cast(conditional_input, _dtype(flow)))
    sizes = {_event_size(layer) for layer in layers_of(flow)} - {None}
    return flow, kwargs, sizes.pop() if len(sizes) == 1 else None


def _dtype(bijector: tfb.Bijector) -> tf.DType:
    """Return the dtype of a bijector, or of its weights if it takes its dtype from each input."""
    dtypes = [bijector.dtype, *(v.dtype for v in bijector.trainable_variables)]
    return next((dtype for dtype in dtypes if dtype is not None), tf.float32)


def _event_size(layer: tfb.Bijector) -> int | None:
    """Return the size of the events of a bijector, its own or that of its network, if it is known."""
    network = getattr(getattr(layer, "_conditioner", None), "fn", None)
    return getattr(layer, "event_size", None) or getattr(network, "event_size", None)


def _mean_absolute(fn: Callable, x: tf.Tensor) -> np.ndarray:
    """Return the mean of `|dy_i / dx_j|` over the rows of `x`, `[outputs, D]`.

    It takes one gradient of as many copies of each row as there are outputs. Rows are processed in parts that fit into memory.
    """
    size = x.shape[1]
    rows = max(1, _MOST_VALUES // size**2)
    total = np.zeros([size, size])
    for part in np.array_split(x, -(-len(x) // rows)):
        copies = tf.repeat(tf.constant(part), size, axis=0)  # [N * D, D]
        with tf.GradientTape() as tape:
            tape.watch(copies)
            y = fn(copies)
            if y.shape != copies.shape:
                raise ValueError(f"`bijector` must map {size} to {size} dimensions, got {y.shape[1:]} from `x`.")
            own = tf.reduce_sum(y * tf.tile(tf.eye(size, dtype=y.dtype), [len(part), 1]))
        gradient = tape.gradient(own, copies, unconnected_gradients="zero")
        total += np.abs(np.reshape(gradient, [len(part), size, size])).sum(axis=0)
    return total / len(x)


def _heat_map(mean: np.ndarray, names: tuple[str, str], ax: Axes | None) -> Axes:
    plt = pyplot()
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Patch
    from matplotlib.ticker import LogLocator

    ax = ax if ax is not None else plt.subplots(figsize=(5.2, 4.5), layout="constrained")[1]
    shown = np.ma.masked_equal(mean, 0.0)
    top = shown.max() if shown.count() else 1.0
    low = np.clip(shown.min() if shown.count() else 1.0, 1e-6 * top, 0.5 * top)  # smaller entries have the lowest color
    image = ax.imshow(shown, cmap="viridis", norm=LogNorm(low, top), interpolation="nearest")
    zeros = np.argwhere(np.ma.getmaskarray(shown))
    ax.set_facecolor(_ZERO_COLOR)
    for i, j in zeros if len(zeros) <= 1024 else ():  # finer hatches would not be seen
        cell = plt.Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=_ZERO_COLOR, edgecolor="0.7", hatch="//", linewidth=0)
        ax.add_patch(cell)
    output, given = names
    label = rf"mean $|\partial {output}_i\, /\, \partial {given}_j|$"
    ticks = {"ticks": LogLocator(subs=(1.0, 2.0, 5.0), numticks=12), "format": "{x:g}"}
    ax.figure.colorbar(image, ax=ax, label=label, shrink=0.85, **ticks).minorticks_off()
    if len(zeros):
        patch = Patch(facecolor=_ZERO_COLOR, edgecolor="0.7", hatch="//", label="exactly zero")
        ax.legend(handles=[patch], loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, fontsize=9)
    ax.set(xlabel=f"input ${given}_j$", ylabel=f"output ${output}_i$")
    number_ticks(ax.yaxis, len(mean), 10)
    number_ticks(ax.xaxis, len(mean), 10)
    return ax
