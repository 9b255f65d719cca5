"""Mixture of Gaussians conditionals (MADE-MoG), as a map to a standard normal."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.description import serializable
from tfp_flows.numerics import bound_log_scale, lower_normal_tail
from tfp_flows.transformers.mixture_cdf import MixtureCdfTransformer

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@serializable
@dataclasses.dataclass(frozen=True)
class GaussianMixtureTransformer(MixtureCdfTransformer):
    """`x = Phi^-1(sum_k w_k Phi((y - mean_k) / sigma_k))`: with a standard normal `x`, `y` is a mixture of Gaussians.

    The conditionals of MADE with mixtures (Papamakarios et al. 2017, section 3.4, "MADE MoG"). Data to latent (`inverse`)
    is in closed form; latent to data (`forward`) solves a bracketed scalar equation, to machine precision, with gradients
    by the implicit function theorem. It has `3 num_components` parameters: weights by a softmax, log-scales (bounded to
    5) and means. With zero parameters the means are spread over (-1, 1), so that components differ, and the mixture has
    mean 0 and variance 1.

    Args:
      num_components: Number of components.

    Example:
      >>> mixture = GaussianMixtureTransformer(num_components=2)
      >>> params = tf.constant([[0.0, 0.0, 0.0, 0.0, -3.0, 3.0]])
      >>> x, log_slope = mixture.inverse(tf.constant([0.0]), params)
      >>> print(abs(x.numpy()))
      [0.]

    References:
      G. Papamakarios, T. Pavlakou and I. Murray, Masked Autoregressive Flow, 2017, arXiv:1705.07057.
      M. Germain, K. Gregor, I. Murray and H. Larochelle, MADE, 2015, arXiv:1502.03509.
    """

    num_components: int = 8

    def __post_init__(self):
        positive_int("num_components", self.num_components)

    @property
    def params(self) -> int:
        return 3 * self.num_components

    def _split(self, params):
        weight, log_sigma, mean = tf.split(params, 3, axis=-1)
        spread = np.linspace(-1.0, 1.0, self.num_components) if self.num_components > 1 else np.zeros(1)
        # The smaller of the two keeps sigma positive for two components, whose means alone have variance 1.
        start = 0.5 * math.log(max(1.0 - float(np.var(spread)), 0.25))
        log_scale = -bound_log_scale(log_sigma, 5.0) - start
        return tf.nn.log_softmax(weight), log_scale, -(mean + tf.constant(spread, params.dtype)) * tf.exp(log_scale)

    def _log_tails(self, u):
        left = u <= 0
        tail, _ = lower_normal_tail(tf.where(left, u, -u))  # not -|u|, whose derivative at 0 is 0
        rest = tf.math.log1p(-tf.exp(tail))
        return tf.where(left, tail, rest), tf.where(left, rest, tail), -0.5 * u * u - _HALF_LOG_2PI

    def _quantile(self, log_lower, log_upper):
        x = _normal_quantile(log_lower, log_upper)
        return x, -0.5 * x * x - _HALF_LOG_2PI

    def inverse(self, y, params):
        return self._to_latent(y, params)

    def forward(self, x, params):
        y = self._to_data(x, params)
        return y, -self._to_latent(y, params)[1]


def _normal_quantile(log_lower, log_upper):
    """The standard normal quantile of `p`, from `log p` and `log(1 - p)`: Newton steps for `log Phi(z)` in the lower tail.

    In the tail `log Phi` is concave and nearly quadratic: three steps from a rational approximation reach machine
    precision. Two more carry first and second derivatives.
    """
    left = log_lower < log_upper
    target = tf.where(left, log_lower, log_upper)
    fixed = tf.stop_gradient(target)
    t = tf.sqrt(-2.0 * tf.minimum(fixed, -math.log(2.0)))  # by rounding, the smaller tail may exceed one half
    # Abramowitz and Stegun 26.2.23, error below 4.5e-4
    z = (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t
    for step in range(5):
        if step == 3:
            z, fixed = tf.stop_gradient(z), target
        z = tf.minimum(z, 0.0)
        log_phi, mills = lower_normal_tail(z)
        z -= (log_phi - fixed) * mills
    return tf.where(left, z, -z)
