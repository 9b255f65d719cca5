"""Evaluation of composed bijectors: value and log-det in one pass, without TFP's cache, with conditions for each layer."""

from __future__ import annotations

import functools

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows import _compat_tfp
from tfp_flows.bijectors.base import FlowBijector


def walk(bijector, value, event_ndims, inverse, kwargs, visit=None, outside=None):
    """Run `value` through one direction. Return the result, its log-det, and the rank of its events.

    `visit(part, value, inverse)` is called for each single bijector before it is evaluated. With a list `outside`, each
    TFP bijector that may have a bounded domain, and each bijector with a method `into_range`, appends a mask of the
    events outside of it. Those events continue from a point inside, so that gradients stay finite.
    """
    while isinstance(bijector, _compat_tfp.Invert):
        bijector, inverse = bijector.bijector, not inverse
    if isinstance(bijector, _compat_tfp.Chain):
        total = tf.zeros([], value.dtype)
        for part in bijector.bijectors if inverse else reversed(bijector.bijectors):
            given = kwargs.get(part.name, {})
            value, log_det, event_ndims = walk(part, value, event_ndims, inverse, given, visit, outside)
            total += log_det
        return value, total, event_ndims
    if isinstance(bijector, CompositeBijector):

        def run(part, value, event_ndims):
            return walk(part, value, event_ndims, inverse, kwargs.get(part.name, {}), visit, outside)[:2]

        value, log_det = bijector.walk(value, inverse, run)
        return value, log_det, (bijector.inverse_event_ndims if inverse else bijector.forward_event_ndims)(event_ndims)
    if visit is not None:
        visit(bijector, value, inverse)
    if inverse and outside is not None and hasattr(bijector, "into_range"):
        value, mask = bijector.into_range(value)
        outside.append(mask)
    direction = "inverse" if inverse else "forward"
    event_ndims_after = getattr(bijector, f"{direction}_event_ndims")(event_ndims)
    both = getattr(bijector, f"{direction}_and_log_det", None)
    if both is not None and event_ndims == getattr(bijector, f"{direction}_min_event_ndims"):
        if isinstance(bijector, FlowBijector):
            bijector.check_events(value)
        return *both(value, **kwargs), event_ndims_after
    if outside is not None and not is_affine(bijector) and value.dtype.is_floating:
        value, mask = _inside(bijector, value, event_ndims, direction, kwargs)
        outside.append(mask)
    value = tf.identity(value)  # a new object, which TFP has not cached
    log_det = getattr(bijector, f"{direction}_log_det_jacobian")(value, event_ndims=event_ndims, **kwargs)
    return getattr(bijector, direction)(value, **kwargs), log_det, event_ndims_after


def _inside(bijector, value, event_ndims, direction, kwargs) -> tuple[tf.Tensor, tf.Tensor]:
    """Replace finite values outside of a bijector's domain by a point inside. Return the values and the mask of those outside.

    TFP's bijectors do not declare their domains, so a point counts as outside if the map or its log-det is not finite.
    """
    probe = tf.stop_gradient(value)
    mapped = getattr(bijector, direction)(tf.identity(probe), **kwargs)
    log_det = getattr(bijector, f"{direction}_log_det_jacobian")(tf.identity(probe), event_ndims=event_ndims, **kwargs)
    axes = list(range(-event_ndims, 0))
    mapped_ndims = getattr(bijector, f"{direction}_event_ndims")(event_ndims)
    finite = tf.reduce_all(tf.math.is_finite(mapped), axis=list(range(-mapped_ndims, 0))) & tf.math.is_finite(log_det)
    mask = tf.reduce_all(tf.math.is_finite(probe), axis=axes) & ~finite
    other = "inverse" if direction == "forward" else "forward"
    safe = tf.stop_gradient(getattr(bijector, other)(tf.zeros_like(mapped), **kwargs))
    whole = tf.reshape(mask, tf.concat([tf.shape(mask), tf.ones([event_ndims], tf.int32)], axis=0))
    return tf.where(whole, safe, value), mask


