"""`Conditioner`: a network and a transformer behind TFP's template signature. `as_template` adapts other callables."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfp_flows.networks.autoregressive import AutoregressiveNetwork
from tfp_flows.networks.broadcasting import check_condition
from tfp_flows.networks.dense import DenseNetwork
from tfp_flows.numerics import sum_log_det
from tfp_flows.registry import serializable
from tfp_flows.tracking import Mirror, is_legacy_layer
from tfp_flows.transformers import AffineTransformer, ShiftTransformer, Transformer


@serializable
class Conditioner(Mirror):
    """The map of each dimension, computed from other dimensions and from a condition: a network and a transformer.

    `conditioner(x)` and `conditioner(x, output_units, **condition_kwargs)`, the signature of TFP's templates, return
    `(shift, log_scale)` for the affine transformer, `(shift, None)` for the shift, and a `tfb.Bijector` of scalars for others.
    So it serves as `shift_and_log_scale_fn` or `bijector_fn` of `tfb.RealNVP` and `tfb.MaskedAutoregressiveFlow`, and of the
    classes with these names in this package, which use `parameters` and the transformer directly.
    `real_nvp_template` and `masked_autoregressive_template` make one.

    Args:
      network: An `AutoregressiveNetwork` with `transformer.params` parameters, or a `DenseNetwork`, whose output holds the
        parameters of the first unit, then those of the next.
      transformer: The `Transformer`; an `AffineTransformer()` if `None`.
      name: Name of the conditioner.

    Attributes:
      fn: The network.
      transformer: The transformer.

    Raises:
      ValueError: If `network` or `transformer` is something else, or they differ in the number of parameters.

    Example:
      >>> conditioner = tff.masked_autoregressive_template([16], event_size=3, transformer=tff.SplineTransformer())
      >>> bijector = tfb.MaskedAutoregressiveFlow(bijector_fn=conditioner)
      >>> bijector.inverse(tf.zeros([5, 3])).shape, len(bijector.trainable_variables)
      (TensorShape([5, 3]), 4)
    """

    def __init__(self, network: keras.Layer, transformer: Transformer | None = None, *, name: str | None = None):
        transformer = AffineTransformer() if transformer is None else transformer
        if not isinstance(network, (AutoregressiveNetwork, DenseNetwork)):
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
        return getattr(self.fn, "conditional_size", None)

    def parameters(self, x: tf.Tensor, output_units: int | None = None, **condition_kwargs) -> tf.Tensor:
        """Returns the parameters, of shape `[..., units, transformer.params]`, for `x` of shape `[..., input_units]`."""
        x = tf.convert_to_tensor(x)
        self._prepare(x, output_units, condition_kwargs.get("conditional_input"))
        # A network may compute in half precision (a mixed policy of Keras); the flow and its log-det do not.
        params = tf.cast(super().__call__(x, **condition_kwargs), x.dtype)
        if isinstance(self.fn, AutoregressiveNetwork):
            return params
        units = self.fn.output_units // self.transformer.params
        return tf.reshape(params, tf.concat([tf.shape(params)[:-1], [units, self.transformer.params]], axis=0))

    def _prepare(self, x: tf.Tensor, output_units: int | None, condition: Any) -> None:
        """Checks the condition; makes the weights of a network that learns its sizes at the first call, as in `tfb.RealNVP`."""
        if self.fn.built:
            # The layer checks it too, but Keras wraps the errors of layers in a long message.
            check_condition(condition, self.fn.conditional_size)
            return
        with tf.init_scope():
            if isinstance(self.fn, AutoregressiveNetwork):
                self.fn.build((None, x.shape[-1]))
            elif output_units is None:
                raise ValueError("A template that was made without sizes must be called as template(x, output_units).")
            else:
                size = None if condition is None else tf.convert_to_tensor(condition).shape[-1]
                self.fn.build_sizes(x.shape[-1], self.transformer.params * output_units, size)
        self.refresh()

    def transform(
        self,
        direction: str,
        value: tf.Tensor,
        x: tf.Tensor,
        output_units: int | None = None,
        event_ndims: int = 1,
        **kwargs,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps `value` in a direction, `"forward"` or `"inverse"`, by the parameters for `x`; returns it and the log-det."""
        params = self.parameters(x, output_units, **kwargs)
        result, log_slope = getattr(self.transformer, direction)(value, params)
        return result, sum_log_det(log_slope, result, event_ndims)

    def __call__(self, x, output_units=None, **condition_kwargs):
        return self.transformer.template_output(self.parameters(x, output_units, **condition_kwargs))


