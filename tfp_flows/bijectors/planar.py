"""Planar flow (Rezende and Mohamed 2015) with both directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.checks import positive_int
from tfp_flows.numerics import sech_squared, solve_increasing
from tfp_flows.seeds import resolve_seed
from tfp_flows.templates import DenseNetwork
from tfp_flows.templates.batches import check_condition
from tfp_flows.tracking import Mirror

tfb = tfp.bijectors


def constrained_u(u: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The `u_hat` that makes `z + u_hat tanh(w.z + b)` invertible (arXiv:1505.05770, appendix A.1).

    `u_hat = u + (m(w.u) - w.u) w / |w|^2` with `m(x) = -1 + softplus(x)`, so that `w.u_hat = m(w.u) > -1`.

    Args:
      u: Tensor of shape `[..., D]`.
      w: Tensor of shape `[..., D]`. Where it is zero the map is a translation by `u tanh(b)`, and `u_hat = u`.

    Returns:
      `u_hat` of shape `[..., D]`, and `1 + w.u_hat = softplus(w.u) > 0` of shape `[...]`, which keeps its relative
      precision where `w.u_hat` comes close to -1.
    """
    wu = tf.reduce_sum(w * u, axis=-1)
    norm2 = tf.reduce_sum(w * w, axis=-1)
    moves = norm2 > 0
    tiny = np.finfo(wu.dtype.as_numpy_dtype).tiny
    slope = tf.where(moves, tf.maximum(tf.math.softplus(wu), tiny), tf.ones_like(wu))
    # At w = 0 the quotient is replaced before it is formed, so that its gradient is finite as well.
    step = tf.where(moves, slope - 1.0 - wu, tf.zeros_like(wu)) / tf.where(moves, norm2, tf.ones_like(wu))
    return u + step[..., tf.newaxis] * w, slope


