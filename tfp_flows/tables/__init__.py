"""Tables with columns of every kind: descriptions of columns, a distribution of rows, and its model."""

from tfp_flows.tables.columns import Column, Columns
from tfp_flows.tables.distribution import TableDistribution
from tfp_flows.tables.fit import fit_table
from tfp_flows.tables.model import TableModel

__all__ = ["Column", "Columns", "TableDistribution", "TableModel", "fit_table"]
