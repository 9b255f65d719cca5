"""Keras 3 models over distributions."""

from tfp_flows.training.annealing import linear_annealing
from tfp_flows.training.dequantization import UniformDequantization, VariationalDequantization
from tfp_flows.training.flow_matching import FlowMatchingModel
from tfp_flows.training.flow_model import FlowModel
from tfp_flows.training.flow_vae import FlowVAE
from tfp_flows.training.model_target import ModelTarget
from tfp_flows.training.surrogate import SurrogatePosterior, surrogate_posterior
from tfp_flows.training.variational_flow import VariationalFlow

__all__ = [
    "FlowMatchingModel",
    "FlowModel",
    "FlowVAE",
    "ModelTarget",
    "SurrogatePosterior",
    "UniformDequantization",
    "VariationalDequantization",
    "VariationalFlow",
    "linear_annealing",
    "surrogate_posterior",
]
