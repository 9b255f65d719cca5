"""Mixtures of Gaussians, as bijectors of normal variables."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.adapting import deviation_or_one, rows_of, without_far_values
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import positive_int
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed
from tfp_flows.transformers.gaussian_mixture import GaussianMixtureTransformer, fit_mixture

_MOST_ROWS = 2**15  # fit a mixture to at most this many evenly spaced rows


class _Components(GaussianMixtureTransformer):
    """`GaussianMixtureTransformer` with unconstrained parameters: log-weights, log-scales and shifts."""

    def split(self, params):
        return tuple(tf.split(params, 3, axis=-1))


@serializable
class MixtureBijector(FlowBijector):
    """Map from a standard normal distribution to a mixture of Gaussians with diagonal covariances (Rosenblatt 1952).

    `x_d = Phi^-1(F(y_d | y_1, ..., y_{d-1}))`, where `F` is the conditional CDF of the mixture: a mixture of the
    components' CDFs, weighted by how well each explains the previous coordinates. With a standard normal `x`, `y` has
    exactly the density of the mixture. The trainable variables are `logits` `[K]` (unnormalized log-weights), `loc` and
    `log_scale` `[K, D]`. `adapt(batch)` fits them to a batch on the data side, by expectation maximization (Inouye and
    Ravikumar, Deep Density Destructors, ICML 2018).

    Cost per direction and event: `inverse` (density) `O(K D)` for `K` components; `forward` (sampling) one scalar solve
    of cost `O(K)` per coordinate, in sequence. Shapes: `[..., D]` to `[..., D]`; log-det `[...]`, in nats.

    Args:
      event_size: Integer `D`.
      num_components: Integer `K`.
      seed: Integer seed of the components' initial locations.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Example:
      >>> layer = tff.MixtureBijector(2, num_components=2, seed=1)
      >>> _ = layer.loc.assign([[-3.0, 0.0], [3.0, 1.0]])
      >>> flow = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2)), layer)
      >>> parts = tfd.MultivariateNormalDiag(layer.loc, tf.exp(layer.log_scale))
      >>> mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=layer.logits), parts)
      >>> print(np.allclose(flow.log_prob([1.0, 2.0]), mixture.log_prob([1.0, 2.0]), atol=1e-5))
      True
    """

    # XLA does not speed up a loop over coordinates with a solve in each.
    gains_by_jit = False

    def __init__(
        self,
        event_size: int,
        num_components: int,
        *,
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "mixture_map",
    ):
        super().__init__(event_size, dtype=dtype, validate_args=validate_args, name=name)
        self.num_components = positive_int("num_components", num_components)
        self._seed = resolve_seed(seed)
        self._transformer = _Components(num_components)
        loc = np.random.default_rng(self._seed).normal(size=[num_components, event_size])
        self.logits = tf.Variable(tf.zeros([num_components], self.dtype), name="logits")
        self.loc = tf.Variable(loc, dtype=self.dtype, name="loc")
        self.log_scale = tf.Variable(tf.zeros([num_components, event_size], self.dtype), name="log_scale")

    def adapt(self, data) -> None:
        rows = rows_of(f"`data` of {self.name}", data, self.event_size)
        rows = rows[:: -(-len(rows) // _MOST_ROWS)]
        middle = without_far_values(rows)
        mean = middle.mean(axis=0)
        deviation = deviation_or_one(middle.std(axis=0), np.abs(middle).max(axis=0), self.dtype)
        loc = _far_apart((middle - mean) / deviation, self.num_components, self._seed)
        scale = np.full(loc.shape, self.num_components ** (-1.0 / self.event_size))
        weight, loc, scale = fit_mixture((rows - mean) / deviation, loc, scale, lowest=1e-2, iterations=100)
        self.logits.assign(np.log(weight))
        self.loc.assign(mean + deviation * loc)
        self.log_scale.assign(np.log(deviation * scale))
        self.set_adapted()

    def _components(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the center `[D]` of the means, and the log-scales and shifts `[D, K]` that standardize each component."""
        center = tf.reduce_mean(self.loc, axis=0)  # far from zero, the shifts would cancel digits
        log_scale = -tf.transpose(self.log_scale)
        return center, log_scale, -tf.transpose(self.loc - center) * tf.exp(log_scale)

    def inverse_and_log_det(self, y):
        center, log_scale, shift = self._components()
        y -= center
        log_part = _log_normal(y[..., tf.newaxis], log_scale, shift)
        log_weight = tf.nn.log_softmax(self.logits + tf.cumsum(log_part, axis=-2, exclusive=True))
        x, log_slope = self._transformer.inverse(y, _params(log_weight, log_scale, shift))
        return x, tf.reduce_sum(log_slope, axis=-1)

    def forward_and_log_det(self, x):
        center, log_scale, shift = self._components()

        def coordinate(carry, element):
            log_weight = carry[1]
            value, scale, offset = element
            y = self._transformer.to_data(value, _params(tf.nn.log_softmax(log_weight), scale, offset))
            return y, log_weight + _log_normal(y[..., tf.newaxis], scale, offset)

        values = tf.transpose(tf.reshape(x, [-1, self.event_size]))
        none = tf.zeros_like(values[0])
        start = (none, none[..., tf.newaxis] + self.logits)
        y, _ = tf.scan(coordinate, (values, log_scale, shift), start)
        y = tf.reshape(tf.transpose(y), tf.shape(x)) + center
        y.set_shape(x.shape)
        return y, -self.inverse_and_log_det(y)[1]


def _params(log_weight: tf.Tensor, log_scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    zeros = tf.zeros_like(log_weight)
    return tf.concat([log_weight, zeros + log_scale, zeros + shift], axis=-1)


def _log_normal(y: tf.Tensor, log_scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    return log_scale - 0.5 * tf.square(y * tf.exp(log_scale) + shift)


def _far_apart(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose rows far from each other, like k-means++ (Arthur and Vassilvitskii 2007)."""
    rng = np.random.default_rng(seed)
    chosen = [rows[rng.integers(len(rows))]]
    distance = np.full(len(rows), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.sum(np.square(rows - chosen[-1]), axis=1))
        total = distance.sum()
        chosen.append(rows[rng.choice(len(rows), p=distance / total if total > 0 else None)])
    return np.stack(chosen)
