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
from tfp_flows.bases import log_prob_of
from tfp_flows.bijectors.composition import density_parts, forward_and_log_det, has_constant_log_det, is_affine
from tfp_flows.bijectors.conditioning import conditional_kwargs, conditional_sizes
from tfp_flows.bijectors.given import GivenBijector
from tfp_flows.eager_calls import EagerCalls, is_traceable
from tfp_flows.networks.broadcasting import broadcast_events, check_condition, check_rows
from tfp_flows.registry import serializable

tfd = tfp.distributions

__all__ = ["FlowDistribution", "GivenFlow"]

# `training.layers`, which imports this module, registers the function that creates Keras layers here.
LOG_PROB_LAYERS: list[Callable] = []


def dummy_condition(distribution: tfd.Distribution) -> dict[str, tf.Tensor]:
    """Return the keyword with one condition of zeros that a conditional distribution needs, and no keyword for others."""
    size = getattr(distribution, "conditional_size", None)
    return {} if size is None else {"conditional_input": tf.zeros([1, size], distribution.dtype)}


def _check_preprocess_condition(bijector: Any, wanted: int | None) -> None:
    if bijector is None:
        return
    if wanted is None:
        raise ValueError("`preprocess_condition` needs a flow with conditions, this one has none.")
    if not isinstance(bijector, tfp.bijectors.Bijector):
        raise ValueError(f"`preprocess_condition` must be a tfb.Bijector such as standardize(c), got {bijector!r}.")
    size = getattr(bijector, "event_size", None)  # `None` for any size
    if size not in (None, wanted):
        raise ValueError(f"`preprocess_condition` is for {size} columns, the flow's conditions have {wanted}.")


def _of_affine_flows(name: str) -> Callable:
    """Return TFP's method for a moment, for affine flows only.

    TFP treats a constant Jacobian as an affine map, and would return wrong moments for additive couplings.
    """

    def moment(self, **kwargs):
        if not is_affine(self.bijector):
            raise NotImplementedError(
                f"`{name}` is not implemented for flows that are not affine: take it from samples, "
                "such as tf.reduce_mean(flow.sample(10_000), axis=0)."
            )
        return getattr(TransformedDistribution, f"_{name}")(self, **kwargs)

    return moment


