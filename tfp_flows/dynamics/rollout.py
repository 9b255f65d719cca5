"""Sample paths of a transition density."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.seeds import resolve_seed


def rollout(flow: Any, past, steps: int, n: int = 1, *, seed: int | None = None) -> tf.Tensor:
    """Draw sample paths: each row is sampled given the previous window, and joins the next window.

    Args:
      flow: Flow, or its `FlowModel`, of the next row `[D]` given a flat window of `T` rows (see `sequence_windows`).
      past: The window before the paths, `[T, D]`, or several, `[B, T, D]`, oldest row first.
      steps: Number of rows to draw.
      n: Number of paths per window.
      seed: Integer seed.

    Returns:
      Paths `[n, steps, D]`, or `[n, B, steps, D]`. The cost is that of `steps` samples in sequence, for all paths at once.

    Raises:
      ValueError: If the size of the flow's condition is not a multiple of `D`, or `past` has another shape.

    Example:
      >>> flow = tff.maf(2, num_layers=1, conditional_size=6, seed=1)
      >>> tff.rollout(flow, tf.zeros([3, 2]), steps=5, n=4, seed=1).shape
      TensorShape([4, 5, 2])
    """
    flow = getattr(flow, "distribution", flow) if not isinstance(flow, FlowDistribution) else flow
    size = getattr(flow, "conditional_size", None)
    if not isinstance(flow, FlowDistribution) or flow.event_shape.rank != 1 or not size or size % flow.event_shape[0]:
        raise ValueError(f"`flow` must be conditional on a window of its own rows, got {flow!r}.")
    steps, n = positive_int("steps", steps), positive_int("n", n)
    columns = flow.event_shape[0]
    window = size // columns
    past = tf.convert_to_tensor(past, flow.dtype)
    if past.shape.rank not in (2, 3) or past.shape[-2:] != [window, columns]:
        raise ValueError(f"`past` must have shape [{window}, {columns}] or [B, {window}, {columns}], got {past.shape}.")
    batch = past.shape[:-2].as_list()
    start = tf.reshape(tf.repeat(past[tf.newaxis], n, axis=0), [-1, window, columns])
    seeds = tf.random.experimental.stateless_split([resolve_seed(seed) % 2**31, 0], steps)

    if flow not in _GRAPHS:
        _GRAPHS[flow] = tf.function(functools.partial(_draw, weakref.ref(flow)), reduce_retracing=True, autograph=False)
    paths = _GRAPHS[flow](start, seeds)  # [steps, n * B, D]
    return tf.reshape(tf.transpose(paths, [1, 0, 2]), [n, *batch, steps, columns])


# One graph per flow, for the lifetime of the flow.
_GRAPHS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _draw(reference, start, seeds):
    flow = reference()
    size = flow.conditional_size

    def step(state, seed):
        rows, _ = state
        row = flow.sample(tf.shape(rows)[0], seed=seed, conditional_input=tf.reshape(rows, [-1, size]))
        row = tf.ensure_shape(row, [rows.shape[0], rows.shape[2]])
        return tf.concat([rows[:, 1:], row[:, tf.newaxis]], axis=1), row

    return tf.scan(step, seeds, (start, start[:, -1]))[1]
