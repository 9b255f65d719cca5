"""Seeds: every random choice takes one, and `keras.utils.set_random_seed` decides where none is given."""

from __future__ import annotations

import random

import numpy as np

_FIRST_DRAWN = 2**32  # seeds that nobody gave are at least this


def resolve_seed(seed: int | None) -> int:
    """Return `seed`, or one drawn from Python's generator, which `keras.utils.set_random_seed` seeds.

    Args:
      seed: A non-negative integer or `None`.

    Returns:
      An integer, so that whatever was built with it can be built again.

    Raises:
      ValueError: If `seed` is neither `None` nor a non-negative integer.
    """
    if seed is None:
        return _FIRST_DRAWN + random.randrange(2**31)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be a non-negative integer or None, got {seed!r}.")
    return int(seed)


def structure_seed(seed: int) -> int:
    """Return the seed of what is drawn at construction and is not a weight, such as permutations and orders.

    It is `seed` where a user gave one, else 0: the same code then builds the same structure in every process, and weights
    mean the same wherever they are loaded.

    Args:
      seed: An integer from `resolve_seed`.
    """
    return 0 if seed >= _FIRST_DRAWN else seed


def split_seed(seed: int, count: int) -> list[int]:
    """Derive `count` independent seeds from one."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count)]
