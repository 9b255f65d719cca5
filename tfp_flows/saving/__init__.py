"""Saving: JSON descriptions of bijectors and distributions without code, files, exports, and conversion from TFP.

`describe` writes the constructor calls of an object, and `from_description` builds it again. TFP's classes keep their
arguments (`parameters`). `tff.serializable` records them for classes and factories of this package and of users.
"""

from tfp_flows.saving import copies as copies  # registers pickling of bijectors and distributions
from tfp_flows.saving.from_tfp import from_tfp
from tfp_flows.saving.reader import from_description
from tfp_flows.saving.writer import describe

__all__ = ["describe", "from_description", "from_tfp"]
