"""`Template`: any conditioner behind TFP's call signature, with its variables in sight."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfp_flows.description import serializable
from tfp_flows.numerics import bound_log_scale
from tfp_flows.templates.autoregressive_network import AutoregressiveNetwork
from tfp_flows.templates.batches import check_condition
from tfp_flows.templates.dense_network import DenseNetwork
from tfp_flows.tracking import Mirror, is_legacy_layer
from tfp_flows.transformers import Transformer

OWN_NETWORKS = (AutoregressiveNetwork, DenseNetwork)


@serializable
class Template(Mirror):
    """A shift-and-log-scale function that calls like TFP's templates and tracks like a `tf.Module`.

    `template(x)` and `template(x, output_units, **condition_kwargs)` return `(shift, log_scale)`; `log_scale` is `None`
    for a shift alone. Use it as `shift_and_log_scale_fn` of `tfb.RealNVP`, `tfb.MaskedAutoregressiveFlow`, and of
    the classes of the same names in this package. Made by `real_nvp_template`, `masked_autoregressive_template` and
    `as_template`.

    Attributes:
      fn: The network or function.

    Args:
      fn: A Keras 3 or tf_keras model or layer, or a callable.
      shift_only: Whether the output is the shift alone.
      log_scale_bound: Bound of the log-scale by `bound_log_scale`, or `None` for none.
    """

    def __init__(
        self,
        fn: Callable,
        *,
        shift_only: bool = False,
        log_scale_bound: float | None = None,
        name: str | None = None,
    ):
        if not callable(fn):
            raise ValueError(f"A template needs a callable, such as a Keras model or a function, got {fn!r}.")
        if log_scale_bound is not None and not log_scale_bound > 0:
            raise ValueError(f"`log_scale_bound` must be positive or None, got {log_scale_bound!r}.")
        # Keras models want one batch axis; the networks of this package take any batch shape.
        self._wants_one_axis = not isinstance(fn, OWN_NETWORKS) and (isinstance(fn, keras.Layer) or is_legacy_layer(fn))
        self._signature = _Signature(fn)
        self.shift_only = shift_only
        self.log_scale_bound = log_scale_bound
        super().__init__(fn, name=name)

    def __call__(self, x: tf.Tensor, output_units: int | None = None, **condition_kwargs):
        x = tf.convert_to_tensor(x)
        build_for(self, 1 if self.shift_only else 2, x, output_units, condition_kwargs)
        args, kwargs = self._signature.arguments(output_units, condition_kwargs)
        if not self._wants_one_axis or x.shape.rank is None or x.shape.rank == 2:
            result = super().__call__(x, *args, **kwargs)
        else:
            result = self._flat_call(x, args, kwargs)
        # A network may compute in half precision (a mixed policy of Keras); the flow and its log-det do not.
        result = tf.nest.map_structure(lambda part: part if part is None else tf.cast(part, x.dtype), result)
        return self._shift_and_log_scale(result, x, output_units)

    @property
    def conditional_size(self) -> int | None:
        """Size of the `conditional_input` that the network was made for, or `None`."""
        return getattr(self.fn, "conditional_size", None)

    def _flat_call(self, x, args, kwargs):
        """Calls a network with one batch axis, as Keras models want it, and restores the axes of `x`."""
        batch = tf.shape(x)[:-1]

        def flatten(t):
            t = tf.convert_to_tensor(t)
            full = tf.broadcast_to(t, tf.concat([batch, tf.shape(t)[-1:]], axis=0))
            return tf.reshape(full, [-1, t.shape[-1]])

        kwargs = {key: flatten(value) if tf.is_tensor(value) else value for key, value in kwargs.items()}
        result = super().__call__(tf.reshape(x, [-1, x.shape[-1]]), *args, **kwargs)

        def restore(t):
            return tf.ensure_shape(
                tf.reshape(t, tf.concat([batch, tf.shape(t)[1:]], axis=0)), x.shape[:-1].concatenate(t.shape[1:])
            )

        return tf.nest.map_structure(restore, result)

    def _shift_and_log_scale(self, result, x, output_units):
        if isinstance(result, (tuple, list)):
            if len(result) != 2:
                raise ValueError(
                    f"A template must return (shift, log_scale) or one tensor, got {len(result)} outputs from {self.fn}."
                )
            shift, log_scale = result
            units = output_units if output_units is not None else x.shape[-1]
            for name, part in (("shift", shift), ("log_scale", log_scale)):
                last = None if part is None else tf.TensorShape(tf.convert_to_tensor(part).shape)
                if last is not None and last.rank and units is not None and last[-1] not in (None, 1, units):
                    raise ValueError(
                        f"The template's network returned a {name} of shape {last} for an input of shape {x.shape}; its last "
                        f"axis must be {units}."
                    )
        else:
            shift, log_scale = self._split(tf.convert_to_tensor(result), x, output_units)
        if log_scale is not None:
            log_scale = bound_log_scale(log_scale, self.log_scale_bound)
        return shift, log_scale

    def _split(self, params, x, output_units):
        units = output_units if output_units is not None else x.shape[-1]
        last = params.shape[-1]
        if x.shape.rank is not None and params.shape.rank == x.shape.rank + 1:  # [..., D, params], TFP's MADE form
            if last == (1 if self.shift_only else 2):
                return (params[..., 0], None) if self.shift_only else tuple(tf.unstack(params, num=2, axis=-1))
        elif self.shift_only:
            if units is None or last == units:
                return params, None
        elif last is not None and (units is None or last == 2 * units):
            return tuple(tf.split(params, 2, axis=-1))
        raise ValueError(
            f"The template's network returned shape {params.shape} for an input of shape {x.shape}. Expected "
            f"(shift, log_scale), or one tensor whose last axis holds "
            + (f"the {units} shifts." if self.shift_only else f"{units} shifts and then {units} log-scales.")
        )


@serializable
class TransformerTemplate(Mirror):
    """A conditioner for any univariate transformer: calls like a `bijector_fn`, tracks like a `tf.Module`.

    `template(x)` and `template(x, output_units, **condition_kwargs)` return a `tfb.Bijector` of scalars. Use it as
    `bijector_fn` of `tfb.RealNVP`, `tfb.MaskedAutoregressiveFlow`, and of the classes of the same names in this package.
    `real_nvp_template` and `masked_autoregressive_template` make one when they are given a `transformer`.

    Args:
      network: An `AutoregressiveNetwork` with `transformer.params` parameters, or a `DenseNetwork`.
      transformer: The `Transformer`.

    Example:
      >>> template = tff.masked_autoregressive_template([16], event_size=3, transformer=tff.SplineTransformer())
      >>> bijector = tfb.MaskedAutoregressiveFlow(bijector_fn=template)
      >>> bijector.inverse(tf.zeros([5, 3])).shape, len(bijector.trainable_variables)
      (TensorShape([5, 3]), 4)
    """

    def __init__(self, network: keras.Layer, transformer: Transformer, *, name: str | None = None):
        if not isinstance(network, OWN_NETWORKS):
            raise ValueError(f"`network` must be an AutoregressiveNetwork or a DenseNetwork, got {network!r}.")
        if not isinstance(transformer, Transformer):
            raise ValueError(f"`transformer` must be a Transformer such as SplineTransformer(), got {transformer!r}.")
        if isinstance(network, AutoregressiveNetwork) and network.params != transformer.params:
            raise ValueError(f"`network` has {network.params} parameters, {transformer} needs {transformer.params}.")
        self.transformer = transformer
        super().__init__(network, name=name)

    @property
    def conditional_size(self) -> int | None:
        """Size of the `conditional_input` that the network was made for, or `None`."""
        return self.fn.conditional_size

    def parameters(self, x: tf.Tensor, output_units: int | None = None, **condition_kwargs) -> tf.Tensor:
        """The parameters, of shape `[..., units, transformer.params]`."""
        x = tf.convert_to_tensor(x)
        build_for(self, self.transformer.params, x, output_units, condition_kwargs)
        params = tf.cast(super().__call__(x, **condition_kwargs), x.dtype)
        if isinstance(self.fn, AutoregressiveNetwork):
            return params
        units = self.fn.output_units // self.transformer.params
        return tf.reshape(params, tf.concat([tf.shape(params)[:-1], [units, self.transformer.params]], axis=0))

    def __call__(self, x, output_units=None, **condition_kwargs):
        return self.transformer(self.parameters(x, output_units, **condition_kwargs))


def build_for(template: Mirror, outputs: int, x: tf.Tensor, output_units: int | None, condition_kwargs: dict) -> None:
    """Makes the weights of a network of ours that learns its sizes at the first call, `outputs` for each unit.

    Once there are weights, it checks that a condition is given if and only if they are for one.
    """
    network = template.fn
    if not isinstance(network, OWN_NETWORKS):
        return
    if network.built:
        # Here and not by the layer alone: Keras wraps what a layer raises in a page of its own.
        check_condition(condition_kwargs.get("conditional_input"), network.conditional_size)
        return
    with tf.init_scope():
        if isinstance(network, AutoregressiveNetwork):
            network.build((None, x.shape[-1]))
        else:
            if output_units is None:
                raise ValueError("A template that was made without sizes must be called as template(x, output_units).")
            condition = condition_kwargs.get("conditional_input")
            size = None if condition is None else tf.convert_to_tensor(condition).shape[-1]
            network.build_sizes(x.shape[-1], outputs * output_units, size)
    template.refresh()


class _Signature:
    """How `output_units` and conditions are handed to a callable, read from its signature once."""

    def __init__(self, fn: Callable):
        self.fn = fn
        target = fn.call if isinstance(fn, keras.Layer) or is_legacy_layer(fn) else fn
        try:
            parameters = list(inspect.signature(target).parameters.values())
        except (TypeError, ValueError):  # no signature to read: TFP's own calling convention
            parameters = [inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)]
        self.names = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
        # The `**kwargs` of Keras' own models (Sequential, Functional) swallow what they do not know.
        from_keras = str(getattr(target, "__module__", "")).split(".")[0] in ("keras", "tf_keras")
        self.takes_any_keyword = not from_keras and any(p.kind is p.VAR_KEYWORD for p in parameters)
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        takes_more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.output_units = None
        if "output_units" in self.names:
            self.output_units = "keyword"
        elif not isinstance(target, type) and target is fn and (len(positional) >= 2 or takes_more):
            self.output_units = "positional"

    def arguments(self, output_units: int | None, condition_kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        if not self.takes_any_keyword:
            for name in condition_kwargs:
                if name not in self.names:
                    raise ValueError(f"The template's network {self.fn} takes no condition named `{name}`.")
        args, kwargs = (), dict(condition_kwargs)
        if self.output_units == "keyword":
            kwargs["output_units"] = output_units
        elif self.output_units == "positional" and output_units is not None:
            args = (output_units,)
        return args, kwargs


def as_template(
    net: Callable,
    *,
    shift_only: bool = False,
    log_scale_bound: float | None = None,
    name: str | None = None,
) -> Template:
    """Turns a network or function into a shift-and-log-scale template.

    The result is honoured exactly: the log-scale is bounded only if `log_scale_bound` is given. The variables of the
    network, or of what a function refers to, become part of `trainable_variables` of the bijector that the template is
    given to: at once if the network is built, else at its first call.

    Args:
      net: A Keras 3 or tf_keras model or layer, or a callable `fn(x)`, `fn(x, output_units)`, with
        `**condition_kwargs` or not. It returns `(shift, log_scale)`, where either may be `None`, or one tensor: of shape
        `[..., 2 * output_units]` (shifts first), or `[..., D, 2]` as `tfb.AutoregressiveNetwork` does. A `Template` is
        returned as it is.
      shift_only: Whether `net` returns one tensor that is the shift alone.
      log_scale_bound: Bound of the log-scale by `bound_log_scale`.
      name: Name of the template.

    Returns:
      A `Template`.

    Raises:
      ValueError: If `net` is not callable; at the call, if its output does not have the form above, or if it is given a
        condition that it does not take.

    Example:
      >>> net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
      >>> bijector = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=as_template(net))
      >>> len(bijector.trainable_variables)
      4
    """
    if isinstance(net, Template):
        return net
    if isinstance(net, TransformerTemplate):
        raise ValueError("A template with a `transformer` is a `bijector_fn`, not a `shift_and_log_scale_fn`.")
    return Template(net, shift_only=shift_only, log_scale_bound=log_scale_bound, name=name)
