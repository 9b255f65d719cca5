"""Ready-made templates for coupling layers and masked autoregressive flows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_flows.checks import hidden_sizes, positive_int
from tfp_flows.networks.autoregressive import AutoregressiveNetwork
from tfp_flows.networks.conditioner import Conditioner
from tfp_flows.networks.dense import DenseNetwork, policy_for, spread_biases
from tfp_flows.numerics import DEFAULT_LOG_SCALE_BOUND, real_dtype
from tfp_flows.transformers import AffineTransformer, ShiftTransformer, Transformer


def real_nvp_template(
    hidden_units: Sequence[int] = (64, 64),
    *,
    input_units: int | None = None,
    output_units: int | None = None,
    shift_only: bool = False,
    transformer: Transformer | None = None,
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    conditional_size: int | None = None,
    use_bias: bool = True,
    kernel_initializer="he_uniform",
    bias_initializer=None,
    kernel_regularizer=None,
    bias_regularizer=None,
    circular_inputs: Sequence[int] = (),
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "real_nvp_template",
) -> Conditioner:
    """Build a multilayer perceptron for affine (RealNVP, arXiv:1605.08803) or additive (NICE, arXiv:1410.8516) coupling.

    Unlike `tfb.real_nvp_default_template`, it is tracked, starts as the identity, bounds its log-scale, and takes conditions.

    Args:
      hidden_units: Sizes of the hidden layers.
      input_units, output_units: Numbers of dimensions that the network reads (`num_masked`) and that it transforms.
        Without sizes, the first call creates the weights.
      shift_only: Whether to return only the shift (NICE).
      transformer: A `Transformer` instead of the affine map. The template then is a `bijector_fn`.
      activation, kernel_initializer: Activation and initializer of the hidden layers. The last layer starts at zero.
      bias_initializer: Initializer of the hidden biases. `None` is uniform on (-1, 1), the range of standardized data.
      use_bias, kernel_regularizer, bias_regularizer: Whether layers have biases, and Keras regularizers, for all layers.
      log_scale_bound: Bound of the log-scale (see `bound_log_scale`); `None` for no bound.
      conditional_size: Size of the `conditional_input`, needed only together with the sizes.
      circular_inputs: Indices of the inputs that are angles. The network reads their cosines and sines, so it is periodic.
      seed, dtype, name: Integer seed of the initial weights, dtype of weights and computation, and name of the template.

    Returns:
      A `Conditioner`. `template(x, output_units, conditional_input=None)` with `x` of shape `[..., input_units]`
        returns `shift` and `log_scale`, each `[..., output_units]`, or with a `transformer` a bijector. Cost per event:
        `O(weights)`.

    Raises:
      ValueError: If a size is not a positive integer, or only one of the two sizes is given.

    Example:
      >>> bijector = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=tff.real_nvp_template([64, 64]))
      >>> bijector.forward(tf.ones([5, 2])).shape
      TensorShape([5, 2])
      >>> len(bijector.trainable_variables)
      6
    """
    transformer = _transformer(transformer, shift_only, log_scale_bound)
    sizes = _sizes(input_units, output_units, transformer.params, conditional_size)
    options = {"activation": activation, "use_bias": use_bias, "seed": seed, "dtype": policy_for(dtype), "name": name}
    initializers = {"kernel_initializer": kernel_initializer, "bias_initializer": bias_initializer}
    regularizers = {"kernel_regularizer": kernel_regularizer, "bias_regularizer": bias_regularizer}
    options |= {"circular_inputs": circular_inputs, **initializers, **regularizers}
    return Conditioner(DenseNetwork(hidden_units, **sizes, **options), transformer, name=name)


def _sizes(input_units: int | None, output_units: int | None, params: int, conditional_size: int | None) -> dict:
    if (input_units is None) != (output_units is None):
        raise ValueError(
            "Give both `input_units` and `output_units`, or neither, got "
            f"input_units={input_units!r} and output_units={output_units!r}."
        )
    if input_units is None:
        return {}
    outputs = params * positive_int("output_units", output_units)
    return {"input_units": input_units, "output_units": outputs, "conditional_size": conditional_size}


def _transformer(transformer: Transformer | None, shift_only: bool, log_scale_bound: float | None) -> Transformer:
    if transformer is None:
        return ShiftTransformer() if shift_only else AffineTransformer(log_scale_bound)
    if not isinstance(transformer, Transformer):
        raise ValueError(f"`transformer` must be a Transformer such as SplineTransformer(), got {transformer!r}.")
    return transformer


def masked_autoregressive_template(
    hidden_units: Sequence[int] = (64, 64),
    *,
    event_size: int,
    shift_only: bool = False,
    transformer: Transformer | None = None,
    activation="relu",
    input_order: str | Sequence[int] = "left-to-right",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    conditional_size: int | None = None,
    use_bias: bool = True,
    kernel_initializer="he_uniform",
    bias_initializer=None,
    kernel_regularizer=None,
    bias_regularizer=None,
    circular_inputs: Sequence[int] = (),
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "masked_autoregressive_template",
) -> Conditioner:
    """Build a MADE network (Germain et al. 2015, arXiv:1502.03509) for `MaskedAutoregressiveFlow` (arXiv:1705.07057).

    Shift and log-scale of dimension `i` are functions of the dimensions before `i`.

    Args:
      hidden_units, event_size: Sizes of the hidden layers, and of the last axis. The weights are created at once.
      shift_only: Whether to return only the shift.
      transformer: A `Transformer` instead of the affine map. The template then is a `bijector_fn`.
      activation, kernel_initializer: Activation and initializer of the hidden layers. The last layer starts at zero.
      input_order: `"left-to-right"`, `"right-to-left"`, `"random"`, or the degree `1 .. D` of each dimension.
      log_scale_bound: Bound of the log-scale (see `bound_log_scale`); `None` for no bound.
      conditional_size: Size of the `conditional_input`; `None` for no conditions.
      bias_initializer: Initializer of the hidden biases. `None` is uniform on (-1, 1), the range of standardized data.
      use_bias, kernel_regularizer, bias_regularizer: Whether layers have biases, and Keras regularizers, for all layers.
      circular_inputs: Indices of the inputs that are angles. The network reads their cosines and sines, so it is periodic.
      seed, dtype, name: Integer seed of the initial weights, dtype of weights and computation, and name of the template.

    Returns:
      A `Conditioner`. `template(x, conditional_input=None)` with `x` of shape `[..., event_size]` returns `shift` and
        `log_scale` of the same shape, or with a `transformer` a bijector. Cost per event: `O(weights)`.

    Raises:
      ValueError: If a size is not a positive integer, or `input_order` is unknown.

    Example:
      >>> len(tfb.MaskedAutoregressiveFlow(tff.masked_autoregressive_template([64, 64], event_size=2)).trainable_variables)
      6
    """
    event_size, units = positive_int("event_size", event_size), hidden_sizes(hidden_units)
    transformer = _transformer(transformer, shift_only, log_scale_bound)
    options = {"hidden_units": units, "input_order": input_order, "activation": activation, "use_bias": use_bias}
    if conditional_size is not None:
        options |= {"conditional": True, "conditional_event_shape": positive_int("conditional_size", conditional_size)}
        # Units of degree 0 see only the condition. Without them, the first dimension would depend on it only linearly.
        options["hidden_degrees"] = [np.arange(n) * event_size // n for n in units]
    options |= {"kernel_initializer": kernel_initializer, "output_initializer": "zeros"}
    options |= {"bias_initializer": spread_biases() if bias_initializer is None else bias_initializer}
    options |= {"kernel_regularizer": kernel_regularizer, "bias_regularizer": bias_regularizer, "name": name}
    options |= {"circular_inputs": circular_inputs, "dtype": real_dtype(dtype).name, "seed": seed}
    return Conditioner(AutoregressiveNetwork(transformer.params, event_size, **options), transformer, name=name)
