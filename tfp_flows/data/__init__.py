"""Data: densities whose entropy is known, a real data set, and tables from files. Needs NumPy only."""

from tfp_flows.data.density import Density
from tfp_flows.data.faithful import faithful
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

__all__ = [
    "Density",
    "Table",
    "TableError",
    "banana",
    "check_trainable",
    "checkerboard",
    "circles",
    "densities",
    "eight_gaussians",
    "faithful",
    "moons",
    "pinwheel",
    "read_csv",
    "read_table",
    "rings",
    "swiss_roll",
    "two_spirals",
    "write_csv",
]
