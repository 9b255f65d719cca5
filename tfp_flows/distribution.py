"""The distribution that the recipes return."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._compat_tfp import TransformedDistribution, is_injective
from tfp_flows.bijectors.composition import density_parts, forward_and_log_det, has_constant_log_det, is_affine
from tfp_flows.bijectors.conditioning import conditional_kwargs, conditional_sizes
from tfp_flows.networks.broadcasting import broadcast_events, check_condition, check_rows
from tfp_flows.registry import serializable

tfd = tfp.distributions

__all__ = ["FlowDistribution"]

# What makes a Keras layer of a distribution: `training.layers`, which needs this module, puts its function here.
LOG_PROB_LAYERS: list[Callable] = []


def check_preprocess_condition(bijector: Any, conditional_size: int | None) -> None:
    """Raises a `ValueError` unless `bijector` is `None` or one for conditions of that size."""
    if bijector is None:
        return
    if conditional_size is None:
        raise ValueError("`preprocess_condition` needs a flow with conditions, this one has none.")
    if not isinstance(bijector, tfp.bijectors.Bijector):
        raise ValueError(f"`preprocess_condition` must be a tfb.Bijector such as standardize(c), got {bijector!r}.")
    size = getattr(bijector, "event_size", None)  # `None` for any size
    if size not in (None, conditional_size):
        raise ValueError(
            f"`preprocess_condition` is for {size} columns, the flow's conditions have {conditional_size}."
        )


@serializable
class FlowDistribution(TransformedDistribution):
    """A transformed distribution that is quick, conditional by one keyword, and right after every weight update.

    What differs from `tfd.TransformedDistribution`, whose methods it has:

    - Value and log-det of each layer come from one evaluation, in `log_prob` as in `experimental_sample_and_log_prob`.
    - In eager mode TFP's bijectors cache results by the identity of the tensor, so that a plain `TransformedDistribution`
      mixes values from before and after a training step when `log_prob` is called twice on the same tensor object. This
      one never asks the cache.
    - `conditional_input=c` reaches every conditional layer: `flow.log_prob(y, conditional_input=c)`,
      `flow.sample(n, conditional_input=c)`. `c` has shape `[..., C]`; in `log_prob` its leading axes broadcast against those of
      `y`, in `sample` to the sample shape. A missing or unknown keyword is an error. TFP's nested `bijector_kwargs` work
      too (see `make_bijector_kwargs`).

    Args:
      distribution: The base distribution.
      bijector: The map from base to data.
      preprocess_condition: Bijector whose `inverse` is applied to `conditional_input` first, such as `Standardize(C)`.
      validate_args, name: As in `tfd.TransformedDistribution`.

    Attributes:
      conditional_size: Size `C` of `conditional_input`, or `None` for a distribution without conditions.

    Example:
      >>> layer = tff.MaskedAutoregressiveFlow(
      ...     tff.masked_autoregressive_template([16], event_size=2, conditional_size=3))
      >>> flow = FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tfb.Chain([layer]))
      >>> flow.sample(5, conditional_input=tf.zeros([5, 3])).shape
      TensorShape([5, 2])
    """

    def __init__(
        self,
        distribution: tfd.Distribution,
        bijector: tfp.bijectors.Bijector,
        *,
        preprocess_condition: tfp.bijectors.Bijector | None = None,
        validate_args: bool = False,
        name: str | None = None,
    ):
        self._keep(distribution, bijector, preprocess_condition, validate_args, name)

    def _keep(self, distribution, bijector, preprocess_condition, validate_args, name, parameters=None) -> None:
        """The constructor; `parameters` are the arguments of a subclass, from which `copy` makes it again."""
        parameters = parameters or {
            "distribution": distribution,
            "bijector": bijector,
            "preprocess_condition": preprocess_condition,
            "validate_args": validate_args,
            "name": name,
        }
        sizes = conditional_sizes(bijector)
        self.conditional_size = min(sizes) if sizes else None
        self._conditional_sizes = sizes
        check_preprocess_condition(preprocess_condition, self.conditional_size)
        self.preprocess_condition = preprocess_condition
        super().__init__(
            distribution,
            bijector,
            kwargs_split_fn=self._split_kwargs,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )
        # In eager mode the base's `log_prob` alone would cost as much as two layers. (TensorFlow counts traces by
        # the code of a function, over all objects, and would warn at the fifth flow; not so those of a partial.)
        self._compiled_base_log_prob = tf.function(functools.partial(distribution.log_prob), reduce_retracing=True)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return super()._parameter_properties(dtype, num_classes)  # TFP warns where a new constructor inherits them

    def _split_kwargs(self, kwargs: dict[str, Any]) -> tuple[dict, dict]:
        """The keywords of base and bijector, from those of a public method."""
        known = ("conditional_input", "bijector_kwargs", "distribution_kwargs")
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise ValueError(f"Unknown keyword {unknown[0]!r}: a flow takes {', '.join(known)}.")
        nested, condition = kwargs.get("bijector_kwargs"), kwargs.get("conditional_input")
        if nested is None:
            if len(self._conditional_sizes) > 1:
                raise ValueError(
                    f"The layers of this flow take conditions of different sizes {sorted(self._conditional_sizes)}: "
                    "give `bijector_kwargs`, see make_bijector_kwargs."
                )
            check_condition(condition, self.conditional_size)
            if condition is None:
                return kwargs.get("distribution_kwargs", {}), {}
            nested = self.bijector_kwargs(condition)
        elif condition is not None:
            raise ValueError("Give either `conditional_input` or `bijector_kwargs`, not both.")
        return kwargs.get("distribution_kwargs", {}), nested

    def bijector_kwargs(self, conditional_input) -> dict[str, Any]:
        """The keywords, in TFP's nested form, that hand a condition to every conditional layer of the bijector."""
        check_condition(conditional_input, self.conditional_size)
        condition = tf.cast(tf.convert_to_tensor(conditional_input), self.dtype)
        return conditional_kwargs(self.bijector, self._encode(condition))

    def _encode(self, condition: tf.Tensor) -> tf.Tensor:
        """Returns what the layers read of a condition."""
        return condition if self.preprocess_condition is None else self.preprocess_condition.inverse(condition)

    def condition_before_encoder(self, condition: tf.Tensor) -> tf.Tensor:
        """Returns what the first network that reads a condition is given."""
        return self._encode(condition)

    def with_base(self, distribution: tfd.Distribution) -> FlowDistribution:
        """Returns the same flow over another base distribution; it shares the layers, and all that reads the condition."""
        return FlowDistribution(
            distribution, self.bijector, preprocess_condition=self.preprocess_condition, name=self.name
        )

    # A constant Jacobian is not an affine map: TFP would return wrong moments for additive couplings.

    def _mean(self, **kwargs):
        self._check_affine("mean")
        return super()._mean(**kwargs)

    def _stddev(self, **kwargs):
        self._check_affine("stddev")
        return super()._stddev(**kwargs)

    def _variance(self, **kwargs):
        self._check_affine("variance")
        return super()._variance(**kwargs)

    def _covariance(self, **kwargs):
        self._check_affine("covariance")
        return super()._covariance(**kwargs)

    def _check_affine(self, name: str) -> None:
        if not is_affine(self.bijector):
            raise NotImplementedError(
                f"`{name}` is not implemented for flows that are not affine: take it from samples, "
                "such as tf.reduce_mean(flow.sample(10_000), axis=0)."
            )

    def _mode(self, **kwargs):
        self._check_constant_log_det("mode")
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        mode = self.distribution.mode(**base_kwargs)
        return forward_and_log_det(self.bijector, mode, self.distribution.event_shape.rank, **bijector_kwargs)[0]

    def _entropy(self, **kwargs):
        self._check_constant_log_det("entropy")
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        x = tf.zeros(self.distribution.event_shape, self.distribution.dtype)
        log_det = forward_and_log_det(self.bijector, x, self.distribution.event_shape.rank, **bijector_kwargs)[1]
        return self.distribution.entropy(**base_kwargs) + log_det

    def _check_constant_log_det(self, name: str) -> None:
        if not has_constant_log_det(self.bijector) or not self._is_plain():
            raise NotImplementedError(f"`{name}` is not implemented for flows whose log-det depends on the event.")

    def _is_plain(self) -> bool:
        """Whether base and bijector have nothing that needs TFP's general treatment."""
        return is_injective(self.bijector) and self.batch_shape == self.distribution.batch_shape

    def log_prob(self, value, name: str = "log_prob", **kwargs):
        """The log-density of `value`, in nats; of a symbolic `keras.Input`, the output of a `tff.layers.LogProb`."""
        if keras.utils.is_keras_tensor(value):
            return LOG_PROB_LAYERS[-1](self)(value, **kwargs)
        return super().log_prob(value, name=name, **kwargs)

    def _log_prob(self, y, **kwargs):
        if not self._is_plain():
            return super()._log_prob(tf.identity(y), **kwargs)
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        condition = kwargs.get("conditional_input")
        self._check_value(y, condition)
        if condition is not None:
            y = broadcast_events(y, condition, self.event_shape.rank)
        x, log_det, outside = density_parts(self.bijector, y, self.event_shape.rank, **bijector_kwargs)
        if self._base_is_bounded:
            x, outside = self._inside_base(x, outside)
        compiled = tf.executing_eagerly() and not base_kwargs
        log_prob = (self._compiled_base_log_prob if compiled else self.distribution.log_prob)(
            x, **base_kwargs
        ) + log_det
        # So far away that a layer overflows: where the base's density underflows before, it is minus infinity already.
        axes = list(range(-self.event_shape.rank, 0))
        far = tf.reduce_any(tf.abs(y) > 1e8, axis=axes) & tf.reduce_all(tf.math.is_finite(y), axis=axes)
        lost = far & tf.math.is_nan(log_prob)
        return tf.where(lost if outside is None else outside | lost, tf.cast(-np.inf, log_prob.dtype), log_prob)

    @functools.cached_property
    def _base_is_bounded(self) -> bool:
        """Whether the base may have a bounded support, as TFP tells by the bijector that maps real numbers to it."""
        try:
            to_support = self.distribution.experimental_default_event_space_bijector()
        except NotImplementedError:
            return False
        return to_support is not None and not isinstance(to_support, tfp.bijectors.Identity)

    def _inside_base(self, x, outside):
        """Base values in the support, in place of finite ones outside of it, and which events have no density."""
        ndims = self.distribution.event_shape.rank
        log_prob = self.distribution.log_prob(tf.stop_gradient(x))
        finite = tf.reduce_all(tf.math.is_finite(x), axis=list(range(-ndims, 0)))
        mask = finite & ~tf.math.is_finite(log_prob)
        to_support = self.distribution.experimental_default_event_space_bijector()
        # Some distributions, such as TFP's exponential one, answer outside of their support as if they were inside.
        real = to_support.inverse(tf.stop_gradient(x))
        axes = list(range(-to_support.inverse_event_ndims(ndims), 0))
        mask |= finite & tf.reduce_any(tf.math.is_nan(real), axis=axes)
        safe = to_support.forward(tf.zeros_like(real))
        x = tf.where(
            tf.reshape(mask, tf.concat([tf.shape(mask), tf.ones([ndims], tf.int32)], 0)), tf.stop_gradient(safe), x
        )
        return x, mask if outside is None else mask | outside

    def draw(self, sample_shape, seed, **kwargs):
        if not self._is_plain():
            return super().draw(sample_shape, seed, **kwargs)
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        x = self.distribution.sample(sample_shape, seed=seed, **base_kwargs)
        self._check_sample_shape(x, kwargs.get("conditional_input"))
        return forward_and_log_det(self.bijector, x, self.distribution.event_shape.rank, **bijector_kwargs)[0]

    def _sample_and_log_prob(self, sample_shape, seed, **kwargs):
        if not self._is_plain():
            return super()._sample_and_log_prob(sample_shape, seed, **kwargs)
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        x, log_prob = self.distribution.experimental_sample_and_log_prob(sample_shape, seed=seed, **base_kwargs)
        self._check_sample_shape(x, kwargs.get("conditional_input"))
        y, log_det = forward_and_log_det(self.bijector, x, self.distribution.event_shape.rank, **bijector_kwargs)
        return y, log_prob - log_det

    def _check_value(self, y: tf.Tensor, condition: Any) -> None:
        if y.dtype != self.dtype:
            raise ValueError(
                f"`value` must have dtype {self.dtype.name}, that of the flow, got {y.dtype.name}: cast it."
            )
        event_shape = self.event_shape
        split = None if y.shape.rank is None else y.shape.rank - event_shape.rank
        if split is not None and (split < 0 or not y.shape[split:].is_compatible_with(event_shape)):
            raise ValueError(f"`value` must have shape {['...', *event_shape]}, got {y.shape}.")
        if split is not None and condition is not None:
            check_rows(condition, y.shape[:split])

    def _check_sample_shape(self, x: tf.Tensor, condition: Any) -> None:
        """Conditions must broadcast to the sample shape: more of them than samples would share their randomness."""
        if condition is None:
            return
        wanted = x.shape[: x.shape.rank - self.distribution.event_shape.rank]
        given = tf.convert_to_tensor(condition).shape[:-1]
        try:
            fits = tf.broadcast_static_shape(wanted, given).is_compatible_with(wanted)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"`conditional_input` has batch shape {given}, which does not broadcast to the sample shape {wanted}: "
                f"for one sample of each condition, let `sample_shape` be {given.as_list()}."
            )
