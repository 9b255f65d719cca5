"""Standardization by training data, as a bijector, so that densities keep the units of the data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.data.arrays import to_array
from tfp_flows.data.moments import moments
from tfp_flows.data.streams import Stream
from tfp_flows.registry import serializable

_EXAMPLES = 8192  # rows that are kept


@serializable
class Standardize(FlowBijector):
    """Affine map from standardized values to data, `forward(x) = x * scale + shift`. `inverse` standardizes data.

    `log |det dy/dx| = sum(log(scale))`.

    `shift` and `scale`, each `[D]`, are the mean and the standard deviation of the training data. They are
    non-trainable variables, saved with a flow's weights. Pass the bijector to a recipe as
    `preprocess=`, or make it the last map of a flow. Cost per direction and event: `O(D)`.

    Args:
      event_size: Integer `D`. A new bijector is the identity until `adapt` is called.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Example:
      >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
      >>> print(tff.standardize(x).inverse(x).numpy())
      [[-1. -1.]
       [ 1.  1.]]
    """

    is_affine = True
    adapts_in_fit = False  # `fit` adapts by its first batch; standardization needs all rows
    examples: np.ndarray | None = None  # rows of an array, by which a `Support` standardizes its unconstrained values

    def __init__(
        self, event_size: int, *, dtype: tf.DType = tf.float32, validate_args: bool = False, name: str = "standardize"
    ):
        super().__init__(event_size, constant_log_det=True, dtype=dtype, validate_args=validate_args, name=name)
        self.shift = tf.Variable(tf.zeros([event_size], self.dtype), trainable=False, name="shift")
        self.scale = tf.Variable(tf.ones([event_size], self.dtype), trainable=False, name="scale")

    def adapt(self, data) -> None:
        """Set `shift` and `scale` to the mean and standard deviation of `data`, an array `[N, D]`, in one pass.

        A `tff.streams.Stream`, a `tf.data.Dataset` of batches, or an iterator of arrays is read batch by batch.

        Raises:
          ValueError: If `data` has another shape, fewer than two rows, a value that is not finite, or a constant column.
        """
        found = moments("`data`", self.event_size, _chunks_of(data))
        if found.rows < 2:
            raise ValueError(f"`data` must have at least 2 rows to standardize by, got {found.rows}.")
        # Rounding gives a constant column a tiny deviation, and a true deviation may underflow in float32.
        varies = (found.highest > found.lowest) & (found.deviation.astype(self.scale.dtype.as_numpy_dtype) > 0)
        if not np.all(varies):
            column = int(np.argmin(varies))
            raise ValueError(f"`data` is constant in column {column}, which has no density there.")
        self._set(found.mean, found.deviation)

    def adapt_to_conditions(self, data) -> None:
        """Adapt to conditions `[N, D]`. Constant columns, and flags of zeros and ones, are not scaled.

        Raises:
          ValueError: If `data` has another shape or a value that is not finite.
        """
        data = np.asarray(data, np.float64)
        found = moments("`data`", self.event_size, [data])
        kept = (found.lowest == found.highest) | np.all((data == 0) | (data == 1), axis=0)
        self._set(np.where(kept, 0.0, found.mean), np.where(kept, 1.0, found.deviation))

    def _set(self, shift: np.ndarray, scale: np.ndarray) -> None:
        self.shift.assign(shift)
        self.scale.assign(scale)
        self.set_adapted()

    def forward_and_log_det(self, x):
        return x * self.scale + self.shift, tf.reduce_sum(tf.math.log(self.scale))

    def inverse_and_log_det(self, y):
        return (y - self.shift) / self.scale, -tf.reduce_sum(tf.math.log(self.scale))


def _chunks_of(data: Any) -> Iterable:
    if isinstance(data, Stream):
        return data.chunks()
    if isinstance(data, tf.data.Dataset):
        return (batch[1] if isinstance(batch, tuple) else batch for batch in data.as_numpy_iterator())
    return data if isinstance(data, Iterator) else [data]


def standardize(data, *, dtype: tf.DType = tf.float32, name: str = "standardize") -> Standardize:
    """Return a `Standardize` bijector adapted to `data`, which should be training data only.

    Args:
      data: Array or data frame `[N, D]`; or batches, which are read one by one: an iterator, a `tff.streams.Stream` or a
        `tf.data.Dataset`, of whose pairs the second part counts.
      dtype, name: `tf.float32` or `tf.float64`; name of the bijector.

    Raises:
      ValueError: If the shape is different, or a column is constant or not finite.
    """
    if isinstance(data, Iterator):
        first = np.asarray(next(data, []))
        shape, data = list(first.shape), itertools.chain([first], data)
    elif isinstance(data, (Stream, tf.data.Dataset)):
        spec = data.element_spec[1] if isinstance(data.element_spec, tuple) else data.element_spec
        shape = spec.shape.as_list() if spec.shape.rank is not None else []
    else:
        data = to_array("data", data)
        shape = list(np.shape(data))
    if len(shape) != 2 or shape[1] is None:
        raise ValueError(f"`data` must have shape [N, D], got {shape}.")
    bijector = Standardize(shape[1], dtype=dtype, name=name)
    bijector.adapt(data)
    if isinstance(data, np.ndarray):
        bijector.examples = data[:: -(-len(data) // _EXAMPLES)].copy()
    return bijector
