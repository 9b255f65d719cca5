"""Seeds: every random choice takes one, and `keras.utils.set_random_seed` decides where none is given."""

from __future__ import annotations

import random

import numpy as np


def resolve_seed(seed: int | None) -> int:
    """Returns `seed`, or one drawn from Python's generator, which `keras.utils.set_random_seed` seeds.

    Args:
      seed: A non-negative integer or `None`.

    Returns:
      An integer, so that whatever was built with it can be built again.

    Raises:
      ValueError: If `seed` is neither `None` nor a non-negative integer.
    """
    if seed is None:
        return random.randrange(2**31)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be a non-negative integer or None, got {seed!r}.")
    return int(seed)


def split_seed(seed: int, count: int) -> list[int]:
    """Derives `count` independent seeds from one."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count)]
