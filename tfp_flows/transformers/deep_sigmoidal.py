"""Deep sigmoidal flow, the transformer of neural autoregressive flows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.numerics import bound_log_scale
from tfp_flows.registry import serializable
from tfp_flows.transformers.mixture_cdf import MixtureCdfTransformer


@serializable
@dataclasses.dataclass(frozen=True)
class DeepSigmoidalTransformer(MixtureCdfTransformer):
    """Composition of maps `x = logit(sum_k w_k sigmoid(a_k y + b_k))` (Huang et al. 2018, arXiv:1804.00779, eq. 8).

    `inverse` (data to latent) has a closed form. `forward` solves a bracketed scalar equation per layer to machine
    precision, with gradients by the implicit function theorem. A layer has `3 num_units` parameters: `w` by a softmax,
    `log a` (bounded to 4), and `b`. At zero parameters, the `b_k` are spread over (-1, 1), and the map is close to the
    identity.

    Args:
      num_units: Sigmoids in each layer.
      num_layers: Number of layers.

    Example:
      >>> transformer = tff.DeepSigmoidalTransformer(num_units=8, num_layers=2)
      >>> bijector = transformer(tf.random.stateless_normal([5, transformer.params], [1, 2], dtype=tf.float64))
      >>> x = tf.zeros([5], tf.float64)
      >>> bool(tf.reduce_all(tf.abs(bijector.inverse(tf.identity(bijector.forward(x)))) < 1e-12))
      True
    """

    num_units: int = 8
    num_layers: int = 1

    def __post_init__(self):
        positive_int("num_units", self.num_units)
        positive_int("num_layers", self.num_layers)

    @property
    def params(self) -> int:
        return 3 * self.num_units * self.num_layers

    def split(self, params):
        weight, log_scale, shift = tf.split(params, 3, axis=-1)
        spread = np.linspace(-1.0, 1.0, self.num_units) if self.num_units > 1 else np.zeros(1)
        slope = np.mean(1.0 / np.cosh(spread / 2.0) ** 2)  # slope at the origin for zero parameters
        log_scale = bound_log_scale(log_scale, 4.0) - math.log(slope)
        return tf.nn.log_softmax(weight), log_scale, shift + tf.constant(spread, params.dtype)

    def _log_tails(self, u):
        lower = tf.math.log_sigmoid(u)
        upper = lower - u
        return lower, upper, lower + upper

    def _quantile(self, log_lower, log_upper):
        return log_lower - log_upper, log_lower + log_upper

    def inverse(self, y, params):
        total = tf.zeros_like(y)
        for layer in tf.split(params, self.num_layers, axis=-1):
            y, log_slope = self.to_latent(y, layer)
            total += log_slope
        return y, total

    def forward(self, x, params):
        total = tf.zeros_like(x)
        for layer in reversed(tf.split(params, self.num_layers, axis=-1)):
            x = self.to_data(x, layer)
            total -= self.to_latent(x, layer)[1]
        return x, total