def density_parts(
    bijector: tfb.Bijector, y: tf.Tensor, event_ndims: int, **kwargs
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Like `inverse_and_log_det`, with a third value: booleans of the batch shape, true outside of the bijector's range.

    The third value is `None` if every event is inside.
    """
    outside: list[tf.Tensor] = []
    x, log_det, _ = walk(bijector, y, event_ndims, True, kwargs, None, outside)
    return x, log_det, functools.reduce(tf.logical_or, outside) if outside else None


def forward_and_log_det(
    bijector: tfb.Bijector, x: tf.Tensor, event_ndims: int, **kwargs
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `forward(x)` and its log-det in nats, which broadcasts to the batch shape of `x`, without TFP's cache.

    `kwargs` are nested as in TFP: by the names of the bijectors for a `Chain`, otherwise passed on. A bijector without
    its own `forward_and_log_det` is evaluated twice.
    """
    return walk(bijector, x, event_ndims, False, kwargs)[:2]


def inverse_and_log_det(
    bijector: tfb.Bijector, y: tf.Tensor, event_ndims: int, **kwargs
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `inverse(y)` and its log-det, like `forward_and_log_det`."""
    return walk(bijector, y, event_ndims, True, kwargs)[:2]


class CompositeBijector(FlowBijector):
    """Bijector that evaluates its own parts. Keywords of a call are nested by the names of the parts, as in a `tfb.Chain`.

    A subclass has `bijectors`, its parts, and `walk(value, inverse, run)`, which evaluates one direction. It calls
    `run(part, value, event_ndims)` for each part, which returns the value and the log-det.
    """

    def _transform(self, direction, value, kwargs):
        return walk(self, value, getattr(self, f"{direction}_min_event_ndims"), direction == "inverse", kwargs)[:2]


def without_invert(bijector: tfb.Bijector) -> tfb.Bijector:
    """Return the bijector inside of any `Invert`, which passes keywords on unchanged."""
    while isinstance(bijector, _compat_tfp.Invert):
        bijector = bijector.bijector
    return bijector


def members_of(bijector: tfb.Bijector) -> list[tfb.Bijector] | None:
    """Return the members of a composition, which TFP addresses by name, or `None` for a single bijector."""
    bijector = without_invert(bijector)
    composed = isinstance(bijector, (tfb.Composition, CompositeBijector))
    return list(bijector.bijectors) if composed else None


def layers_of(bijector: tfb.Bijector) -> list[tfb.Bijector]:
    """Return the single bijectors of a composition in order. A bijector that is used twice appears twice."""
    parts = members_of(bijector)
    return [without_invert(bijector)] if parts is None else [layer for part in parts for layer in layers_of(part)]


# TFP's bijectors that are affine for any arguments.
_AFFINE = (
    tfb.Identity,
    tfb.Permute,
    tfb.Reshape,
    tfb.Scale,
    tfb.ScaleMatvecDiag,
    tfb.ScaleMatvecLU,
    tfb.ScaleMatvecLinearOperator,
    tfb.ScaleMatvecTriL,
    tfb.Shift,
    tfb.Transpose,
)


def is_affine(bijector: tfb.Bijector) -> bool:
    """Return whether every layer is in `_AFFINE` or has `is_affine = True`.

    A constant Jacobian determinant is not enough: additive couplings have one.
    """
    return all(getattr(part, "is_affine", False) or _is_a(part, _AFFINE) for part in layers_of(bijector))


def _is_a(part: tfb.Bijector, classes: tuple[type, ...]) -> bool:
    # With variables, TFP's constructors return instances of the base classes, which are no `CompositeTensor`s.
    return isinstance(part, classes) or any(type(part) is base for cls in classes for base in cls.__bases__)


def has_constant_log_det(bijector: tfb.Bijector) -> bool:
    """Return whether the log-det is the same for all events, as for affine maps and additive couplings."""
    return all(p.is_constant_jacobian or getattr(p, "constant_log_det", False) for p in layers_of(bijector))
