"""Two-dimensional densities with samples, log-densities and entropies, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from tfp_flows.checks import positive_int


class Density:
    """A density on the plane with known entropy, which is the lowest mean NLL that a model can reach on its samples."""

    name: str

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """Return `n` independent samples `[n, 2]` in float32, equal for equal `seed`.

        Raises:
          ValueError: If `n` is not a positive integer.
        """
        return self._sample(positive_int("n", n), np.random.default_rng(seed)).astype(np.float32)

    def log_prob(self, x) -> np.ndarray:
        """Return the log-density `[...]`, in nats and float64, at `x` of shape `[..., 2]`."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim < 1 or x.shape[-1] != 2:
            raise ValueError(f"`x` must have shape [..., 2], got {list(x.shape)}.")
        flat = x.reshape(-1, 2)
        chunks = [self._log_prob(chunk) for chunk in np.array_split(flat, max(1, len(flat) // 4096))]
        return np.concatenate(chunks).reshape(x.shape[:-1])

    def entropy(self) -> float:
        """Return the differential entropy in nats, exact or by quadrature to about 1e-4."""
        return float(self._moments[0])

    @property
    def mean(self) -> np.ndarray:
        """Mean, `[2]`."""
        return self._moments[1]

    @property
    def stddev(self) -> np.ndarray:
        """Standard deviation of each axis, `[2]`."""
        return self._moments[2]

    def standardized_entropy(self) -> float:
        """Return the entropy, in nats, of the density standardized along each axis."""
        return self.entropy() - float(np.sum(np.log(self.stddev)))

    @cached_property
    def _moments(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Entropy, mean and standard deviation by the trapezoidal rule, which converges fast for smooth densities."""
        (x0, x1, y0, y1), step = self._box()
        xs, ys = np.arange(x0, x1 + step, step), np.arange(y0, y1 + step, step)
        grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
        log_p = self.log_prob(grid)
        p = np.exp(log_p) * step**2
        entropy, mean = -float(np.sum(np.where(p > 0, p * log_p, 0.0))), p @ grid
        return entropy, mean, np.sqrt(p @ (grid - mean) ** 2)

    def _sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _box(self) -> tuple[tuple[float, float, float, float], float]:
        """Return a rectangle that holds almost all of the density, and the step of the quadrature."""
        raise NotImplementedError


class NoisyCurve(Density):
    """Uniform points of a curve, or of several equally likely ones, plus isotropic Gaussian noise.

    `curve` maps `u` in (0, 1), `[k]`, and a branch number to points `[k, 2]`. The density is an integral by a
    Gauss-Legendre rule of `nodes` nodes per branch, or 1 for a branch that is a point.
    """

    def __init__(self, name: str, curve: Callable, branches: int, noise: float, nodes: int):
        if not (np.isfinite(noise) and noise > 0):
            raise ValueError(f"`noise` must be positive, got {noise!r}.")
        self.name, self.noise = name, float(noise)
        self._curve, self._branches = curve, branches
        u, w = np.polynomial.legendre.leggauss(nodes)
        self._nodes = np.concatenate([curve((u + 1.0) / 2.0, k) for k in range(branches)])
        self._log_weights = np.log(np.tile(w / 2.0, branches) / branches)

    def _sample(self, n, rng):
        branch = rng.integers(0, self._branches, n)
        u = rng.uniform(size=n)
        points = np.empty([n, 2])
        for k in range(self._branches):
            points[branch == k] = self._curve(u[branch == k], k)
        return points + self.noise * rng.normal(size=[n, 2])

    def _log_prob(self, x):
        square = np.sum((x[:, None, :] - self._nodes) ** 2, axis=-1) / self.noise**2
        log_terms = self._log_weights - 0.5 * square
        return np.logaddexp.reduce(log_terms, axis=-1) - np.log(2.0 * np.pi * self.noise**2)

    def _box(self):
        low, high = self._nodes.min(axis=0) - 7.0 * self.noise, self._nodes.max(axis=0) + 7.0 * self.noise
        return (low[0], high[0], low[1], high[1]), self.noise / 2.0
