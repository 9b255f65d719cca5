"""Scalar numerics: bounded log-scales, normal tails and quantiles, and monotone scalar equations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

DEFAULT_LOG_SCALE_BOUND = 5.0


def bound_log_scale(log_scale: tf.Tensor, bound: float | None = DEFAULT_LOG_SCALE_BOUND) -> tf.Tensor:
    """Bound a log-scale smoothly to the open interval `(-bound, bound)`.

    Returns `x / sqrt(1 + (x / bound)^2)`: the identity to second order at 0, with algebraic tails, so that a saturated
    unit keeps a usable gradient, unlike with `tanh`. The default bound limits a layer's scale to `exp(5) = 148`.

    Args:
      log_scale: Floating point tensor of any shape, in nats.
      bound: Positive float, or `None` to return `log_scale` unchanged.

    Example:
      >>> float(tff.bound_log_scale(tf.constant(0.0)))
      0.0
      >>> bool(abs(tff.bound_log_scale(tf.constant(1e6))) <= 5.0)
      True
    """
    if bound is None:
        return log_scale
    # Clipping keeps the square from overflowing in float16. At 100 bounds the value is within 5e-5 of the bound.
    ratio = tf.clip_by_value(log_scale / bound, -100.0, 100.0)
    return bound * ratio * tf.math.rsqrt(1.0 + ratio * ratio)


def unbound_log_scale(bounded: np.ndarray, bound: float) -> np.ndarray:
    """Invert `bound_log_scale` for initial values, clipped to 0.999 of the bound."""
    ratio = np.clip(bounded / bound, -0.999, 0.999)
    return bound * ratio / np.sqrt(1.0 - ratio * ratio)


def sum_log_det(log_slope: tf.Tensor, like: tf.Tensor, event_ndims: int = 1) -> tf.Tensor:
    """Sum log-slopes over the event, as if they were broadcast to the event shape of `like`."""
    event_shape = like.shape[-event_ndims:]
    if not event_shape.is_fully_defined() or log_slope.shape[-event_ndims:] != event_shape:
        log_slope = tf.broadcast_to(log_slope, tf.shape(like))
    return tf.reduce_sum(log_slope, axis=list(range(-event_ndims, 0)))


def wrap(value: tf.Tensor, period: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `value` modulo `period`, on `[-period / 2, period / 2]`, and the multiple of `period` that was subtracted.

    XLA may compute cheap operations more than once, and round each copy in another way. At the seam, copies of
    `floor(value / period)` would differ by one. A remainder is computed once, so it alone decides.
    """
    half = 0.5 * period
    remainder = tf.math.floormod(value + half, period)
    turns = tf.stop_gradient(period * tf.round((value + half - remainder) / period))
    within = tf.where(tf.equal(turns, 0.0), value, remainder - half)
    return tf.clip_by_value(within, -half, half), turns


def sech_squared(a: tf.Tensor) -> tf.Tensor:
    """Return `1 - tanh(a)^2` without cancellation for large `|a|`."""
    e = tf.exp(-2.0 * tf.abs(a))
    return 4.0 * e / tf.square(1.0 + e)


