"""Flows as transition densities of time series."""

from tfp_flows.dynamics.encoded import EncodedFlow
from tfp_flows.dynamics.rollout import rollout
from tfp_flows.dynamics.windows import sequence_windows

__all__ = ["EncodedFlow", "rollout", "sequence_windows"]
