"""Affine coupling (RealNVP, NICE): TFP's bijector with variables that are tracked."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow_probability as tfp

from tfp_flows.bijectors.conditioned import tracked_conditioner

tfb = tfp.bijectors


class RealNVP(tfb.RealNVP):
    """Coupling flow `y[:k] = x[:k]`, `y[k:] = x[k:] exp(log_scale(x[:k])) + shift(x[:k])` (Dinh et al. 2016, eq. 4-7).

    `log |det dy/dx| = sum(log_scale(x[:k]))` (eq. 6). A drop-in for `tfb.RealNVP`, with the same arguments. It
    differs in what it accepts and shows: `shift_and_log_scale_fn` may be any Keras 3 or tf_keras network or function
    (see `as_template`), `bijector_fn` any function over one, and `trainable_variables` lists their weights, also
    through `Chain`, `Invert` and `TransformedDistribution`. Giving neither function, or both, is an error.

    Cost per direction and event: one pass of the network, in both directions.

    Args:
      num_masked: Number `k` of leading dimensions that stay and condition the others; if negative, the trailing ones.
      fraction_masked: The same as a fraction of the event size.
      shift_and_log_scale_fn: Template, network or callable `(x[:k], output_units, **condition_kwargs)`, which returns
        `(shift, log_scale)` or one tensor.
      bijector_fn: Callable `(x[:k], output_units, **condition_kwargs)` that returns a bijector for the rest.
      is_constant_jacobian, validate_args, name: As in `tfb.RealNVP`.

    Raises:
      ValueError: If neither or both of the functions are given.

    Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[...]` and is in nats.

    Example:
      >>> net = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
      >>> bijector = RealNVP(num_masked=1, shift_and_log_scale_fn=net)
      >>> bijector.forward(tf.ones([5, 2])).shape, len(bijector.trainable_variables)
      (TensorShape([5, 2]), 4)

    References:
      L. Dinh, D. Krueger and Y. Bengio, NICE, 2014, arXiv:1410.8516.
      L. Dinh, J. Sohl-Dickstein and S. Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.
    """

    def __init__(
        self,
        num_masked: int | None = None,
        fraction_masked: float | None = None,
        shift_and_log_scale_fn: Callable | None = None,
        bijector_fn: Callable | None = None,
        is_constant_jacobian: bool = False,
        validate_args: bool = False,
        name: str | None = None,
    ):
        shift_and_log_scale_fn, bijector_fn, self._conditioner = tracked_conditioner(
            shift_and_log_scale_fn, bijector_fn
        )
        super().__init__(
            num_masked=num_masked,
            fraction_masked=fraction_masked,
            shift_and_log_scale_fn=shift_and_log_scale_fn,
            bijector_fn=bijector_fn,
            is_constant_jacobian=is_constant_jacobian,
            validate_args=validate_args,
            name=name,
        )
