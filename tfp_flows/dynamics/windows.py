"""Time series as pairs of past and next rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.seeds import resolve_seed


def sequence_windows(
    series: Any,
    window: int,
    *,
    horizon: int = 1,
    batch_size: int = 256,
    shuffle: bool = False,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
) -> tf.data.Dataset:
    """Return pairs (past, next) of a multivariate series, as a `tf.data` pipeline for `FlowModel.fit` of a conditional flow.

    Args:
      series: Array `[N, D]` in order of time, or a list of arrays, such as the parts between gaps. No pair crosses their ends.
      window: Number `T` of past rows.
      horizon: Distance from the last past row to the next one; 1 for the row that follows.
      batch_size: Pairs in a batch.
      shuffle: Whether to shuffle the pairs anew in each epoch.
      seed: Integer seed of the shuffling.
      dtype: Dtype of the pairs.

    Returns:
      A dataset of pairs of the flat past, `[batch, T D]` (oldest row first), and the next row, `[batch, D]`. The series
        is stored once; windows are gathered batch by batch.

    Raises:
      ValueError: If the series has another shape, is shorter than a window and its horizon, or has a value that is not finite.

    Example:
      >>> past, following = next(iter(tff.sequence_windows(np.arange(10.0)[:, None], window=3)))
      >>> print(past.numpy()[0], following.numpy()[0], len(past))
      [0. 1. 2.] [3.] 7
    """
    window, horizon = positive_int("window", window), positive_int("horizon", horizon)
    batch_size = positive_int("batch_size", batch_size)
    parts = _checked_parts(series)
    ends = np.cumsum([len(part) for part in parts])
    begins = [np.arange(end - len(part), end - window - horizon + 1) for part, end in zip(parts, ends, strict=True)]
    begins = np.concatenate(begins) if begins else np.zeros(0)
    if not len(begins):
        raise ValueError(
            f"`series` must have more than {window + horizon - 1} rows in one part, for `window` and `horizon`."
        )
    rows = tf.constant(np.concatenate(parts), dtype)
    size = rows.shape[1]
    data = tf.data.Dataset.from_tensor_slices(begins)
    if shuffle:
        data = data.shuffle(len(begins), seed=resolve_seed(seed), reshuffle_each_iteration=True)

    @tf.autograph.experimental.do_not_convert
    def gather(first):
        past = tf.gather(rows, first[:, tf.newaxis] + tf.range(window, dtype=first.dtype))
        return tf.reshape(past, [-1, window * size]), tf.gather(rows, first + window + horizon - 1)

    return data.batch(batch_size).map(gather).prefetch(2)


def _checked_parts(series: Any) -> list[np.ndarray]:
    parts = [np.asarray(part) for part in (series if isinstance(series, (list, tuple)) else [series])]
    size = parts[0].shape[-1] if parts and parts[0].ndim == 2 else None
    for i, part in enumerate(parts):
        name = "`series`" if len(parts) == 1 else f"`series[{i}]`"
        if part.ndim != 2 or part.shape[1] != size:
            raise ValueError(f"{name} must have shape [N, {size or 'D'}], got {list(part.shape)}.")
        if not np.all(np.isfinite(part)):
            row, column = np.argwhere(~np.isfinite(part))[0]
            raise ValueError(f"{name} must be finite, got {part[row, column]} in row {row}, column {column}.")
    return parts
