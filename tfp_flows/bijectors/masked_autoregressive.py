"""Masked autoregressive flow: TFP's bijector with variables that are tracked."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow_probability as tfp

from tfp_flows.bijectors.conditioned import tracked_conditioner

tfb = tfp.bijectors


class MaskedAutoregressiveFlow(tfb.MaskedAutoregressiveFlow):
    """Autoregressive flow `y[i] = x[i] exp(log_scale(y[:i])) + shift(y[:i])` (Papamakarios et al. 2017, eq. 2-5).

    `log |det dx/dy| = -sum(log_scale)` (eq. 5). A drop-in for `tfb.MaskedAutoregressiveFlow`, with the same arguments;
    `tfb.Invert` of it is the inverse autoregressive flow (Kingma et al. 2016). It differs in what it accepts and shows:
    `shift_and_log_scale_fn` may be any Keras 3 or tf_keras network or function with the autoregressive property (see
    `as_template`), `bijector_fn` any function over one, and `trainable_variables` lists their weights, also through
    `Chain`, `Invert` and `TransformedDistribution`.

    Cost per direction and event: inverse (density) one pass of the network; forward (sampling) `D` passes.

    Args:
      shift_and_log_scale_fn: Template, network or callable `(y, **condition_kwargs)`, which returns
        `(shift, log_scale)`, or one tensor of shape `[..., D, 2]`.
      bijector_fn: Callable `(y, **condition_kwargs)` that returns a bijector of scalars.
      is_constant_jacobian, validate_args, unroll_loop, event_ndims, name: As in `tfb.MaskedAutoregressiveFlow`.

    Raises:
      ValueError: If neither or both of the functions are given.

    Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[...]` and is in nats.

    Example:
      >>> bijector = MaskedAutoregressiveFlow(tff.masked_autoregressive_template([16], event_size=3))
      >>> bijector.inverse(tf.ones([5, 3])).shape, len(bijector.trainable_variables)
      (TensorShape([5, 3]), 4)

    References:
      G. Papamakarios, T. Pavlakou and I. Murray, Masked Autoregressive Flow, 2017, arXiv:1705.07057.
      D. P. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv:1606.04934.
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
        shift_and_log_scale_fn, bijector_fn, self._conditioner = tracked_conditioner(
            shift_and_log_scale_fn, bijector_fn
        )
        super().__init__(
            shift_and_log_scale_fn=shift_and_log_scale_fn,
            bijector_fn=bijector_fn,
            is_constant_jacobian=is_constant_jacobian,
            validate_args=validate_args,
            unroll_loop=unroll_loop,
            event_ndims=event_ndims,
            name=name,
        )
