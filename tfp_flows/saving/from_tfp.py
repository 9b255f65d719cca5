"""Copies of trained TFP flows as flows of this package."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _compat_tfp
from tfp_flows.bijectors import ActNorm, MaskedAutoregressiveFlow, RealNVP
from tfp_flows.bijectors.glow_coupling import GlowCoupling
from tfp_flows.distribution import FlowDistribution
from tfp_flows.networks import AutoregressiveNetwork, as_template, real_nvp_template
from tfp_flows.saving.reader import from_description
from tfp_flows.saving.writer import describe

tfb, tfd = tfp.bijectors, tfp.distributions
_LAYERS = ("Activation", "Conv2D", "Dense", "Flatten", "ReLU", "Reshape")  # layers that are equal in Keras 2 and 3


def from_tfp(flow: Any, *, atol: float = 1e-4) -> Any:
    """Copy a trained TFP flow, bijector or network, with its weights in Keras 3 networks, for `FlowModel`.

    Supported are `tfb.AutoregressiveNetwork`, `tfb.MaskedAutoregressiveFlow` with one, `tfb.RealNVP` with
    `tfb.real_nvp_default_template`, `tfb.Glow` with its default networks or other Keras 2 `Sequential` models, and
    their combinations by `tfb.Chain`, `tfb.Invert` and `tfb.Blockwise`. Other bijectors and the base are copied by
    `describe`. The copy shares nothing with the original.

    Args:
      flow: A `tfd.TransformedDistribution`, a bijector, or a `tfb.AutoregressiveNetwork`, whose weights exist.
      atol: Maximal difference of the log-densities of a distribution, relative to those larger than one.

    Raises:
      ValueError: For a part that cannot be copied, or if the log-density of the copy of a distribution differs.

    Example:
      >>> made = tfb.AutoregressiveNetwork(2, event_shape=[2], hidden_units=[8], activation="relu")
      >>> maf = tfb.MaskedAutoregressiveFlow(made)
      >>> old = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), maf)
      >>> flow = tff.from_tfp(old)
      >>> model = tff.FlowModel(flow)
    """
    if isinstance(flow, tfb.AutoregressiveNetwork):
        return _autoregressive_network(flow)
    if isinstance(flow, tfb.Bijector):
        return _bijector(flow)
    if not isinstance(flow, _compat_tfp.AnyTransformedDistribution):
        raise ValueError(
            f"`flow` must be a tfd.TransformedDistribution, a tfb.Bijector or a tfb.AutoregressiveNetwork, got {flow!r}."
        )
    x = flow.sample(8, seed=(1, 2))  # also builds the weights of templates
    base = from_description(describe(flow.distribution))
    copy = FlowDistribution(base, _bijector(flow.bijector), name=flow.name)
    expected, got = flow.log_prob(tf.identity(x)).numpy(), copy.log_prob(tf.identity(x)).numpy()
    error = np.max(np.abs(got - expected) / np.maximum(1.0, np.abs(expected)))
    if not error <= atol:
        raise ValueError(f"`flow` cannot be copied: its log-density differs by {error:.3g}: {expected} and {got}.")
    return copy


def _bijector(item: tfb.Bijector, scale: str = "sigmoid") -> tfb.Bijector:
    """Copy a bijector. `scale` is the scale function of the couplings in `tfb.Glow`."""
    kind = type(item).__name__  # the parts of Glow have no public names
    if isinstance(item, tfb.MaskedAutoregressiveFlow):
        made = item.parameters["shift_and_log_scale_fn"]
        if not isinstance(made, tfb.AutoregressiveNetwork):
            raise ValueError(f"`flow`: {item.name} is over {made!r}; only a tfb.AutoregressiveNetwork can be copied.")
        return MaskedAutoregressiveFlow(as_template(_autoregressive_network(made)), name=item.name)
    if isinstance(item, tfb.RealNVP):
        return _real_nvp(item, scale)
    if isinstance(item, _compat_tfp.Invert):  # the base of both classes in TFP
        return tfb.Invert(_bijector(item.bijector, scale), name=item.name)
    if kind in ("Reshape", "_Reshape"):
        shapes = {key: [int(n) for n in item.parameters[key]] for key in ("event_shape_out", "event_shape_in")}
        return tfb.Reshape(**shapes, name=item.name)
    if kind == "ActivationNormalization":
        return _act_norm(item)
    if kind == "OneByOneConv":
        inner = _compat_tfp.one_by_one_conv(item)
        parts = {"lower_upper": inner.lower_upper, "permutation": inner.permutation}
        copies = {k: tf.Variable(v, trainable=k == "lower_upper", dtype=v.dtype, name=k) for k, v in parts.items()}
        return tfb.ScaleMatvecLU(**copies, name=item.name)
    if kind == "ExitBijector":
        leave, grab, rest = item.parameters["blockwise_splits"]
        parts = [_bijector(part, "exp") for part in item.bijectors]
        return tfb.Blockwise(parts, [leave + grab, rest], name=item.name) if rest else parts[0]
    if isinstance(item, _compat_tfp.Blockwise):
        sizes = [int(n) for n in np.asarray(item.block_sizes)]
        return tfb.Blockwise([_bijector(part, scale) for part in item.bijectors], sizes, name=item.name)
    if isinstance(item, _compat_tfp.Chain) or kind in ("Glow", "GlowBlock", "Expand"):
        return tfb.Chain([_bijector(part, scale) for part in item.bijectors], name=item.name)
    try:
        return from_description(describe(item))
    except ValueError as error:
        raise ValueError(f"`flow`: {item.name}, a {kind}, cannot be copied: {error}") from error


def _act_norm(item) -> ActNorm:
    """Copy TFP's layer, which is `y = x / s - m`."""
    state = _compat_tfp.actnorm_state(item)
    if state is None:
        raise ValueError(f"`flow`: {item.name} has not seen data yet: call `log_prob` on a batch of images first.")
    s, m = state
    copy = ActNorm(len(m), dtype=tf.as_dtype(m.dtype), name=item.name)
    copy.shift.assign(-m)
    copy.log_scale.assign(-np.log(s))
    copy.set_adapted()
    return copy


