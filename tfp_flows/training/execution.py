"""Number of training steps that one call from Python runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

# Steps that one call from Python may run: what Keras does around a step takes about as long as a step of a small flow.
MOST_STEPS_PER_EXECUTION = 16
_BATCH_HOOKS = tuple(f"on_{kind}batch_{end}" for kind in ("", "train_", "test_") for end in ("begin", "end"))


def _looks_at_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback is called at every batch, so that each must be a call of its own."""
    kind = type(callback)
    saves = kind in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore) or getattr(
        kind, "only_saves", False
    )
    if saves and callback.save_freq == "epoch":
        return False  # nothing to do at a batch
    return any(
        name in vars(callback) or getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)
        for name in _BATCH_HOOKS
    )


def steps_per_execution(data: Any, callbacks: Sequence[keras.callbacks.Callback], limits: Sequence[int | None]) -> int:
    """Returns a number of steps that fits an epoch: one where a callback looks at batches, else up to 16.

    Args:
      data: What `fit` trains on.
      callbacks: Those that the user gave.
      limits: `steps_per_epoch` and `validation_steps`, where they are given.
    """
    if not isinstance(data, tf.data.Dataset) or any(map(_looks_at_batches, callbacks)):
        return 1
    # Keras would run over the end of an epoch that is not a multiple.
    limit = math.gcd(*[n for n in limits if n])  # 0 if there is none
    if limit:
        return max(n for n in range(1, MOST_STEPS_PER_EXECUTION + 1) if limit % n == 0)
    batches = int(data.cardinality())
    if batches < 1:  # unknown
        return MOST_STEPS_PER_EXECUTION
    # The data's end ends the last call as well, but the progress bar counts it in full.
    most = min(MOST_STEPS_PER_EXECUTION, batches)
    return min(range(most, most // 2, -1), key=lambda n: -batches % n)
