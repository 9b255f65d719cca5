"""What the conditioned bijectors share: the function that conditions them, tracked."""

from __future__ import annotations

from collections.abc import Callable

from tfp_flows.templates import as_template
from tfp_flows.tracking import Mirror


def tracked_conditioner(shift_and_log_scale_fn: Callable | None, bijector_fn: Callable | None):
    """Returns both functions with the given one tracked, and the tracked one once more, to be kept as an attribute.

    Raises:
      ValueError: If neither or both are given.
    """
    if (shift_and_log_scale_fn is None) == (bijector_fn is None):
        given = "neither" if bijector_fn is None else "both"
        raise ValueError(f"Exactly one of `shift_and_log_scale_fn` and `bijector_fn` must be given, got {given}.")
    if bijector_fn is not None:
        tracked = Mirror(bijector_fn)
        return None, tracked, tracked
    tracked = as_template(shift_and_log_scale_fn)
    return tracked, None, tracked
