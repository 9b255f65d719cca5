"""Keras 3 models over distributions."""

from tfp_flows.models.annealing import linear_annealing
from tfp_flows.models.dequantization import UniformDequantization, VariationalDequantization
from tfp_flows.models.flow_model import FlowModel
from tfp_flows.models.flow_vae import FlowVAE
from tfp_flows.models.variational_flow import VariationalFlow

__all__ = [
    "FlowModel",
    "FlowVAE",
    "UniformDequantization",
    "VariationalDequantization",
    "VariationalFlow",
    "linear_annealing",
]
