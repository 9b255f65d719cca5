"""Data: densities of known entropy, a real data set, and tables from files. `targets` loads TensorFlow at its first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfp_flows.data.density import Density
from tfp_flows.data.faithful import faithful
from tfp_flows.data.systems import KickedOscillator, kicked_oscillator
from tfp_flows.data.tables import Table, TableError, check_trainable, read_csv, read_table, write_csv
from tfp_flows.data.toys import (
    banana,
    checkerboard,
    circles,
    densities,
    eight_gaussians,
    moons,
    pinwheel,
    rings,
    swiss_roll,
    two_spirals,
)

if TYPE_CHECKING:
    from tfp_flows.data import targets

__all__ = [
    "Density",
    "KickedOscillator",
    "Table",
    "TableError",
    "banana",
    "check_trainable",
    "checkerboard",
    "circles",
    "densities",
    "eight_gaussians",
    "faithful",
    "kicked_oscillator",
    "moons",
    "pinwheel",
    "read_csv",
    "read_table",
    "rings",
    "swiss_roll",
    "targets",
    "two_spirals",
    "write_csv",
]


def __getattr__(name: str) -> Any:
    if name == "targets":
        return importlib.import_module("tfp_flows.data.targets")
    raise AttributeError(f"module 'tfp_flows.data' has no attribute {name!r}")
