"""Recipes: functions that return named flows, ready to train."""

from tfp_flows.recipes.autoregressive import (
    autoregressive_flow,
    iaf,
    made,
    maf,
    maf_mog,
    neural_autoregressive,
    spline_autoregressive,
)
from tfp_flows.recipes.continuous import continuous_flow, image_continuous_flow, with_solver
from tfp_flows.recipes.coupling import coupling_flow, nice, real_nvp, spline_coupling
from tfp_flows.recipes.gaussianization import gaussianization_flow
from tfp_flows.recipes.image import glow, image_real_nvp
from tfp_flows.recipes.planar import planar_flow, radial_flow, sylvester_flow
from tfp_flows.recipes.recipe import RECIPES as RECIPES
from tfp_flows.recipes.table import table_flow, table_training

__all__ = [
    "autoregressive_flow",
    "continuous_flow",
    "coupling_flow",
    "gaussianization_flow",
    "glow",
    "iaf",
    "image_continuous_flow",
    "image_real_nvp",
    "made",
    "maf",
    "maf_mog",
    "neural_autoregressive",
    "nice",
    "planar_flow",
    "radial_flow",
    "real_nvp",
    "spline_autoregressive",
    "spline_coupling",
    "sylvester_flow",
    "table_flow",
    "table_training",
    "with_solver",
]
