"""Destructors with piecewise constant densities: histograms and trees."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import ActNorm, BoxBijector
from tfp_flows.bijectors.adapting import without_far_values
from tfp_flows.checks import positive_int
from tfp_flows.destructors.destructor import Destructor
from tfp_flows.numerics import log_normal_tails


class _BoxDestructor(Destructor):
    """Standardization, followed by boxes of the unit cube that the normal CDF maps the data to."""

    def adapt(self, x, seed):
        dtype = tf.as_dtype(x.dtype)
        first = ActNorm(x.shape[1], dtype=dtype)
        first.adapt(without_far_values(x))
        z = first.inverse(x)
        return tfp.bijectors.Chain([first, *self._maps(tf.exp(log_normal_tails(z)[0]).numpy(), dtype)])

    def _maps(self, u: np.ndarray, dtype: tf.DType) -> list[BoxBijector]:
        raise NotImplementedError


class HistogramDestructor(_BoxDestructor):
    """Histogram of each dimension, with normal tails.

    Args:
      num_bins: Number of bins, of equal probability under a normal distribution.
      smoothing: Number of rows to add to the data, spread as that normal distribution.

    Example:
      >>> x = np.random.default_rng(1).uniform(size=[5000, 1]).astype("float32")
      >>> z = tff.destructors.HistogramDestructor(num_bins=50).adapt(x, seed=1).inverse(x)
      >>> print(np.round(np.std(z), 1))
      1.0
    """

    def __init__(self, num_bins: int = 20, smoothing: float = 1.0):
        self.num_bins = positive_int("num_bins", num_bins, 2)
        self.smoothing = _smoothing(smoothing)

    def _maps(self, u, dtype):
        size, edges = u.shape[1], np.arange(self.num_bins + 1) / self.num_bins
        maps = []
        for j in range(size):
            counts = np.histogram(u[:, j], edges)[0] + self.smoothing / self.num_bins
            # Less than a few roundings would vanish between the edges.
            counts = np.maximum(counts, 8.0 * np.finfo(dtype.as_numpy_dtype).eps * counts.sum())
            latent = np.concatenate([[0.0], np.cumsum(counts)])
            latent /= latent[-1]
            corners = np.zeros([4, self.num_bins, size])
            corners[1::2] = 1.0
            corners[:, :, j] = [edges[:-1], edges[1:], latent[:-1], latent[1:]]
            maps.append(BoxBijector(size, self.num_bins, dtype=dtype))
            maps[-1].set_boxes(*corners)
        return maps


class _Leaf(NamedTuple):
    """Box in both spaces, its rows, and its best split: gain in nats, dimension, relative position."""

    corners: np.ndarray  # [4, D]
    rows: np.ndarray
    split: tuple[float, int, float]


class TreeDestructor(_BoxDestructor):
    """Density tree: splits boxes in two where that increases the likelihood most.

    Args:
      max_leaves: Maximal number of boxes.
      min_rows: Minimal number of rows in a box.
      smoothing: Number of rows to add to the data, spread as the normal distribution fitted to them.

    Example:
      >>> x = tff.data.checkerboard().sample(2000, seed=1).astype("float32")
      >>> first, boxes = tff.destructors.TreeDestructor(max_leaves=16).adapt(x, seed=1).bijectors
      >>> boxes.num_boxes
      16
    """

    def __init__(self, max_leaves: int = 32, min_rows: int = 20, smoothing: float = 1.0):
        self.max_leaves = positive_int("max_leaves", max_leaves, 2)
        self.min_rows = positive_int("min_rows", min_rows)
        self.smoothing = _smoothing(smoothing)

    def _best_split(self, corners: np.ndarray, u: np.ndarray) -> tuple[float, int, float]:
        best, fractions = (-np.inf, 0, 0.5), np.arange(1, 16) / 16.0
        for j in range(u.shape[1]):
            low, high = corners[:2, j]
            left = np.searchsorted(np.sort(u[:, j]), low + fractions * (high - low))
            p = (left + self.smoothing * fractions) / (len(u) + self.smoothing)
            gain = left * np.log(p / fractions) + (len(u) - left) * np.log((1.0 - p) / (1.0 - fractions))
            gain[np.minimum(left, len(u) - left) < self.min_rows] = -np.inf
            i = int(np.argmax(gain))
            if gain[i] > best[0]:
                best = (float(gain[i]), j, float(fractions[i]))
        return best

    def _maps(self, u, dtype):
        size = u.shape[1]
        root = np.zeros([4, size])
        root[1::2] = 1.0
        leaf = _Leaf(root, np.arange(len(u)), self._best_split(root, u))
        # The counter breaks ties between equal gains, so that arrays are never compared.
        queue = [(-leaf.split[0], 0, leaf)]
        count = 1
        while len(queue) < self.max_leaves and queue[0][0] < -1.0:
            _, _, leaf = heapq.heappop(queue)
            _, j, fraction = leaf.split
            low, high, latent_low, latent_high = leaf.corners[:, j]
            place = low + fraction * (high - low)
            is_left = u[leaf.rows, j] < place
            p = (np.sum(is_left) + self.smoothing * fraction) / (len(leaf.rows) + self.smoothing)
            latent_place = latent_low + p * (latent_high - latent_low)
            for side, rows in ((0, leaf.rows[is_left]), (1, leaf.rows[~is_left])):
                corners = leaf.corners.copy()
                corners[[1 - side, 3 - side], j] = place, latent_place
                part = _Leaf(corners, rows, self._best_split(corners, u[rows]))
                heapq.heappush(queue, (-part.split[0], count, part))
                count += 1
        corners = np.stack([leaf.corners for _, _, leaf in queue], axis=1)
        boxes = BoxBijector(size, len(queue), dtype=dtype)
        boxes.set_boxes(*corners)
        return [boxes]


def _smoothing(value: float) -> float:
    if not value > 0:
        raise ValueError(f"`smoothing` must be positive, got {value!r}.")
    return float(value)
