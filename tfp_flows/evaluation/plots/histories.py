"""Training history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flows.evaluation.plots.drawing import DATA_COLOR, SAMPLE_COLOR, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    ax = ax if ax is not None else pyplot().subplots()[1]
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
