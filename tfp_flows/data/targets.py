"""Targets of variational inference: unnormalized log-densities in TensorFlow with known normalizers.

`tff.data.targets.u1()` and the others return a `Target`; `tff.data.targets.energies` and `tff.data.targets.targets` map
names to functions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import tensorflow as tf

# Nodes of a composite Gauss-Legendre rule: the energies have features of width 0.3.
_PANEL, _NODES = 0.1, 6


class Target:
    """An unnormalized density `exp(log_prob(z))` on `R^D` with known integral.

    Args:
      name: Name of the target.
      event_size: Integer `D`.
      log_prob_fn: Differentiable callable from `[..., D]` to `[...]`, in nats, for float32 and float64.
      box: Half the side of the square to which the density is restricted, or `None` for all of space.
      wall: Outside of the box the log-density falls as `-((|z_i| - box) / wall)^2 / 2` along each axis, so that gradients
        point back. If `None`, it is minus infinity there, and gradients do not point back.
      log_normalizer: `log` of the integral of `exp(log_prob)` if it is known in closed form. Otherwise it is computed by
        quadrature on first use (`D = 2` with a box).

    Attributes:
      log_normalizer: Log of the integral, in nats. `log_normalizer - ELBO` is the reverse KL divergence of an approximation.

    Example:
      >>> target = u1()
      >>> target.log_prob(tf.zeros([5, 2])).shape
      TensorShape([5])
      >>> print(round(target.log_normalizer, 4))
      1.8775
    """

    def __init__(
        self,
        name: str,
        event_size: int,
        log_prob_fn: Callable[[tf.Tensor], tf.Tensor],
        *,
        box: float | None = None,
        wall: float | None = None,
        log_normalizer: float | None = None,
    ):
        for key, value in (("box", box), ("wall", wall)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"`{key}` must be positive and finite, or None, got {value!r}.")
        if wall is not None and box is None:
            raise ValueError("`wall` must be None if there is no `box`.")
        if log_normalizer is None and (box is None or event_size != 2):
            raise ValueError("`log_normalizer` must be given, except in two dimensions within a `box`.")
        self.name, self.event_size, self.box, self.wall = name, event_size, box, wall
        self._log_prob_fn, self._log_normalizer = log_prob_fn, log_normalizer

    def __repr__(self) -> str:
        return f"<tfp_flows.data.Target {self.name}, event_size={self.event_size}>"

    def log_prob(self, z) -> tf.Tensor:
        """Return the unnormalized log-density `[...]` at `z` `[..., D]`, in nats."""
        z = tf.convert_to_tensor(z)
        if z.shape.rank is not None and (z.shape.rank < 1 or z.shape[-1] not in (None, self.event_size)):
            raise ValueError(f"`z` must have shape [..., {self.event_size}], got {z.shape}.")
        if self.box is None:
            return self._log_prob_fn(z)
        over = tf.nn.relu(tf.abs(z) - self.box)
        if self.wall is None:
            inside = tf.reduce_all(over <= 0, axis=-1)
            return tf.where(inside, self._log_prob_fn(z), tf.cast(-np.inf, z.dtype))
        return self._log_prob_fn(z) - 0.5 * tf.reduce_sum(tf.square(over / self.wall), axis=-1)

    __call__ = log_prob

    @cached_property
    def log_normalizer(self) -> float:
        """Log of the integral, in nats."""
        if self._log_normalizer is not None:
            return self._log_normalizer
        points, log_weights = self.quadrature()
        log_terms = self.log_prob(tf.constant(points)).numpy() + log_weights
        return float(np.max(log_terms) + np.log(np.sum(np.exp(log_terms - np.max(log_terms)))))

    def quadrature(self, reach: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return points `[n, 2]` and log-weights `[n]` of a Gauss-Legendre rule for integrals over the plane (`D = 2` only).

        Args:
          reach: Half the side of the square. By default it covers the box with its walls, or is 8.
        """
        if self.event_size != 2:
            raise ValueError(f"Quadrature needs two dimensions, {self.name} has {self.event_size}.")
        if reach is None:
            reach = 8.0 if self.box is None else self.box + 8.0 * (self.wall or 0.0)
        # Panels end at the box, where the wall's second derivative jumps.
        ends = [0.0, reach] if self.box is None or self.box >= reach else [0.0, self.box, reach]
        edges = np.concatenate(
            [np.linspace(a, b, max(2, 1 + round((b - a) / _PANEL)))[:-1] for a, b in itertools.pairwise(ends)]
            + [[reach]]
        )
        edges = np.concatenate([-edges[:0:-1], edges])
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        half = np.diff(edges) / 2.0
        x = ((edges[:-1] + half)[:, None] + half[:, None] * nodes).ravel()
        w = np.log((half[:, None] * weights).ravel())
        grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
        return grid, (w[:, None] + w[None, :]).ravel()


def _length(z: tf.Tensor) -> tf.Tensor:
    """Return the norm, with a finite gradient at the origin."""
    return tf.sqrt(tf.reduce_sum(tf.square(z), axis=-1) + np.finfo(z.dtype.as_numpy_dtype).tiny)


def _two(z1: tf.Tensor, center: float, scale: float) -> tf.Tensor:
    """Return the log of two bells at `+-center`."""
    bells = [-0.5 * tf.square((z1 - side * center) / scale) for side in (1.0, -1.0)]
    return tf.reduce_logsumexp(tf.stack(bells), axis=0)


