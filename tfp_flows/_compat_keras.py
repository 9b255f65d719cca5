"""Private names of Keras that this package needs, each with its reason.

`tests/test_compat.py` has a test of each, which fails when the name changes, or when the reason is gone.
"""

from __future__ import annotations

import contextlib

import keras


@contextlib.contextmanager
def open_to_new_weights(layer: keras.Layer):
    """Allow a built layer to add weights: a network inside may learn its sizes in the first call."""
    tracker = layer._tracker
    locked, tracker.locked = tracker.locked, False
    try:
        yield
    finally:
        tracker.locked = locked