def _real_nvp(item: tfb.RealNVP, scale: str) -> RealNVP:
    known = item.parameters
    masked = {k: known[k] for k in ("num_masked", "fraction_masked") if known.get(k) is not None}
    if known.get("bijector_fn") is not None:
        network = _held(known["bijector_fn"], lambda value: hasattr(value, "get_weights") and hasattr(value, "layers"))
        if network is None:
            raise ValueError(f"`flow`: the `bijector_fn` of {item.name} holds no Keras 2 model, and cannot be copied.")
        copy = _keras_3(network)
        target = _held(known["bijector_fn"], lambda value: isinstance(value, tuple) and len(value) == 3)
        channels = network.input_shape[-1] if target is None else target[-1]
        return RealNVP(**masked, bijector_fn=GlowCoupling(copy, int(channels), scale), name=item.name)
    template = known["shift_and_log_scale_fn"]
    values = [v.numpy() for v in getattr(template, "variables", ())]
    held = _nonlocals(_compat_tfp.template_function(template))
    if not values or "hidden_layers" not in held:
        raise ValueError(f"`flow`: {item.name} is over {template!r}; only tfb.real_nvp_default_template can be copied.")
    kernels, biases = [v for v in values if v.ndim == 2], [v for v in values if v.ndim == 1]
    shift_only = bool(held["shift_only"])
    units = {"input_units": kernels[0].shape[0], "output_units": kernels[-1].shape[1] // (1 if shift_only else 2)}
    options = {"activation": _activation(held["activation"]), "log_scale_bound": None, "dtype": kernels[0].dtype}
    copy = real_nvp_template(list(held["hidden_layers"]), shift_only=shift_only, **units, **options)
    copy.fn.set_weights([value for pair in zip(kernels, biases, strict=True) for value in pair])
    return RealNVP(**masked, shift_and_log_scale_fn=copy, name=item.name)


def _autoregressive_network(layer) -> AutoregressiveNetwork:
    """Copy a network by private attributes of TFP. A test compares the outputs."""
    if not layer.built:
        raise ValueError(f"`flow`: {layer.name} has no weights yet: call it once, or give it an `event_shape`.")
    settings, masks = _compat_tfp.made_settings(layer), _compat_tfp.made_masks(layer)
    degrees, degree = [], np.asarray(settings["input_order"])
    for mask in masks[:-1]:  # the degree of a unit is the largest that it reads
        degree = np.max(np.where(mask != 0, degree[:, np.newaxis], 1), axis=0)
        degrees.append(degree.tolist())
    settings["activation"] = _activation(settings["activation"])
    copy = AutoregressiveNetwork(**settings, hidden_degrees=degrees if degrees else "equal", dtype=layer.dtype)
    copy.set_weights(layer.get_weights())
    for kernel, mask in zip(copy.kernels, masks, strict=True):
        if np.any(kernel.numpy()[mask == 0]):
            raise ValueError(f"`flow`: {layer.name} is not autoregressive: it has weights where its masks are zero.")
    return copy


def _keras_3(model) -> keras.Sequential:
    layers = []
    for layer in model.layers:
        name = type(layer).__name__
        if name not in _LAYERS:
            raise ValueError(f"`flow`: the layer {layer.name}, a {name}, cannot be copied into Keras 3.")
        kind = getattr(keras.layers, name)
        config = {k: v for k, v in layer.get_config().items() if k in inspect.signature(kind).parameters or k == "name"}
        for key in [k for k in config if k.endswith(("initializer", "regularizer", "constraint"))]:
            del config[key]  # the weights exist already
        layers.append(kind(**config, dtype=layer.dtype))
    copy = keras.Sequential([keras.Input(model.input_shape[1:], dtype=model.input.dtype), *layers])
    copy.set_weights(model.get_weights())
    return copy


def _activation(activation: Any) -> Any:
    return activation if activation is None or isinstance(activation, str) else activation.__name__


def _nonlocals(fn: Callable | None) -> dict[str, Any]:
    return dict(inspect.getclosurevars(fn).nonlocals) if inspect.isfunction(fn) else {}


def _held(fn: Callable, wanted: Callable[[Any], bool]) -> Any:
    """Return the first wanted value in the closure of a function, or in the closures of functions that it refers to."""
    queue, seen = [fn], set()
    while queue:
        for value in _nonlocals(queue.pop(0)).values():
            if wanted(value):
                return value
            if inspect.isfunction(value) and id(value) not in seen:
                seen.add(id(value))
                queue.append(value)
    return None
