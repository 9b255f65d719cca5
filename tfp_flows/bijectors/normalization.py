"""Normalization layers: ActNorm, and an invertible batch normalization."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.adapting import deviation_or_one
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.data.moments import Moments
from tfp_flows.registry import serializable
from tfp_flows.tracking import Mirror


class _Affine(FlowBijector):
    """`y = x * exp(log_scale) + shift` with parameters from a subclass and data-dependent initialization."""

    is_affine = True

    def adapt(self, data) -> None:
        """Initialize from mean and standard deviation of each dimension; a constant one gets deviation 1."""
        size, found = self.event_size, Moments(f"`batch` of {self.name}", self.event_size)
        for chunk in data if isinstance(data, Iterator) else [data]:
            shape = np.shape(chunk)
            found.add(np.reshape(chunk, [-1, size]) if shape and shape[-1] == size else chunk)
        if found.rows < 2:
            raise ValueError(f"`batch` of {self.name} must have at least 2 rows, got {found.rows}.")
        largest = np.maximum(np.abs(found.lowest), np.abs(found.highest))
        self._start(found.mean, deviation_or_one(found.deviation, largest, self.dtype))
        self.set_adapted()

    def forward_and_log_det(self, x):
        shift, log_scale = self._shift_and_log_scale()
        return x * tf.exp(log_scale) + shift, tf.reduce_sum(log_scale)

    def inverse_and_log_det(self, y):
        shift, log_scale = self._shift_and_log_scale()
        return (y - shift) * tf.exp(-log_scale), -tf.reduce_sum(log_scale)


@serializable
class ActNorm(_Affine):
    """Trainable affine map with data-dependent initialization (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1).

    `y = x exp(log_scale) + shift`, with one `shift` and `log_scale` per dimension. `adapt(batch)` sets them so that the
    batch, on the data side of this layer, is mapped to standardized latent values. Until then the layer is the
    identity. `FlowModel.fit` calls it once, with its first batch.

    Cost per direction and event: `O(D)`. Shapes: `[..., D]` to `[..., D]`; log-det `[]`, in nats.

    Args:
      event_size: Integer `D`.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Example:
      >>> layer = tff.ActNorm(2)
      >>> y = tf.constant([[1.0, 10.0], [3.0, 30.0]])
      >>> layer.adapt(y)
      >>> print(layer.inverse(y).numpy().round(3))
      [[-1. -1.]
       [ 1.  1.]]
    """

    def __init__(
        self, event_size: int, *, dtype: tf.DType = tf.float32, validate_args: bool = False, name: str = "actnorm"
    ):
        super().__init__(event_size, constant_log_det=True, dtype=dtype, validate_args=validate_args, name=name)
        self.shift = tf.Variable(tf.zeros([event_size], self.dtype), name="shift")
        self.log_scale = tf.Variable(tf.zeros([event_size], self.dtype), name="log_scale")

    def _shift_and_log_scale(self):
        return self.shift, self.log_scale

    def _start(self, mean, deviation):
        self.shift.assign(mean)
        self.log_scale.assign(np.log(deviation))


def _over_replicas(value: tf.Tensor) -> tf.Tensor:
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return value
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, value)


class _BatchMoments(keras.layers.Layer):
    """Layer that stores mean and variance of its last batch in training mode, which Keras passes to `call`."""

    def __init__(self, event_size: int, **kwargs):
        super().__init__(**kwargs)
        options = {"shape": (event_size,), "trainable": False, "aggregation": "mean"}
        self.mean = self.add_weight(initializer="zeros", name="batch_mean", **options)
        self.variance = self.add_weight(initializer="ones", name="batch_variance", **options)
        self.built = True

    def call(self, y, training=None):
        if training:
            rows = tf.stop_gradient(tf.reshape(y, [-1, y.shape[-1]]))
            number = tf.maximum(_over_replicas(tf.cast(tf.shape(rows)[0], y.dtype)), 1.0)
            mean = _over_replicas(tf.reduce_sum(rows, axis=0)) / number
            self.mean.assign(mean)
            self.variance.assign(_over_replicas(tf.reduce_sum(tf.math.squared_difference(rows, mean), axis=0)) / number)
        return y


@serializable
class BatchNormalization(_Affine):
    """Batch normalization by moving statistics, in both directions and modes (Dinh et al. 2016, arXiv:1605.08803, section 3.7).

    `inverse` (data to latent) computes
    `x = (y - moving_mean) / sqrt(moving_variance + epsilon) * exp(log_gamma) + beta`. In training mode (in
    `FlowModel.fit`, or `model(x, training=True)`), it also records the statistics of its batch. `update()`, which
    `FlowModel` calls after each training step, moves the moving statistics towards them. So `forward` and `inverse`
    always invert each other, and the density of an event does not depend on its batch, unlike in the original (Ioffe
    and Szegedy 2015, arXiv:1502.03167) and `tfb.BatchNormalization`. No gradient flows through the statistics of a batch.

    Cost per direction and event: `O(D)`. Shapes: `[..., D]` to `[..., D]`; log-det `[]`, in nats.

    Args:
      event_size: Integer `D`.
      momentum: Momentum of the moving statistics, in [0, 1).
      epsilon: Positive number added to the variance.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> layer = tff.BatchNormalization(2)
      >>> layer.adapt(tf.constant([[1.0, 10.0], [3.0, 30.0]]))
      >>> print(layer.inverse(tf.constant([[1.0, 30.0]])).numpy().round(2))
      [[-1.  1.]]
    """

    def __init__(
        self,
        event_size: int,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "batch_normalization",
    ):
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"`momentum` must be in [0, 1), got {momentum!r}.")
        if not epsilon > 0.0:
            raise ValueError(f"`epsilon` must be positive, got {epsilon!r}.")
        self.momentum, self.epsilon = float(momentum), float(epsilon)
        super().__init__(event_size, constant_log_det=True, dtype=dtype, validate_args=validate_args, name=name)
        zeros, ones = tf.zeros([event_size], self.dtype), tf.ones([event_size], self.dtype)
        average = {"trainable": False, "aggregation": tf.VariableAggregation.MEAN}
        self.beta = tf.Variable(zeros, name="beta")
        self.log_gamma = tf.Variable(zeros, name="log_gamma")
        self.moving_mean = tf.Variable(zeros, name="moving_mean", **average)
        self.moving_variance = tf.Variable(ones, name="moving_variance", **average)
        self._batch = Mirror(_BatchMoments(event_size, dtype=self.dtype.name))

    def _shift_and_log_scale(self):
        log_scale = 0.5 * tf.math.log(self.moving_variance + self.epsilon) - self.log_gamma
        return self.moving_mean - self.beta * tf.exp(log_scale), log_scale

    def inverse_and_log_det(self, y):
        return super().inverse_and_log_det(self._batch(y))

    def _start(self, mean, deviation):
        self.moving_mean.assign(mean)
        self.moving_variance.assign(np.square(deviation))
        self._batch.fn.mean.assign(mean)
        self._batch.fn.variance.assign(np.square(deviation))

    def update(self) -> None:
        """Move the moving statistics towards those of the last batch in training mode, unless they are not finite."""
        mean, variance = self._batch.fn.mean.value, self._batch.fn.variance.value
        finite = tf.reduce_all(tf.math.is_finite(mean) & tf.math.is_finite(variance))
        rate = tf.where(finite, tf.constant(1.0 - self.momentum, self.dtype), tf.zeros([], self.dtype))
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_add(rate * (tf.where(finite, batch, moving) - moving))