def _bracket(r: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Bracket of the root of `s + c tanh(s) = r`, `c = slope - 1`, and a start on one side of it.

    With `|r|` for `r` (the equation is odd): for `c >= 0` the left side is concave, and `tanh(s) <= min(s, 1)` gives a
    lower bound of the root; for `c < 0` it is convex, and `tanh(s) <= s`, `tanh(s) <= 1` and, up to `s = 1`,
    `tanh(s) <= s - s^3 / 5` give upper bounds. From there Newton's method runs to the root without crossing it.
    """
    c = slope - 1.0
    size = tf.abs(r)
    below = tf.maximum(size - c, size / slope)
    a = tf.maximum(-c, 0.5)  # used only where c < -1/2; for larger c the other bounds are as good
    cubic = tf.where((c < -0.5) & (size <= 1.0 - 0.7615 * a), (5.0 * size / a) ** (1.0 / 3.0), np.inf)
    above = tf.minimum(tf.minimum(size - c, size / slope), cubic)
    reach = tf.abs(c)
    return r - reach, r + reach, tf.sign(r) * tf.where(c >= 0, below, above)


def _residual(s, r, slope):
    """`s + (slope - 1) tanh(s) - r` and its derivative `tanh(s)^2 + slope sech(s)^2`, a sum of positive terms."""
    t = tf.tanh(s)
    return s + (slope - 1.0) * t - r, t * t + slope * sech_squared(s)


class PlanarFlow(tfb.Bijector):
    """Planar flow `f(z) = z + u_hat tanh(w.z + b)` (Rezende and Mohamed 2015, eq. 10), in both directions.

    `log |det df/dz| = log(1 + (w.u_hat) (1 - tanh(w.z + b)^2))` (eq. 11-12). The constraint of the paper's appendix A.1,
    `w.u_hat = -1 + softplus(w.u) > -1`, makes `f` invertible. Its inverse has no closed form, but needs one number only,
    whatever the dimension: with `s = w.z + b`, the scalar equation `s + (w.u_hat) tanh(s) = w.y + b` has exactly one
    root, which lies within `|w.u_hat|` of the right side. It is found by bracketed Newton steps to machine precision,
    and then `z = y - u_hat tanh(s)`. Gradients of the inverse come from the implicit function theorem.

    Cost per direction and event: forward and its log-det `O(D)`; inverse `O(D)` and about 5 to 10 scalar Newton steps.

    The trainable variables are `u` `[D]`, `w` `[D]` and `b` `[]`. A new flow is close to the identity: `w` is random,
    and `u` is the one with `u_hat = 0` plus a small perturbation. With `conditional_size`, a network adds to all three
    what it computes from the `conditional_input` of a call; it starts at zero.

    Args:
      event_size: Integer `D`, the size of the last axis.
      conditional_size: Size `C` of the `conditional_input`, of shape `[..., C]`, that every call then needs.
      hidden_units, activation: Of the network that reads the condition.
      seed: Integer seed of the initial values; `keras.utils.set_random_seed` decides if `None`.
      dtype: `tf.float32` or `tf.float64`.
      validate_args: Whether to check arguments at run time, at some cost.
      name: Name of the bijector.

    Raises:
      ValueError: If `event_size` is not a positive integer.

    Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[...]` and is in nats.

    Example:
      >>> flow = PlanarFlow(3, seed=1)
      >>> y = flow.forward(tf.ones([5, 3]))
      >>> y.shape, flow.inverse(tf.identity(y)).shape, flow.inverse_log_det_jacobian(y).shape
      (TensorShape([5, 3]), TensorShape([5, 3]), TensorShape([5]))

    References:
      D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv:1505.05770.
    """

    def __init__(
        self,
        event_size: int,
        *,
        conditional_size: int | None = None,
        hidden_units: Sequence[int] = (64, 64),
        activation="relu",
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "planar_flow",
    ):
        size = positive_int("event_size", event_size)
        dtype = tf.as_dtype(dtype)
        seed = resolve_seed(seed)
        rng = np.random.default_rng(seed)
        w = rng.normal(size=size) / np.sqrt(size)
        # w.u = log(e - 1) is where softplus(w.u) = 1, so there u_hat has no component along w; the rest is zero.
        u = np.log(np.e - 1.0) * w / (w @ w) + 0.01 * rng.normal(size=size)
        self.w = tf.Variable(w, dtype=dtype, name="w")
        self.u = tf.Variable(u, dtype=dtype, name="u")
        self.b = tf.Variable(rng.normal(), dtype=dtype, name="b")
        self._event_size = size
        self.conditional_size = conditional_size
        self._network = None
        if conditional_size is not None:
            network = DenseNetwork(hidden_units, activation=activation, seed=seed, dtype=dtype.name)
            network.build_sizes(conditional_size, 2 * size + 1)
            self._network = Mirror(network)
        # No `parameters`: TFP takes bijectors of equal arguments for equal, and lets them share one cache.
        super().__init__(forward_min_event_ndims=1, dtype=dtype, validate_args=validate_args, name=name)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _check(self, x):
        if x.shape.rank is not None and x.shape.rank >= 1 and x.shape[-1] not in (None, self._event_size):
            raise ValueError(f"PlanarFlow expects events of size {self._event_size}, got a tensor of shape {x.shape}.")

    def _u_w_b(self, conditional_input=None):
        """`u_hat` `[..., D]`, `1 + w.u_hat`, `w` `[..., D]` and `b`."""
        check_condition(conditional_input, self.conditional_size)
        u, w, b = tf.convert_to_tensor(self.u), tf.convert_to_tensor(self.w), tf.convert_to_tensor(self.b)
        if self._network is not None:
            offsets = self._network(tf.cast(tf.convert_to_tensor(conditional_input), self.dtype))
            du, dw, db = tf.split(offsets, [self._event_size, self._event_size, 1], axis=-1)
            u, w, b = u + du, w + dw, b + db[..., 0]
        u_hat, slope = constrained_u(u, w)
        return u_hat, slope, w, b

    def forward_and_log_det(self, x: tf.Tensor, conditional_input=None) -> tuple[tf.Tensor, tf.Tensor]:
        """`forward(x)` and its log-det, past TFP's cache."""
        self._check(x)
        u_hat, slope, w, b = self._u_w_b(conditional_input)
        s = tf.reduce_sum(x * w, axis=-1) + b
        return x + u_hat * tf.tanh(s)[..., tf.newaxis], tf.math.log(tf.square(tf.tanh(s)) + slope * sech_squared(s))

    def inverse_and_log_det(self, y: tf.Tensor, conditional_input=None) -> tuple[tf.Tensor, tf.Tensor]:
        """`inverse(y)` and its log-det, past TFP's cache."""
        self._check(y)
        u_hat, slope, w, b = self._u_w_b(conditional_input)
        r = tf.reduce_sum(y * w, axis=-1) + b
        s = solve_increasing(_residual, _bracket, [r, slope + tf.zeros_like(r)])
        x = y - u_hat * tf.tanh(s)[..., tf.newaxis]
        return x, -tf.math.log(tf.square(tf.tanh(s)) + slope * sech_squared(s))

    def _forward(self, x, **condition_kwargs):
        return self.forward_and_log_det(x, **condition_kwargs)[0]

    def _inverse(self, y, **condition_kwargs):
        return self.inverse_and_log_det(y, **condition_kwargs)[0]

    def _forward_log_det_jacobian(self, x, **condition_kwargs):
        return self.forward_and_log_det(x, **condition_kwargs)[1]
