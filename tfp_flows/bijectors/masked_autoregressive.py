"""Masked autoregressive flow that samples at the cost of about one network pass."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import one_pass
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.networks.broadcasting import broadcast_events
from tfp_flows.networks.conditioner import Conditioner, conditioner_of
from tfp_flows.registry import serializable

# Up to this size, `D` passes of the network are as fast as one pass in a loop of `D` steps, and need no compilation.
_FEW = 3


@serializable
class MaskedAutoregressiveFlow(FlowBijector, tfb.MaskedAutoregressiveFlow):
    """Autoregressive flow `y[i] = x[i] exp(log_scale(y[:i])) + shift(y[:i])` (MAF, arXiv:1705.07057, eq. 2-5).

    `log |det dx/dy| = -sum(log_scale)` (eq. 5). A drop-in replacement for `tfb.MaskedAutoregressiveFlow`, with the same
    arguments. `tfb.Invert` of it is the inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934). Differences:

    - `shift_and_log_scale_fn` may be any Keras 3 or tf_keras network or function with the autoregressive property (see
      `as_template`), and `bijector_fn` any function over one. `masked_autoregressive_template(..., transformer=...)` is
      a `bijector_fn` for any univariate transformer. `trainable_variables` lists the network's weights, also through
      `Chain`, `Invert` and `TransformedDistribution`.
    - For an `AutoregressiveNetwork`, or a template over one, `forward` and its log-det cost about one pass of the
      network instead of `D`. The first call for a batch size (rounded up) compiles under XLA for up to two seconds;
      layers of equal architecture share the compiled code. Gradients reach inputs, conditions and weights; second
      derivatives need `unroll_loop=True`. Other functions, and events of size up to 3, run TFP's loop of `D` passes.

    Cost per direction and event: one pass of the network, for `forward` (sampling) in a loop of `D` steps, or `D`
    passes (see above). Shapes: `[..., D]` to `[..., D]`; log-det `[...]`, in nats.

    Args:
      shift_and_log_scale_fn: Template, network or callable `(y, **condition_kwargs)`, which returns
        `(shift, log_scale)`, or one tensor of shape `[..., D, 2]`.
      bijector_fn: Callable `(y, **condition_kwargs)` that returns a bijector of scalars.
      is_constant_jacobian: Whether the log-det is the same for all events.
      unroll_loop: Whether to unroll the `D` passes of `forward` in Python, instead of one pass.
      event_ndims: Rank of an event. Only rank 1 is evaluated in one pass.
      validate_args, name: Whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If neither or both of the functions are given.

    Example:
      >>> bijector = tff.MaskedAutoregressiveFlow(tff.masked_autoregressive_template([16], event_size=3))
      >>> bijector.forward(tf.ones([5, 3])).shape, len(bijector.trainable_variables)
      (TensorShape([5, 3]), 4)
    """

    def __init__(
        self,
        shift_and_log_scale_fn: Callable | None = None,
        bijector_fn: Callable | None = None,
        is_constant_jacobian: bool = False,
        validate_args: bool = False,
        unroll_loop: bool = False,
        event_ndims: int = 1,
        name: str | None = None,
    ):
        self._conditioner = conditioner_of(shift_and_log_scale_fn, bijector_fn, largest_rank=0)
        self._unrolled, self._rank = bool(unroll_loop), event_ndims
        # Not passed on: TFP treats a map with a constant Jacobian as affine, and returns wrong moments.
        self.constant_log_det = bool(is_constant_jacobian)
        options = {"validate_args": validate_args, "unroll_loop": unroll_loop, "event_ndims": event_ndims, "name": name}
        tfb.MaskedAutoregressiveFlow.__init__(self, bijector_fn=self._conditioner, **options)

    @property
    def conditional_size(self) -> int | None:
        return getattr(self._conditioner, "conditional_size", None)

    def forward_and_log_det(self, x, **condition_kwargs):
        x = broadcast_events(x, condition_kwargs.get("conditional_input"), self._rank)
        network = getattr(self._conditioner, "fn", None)
        one = self._rank == 1 and not self._unrolled and set(condition_kwargs) <= {"conditional_input"}
        if not one or not one_pass.supports(network) or not isinstance(self._conditioner, Conditioner):
            return self._in_passes(x, condition_kwargs)
        if not network.built:
            self._conditioner(tf.zeros_like(x), **condition_kwargs)
        if network.event_size <= _FEW:
            return self._in_passes(x, condition_kwargs)
        return one_pass.forward_and_log_det(network, self._conditioner.transformer, x, **condition_kwargs)

    def _in_passes(self, x: tf.Tensor, condition_kwargs: dict) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `forward(x)` and its log-det by `D` passes, each of which completes one more dimension."""

        def one_more(y):
            return self._conditioner.transform("forward", x, y, event_ndims=self._rank, **condition_kwargs)

        sizes, y = x.shape[x.shape.rank - self._rank :], tf.zeros_like(x)
        if self._unrolled and not sizes.is_fully_defined():
            raise ValueError(f"`unroll_loop=True` needs events whose shape is known, got a tensor of shape {x.shape}.")
        if self._unrolled or (sizes.is_fully_defined() and sizes.num_elements() <= _FEW):
            for _ in range(sizes.num_elements() - 1):
                y, _ = one_more(y)
            return one_more(y)
        count = tf.reduce_prod(tf.shape(x)[-self._rank :])
        y = tf.while_loop(
            lambda step, _: step < count - 1,
            lambda step, y: (step + 1, tf.ensure_shape(one_more(y)[0], x.shape)),
            (tf.constant(0), y),
            maximum_iterations=sizes.num_elements(),
        )[1]
        return one_more(y)

    def inverse_and_log_det(self, y, **condition_kwargs):
        y = broadcast_events(y, condition_kwargs.get("conditional_input"), self._rank)
        return self._conditioner.transform("inverse", y, y, event_ndims=self._rank, **condition_kwargs)
