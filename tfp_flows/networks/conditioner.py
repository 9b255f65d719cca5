"""`Conditioner`: a network and a transformer with TFP's template signature. `as_template` adapts other callables."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfp_flows.networks.autoregressive import AutoregressiveNetwork
from tfp_flows.networks.broadcasting import check_condition, flat_rows, unflatten
from tfp_flows.networks.dense import DenseNetwork
from tfp_flows.numerics import sum_log_det
from tfp_flows.registry import serializable
from tfp_flows.tracking import Mirror, is_legacy_layer
from tfp_flows.transformers import AffineTransformer, ShiftTransformer, Transformer


@serializable
class Conditioner(Mirror):
    """Network and transformer that map each dimension, given other dimensions and a condition.

    `conditioner(x)` and `conditioner(x, output_units, **condition_kwargs)`, the signature of TFP's templates, return
    `(shift, log_scale)` for the affine transformer, `(shift, None)` for the shift, and a `tfb.Bijector` of scalars for
    others. Pass it as `shift_and_log_scale_fn` or `bijector_fn` to `RealNVP` and `MaskedAutoregressiveFlow` of this
    package or of TFP. `real_nvp_template` and `masked_autoregressive_template` create conditioners.

    Args:
      network: The attribute `fn`: an `AutoregressiveNetwork` with `transformer.params` parameters, or a `DenseNetwork`,
        whose output holds the parameters of the first unit, then those of the next.
      transformer: The `Transformer`; an `AffineTransformer()` if `None`.
      name: Name of the conditioner.

    Raises:
      ValueError: If `network` or `transformer` has another type, or they differ in the number of parameters.

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
        return getattr(self.fn, "conditional_size", None)

    def parameters(self, x: tf.Tensor, output_units: int | None = None, **condition_kwargs) -> tf.Tensor:
        """Return the parameters, of shape `[..., units, transformer.params]`, for `x` of shape `[..., input_units]`."""
        x = tf.convert_to_tensor(x)
        self._prepare(x, output_units, condition_kwargs.get("conditional_input"))
        # A mixed policy of Keras lets the network compute in half precision, but not the flow and its log-det.
        params = tf.cast(super().__call__(x, **condition_kwargs), x.dtype)
        if isinstance(self.fn, AutoregressiveNetwork):
            return params
        units = self.fn.output_units // self.transformer.params
        return unflatten(params, tf.shape(params)[:-1], [units, self.transformer.params])

    def _prepare(self, x: tf.Tensor, output_units: int | None, condition: Any) -> None:
        """Check the condition, and build a network that learns its sizes at the first call."""
        if self.fn.built:
            # Keras wraps the errors that the layer would raise in a long message.
            check_condition(condition, self.fn.conditional_size)
            return
        with tf.init_scope():
            if isinstance(self.fn, AutoregressiveNetwork):
                self.fn.build((None, x.shape[-1]))
            elif output_units is None:
                raise ValueError("Call a template without sizes as template(x, output_units).")
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
        """Map `value` in a direction, `"forward"` or `"inverse"`, by the parameters for `x`. Return it and the log-det."""
        params = self.parameters(x, output_units, **kwargs)
        result, log_slope = getattr(self.transformer, direction)(value, params)
        return result, sum_log_det(log_slope, result, event_ndims)

    def __call__(self, x, output_units=None, **condition_kwargs):
        return self.transformer.template_output(self.parameters(x, output_units, **condition_kwargs))


@serializable
class Template(Conditioner):
    """Shift-and-log-scale function over any network or function; created by `as_template`.

    `template(x)` and `template(x, output_units, **condition_kwargs)` return `(shift, log_scale)`, or `(shift, None)`.

    Args:
      fn: A Keras 3 or tf_keras model or layer, or a callable; kept as an attribute.
      shift_only: Whether the output is only the shift.
      log_scale_bound: Bound of the log-scale (see `bound_log_scale`), or `None` for no bound.
      name: Name of the template.
    """

    def __init__(
        self, fn: Callable, *, shift_only: bool = False, log_scale_bound: float | None = None, name: str | None = None
    ):
        if not callable(fn):
            raise ValueError(f"A template needs a callable, such as a Keras model or a function, got {fn!r}.")
        self.transformer = ShiftTransformer() if shift_only else AffineTransformer(log_scale_bound)
        self.shift_only = shift_only
        # Keras models expect one batch axis; a `DenseNetwork` takes any batch shape.
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
        """Call a network with one batch axis, as Keras models expect, and restore the axes of `x`."""
        batch = tf.shape(x)[:-1]
        kwargs = {key: flat_rows(value, batch) if tf.is_tensor(value) else value for key, value in kwargs.items()}
        result = Mirror.__call__(self, tf.reshape(x, [-1, x.shape[-1]]), *args, **kwargs)

        def restore(t):
            full = tf.reshape(t, tf.concat([batch, tf.shape(t)[1:]], axis=0))
            return tf.ensure_shape(full, x.shape[:-1].concatenate(t.shape[1:]))

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
    """Conditioner from a function that returns a bijector, whose events have at most rank `largest_rank`."""

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
    """Reads from a callable's signature how it takes `output_units` and conditions."""

    def __init__(self, fn: Callable):
        self.fn = fn
        target = fn.call if isinstance(fn, keras.Layer) or is_legacy_layer(fn) else fn
        try:
            parameters = list(inspect.signature(target).parameters.values())
        except (TypeError, ValueError):  # no signature: assume TFP's calling convention
            parameters = [inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)]
        self.names = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
        # Keras' own models (Sequential, Functional) ignore unknown `**kwargs`.
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
        for name in condition_kwargs:
            if not self.takes_any_keyword and name not in self.names:
                raise ValueError(f"The template's network {self.fn} takes no condition named `{name}`.")
        if self.output_units == "keyword":
            return (), {**condition_kwargs, "output_units": output_units}
        positional = self.output_units == "positional" and output_units is not None
        return (output_units,) if positional else (), condition_kwargs


def as_template(
    net: Callable, *, shift_only: bool = False, log_scale_bound: float | None = None, name: str | None = None
) -> Conditioner:
    """Turn a network or function into a shift-and-log-scale template.

    A `Conditioner` is returned unchanged. The bijector's `trainable_variables` include those of the network, or those
    that a function refers to, once they are built.

    Args:
      net: A Keras 3 or tf_keras model or layer, or a callable `fn(x)` or `fn(x, output_units)`, optionally with
        `**condition_kwargs`. It returns `(shift, log_scale)`, where either may be `None`, or one tensor: of shape
        `[..., 2 * output_units]` (shifts first), or `[..., D, 2]` like `tfb.AutoregressiveNetwork`.
      shift_only: Whether `net` returns only the shift, as one tensor.
      log_scale_bound: Bound of the log-scale (see `bound_log_scale`), or `None`, the default, for no bound.
      name: Name of the template.

    Raises:
      ValueError: If `net` is not callable; at a call, if its output has another form, or it does not take a given condition.

    Example:
      >>> net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
      >>> bijector = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=tff.as_template(net))
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
    """Return the conditioner of a bijector from one of two functions. Raise a `ValueError` if neither or both are given."""
    if (shift_and_log_scale_fn is None) == (bijector_fn is None):
        given = "neither" if bijector_fn is None else "both"
        raise ValueError(f"Exactly one of `shift_and_log_scale_fn` and `bijector_fn` must be given, got {given}.")
    if bijector_fn is None or isinstance(bijector_fn, Conditioner):
        return as_template(shift_and_log_scale_fn if bijector_fn is None else bijector_fn)
    return BijectorFunction(bijector_fn, largest_rank)
