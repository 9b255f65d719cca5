"""The named two-dimensional densities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfp_flows.data.density import Density, NoisyCurve


def moons(noise: float = 0.05) -> Density:
    """Return two interleaving half circles of radius 1, like scikit-learn's `make_moons`, with Gaussian noise."""

    def curve(u, k):
        points = _circle(u / 2.0)
        return points if k == 0 else np.array([1.0, 0.5]) - points

    return NoisyCurve("moons", curve, 2, noise, nodes=240)


def circles(noise: float = 0.05, factor: float = 0.5) -> Density:
    """Return two concentric circles of radius 1 and `factor`, like scikit-learn's `make_circles`, with Gaussian noise."""
    if not 0 < factor < 1:
        raise ValueError(f"`factor` must be between 0 and 1, got {factor!r}.")
    return NoisyCurve("circles", lambda u, k: (1.0, factor)[k] * _circle(u), 2, noise, nodes=360)


def rings(noise: float = 0.08) -> Density:
    """Return four concentric circles of radius 0.75, 1.5, 2.25 and 3, with Gaussian noise."""
    return NoisyCurve("rings", lambda u, k: 0.75 * (k + 1) * _circle(u), 4, noise, nodes=480)


def eight_gaussians(noise: float = 0.2) -> Density:
    """Return eight Gaussians of standard deviation `noise` on a circle of radius 2."""
    return NoisyCurve("eight_gaussians", lambda u, k: 2.0 * _circle(0.0 * u + k / 8.0), 8, noise, nodes=1)


def two_spirals(noise: float = 0.1) -> Density:
    """Return two spirals of one and a half turns from the origin to radius 3, with Gaussian noise."""

    def curve(u, k):
        t = 3.0 * np.pi * np.sqrt(u)
        points = np.stack([-np.cos(t), np.sin(t)], axis=-1) * (t / np.pi)[:, None]
        return points if k == 0 else -points

    return NoisyCurve("two_spirals", curve, 2, noise, nodes=480)


def swiss_roll(noise: float = 0.1) -> Density:
    """Return the spiral `t (cos t, sin t) / 5` for `t` uniform on `[1.5 pi, 4.5 pi]`, with Gaussian noise."""

    def curve(u, k):
        del k
        t = 1.5 * np.pi * (1.0 + 2.0 * u)
        return np.stack([np.cos(t), np.sin(t)], axis=-1) * (t / 5.0)[:, None]

    return NoisyCurve("swiss_roll", curve, 1, noise, nodes=480)


def _circle(u):
    return np.stack([np.cos(2.0 * np.pi * u), np.sin(2.0 * np.pi * u)], axis=-1)


class _Banana(Density):
    name = "banana"

    def _sample(self, n, rng):
        x2 = 2.0 * rng.normal(size=n)
        return np.stack([x2**2 / 4.0 + rng.normal(size=n), x2], axis=-1)

    def _log_prob(self, x):
        return -0.5 * (x[:, 0] - x[:, 1] ** 2 / 4.0) ** 2 - x[:, 1] ** 2 / 8.0 - np.log(4.0 * np.pi)

    @property
    def _moments(self):
        # x2^2 / 4 is chi-squared with mean 1 and variance 2.
        return 1.0 + np.log(2.0 * np.pi) + np.log(2.0), np.array([1.0, 0.0]), np.array([np.sqrt(3.0), 2.0])


def banana() -> Density:
    """Return the density of the MAF paper (arXiv:1705.07057, figure 1): `x2 ~ N(0, 4)`, `x1 ~ N(x2^2 / 4, 1)`."""
    return _Banana()


class _Checkerboard(Density):
    name = "checkerboard"

    def _sample(self, n, rng):
        row = rng.integers(0, 4, n)
        column = 2 * rng.integers(0, 2, n) + row % 2
        return np.stack([column, row], axis=-1) + rng.uniform(size=[n, 2]) - 2.0

    def _log_prob(self, x):
        field = np.floor(x + 2.0)
        dark = (field.sum(axis=-1) % 2 == 0) & np.all((field >= 0) & (field < 4), axis=-1)
        return np.where(dark, -np.log(8.0), -np.inf)

    @property
    def _moments(self):
        return np.log(8.0), np.zeros(2), np.full(2, 4.0 / np.sqrt(12.0))


def checkerboard() -> Density:
    """Return the uniform density on the eight dark fields of a 4 by 4 board on `[-2, 2]^2`; its entropy is `log 8`."""
    return _Checkerboard()


class _Pinwheel(Density):
    name = "pinwheel"
    _angles = 2.0 * np.pi * np.arange(5) / 5
    _scale = np.array([0.3, 0.08])  # radial and tangential deviation of a blade
    _twist = 1.5

    def _sample(self, n, rng):
        points = rng.normal(size=[n, 2]) * self._scale + np.array([1.0, 0.0])
        radius = np.linalg.norm(points, axis=-1)
        return 2.0 * _rotate(points, rng.choice(self._angles, n) + self._twist * radius)

    def _log_prob(self, x):
        x = x / 2.0
        untwisted = _rotate(x, -self._twist * np.linalg.norm(x, axis=-1))
        parts = []
        for angle in self._angles:
            z = (_rotate(untwisted, np.full(len(x), -angle)) - np.array([1.0, 0.0])) / self._scale
            parts.append(-0.5 * np.sum(z**2, axis=-1))
        constant = np.log(2.0 * np.pi * np.prod(self._scale) * 4.0 * len(self._angles))
        return np.logaddexp.reduce(parts, axis=0) - constant

    def _box(self):
        reach = 2.0 * (1.0 + 7.0 * self._scale[0])
        return (-reach, reach, -reach, reach), self._scale[1] / 2.0


def _rotate(points, angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]], axis=-1)


def pinwheel() -> Density:
    """Return five twisted blades around the origin. The twist preserves areas, so the density is exact."""
    return _Pinwheel()


densities: dict[str, Callable[..., Density]] = {
    fn.__name__: fn
    for fn in (moons, circles, banana, eight_gaussians, pinwheel, checkerboard, two_spirals, swiss_roll, rings)
}
