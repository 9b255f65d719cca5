"""Bins of an integer column: single integers where rows are frequent, ranges elsewhere, and tails beyond the data."""

from __future__ import annotations

import math

import numpy as np

MOST_SINGLE = 128  # integers that have a bin each
QUANTILES = 64


def integer_bins(
    values: np.ndarray, bounds: tuple[float, float], dtype: str, limits: tuple[int, int] | None = None
) -> tuple[tuple[int, ...], tuple[float, float], tuple[float, float]]:
    """Return edges, the mean distances in both tails (0 for none), and the bounds of an integer column.

    Values that were never negative have no lower tail, and neither have values with a bound. `limits` are the least and the
    largest integer that need a bin; those of `values` if `None`.
    """
    low, high = bounds
    least, most = limits or (int(values.min()), int(values.max()))
    if math.isinf(low) and least >= 0:
        low = -1.0
    size = dtype.lower().removeprefix("u")
    if size in ("int8", "int16"):
        info = np.iinfo(dtype.lower())
        low, high = max(low, info.min - 1.0), min(high, info.max + 1.0)
    if most - least < MOST_SINGLE:
        edges = np.arange(least, most + 2)
    else:
        levels, counts = np.unique(values, return_counts=True)
        frequent = levels[np.argsort(-counts, kind="stable")[:QUANTILES]]
        frequent = frequent[np.isin(frequent, levels[counts >= max(2, 5e-4 * len(values))])]
        quantiles = np.quantile(values, np.linspace(0.0, 1.0, QUANTILES + 1), method="lower")
        edges = np.unique(np.concatenate([quantiles, frequent, frequent + 1, [least, most + 1]]).astype(np.int64))
    first = [math.floor(low) + 1] if math.isfinite(low) else []
    last = [math.ceil(high)] if math.isfinite(high) else []
    edges = np.unique(np.concatenate([first, edges, last]).astype(np.int64))
    distance = max(1.0, float(np.std(values)))
    tails = (0.0 if first else distance, 0.0 if last else distance)
    return tuple(map(int, edges)), tails, (low, high)


def count_bins(values: np.ndarray, edges: tuple[int, ...], tails: tuple[float, float]) -> tuple[float, ...]:
    """Return the log-frequencies of lower tail, bins and upper tail. Each counts half a row more than it has."""
    counts = np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges) - 1) + 0.5
    counts = np.concatenate([[0.5] * (tails[0] > 0), counts, [0.5] * (tails[1] > 0)])
    return tuple(np.log(counts / counts.sum()).tolist())
