"""`FlowBijector`, the base class of the package's bijectors."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.numerics import real_dtype


class FlowBijector(tfp.bijectors.Bijector):
    """Base class for bijectors that compute a value together with its log-det.

    A subclass MUST define

    - `forward_and_log_det(x)`: returns `y = forward(x)` and `log |det dy/dx|`, which broadcasts to the batch shape;
    - `inverse_and_log_det(y)`: returns `x = inverse(y)` and `log |det dx/dy|`, from data to latent.

    If conditional, both take `conditional_input`, `[..., C]`, and the instance has `conditional_size`. A subclass CAN

    - pass `event_size` to `__init__`, so that inputs are checked;
    - define `adapt(data)`, which initializes variables from a batch `[..., D]` on the data side, or from an iterator of
      batches, and ends with `self.set_adapted()`. `FlowModel.fit` calls it once, unless `adapts_in_fit` is false;
    - define `into_range(y)`, if its range is bounded. It returns the events with those outside of the range replaced by
      a point inside, and booleans of the batch shape that mark them. The flow's density is zero there;
    - set `is_affine = True`, so that a flow derives its mean and covariance from those of its base;
    - set `gains_by_jit = False`, if XLA takes longer to compile it than it saves.

    TFP's methods compute the pair and return half of it. A `FlowDistribution` uses the pair and bypasses TFP's cache,
    which in eager mode is stale after a variable has changed.

    Args:
      event_size: Size `D` of the last axis, or `None` for any.
      event_ndims: Rank of an event, or of a latent event if `inverse_event_ndims` is given.
      inverse_event_ndims: Rank of an event in data space, if it differs.
      constant_log_det: Whether the log-det is the same for all events.
      dtype: `tf.float32` or `tf.float64`, or `None` for the dtype of each input.
      validate_args: Whether to check values at run time.
      name: Name of the bijector.

    Raises:
      ValueError: If `event_size` is not a positive integer, or `dtype` is not supported.

    Example:
      >>> class Stretch(tff.FlowBijector):
      ...     def __init__(self, event_size, name="stretch"):
      ...         super().__init__(event_size, name=name)
      ...         self.log_scale = tf.Variable(tf.zeros([event_size]))
      ...     def forward_and_log_det(self, x):
      ...         return x * tf.exp(self.log_scale), tf.reduce_sum(self.log_scale)
      ...     def inverse_and_log_det(self, y):
      ...         return y * tf.exp(-self.log_scale), -tf.reduce_sum(self.log_scale)
      >>> print(Stretch(2).inverse_log_det_jacobian([1.0, 2.0]).numpy())
      -0.0
    """

    event_size: int | None = None
    conditional_size: int | None = None
    constant_log_det = False
    is_affine = False
    gains_by_jit = True
    adapts_in_fit = True

    def __init__(
        self,
        event_size: int | None = None,
        *,
        event_ndims: int = 1,
        inverse_event_ndims: int | None = None,
        constant_log_det: bool = False,
        dtype: tf.DType | None = tf.float32,
        validate_args: bool = False,
        name: str,
    ):
        if event_size is not None:
            self.event_size = positive_int("event_size", event_size)
        self.constant_log_det = constant_log_det
        # No `parameters` are passed: TFP would let bijectors with equal parameters share cached values. TFP also treats
        # a map with a constant Jacobian as affine, and returns wrong moments for an additive coupling.
        super().__init__(
            is_constant_jacobian=constant_log_det and self.is_affine,
            forward_min_event_ndims=event_ndims,
            inverse_min_event_ndims=event_ndims if inverse_event_ndims is None else inverse_event_ndims,
            dtype=None if dtype is None else real_dtype(dtype),
            validate_args=validate_args,
            name=name,
        )
        if self.can_adapt:
            # Keras cannot save a boolean variable.
            self._adapted = tf.Variable(tf.zeros([], self.dtype), trainable=False, name="adapted")

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def forward_and_log_det(self, x: tf.Tensor, **condition_kwargs) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `forward(x)` and its log-det, without TFP's cache."""
        return self._transform("forward", x, condition_kwargs)

    def inverse_and_log_det(self, y: tf.Tensor, **condition_kwargs) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `inverse(y)` and its log-det, without TFP's cache."""
        return self._transform("inverse", y, condition_kwargs)

    def _transform(self, direction: str, value: tf.Tensor, condition_kwargs: dict) -> tuple[tf.Tensor, tf.Tensor]:
        """Evaluate a direction, `"forward"` or `"inverse"`, in subclasses whose directions share their code."""
        raise NotImplementedError

    def adapt(self, data) -> None:
        """Initialize variables from a batch `[..., D]` on the data side, or from an iterator of such batches.

        Raises:
          NotImplementedError: If the class has no data-dependent initialization.
          ValueError: If a batch has another shape or a value that is not finite, or if there are fewer than two rows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no data-dependent initialization.")

    @property
    def can_adapt(self) -> bool:
        """Whether the class supports data-dependent initialization."""
        return type(self).adapt is not FlowBijector.adapt

    @property
    def adapted(self) -> bool:
        """Whether the bijector is initialized, by `adapt` or by a restored checkpoint, or needs no initialization."""
        return not self.can_adapt or bool(self._adapted.numpy() != 0)

    def set_adapted(self) -> None:
        """Mark the bijector as initialized, so that `fit` does not adapt it again."""
        self._adapted.assign(1.0)

    def check_events(self, value: tf.Tensor) -> None:
        """Raise a `ValueError` if the last axis of `value` does not have size `event_size`."""
        if self.event_size is None or value.shape.rank is None:
            return
        if value.shape.rank == 0 or value.shape[-1] not in (None, self.event_size):
            raise ValueError(
                f"{type(self).__name__} expects events of size {self.event_size}, got a tensor of shape {value.shape}."
            )

    def _forward(self, x, **condition_kwargs):
        self.check_events(x)
        return self.forward_and_log_det(x, **condition_kwargs)[0]

    def _inverse(self, y, **condition_kwargs):
        self.check_events(y)
        return self.inverse_and_log_det(y, **condition_kwargs)[0]

    def _forward_log_det_jacobian(self, x, **condition_kwargs):
        self.check_events(x)
        return self.forward_and_log_det(x, **condition_kwargs)[1]

    def _inverse_log_det_jacobian(self, y, **condition_kwargs):
        self.check_events(y)
        return self.inverse_and_log_det(y, **condition_kwargs)[1]
