"""Mixture of Gaussians conditionals (MADE-MoG), as a map to a standard normal."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int
from tfp_flows.numerics import bound_log_scale, log_normal_tails, normal_quantile, unbound_log_scale
from tfp_flows.registry import serializable
from tfp_flows.transformers.mixture_cdf import MixtureCdfTransformer

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@serializable
@dataclasses.dataclass(frozen=True)
class GaussianMixtureTransformer(MixtureCdfTransformer):
    """Map `x = Phi^-1(sum_k w_k Phi((y - mean_k) / sigma_k))` from a mixture of Gaussians `y` to a standard normal `x`.

    These are the conditionals of MADE MoG (Germain et al. 2015, arXiv:1502.03509; Papamakarios et al. 2017,
    arXiv:1705.07057, section 3.4). `inverse` (data to latent) has a closed form. `forward` solves a bracketed scalar
    equation to machine precision, with gradients by the implicit function theorem. The `3 num_components` parameters
    are weights (by a softmax), log-scales (bounded to 5) and means. At zero parameters, the means are spread over (-1,
    1), so that components differ, and the mixture has mean 0 and variance 1.

    Args:
      num_components: Number of components.

    Example:
      >>> mixture = tff.GaussianMixtureTransformer(num_components=2)
      >>> params = tf.constant([[0.0, 0.0, 0.0, 0.0, -3.0, 3.0]])
      >>> x, log_slope = mixture.inverse(tf.constant([0.0]), params)
      >>> print(abs(x.numpy()))
      [0.]
    """

    num_components: int = 8

    def __post_init__(self):
        positive_int("num_components", self.num_components)

    @property
    def params(self) -> int:
        return 3 * self.num_components

    def _start(self) -> tuple[np.ndarray, float]:
        spread = np.linspace(-1.0, 1.0, self.num_components) if self.num_components > 1 else np.zeros(1)
        # The floor keeps sigma positive for two components, whose means alone have variance 1.
        return spread, 0.5 * math.log(max(1.0 - float(np.var(spread)), 0.25))

    def adapt(self, data: np.ndarray, iterations: int = 30) -> np.ndarray:
        """Fit mixtures to the columns of roughly standardized `data` `[N, D]` by EM. Return parameters `[D, 3 num_components]`.

        The components start at quantiles. At most 8192 evenly spaced rows are used.
        """
        data = np.asarray(data, np.float64)
        data = data[:: -(-len(data) // 8192)]
        return np.stack([self._fit_one(column, iterations) for column in data.T])

    def _fit_one(self, x: np.ndarray, iterations: int) -> np.ndarray:
        k = self.num_components
        spread, start = self._start()
        mean = np.quantile(x, (np.arange(k) + 0.5) / k)
        lowest = max(1e-2 * (np.diff(np.quantile(x, [0.005, 0.995]))[0] / 5.0), 1.01 * math.exp(start - 5.0))
        sigma = np.maximum(np.gradient(mean) if k > 1 else np.std(x)[np.newaxis], lowest)
        found = fit_mixture(x[:, np.newaxis], mean[:, np.newaxis], sigma[:, np.newaxis], lowest, iterations)
        weight, mean, sigma = (part.reshape(k) for part in found)
        return np.concatenate([np.log(weight), unbound_log_scale(np.log(sigma) - start, 5.0), mean - spread])

    def split(self, params):
        weight, log_sigma, mean = tf.split(params, 3, axis=-1)
        spread, start = self._start()
        log_scale = -bound_log_scale(log_sigma, 5.0) - start
        return tf.nn.log_softmax(weight), log_scale, -(mean + tf.constant(spread, params.dtype)) * tf.exp(log_scale)

    def _log_tails(self, u):
        return *log_normal_tails(u), -0.5 * u * u - _HALF_LOG_2PI

    def _quantile(self, log_lower, log_upper):
        x = normal_quantile(log_lower, log_upper)
        return x, -0.5 * x * x - _HALF_LOG_2PI

    def inverse(self, y, params):
        return self.to_latent(y, params)

    def forward(self, x, params):
        y = self.to_data(x, params)
        return y, -self.to_latent(y, params)[1]


def fit_mixture(
    x: np.ndarray, mean: np.ndarray, sigma: np.ndarray, lowest: np.ndarray | float, iterations: int = 30
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a mixture with diagonal covariances to rows `x` `[N, D]` by EM.

    scikit-learn's `GaussianMixture` is an extra, and has no lower bound for deviations that differs between columns.
    Return weights `[K]`, means and deviations `[K, D]`. The initial deviations count as one more row per component, so
    that a component with few rows does not collapse. Deviations are at least `lowest`.
    """
    weight, start = np.full(len(mean), 1.0 / len(mean)), np.square(sigma)
    center = np.median(x, axis=0)
    x, mean = x - center, mean - center  # keeps digits in the squares of far values
    square = np.square(x)
    for _ in range(iterations):
        precision = 1.0 / np.square(sigma)
        constant = np.log(weight) - np.sum(np.log(sigma) + 0.5 * np.square(mean) * precision, axis=1)
        log_part = constant + x @ (mean * precision).T - 0.5 * square @ precision.T
        part = np.exp(log_part - log_part.max(axis=1, keepdims=True))
        part /= part.sum(axis=1, keepdims=True)
        count = part.sum(axis=0)[:, np.newaxis]
        firm = count + 1e-3  # keeps an empty component in place
        first = part.T @ x
        mean = (first + 1e-3 * mean) / firm
        around = part.T @ square - 2.0 * mean * first + count * np.square(mean)
        sigma = np.sqrt(np.maximum((around + start) / (count + 1.0), np.square(lowest)))
        weight = firm[:, 0] / firm.sum()
    return weight, mean + center, sigma
