"""Plots of flows with Matplotlib (`pip install tfp_flows[plots]`).

Most functions take axes or a figure to plot into, or create them, and return the axes.
"""

from tfp_flows.evaluation.plots.animations import animation
from tfp_flows.evaluation.plots.autoregressive_masks import masks
from tfp_flows.evaluation.plots.comparison import compare
from tfp_flows.evaluation.plots.conditions import conditional
from tfp_flows.evaluation.plots.deformations import layers
from tfp_flows.evaluation.plots.densities import density
from tfp_flows.evaluation.plots.drawing import DATA_COLOR, SAMPLE_COLOR
from tfp_flows.evaluation.plots.histories import history
from tfp_flows.evaluation.plots.images import image_grid
from tfp_flows.evaluation.plots.jacobians import jacobian
from tfp_flows.evaluation.plots.points import corner, data_and_samples

__all__ = [
    "DATA_COLOR",
    "SAMPLE_COLOR",
    "animation",
    "compare",
    "conditional",
    "corner",
    "data_and_samples",
    "density",
    "history",
    "image_grid",
    "jacobian",
    "layers",
    "masks",
]
