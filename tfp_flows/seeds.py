"""Seeds of random choices; `keras.utils.set_random_seed` determines those that are not given."""

from __future__ import annotations

import random

import numpy as np

_FIRST_DRAWN = 2**32  # drawn seeds are at least this


def resolve_seed(seed: int | None) -> int:
    """Return `seed`, or one drawn from Python's generator, which `keras.utils.set_random_seed` seeds.

    Raises:
      ValueError: If `seed` is neither `None` nor a non-negative integer.
    """
    if seed is None:
        return _FIRST_DRAWN + random.randrange(2**31)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be a non-negative integer or None, got {seed!r}.")
    return int(seed)


def graph_seed(seed: int | None) -> int:
    """Return a seed that fits in a non-negative int32. Smaller seeds stay as they are, and larger ones are hashed.

    Raises:
      ValueError: If `seed` is neither `None` nor a non-negative integer.
    """
    seed = resolve_seed(seed)
    return seed if seed < 2**31 else split_seed(seed, 1)[0] % 2**31


def structure_seed(seed: int) -> int:
    """Return the seed of random structure that is not a weight, such as permutations and orders.

    It is `seed` if a user gave one, otherwise 0: every process then builds the same structure, so that saved weights fit.
    """
    return 0 if seed >= _FIRST_DRAWN else seed


def split_seed(seed: int, count: int) -> list[int]:
    """Derive `count` independent seeds from one."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count)]
