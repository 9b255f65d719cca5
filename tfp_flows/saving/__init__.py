"""Saving: JSON descriptions of bijectors and distributions, pickles, exports, and copies of TFP's flows."""

from tfp_flows.saving import copies as copies  # registers how bijectors and distributions are pickled
from tfp_flows.saving.from_tfp import from_tfp
from tfp_flows.saving.reader import from_description
from tfp_flows.saving.writer import describe

__all__ = ["describe", "from_description", "from_tfp"]
