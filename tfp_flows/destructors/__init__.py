"""Density destructors: flows that are fitted greedily, without gradients, and estimates of entropy from them."""

from tfp_flows.destructors.destructor import Destructor, GaussianDestructor, MarginalDestructor, MixtureDestructor
from tfp_flows.destructors.information import Estimate, entropy, mutual_information, total_correlation
from tfp_flows.destructors.partitions import HistogramDestructor, TreeDestructor
from tfp_flows.destructors.rbig import rbig
from tfp_flows.destructors.stack import DestructorStack

__all__ = [
    "Destructor",
    "DestructorStack",
    "Estimate",
    "GaussianDestructor",
    "HistogramDestructor",
    "MarginalDestructor",
    "MixtureDestructor",
    "TreeDestructor",
    "entropy",
    "mutual_information",
    "rbig",
    "total_correlation",
]
