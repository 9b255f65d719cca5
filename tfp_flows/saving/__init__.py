"""Saving: descriptions of bijectors and distributions as JSON without code, files, exports, and flows made of TFP's.

`describe` writes down what an object was made from, `from_description` makes it again. TFP's own classes know their arguments
(`parameters`); `tff.serializable` does the same for classes and factories of this package and of users.
"""

from tfp_flows.saving import copies as copies  # registers how bijectors and distributions are pickled
from tfp_flows.saving.from_tfp import from_tfp
from tfp_flows.saving.reader import from_description
from tfp_flows.saving.writer import describe

__all__ = ["describe", "from_description", "from_tfp"]
