"""Mean and standard deviation of each column in one pass over chunks, in float64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfp_flows.data.arrays import to_array


class Moments:
    """Moments of the rows seen so far, merged chunk by chunk (Chan, Golub and LeVeque, 1979)."""

    def __init__(self, name: str, size: int):
        self._name, self._size = name, size
        self.rows = 0
        self.mean, self._squares = np.zeros(size), np.zeros(size)
        self.lowest, self.highest = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, chunk: Any) -> None:
        """Add a chunk `[n, size]`. Raise a `ValueError` for another shape, or a value that is not finite."""
        chunk = to_array("data", chunk).astype(np.float64)
        if chunk.ndim != 2 or chunk.shape[1] != self._size:
            raise ValueError(f"{self._name} must have shape [N, {self._size}], got {list(chunk.shape)}.")
        if not len(chunk):
            return
        if not np.all(np.isfinite(chunk)):
            row, column = np.argwhere(~np.isfinite(chunk))[0]
            where = f"row {self.rows + row}, column {column}"
            raise ValueError(f"{self._name} must be finite, got {chunk[row, column]} in {where}.")
        rows, mean = len(chunk), chunk.mean(axis=0)
        step, total = mean - self.mean, self.rows + rows
        self._squares += np.square(chunk - mean).sum(axis=0) + np.square(step) * (self.rows * rows / total)
        self.mean += step * (rows / total)
        self.rows = total
        self.lowest = np.minimum(self.lowest, chunk.min(axis=0))
        self.highest = np.maximum(self.highest, chunk.max(axis=0))

    @property
    def deviation(self) -> np.ndarray:
        return np.sqrt(self._squares / max(self.rows, 1))


def moments(name: str, size: int, chunks: Iterable) -> Moments:
    """Return the moments of all rows of the chunks."""
    found = Moments(name, size)
    for chunk in chunks:
        found.add(chunk)
    return found
