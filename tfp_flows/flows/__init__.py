"""The recipes: one function for each named flow. Each returns a transformed distribution that is ready to train."""

from tfp_flows.flows.autoregressive import (
    iaf,
    made,
    maf,
    maf_mog,
    neural_autoregressive,
    spline_autoregressive,
)
from tfp_flows.flows.coupling import nice, real_nvp, spline_coupling
from tfp_flows.flows.planar import planar_flow
from tfp_flows.flows.recipe import RECIPES, from_recipe

__all__ = [
    "RECIPES",
    "from_recipe",
    "iaf",
    "made",
    "maf",
    "maf_mog",
    "neural_autoregressive",
    "nice",
    "planar_flow",
    "real_nvp",
    "spline_autoregressive",
    "spline_coupling",
]
