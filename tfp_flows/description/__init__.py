"""Descriptions of bijectors and distributions: JSON that names classes and their arguments, and holds no code.

`describe` writes down what an object was made from, `from_description` makes it again. TFP's own classes know their
arguments (`parameters`); `serializable` teaches it to classes and factories of this package, and of users.
"""

from tfp_flows.description.copies import reduce
from tfp_flows.description.reader import from_description
from tfp_flows.description.registry import serializable
from tfp_flows.description.writer import describe, without_values

__all__ = ["describe", "from_description", "reduce", "serializable", "without_values"]
