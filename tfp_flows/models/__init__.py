"""Keras 3 models over distributions."""

from tfp_flows.models.flow_model import FlowModel

__all__ = ["FlowModel"]
