"""The Old Faithful data set."""

from __future__ import annotations

import pathlib

import numpy as np

from tfp_flows.data.tables import read_csv


def faithful() -> tuple[np.ndarray, list[str]]:
    """Return a float32 array `[272, 2]` of eruptions of the geyser Old Faithful, and the names of its columns.

    The columns are the length of the eruption and the waiting time to the next one, in minutes (A. Azzalini and A. W.
    Bowman, A look at some data on the Old Faithful geyser, Applied Statistics 39, 1990).
    """
    table = read_csv(pathlib.Path(__file__).with_name("faithful.csv"))
    return table.values.astype(np.float32), table.columns