def _wave(z: tf.Tensor) -> tf.Tensor:
    return tf.sin(0.5 * np.pi * z[..., 0])


def u1() -> Target:
    """Energy 1 of Rezende and Mohamed (2015, arXiv:1505.05770, table 1): a ring of radius 2 with two modes.

    Normalizes on the plane.
    """

    def log_prob(z):
        return -0.5 * tf.square((_length(z) - 2.0) / 0.4) + _two(z[..., 0], 2.0, 0.6)

    # From quadrature on [-8, 8]^2, outside of which less than exp(-100) is left.
    return Target("u1", 2, log_prob, log_normalizer=1.8775016)


def u2(box: float = 4.0, wall: float | None = 0.1) -> Target:
    """Energy 2: a sine wave. It is flat along the wave, so it needs the box, or walls around it (see `Target`)."""

    def log_prob(z):
        return -0.5 * tf.square((z[..., 1] - _wave(z)) / 0.4)

    return Target("u2", 2, log_prob, box=box, wall=wall)


def u3(box: float = 4.0, wall: float | None = 0.1) -> Target:
    """Energy 3: a sine wave that splits and joins again. It needs the box, or walls around it (see `Target`)."""

    def log_prob(z):
        offset = z[..., 1] - _wave(z)
        apart = 3.0 * tf.exp(-0.5 * tf.square((z[..., 0] - 1.0) / 0.6))
        arms = [-0.5 * tf.square(t / 0.35) for t in (offset, offset + apart)]
        return tf.reduce_logsumexp(tf.stack(arms), axis=0)

    return Target("u3", 2, log_prob, box=box, wall=wall)


def u4(box: float = 4.0, wall: float | None = 0.1) -> Target:
    """Energy 4: a sine wave that forks. It needs the box, or walls around it (see `Target`)."""

    def log_prob(z):
        offset = z[..., 1] - _wave(z)
        apart = 3.0 * tf.sigmoid((z[..., 0] - 1.0) / 0.3)
        arms = [-0.5 * tf.square(offset / 0.4), -0.5 * tf.square((offset + apart) / 0.35)]
        return tf.reduce_logsumexp(tf.stack(arms), axis=0)

    return Target("u4", 2, log_prob, box=box, wall=wall)


def ring() -> Target:
    """Ring of radius 4 and width 0.4, weighted by two bells of width 0.8 at `z1 = +-2`. Normalizes on the plane."""

    def log_prob(z):
        return -0.5 * tf.square((_length(z) - 4.0) / 0.4) + _two(z[..., 0], 2.0, 0.8)

    return Target("ring", 2, log_prob, log_normalizer=2.3132894)


def _normal(x, scale):
    return -0.5 * tf.square(x / scale) - tf.math.log(scale) - 0.5 * math.log(2.0 * math.pi)


def funnel(event_size: int = 10) -> Target:
    """Neal's funnel: `z1 ~ N(0, 9)`, and the others `N(0, exp(z1))` given `z1` (Neal 2003, Slice sampling). Normalized."""
    if isinstance(event_size, bool) or not isinstance(event_size, (int, np.integer)) or event_size < 2:
        raise ValueError(f"`event_size` must be an integer of at least 2, got {event_size!r}.")

    def log_prob(z):
        log_variance, rest = z[..., 0], z[..., 1:]
        square = tf.reduce_sum(tf.square(rest), axis=-1)
        neck = -0.5 * square * tf.exp(-log_variance) - 0.5 * (event_size - 1) * (log_variance + math.log(2.0 * math.pi))
        return _normal(log_variance, tf.constant(3.0, z.dtype)) + neck

    return Target("funnel", event_size, log_prob, log_normalizer=0.0)


def eight_gaussians(noise: float = 0.2) -> Target:
    """Eight Gaussians of standard deviation `noise` on a circle of radius 2, as `tff.data.eight_gaussians`. Normalized."""
    if not (noise > 0 and math.isfinite(noise)):
        raise ValueError(f"`noise` must be positive, got {noise!r}.")
    angles = 2.0 * np.pi * np.arange(8) / 8.0
    centers = 2.0 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    def log_prob(z):
        square = tf.reduce_sum(tf.square(z[..., tf.newaxis, :] - tf.constant(centers, z.dtype)), axis=-1)
        return tf.reduce_logsumexp(-0.5 * square / noise**2, axis=-1) - math.log(16.0 * math.pi * noise**2)

    return Target("eight_gaussians", 2, log_prob, log_normalizer=0.0)


def banana() -> Target:
    """`z2 ~ N(0, 4)`, `z1 ~ N(z2^2 / 4, 1)`, as `tff.data.banana`. Normalized."""

    def log_prob(z):
        z1, z2 = z[..., 0], z[..., 1]
        return -0.5 * tf.square(z1 - 0.25 * tf.square(z2)) - 0.125 * tf.square(z2) - math.log(4.0 * math.pi)

    return Target("banana", 2, log_prob, log_normalizer=0.0)


energies: dict[str, Callable[..., Target]] = {"u1": u1, "u2": u2, "u3": u3, "u4": u4}
targets: dict[str, Callable[..., Target]] = {
    **energies,
    "ring": ring,
    "funnel": funnel,
    "eight_gaussians": eight_gaussians,
    "banana": banana,
}
