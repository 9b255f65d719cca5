"""A stochastic system with known transition density."""

from __future__ import annotations

import numpy as np


class KickedOscillator:
    """A particle in a double well with friction, position-dependent noise and random kicks, in discrete time.

    In each step, the velocity `v` becomes `v + 0.1 (q - q^3 - 0.2 v) + e`. The noise `e` is normal with deviation
    `0.1 + 0.1 / (1 + q^2)` around -0.5, 0 or 0.5, with probabilities 0.1, 0.8 and 0.1. Then the position `q` becomes
    `q + 0.1 v` plus normal noise of deviation 0.05. The transition density has three modes and a variable width.

    Example:
      >>> system = tff.data.kicked_oscillator()
      >>> path = system.sample(1000, seed=1)
      >>> path.shape, system.log_prob(path[1:], path[:-1]).shape
      ((1000, 2), (999,))
    """

    name = "kicked_oscillator"
    _step, _kick, _noise = 0.1, 0.5, 0.05
    _weights = np.array([0.1, 0.8, 0.1])

    def _drift(self, state):
        q, v = state[..., 0], state[..., 1]
        return v + self._step * (q - q**3 - 0.2 * v), 0.1 + 0.1 / (1.0 + q**2)

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """Return a path `[n, 2]` of positions and velocities, in float32, after a burn-in of 1000 steps."""
        rng, before = np.random.default_rng(seed), 1000
        normal = rng.normal(size=[before + n, 2])
        kicks = rng.choice([-self._kick, 0.0, self._kick], p=self._weights, size=before + n)
        path, state = np.empty([before + n, 2]), np.zeros(2)
        for i in range(before + n):
            mean, deviation = self._drift(state)
            v = mean + kicks[i] + deviation * normal[i, 0]
            state = np.array([state[0] + self._step * v + self._noise * normal[i, 1], v])
            path[i] = state
        return path[before:].astype(np.float32)

    def log_prob(self, following, past) -> np.ndarray:
        """Return the log-density, in nats, of states `[..., 2]` that follow `past` `[..., 2]`."""
        following, past = np.asarray(following, np.float64), np.asarray(past, np.float64)
        mean, deviation = self._drift(past)
        v = following[..., 1]
        z = (v[..., None] - mean[..., None] - self._kick * np.array([-1.0, 0.0, 1.0])) / deviation[..., None]
        log_v = np.logaddexp.reduce(np.log(self._weights) - 0.5 * z**2, axis=-1) - np.log(deviation)
        u = (following[..., 0] - past[..., 0] - self._step * v) / self._noise
        return log_v - 0.5 * u**2 - np.log(self._noise) - np.log(2.0 * np.pi)


def kicked_oscillator() -> KickedOscillator:
    """Return a particle in a double well with noise and random kicks, whose transition density is exact."""
    return KickedOscillator()