@serializable
class Template(Conditioner):
    """A shift-and-log-scale function made of any network or function; made by `as_template`.

    `template(x)` and `template(x, output_units, **condition_kwargs)` return `(shift, log_scale)`; `log_scale` is `None` for a
    shift alone.

    Args:
      fn: A Keras 3 or tf_keras model or layer, or a callable.
      shift_only: Whether the output is the shift alone.
      log_scale_bound: Bound of the log-scale by `bound_log_scale`, or `None` for none.
      name: Name of the template.

    Attributes:
      fn: The network or function.
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
        self.transformer = ShiftTransformer() if shift_only else AffineTransformer(log_scale_bound)
        self.shift_only = shift_only
        # Keras models want one batch axis; a `DenseNetwork` takes any batch shape.
        self._wants_one_axis = not isinstance(fn, DenseNetwork) and (isinstance(fn, keras.Layer) or is_legacy_layer(fn))
        self._signature = _Signature(fn)
        Mirror.__init__(self, fn, name=name)

    def parameters(self, x, output_units=None, **condition_kwargs):
        shift, log_scale = self._outputs(tf.convert_to_tensor(x), output_units, condition_kwargs)
        if self.shift_only:
            return shift[..., tf.newaxis]
        zeros = tf.zeros_like(log_scale if shift is None else shift)
        shift, log_scale = (zeros if part is None else part + zeros for part in (shift, log_scale))
        return tf.stack([shift, log_scale + tf.zeros_like(shift)], axis=-1)

    def __call__(self, x, output_units=None, **condition_kwargs):
        shift, log_scale = self._outputs(tf.convert_to_tensor(x), output_units, condition_kwargs)
        return shift, None if log_scale is None else self.transformer.bounded(log_scale)

    def _outputs(self, x: tf.Tensor, output_units: int | None, condition_kwargs: dict) -> tuple:
        """The shift and the log-scale as the function returns them; either may be `None`."""
        if isinstance(self.fn, DenseNetwork):
            self._prepare(x, output_units, condition_kwargs.get("conditional_input"))
        args, kwargs = self._signature.arguments(output_units, condition_kwargs)
        if not self._wants_one_axis or x.shape.rank is None or x.shape.rank == 2:
            result = Mirror.__call__(self, x, *args, **kwargs)
        else:
            result = self._flat_call(x, args, kwargs)
        result = tf.nest.map_structure(lambda part: part if part is None else tf.cast(part, x.dtype), result)
        units = output_units if output_units is not None else x.shape[-1]
        if not isinstance(result, (tuple, list)):
            return self._split(tf.convert_to_tensor(result), x, units)
        if len(result) != 2:
            raise ValueError(
                f"A template must return (shift, log_scale) or one tensor, got {len(result)} outputs from {self.fn}."
            )
        for name, part in zip(("shift", "log_scale"), result, strict=True):
            last = None if part is None else tf.TensorShape(tf.convert_to_tensor(part).shape)
            if last is not None and last.rank and units is not None and last[-1] not in (None, 1, units):
                raise ValueError(
                    f"The template's network returned a {name} of shape {last} for an input of shape {x.shape}; its last "
                    f"axis must be {units}."
                )
        return tuple(result)

    def _flat_call(self, x, args, kwargs):
        """Calls a network with one batch axis, as Keras models want it, and restores the axes of `x`."""
        batch = tf.shape(x)[:-1]

        def flatten(t):
            t = tf.convert_to_tensor(t)
            full = tf.broadcast_to(t, tf.concat([batch, tf.shape(t)[-1:]], axis=0))
            return tf.reshape(full, [-1, t.shape[-1]])

        kwargs = {key: flatten(value) if tf.is_tensor(value) else value for key, value in kwargs.items()}
        result = Mirror.__call__(self, tf.reshape(x, [-1, x.shape[-1]]), *args, **kwargs)

        def restore(t):
            return tf.ensure_shape(
                tf.reshape(t, tf.concat([batch, tf.shape(t)[1:]], axis=0)), x.shape[:-1].concatenate(t.shape[1:])
            )

        return tf.nest.map_structure(restore, result)

    def _split(self, params, x, units):
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


class BijectorFunction(Mirror):
    """A function that returns a bijector, as a conditioner.

    Args:
      fn: The function, or a tf_keras or Keras 3 layer.
      largest_rank: The largest rank of an event that the bijector may need.
    """

    def __init__(self, fn: Callable, largest_rank: int):
        self._largest_rank = largest_rank
        super().__init__(fn)

    def transform(self, direction, value, x, output_units=None, event_ndims=1, **condition_kwargs):
        bijector = self(x, **condition_kwargs) if output_units is None else self(x, output_units, **condition_kwargs)
        if bijector.forward_min_event_ndims != bijector.inverse_min_event_ndims:
            raise ValueError("Bijectors which alter `event_ndims` are not supported.")
        if bijector.forward_min_event_ndims > self._largest_rank:
            raise ValueError(f"Bijectors with `forward_min_event_ndims` > {self._largest_rank} are not supported.")
        log_det = getattr(bijector, f"{direction}_log_det_jacobian")(value, event_ndims=event_ndims)
        return getattr(bijector, direction)(value), log_det


class _Signature:
    """The way in which a callable takes `output_units` and conditions, read once from its signature."""

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
) -> Conditioner:
    """Turns a network or function into a shift-and-log-scale template.

    The result is honored exactly: the log-scale is bounded only if `log_scale_bound` is given. The variables of the
    network, or of what a function refers to, become part of `trainable_variables` of the bijector that the template is
    given to: at once if the network is built, else at its first call.

    Args:
      net: A Keras 3 or tf_keras model or layer, or a callable `fn(x)`, `fn(x, output_units)`, with
        `**condition_kwargs` or not. It returns `(shift, log_scale)`, where either may be `None`, or one tensor: of shape
        `[..., 2 * output_units]` (shifts first), or `[..., D, 2]` as `tfb.AutoregressiveNetwork` does. A `Conditioner` is
        returned as it is.
      shift_only: Whether `net` returns one tensor that is the shift alone.
      log_scale_bound: Bound of the log-scale by `bound_log_scale`.
      name: Name of the template.

    Returns:
      A `Template`; of an `AutoregressiveNetwork`, a `Conditioner`.

    Raises:
      ValueError: If `net` is not callable; at the call, if its output does not have the form above, or if it is given a
        condition that it does not take.

    Example:
      >>> net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
      >>> bijector = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=as_template(net))
      >>> len(bijector.trainable_variables)
      4
    """
    if isinstance(net, Conditioner):
        return net
    if isinstance(net, AutoregressiveNetwork):
        return Conditioner(net, ShiftTransformer() if shift_only else AffineTransformer(log_scale_bound), name=name)
    return Template(net, shift_only=shift_only, log_scale_bound=log_scale_bound, name=name)


def conditioner_of(
    shift_and_log_scale_fn: Callable | None, bijector_fn: Callable | None, largest_rank: int
) -> Conditioner | BijectorFunction:
    """Returns what computes the maps of a coupling or autoregressive bijector that was given one of two functions.

    Raises:
      ValueError: If neither or both are given.
    """
    if (shift_and_log_scale_fn is None) == (bijector_fn is None):
        given = "neither" if bijector_fn is None else "both"
        raise ValueError(f"Exactly one of `shift_and_log_scale_fn` and `bijector_fn` must be given, got {given}.")
    if bijector_fn is None or isinstance(bijector_fn, Conditioner):
        return as_template(shift_and_log_scale_fn if bijector_fn is None else bijector_fn)
    return BijectorFunction(bijector_fn, largest_rank)
