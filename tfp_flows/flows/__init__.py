"""The recipes: one function for each named flow. Each returns a transformed distribution that is ready to train."""

from tfp_flows.flows.autoregressive import (
    iaf,
    made,
    maf,
    maf_mog,
    neural_autoregressive,
    spline_autoregressive,
)
from tfp_flows.flows.continuous import continuous_flow
from tfp_flows.flows.coupling import nice, real_nvp, spline_coupling
from tfp_flows.flows.from_tfp import from_tfp
from tfp_flows.flows.gaussianization import gaussianization_flow
from tfp_flows.flows.image import glow, image_real_nvp
from tfp_flows.flows.latent import at_temperature, interpolate
from tfp_flows.flows.recipe import RECIPES
from tfp_flows.flows.residual import planar_flow, radial_flow, sylvester_flow
from tfp_flows.flows.table import table_flow, table_training

__all__ = [
    "RECIPES",
    "at_temperature",
    "continuous_flow",
    "from_tfp",
    "gaussianization_flow",
    "glow",
    "iaf",
    "image_real_nvp",
    "interpolate",
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
]