@serializable
class FlowDistribution(TransformedDistribution):
    """Transformed distribution with conditions, whose log-densities are fast and never stale. It differs from
    `tfd.TransformedDistribution`:

    - Value and log-det of each layer come from one evaluation, in `log_prob` and in `experimental_sample_and_log_prob`.
    - It bypasses TFP's cache of bijectors. In eager mode, the cache mixes values from before and after a training step
      when `log_prob` is called twice on the same tensor object.
    - `conditional_input=c` in `log_prob`, `sample` and other methods reaches every conditional layer. `c` has shape
      `[..., C]`, where `C` is `conditional_size` (`None` without conditions). Its leading axes broadcast against those
      of the events in `log_prob`, and to the sample shape in `sample`. TFP's `bijector_kwargs` work too (see
      `make_bijector_kwargs`).

    Args:
      distribution: The base distribution.
      bijector: The map from base to data.
      preprocess_condition: Bijector whose `inverse` is applied to `conditional_input` first, such as `Standardize(C)`.
      validate_args, name: Whether to check values at run time; name of the distribution.

    Raises:
      ValueError: If `preprocess_condition` does not fit; in methods, for a wrong or missing keyword, shape or dtype.

    Example:
      >>> layer = tff.MaskedAutoregressiveFlow(
      ...     tff.masked_autoregressive_template([16], event_size=2, conditional_size=3))
      >>> flow = tff.FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tfb.Chain([layer]))
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
        self._keep(distribution, bijector, preprocess_condition, validate_args, name, dict(locals()))

    def _keep(self, distribution, bijector, preprocess_condition, validate_args, name, parameters) -> None:
        """Initialize the distribution; `parameters` are the arguments of the constructor, for `copy`."""
        sizes = conditional_sizes(bijector)
        self.conditional_size = min(sizes) if sizes else None
        self._conditional_sizes = sizes
        _check_preprocess_condition(preprocess_condition, self.conditional_size)
        self.preprocess_condition = preprocess_condition
        super().__init__(distribution, bijector, self._split_kwargs, validate_args, parameters, name)
        self._density = EagerCalls(self._density_of, (self.event_shape.rank or 0, 1), self._is_traceable)
        self._map = EagerCalls(self._map_base, (distribution.event_shape.rank or 0, 1), self._is_traceable)
        self._draw_base = EagerCalls(distribution.sample, (1, 1), self._is_traceable)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return super()._parameter_properties(dtype, num_classes)  # else TFP warns

    def _is_traceable(self) -> bool:
        own = type(self).__module__.split(".")[0] == "tfp_flows"
        return own and is_traceable(self.bijector, self.preprocess_condition)

    def _split_kwargs(self, kwargs: dict[str, Any]) -> tuple[dict, dict]:
        self._check_kwargs(kwargs)
        nested, condition = kwargs.get("bijector_kwargs"), kwargs.get("conditional_input")
        if condition is not None:
            nested = self.bijector_kwargs(condition)
        return kwargs.get("distribution_kwargs", {}), nested or {}

    def _check_kwargs(self, kwargs: dict[str, Any]) -> None:
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
        elif condition is not None:
            raise ValueError("Give either `conditional_input` or `bijector_kwargs`, not both.")

    def bijector_kwargs(self, conditional_input) -> dict[str, Any]:
        """Return nested keywords, in TFP's form, that pass a condition to every conditional layer."""
        check_condition(conditional_input, self.conditional_size)
        condition = tf.cast(tf.convert_to_tensor(conditional_input), self.dtype)
        return conditional_kwargs(self.bijector, self._encode(condition))

    def _encode(self, condition: tf.Tensor) -> tf.Tensor:
        return condition if self.preprocess_condition is None else self.preprocess_condition.inverse(condition)

    def condition_before_encoder(self, condition: tf.Tensor) -> tf.Tensor:
        """Return the condition as the first network reads it."""
        return self._encode(condition)

    def with_base(self, distribution: tfd.Distribution) -> FlowDistribution:
        """Return a flow over another base distribution that shares the layers and the preprocessing of conditions."""
        preprocess = self.preprocess_condition
        return FlowDistribution(distribution, self.bijector, preprocess_condition=preprocess, name=self.name)

    def given(self, conditional_input, *, name: str | None = None) -> GivenFlow:
        """Return the distribution for one fixed condition `[C]`, which shares the weights: see `GivenFlow`."""
        return GivenFlow(self, conditional_input, name=name)

    _mean, _stddev = _of_affine_flows("mean"), _of_affine_flows("stddev")
    _variance, _covariance = _of_affine_flows("variance"), _of_affine_flows("covariance")

    def _mode(self, **kwargs):
        self._check_constant_log_det("mode")
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        return self._forward(self.distribution.mode(**base_kwargs), bijector_kwargs)[0]

    def _entropy(self, **kwargs):
        self._check_constant_log_det("entropy")
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        x = tf.zeros(self.distribution.event_shape, self.distribution.dtype)
        return self.distribution.entropy(**base_kwargs) + self._forward(x, bijector_kwargs)[1]

    def _check_constant_log_det(self, name: str) -> None:
        if not has_constant_log_det(self.bijector) or not self._is_plain:
            raise NotImplementedError(f"`{name}` is not implemented for flows whose log-det depends on the event.")

    @functools.cached_property
    def _is_plain(self) -> bool:
        return is_injective(self.bijector) and self.batch_shape == self.distribution.batch_shape

    def log_prob(self, value, name: str = "log_prob", **kwargs):
        """Return the log-density of `value`, in nats, or for a symbolic `keras.Input` the output of a `tff.layers.LogProb`."""
        if keras.utils.is_keras_tensor(value):
            return LOG_PROB_LAYERS[-1](self)(value, **kwargs)
        return super().log_prob(value, name=name, **kwargs)

    def _log_prob(self, y, **kwargs):
        if not self._is_plain:
            return super()._log_prob(tf.identity(y), **kwargs)
        self._check_kwargs(kwargs)
        self._check_value(y, kwargs.get("conditional_input"))
        return self._call(self._density, y, kwargs)

    def _call(self, calls: EagerCalls, value: tf.Tensor, kwargs: dict[str, Any]):
        """Call `calls(value, kwargs)`, eagerly as it is if keywords are TFP's nested ones, which need not be tensors."""
        if set(kwargs) <= {"conditional_input"}:
            condition = kwargs.get("conditional_input")
            return calls(value, {} if condition is None else {"conditional_input": tf.cast(condition, self.dtype)})
        return calls.function(value, kwargs)

    def _density_of(self, y: tf.Tensor, kwargs: dict[str, Any]) -> tf.Tensor:
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        y = broadcast_events(y, kwargs.get("conditional_input"), self.event_shape.rank)
        x, log_det, outside = density_parts(self.bijector, y, self.event_shape.rank, **bijector_kwargs)
        if self._base_is_bounded:
            x, outside = self._inside_base(x, outside)
        log_prob = log_prob_of(self.distribution, x, **base_kwargs) + log_det
        # A layer may overflow to NaN far away, where the base's density has underflowed: the result is minus infinity.
        axes = list(range(-self.event_shape.rank, 0))
        far = tf.reduce_any(tf.abs(y) > 1e8, axis=axes) & tf.reduce_all(tf.math.is_finite(y), axis=axes)
        lost = far & tf.math.is_nan(log_prob)
        return tf.where(lost if outside is None else outside | lost, tf.cast(-np.inf, log_prob.dtype), log_prob)

    @functools.cached_property
    def _base_is_bounded(self) -> bool:
        """Whether the base may have a bounded support, according to TFP's bijector onto the support."""
        try:
            to_support = self.distribution.experimental_default_event_space_bijector()
        except NotImplementedError:
            return False
        return to_support is not None and not isinstance(to_support, tfp.bijectors.Identity)

    def _inside_base(self, x, outside):
        """Replace finite base values outside of the support by a point inside, and mark their events."""
        ndims = self.distribution.event_shape.rank
        log_prob = self.distribution.log_prob(tf.stop_gradient(x))
        finite = tf.reduce_all(tf.math.is_finite(x), axis=list(range(-ndims, 0)))
        mask = finite & ~tf.math.is_finite(log_prob)
        to_support = self.distribution.experimental_default_event_space_bijector()
        # Some distributions, such as TFP's exponential one, ignore the bounds of their support.
        real = to_support.inverse(tf.stop_gradient(x))
        axes = list(range(-to_support.inverse_event_ndims(ndims), 0))
        mask |= finite & tf.reduce_any(tf.math.is_nan(real), axis=axes)
        safe = tf.stop_gradient(to_support.forward(tf.zeros_like(real)))
        of_events = tf.reshape(mask, tf.concat([tf.shape(mask), tf.ones([ndims], tf.int32)], axis=0))
        return tf.where(of_events, safe, x), mask if outside is None else mask | outside

    def draw(self, sample_shape, seed, **kwargs):
        if not self._is_plain:
            return super().draw(sample_shape, seed, **kwargs)
        self._check_kwargs(kwargs)
        shape, seed = tf.convert_to_tensor(sample_shape, tf.int32), tfp.random.sanitize_seed(seed)
        base_kwargs = kwargs.get("distribution_kwargs", {})
        draw = functools.partial(self.distribution.sample, **base_kwargs) if base_kwargs else self._draw_base
        x = draw(shape, seed)
        self._check_sample_shape(x, kwargs.get("conditional_input"))
        return self._call(self._map, x, kwargs)

    def _map_base(self, x: tf.Tensor, kwargs: dict[str, Any]) -> tf.Tensor:
        return self._forward(x, self._split_kwargs(kwargs)[1])[0]

    def _forward(self, x: tf.Tensor, bijector_kwargs: dict[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        return forward_and_log_det(self.bijector, x, self.distribution.event_shape.rank, **bijector_kwargs)

    def _sample_and_log_prob(self, sample_shape, seed, **kwargs):
        if not self._is_plain:
            return super()._sample_and_log_prob(sample_shape, seed, **kwargs)
        base_kwargs, bijector_kwargs = self._split_kwargs(kwargs)
        x, log_prob = self.distribution.experimental_sample_and_log_prob(sample_shape, seed=seed, **base_kwargs)
        self._check_sample_shape(x, kwargs.get("conditional_input"))
        y, log_det = self._forward(x, bijector_kwargs)
        return y, log_prob - log_det

    def _check_value(self, y: tf.Tensor, condition: Any) -> None:
        if y.dtype != self.dtype:
            raise ValueError(
                f"`value` must have dtype {self.dtype.name}, that of the flow, got {y.dtype.name}: cast it."
            )
        if y.shape.rank is None:
            return
        split = y.shape.rank - self.event_shape.rank
        if split < 0 or not y.shape[split:].is_compatible_with(self.event_shape):
            raise ValueError(f"`value` must have shape {['...', *self.event_shape]}, got {y.shape}.")
        if condition is not None:
            check_rows(condition, y.shape[:split])

    def _check_sample_shape(self, x: tf.Tensor, condition: Any) -> None:
        """Check that conditions broadcast to the sample shape. More conditions than samples would share random numbers."""
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


@serializable
class GivenFlow(FlowDistribution):
    """Conditional flow with one fixed condition, as an ordinary distribution. `flow.given(c)` returns one.

    It shares the weights of the flow, so that it changes as the flow is trained. Its `bijector` needs no condition
    either, for `tfp.mcmc.TransformedTransitionKernel` and for plots. Cost: that of the flow.

    Args:
      flow: A conditional flow.
      conditional_input: The condition, `[C]`.
      name: Name of the distribution; that of the flow if `None`.

    Raises:
      ValueError: If the flow is not conditional, or the condition has another shape.

    Example:
      >>> flow = tff.maf(2, num_layers=1, conditional_size=3, seed=1)
      >>> posterior = flow.given([0.5, -1.0, 2.0])
      >>> posterior.sample(5).shape, posterior.log_prob(tf.zeros([4, 2])).shape
      (TensorShape([5, 2]), TensorShape([4]))
    """

    def __init__(self, flow: FlowDistribution, conditional_input, *, name: str | None = None):
        size = getattr(flow, "conditional_size", None)
        if not isinstance(flow, FlowDistribution) or size is None:
            raise ValueError(f"`flow` must be a conditional flow (conditional_size=...), got {flow!r}.")
        condition = np.asarray(conditional_input, tf.as_dtype(flow.dtype).as_numpy_dtype)
        if condition.shape != (size,):
            raise ValueError(
                f"`conditional_input` must be one condition of shape [{size}], got {list(condition.shape)}."
            )
        parameters = {"flow": flow, "conditional_input": condition, "name": name}
        self._flow, self.conditional_input = flow, condition
        bijector = GivenBijector(flow, condition)
        self._keep(flow.distribution, bijector, None, False, flow.name if name is None else name, parameters)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return super()._parameter_properties(dtype, num_classes)

    def _density_of(self, y: tf.Tensor, kwargs: dict[str, Any]) -> tf.Tensor:
        return self._flow._density_of(y, {**kwargs, "conditional_input": self.conditional_input})

    def _is_traceable(self) -> bool:
        return self._flow._is_traceable()

    def with_base(self, distribution: tfd.Distribution) -> GivenFlow:
        return GivenFlow(self._flow.with_base(distribution), self.conditional_input, name=self.name)
