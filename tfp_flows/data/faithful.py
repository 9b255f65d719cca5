"""The Old Faithful data set, which ships with the package."""

from __future__ import annotations

import pathlib

import numpy as np

from tfp_flows.data.tables import read_csv


def faithful() -> tuple[np.ndarray, list[str]]:
    """Load 272 eruptions of the geyser Old Faithful: duration (`eruptions`) and `waiting` to the next, in minutes.

    Returns:
      A float32 array of shape `[272, 2]` and the names of its columns.

    References:
      A. Azzalini and A. W. Bowman, A look at some data on the Old Faithful geyser, Applied Statistics 39, 1990.
    """
    table = read_csv(pathlib.Path(__file__).with_name("faithful.csv"))
    return table.values.astype(np.float32), table.columns