def lower_normal_tail(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `log Phi(z)` and Mills' ratio `Phi(z) / phi(z)` for `z <= 0`, exact to a few roundings; larger `z` count as 0.

    Uses `erfc` until it would underflow, then the asymptotic series (Abramowitz and Stegun 26.2.12). XLA needs tens of
    seconds to compile `tfp.math.logerfc` and `erfcx` in a mixture of Gaussians.
    """
    switch, terms = (-25.0, 8) if z.dtype == tf.float64 else (-6.0, 6)
    z = tf.minimum(z, 0.0)
    near, far = tf.maximum(z, switch), tf.minimum(z, switch)  # keeps the branch that is not chosen finite
    u = -near * math.sqrt(0.5)
    half_erfc = 0.5 * tf.math.erfc(u)
    series, term, square = tf.ones_like(far), tf.ones_like(far), 1.0 / (far * far)
    for k in range(1, terms):
        term = -term * (2 * k - 1) * square
        series += term
    log_far = tf.math.log(-series / far) - 0.5 * far * far - 0.5 * math.log(2.0 * math.pi)
    log_phi = tf.where(z > switch, tf.math.log(half_erfc), log_far)
    return log_phi, tf.where(z > switch, half_erfc * tf.exp(u * u) * math.sqrt(2.0 * math.pi), -series / far)


def log_normal_tails(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `log Phi(z)` and `log(1 - Phi(z))` for any `z`."""
    left = z <= 0
    tail, _ = lower_normal_tail(tf.where(left, z, -z))  # not -|z|, whose derivative at 0 is 0
    rest = tf.math.log1p(-tf.exp(tail))
    return tf.where(left, tail, rest), tf.where(left, rest, tail)


def normal_quantile(log_lower: tf.Tensor, log_upper: tf.Tensor) -> tf.Tensor:
    """Return the standard normal quantile of `p` from `log p` and `log(1 - p)`, by Newton steps in the lower tail.

    There `log Phi` is concave and nearly quadratic: three steps from a rational approximation reach machine precision.
    Two more carry first and second derivatives.
    """
    left = log_lower < log_upper
    target = tf.where(left, log_lower, log_upper)
    fixed = tf.stop_gradient(target)
    t = tf.sqrt(-2.0 * tf.minimum(fixed, -math.log(2.0)))  # rounding may push the smaller tail above one half
    # Abramowitz and Stegun 26.2.23, error below 4.5e-4
    z = (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t
    for step in range(5):
        if step == 3:
            z, fixed = tf.stop_gradient(z), target
        z = tf.minimum(z, 0.0)
        log_phi, mills = lower_normal_tail(z)
        z -= (log_phi - fixed) * mills
    return tf.where(left, z, -z)


def solve_increasing(
    fn: Callable[..., tuple[tf.Tensor, tf.Tensor]],
    bracket: Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    args: Sequence[tf.Tensor],
    *,
    max_iterations: int = 100,
) -> tf.Tensor:
    """Solve `fn(s, *args) = 0` for `s`, elementwise, where `fn` increases in `s`.

    Uses Newton's method in a shrinking bracket: bisection replaces a step that leaves the bracket, or is longer than
    half of the previous step. The loop is one `tf.while_loop`, which runs in eager mode, in `tf.function` and under XLA.

    Gradients follow from the implicit function theorem, `ds/dargs = -(dfn/dargs) / (dfn/ds)`: two differentiable Newton
    steps at the solution give exact first and second derivatives. They are zero where the slope underflows.

    Args:
      fn: Callable `(s, *args) -> (value, slope)`, both of the shape of `s`, with `slope = d value / d s > 0`.
      bracket: Callable `(*args) -> (lower, upper, start)`, tensors of one shape with `fn(lower) <= 0 <= fn(upper)`. The
        closer `start` is to the root, the fewer steps. Define both functions once: each new object is traced again.
      args: The tensors that `fn` depends on; gradients reach only these.
      max_iterations: Bound on the number of steps. A good start needs about six, and bisection at most the number of bits.

    Returns:
      The root, with the shape of the bracket (its static rank may be lost). Elements without a root, or not converged, are NaN.

    Example:
      >>> print(solve_increasing(lambda s, y: (s**3 + s - y, 3 * s**2 + 1), lambda y: (0 * y, y, y),
      ...                        [tf.constant([10.0, 30.0])]).numpy())
      [2. 3.]
    """
    root = tf.stop_gradient(_iterate(fn, bracket, max_iterations, *[tf.stop_gradient(t) for t in args]))
    return _polish(fn, root, *args)


# Traced once for each `fn` and dtype, so that all layers of a flow share one graph, which also speeds up eager mode.
@functools.partial(tf.function, autograph=False, reduce_retracing=True)
def _iterate(fn, bracket, max_iterations, *args):
    """Run the loop of `solve_increasing`, without gradients.

    `tfp.math.find_root_chandrupatla` does not use the slope, so it takes more steps, and it has no mark for elements that did
    not converge.
    """
    lower, upper, start = bracket(*args)
    start = tf.clip_by_value(start, lower, upper)
    eps = float(np.finfo(start.dtype.as_numpy_dtype).eps)  # as a float, since NumPy 1 scalars would promote float32

    def keep_going(step, *state):
        return (step < max_iterations) & tf.reduce_any(state[-1])

    def one_step(step, s, low, high, width, moving):
        value, slope = fn(s, *args)
        low = tf.where(value <= 0, s, low)
        high = tf.where(value >= 0, s, high)
        newton = s - value / slope
        good = (newton >= low) & (newton <= high) & (tf.abs(newton - s) <= tf.maximum(width / 2, 2 * eps * tf.abs(s)))
        # Converged elements stay: their bracket may be wide on one side, so bisection would throw them out.
        proposal = tf.where(moving, tf.where(good, newton, low + (high - low) / 2), s)
        width = tf.abs(proposal - s)
        # Newton's error is about the square of its step, and `solve_increasing` adds two steps. Steps may never become
        # as small as rounding, since the noise of `fn` can be larger. NaN compares as false, so broken elements stop.
        moving = moving & (width > tf.where(good, eps ** (2 / 3) * tf.abs(proposal), 2 * eps * tf.abs(proposal)))
        return step + 1, proposal, low, high, width, moving

    state = (tf.constant(0), start, lower, upper, 2 * (upper - lower), tf.ones_like(start, tf.bool))
    _, root, _, _, _, moving = tf.while_loop(keep_going, one_step, state)
    # Elements that did not converge are NaN, unless rounding makes them swing between neighboring floats.
    value, slope = fn(root, *args)
    swings = tf.abs(tf.math.divide_no_nan(value, slope)) <= 1e3 * eps * (1.0 + tf.abs(root))
    return tf.where(moving & ~swings, tf.cast(np.nan, root.dtype), root)


def _polish(fn, root, *args):
    """Make two differentiable Newton steps at the solution.

    The steps are traced into the caller's graph. In a separate function, XLA would treat the shapes that the gradient reads
    as constants, and compile at each step.
    """
    info = np.finfo(root.dtype.as_numpy_dtype)
    longest = 1e3 * float(info.eps) * (1.0 + tf.abs(root))
    for _ in range(2):
        value, slope = fn(root, *args)
        # Where `fn` is flat, as between distant modes, rounding would throw the root out, and there is no slope to divide by.
        rises = slope > math.sqrt(info.tiny)
        step = tf.where(rises, value / tf.where(rises, slope, tf.ones_like(slope)), tf.zeros_like(value))
        root = root - step + tf.stop_gradient(step - tf.clip_by_value(step, -longest, longest))
    return root


def real_dtype(dtype) -> tf.DType:
    """Return `dtype`, given by any of its names, if it is float32 or float64."""
    try:
        found = tf.as_dtype(dtype)
    except TypeError as error:
        raise ValueError(f"`dtype` must be tf.float32 or tf.float64, got {dtype!r}.") from error
    if found not in (tf.float32, tf.float64):
        half = " For networks that compute in half precision, set a mixed policy: keras.config.set_dtype_policy."
        hint = half if found in (tf.float16, tf.bfloat16) else ""
        raise ValueError(f"`dtype` must be tf.float32 or tf.float64, got {found.name}.{hint}")
    return found
