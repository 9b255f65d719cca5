"""Targets of variational inference: unnormalized log-densities in TensorFlow with known normalizers.

The dictionaries `energies` and `targets` map names to the functions that return a `Target`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import tensorflow as tf

from tfp_flows.checks import positive_int

# Composite Gauss-Legendre rule, fine enough for the energies' features of width 0.3.
_PANEL, _NODES = 0.1, 6


class Target:
    """An unnormalized density `exp(log_prob(z))` on `R^D` with known integral.

    Args:
      name: Name of the target.
      event_size: Dimension `D`.
      log_prob_fn: Differentiable callable from `[..., D]` to `[...]`, in nats, for float32 and float64.
      box: Half the side of a square that bounds the density, or `None` for all of space.
      wall: Outside the box, the log-density falls as `-((|z_i| - box) / wall)^2 / 2` along each axis, so that gradients
        lead back. If `None`, it is minus infinity, without a gradient.
      log_normalizer: Log of the integral of `exp(log_prob)`, in nats. If `None`, it is computed by quadrature (`D = 2`
        with a box).

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
            raise ValueError("`wall` requires `box`.")
        if log_normalizer is None and (box is None or event_size != 2):
            raise ValueError("`log_normalizer` must be given, except in two dimensions within a `box`.")
        self.name, self.event_size, self.box, self.wall = name, event_size, box, wall
        self._log_prob_fn, self._log_normalizer = log_prob_fn, log_normalizer

    def __repr__(self) -> str:
        return f"<tfp_flows.data.Target {self.name}, event_size={self.event_size}>"

    def log_prob(self, z) -> tf.Tensor:
        """Return the unnormalized log-density `[...]`, in nats, at `z` of shape `[..., D]`."""
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
        """Log of the integral, in nats. Minus the ELBO of an approximation, this is its reverse KL divergence."""
        if self._log_normalizer is not None:
            return self._log_normalizer
        points, log_weights = self.quadrature()
        return float(tf.reduce_logsumexp(self.log_prob(tf.constant(points)) + log_weights))

    def quadrature(self, reach: float | None = None, resolution: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return points `[n, 2]` and log-weights `[n]` of a Gauss-Legendre rule on `[-reach, reach]^2`, for `D = 2` only.

        By default, `reach` covers the box with its walls, or is 8 without a box. `resolution` is the least number of points
        along each axis; `None` takes 6 in each panel of length 0.1.
        """
        if self.event_size != 2:
            raise ValueError(f"Quadrature needs two dimensions, {self.name} has {self.event_size}.")
        if reach is None:
            reach = 8.0 if self.box is None else self.box + 8.0 * (self.wall or 0.0)
        # Panels end at the box, where the wall's second derivative jumps.
        ends = [0.0, reach] if self.box is None or self.box >= reach else [0.0, self.box, reach]
        panels = [np.linspace(a, b, max(2, 1 + round((b - a) / _PANEL)))[:-1] for a, b in itertools.pairwise(ends)]
        edges = np.concatenate([*panels, [reach]])
        edges = np.concatenate([-edges[:0:-1], edges])
        count = _NODES if resolution is None else -(-positive_int("resolution", resolution) // (len(edges) - 1))
        nodes, weights = np.polynomial.legendre.leggauss(count)
        half = np.diff(edges) / 2.0
        x = ((edges[:-1] + half)[:, None] + half[:, None] * nodes).ravel()
        w = np.log((half[:, None] * weights).ravel())
        grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
        return grid, (w[:, None] + w[None, :]).ravel()


def _ring(name: str, radius: float, bell_width: float, log_normalizer: float) -> Target:
    """Return a ring of width 0.4, weighted by two bells at `z1 = +-2`."""

    def log_prob(z):
        # The tiny term keeps the gradient finite at the origin.
        length = tf.sqrt(tf.reduce_sum(tf.square(z), axis=-1) + np.finfo(z.dtype.as_numpy_dtype).tiny)
        z1 = z[..., 0]
        bells = [-0.5 * tf.square((z1 - center) / bell_width) for center in (2.0, -2.0)]
        return -0.5 * tf.square((length - radius) / 0.4) + tf.reduce_logsumexp(tf.stack(bells), axis=0)

    return Target(name, 2, log_prob, log_normalizer=log_normalizer)


def _above_wave(z: tf.Tensor) -> tf.Tensor:
    return z[..., 1] - tf.sin(0.5 * np.pi * z[..., 0])


def u1() -> Target:
    """Return energy 1 of Rezende and Mohamed (2015, arXiv:1505.05770, table 1): a ring of radius 2 with two modes."""
    # The normalizer is by quadrature on [-8, 8]^2. The rest is below exp(-100).
    return _ring("u1", radius=2.0, bell_width=0.6, log_normalizer=1.8775016)


def u2(box: float = 4.0, wall: float | None = 0.1) -> Target:
    """Return energy 2 of the same paper: a sine wave. It is flat along the wave, so it needs the box (see `Target`)."""

    def log_prob(z):
        return -0.5 * tf.square(_above_wave(z) / 0.4)

    return Target("u2", 2, log_prob, box=box, wall=wall)


def u3(box: float = 4.0, wall: float | None = 0.1) -> Target:
    """Return energy 3 of the same paper: a sine wave that splits and joins again. It needs the box (see `Target`)."""

    def log_prob(z):
        offset = _above_wave(z)
        apart = 3.0 * tf.exp(-0.5 * tf.square((z[..., 0] - 1.0) / 0.6))
        arms = [-0.5 * tf.square(t / 0.35) for t in (offset, offset + apart)]
        return tf.reduce_logsumexp(tf.stack(arms), axis=0)

    return Target("u3", 2, log_prob, box=box, wall=wall)


def u4(box: float = 4.0, wall: float | None = 0.1) -> Target:
    """Return energy 4 of the same paper: a sine wave that forks. It needs the box (see `Target`)."""

    def log_prob(z):
        offset = _above_wave(z)
        apart = 3.0 * tf.sigmoid((z[..., 0] - 1.0) / 0.3)
        arms = [-0.5 * tf.square(offset / 0.4), -0.5 * tf.square((offset + apart) / 0.35)]
        return tf.reduce_logsumexp(tf.stack(arms), axis=0)

    return Target("u4", 2, log_prob, box=box, wall=wall)


def ring() -> Target:
    """Return a ring of radius 4 and width 0.4, weighted by two bells of width 0.8 at `z1 = +-2`."""
    return _ring("ring", radius=4.0, bell_width=0.8, log_normalizer=2.3132894)


def funnel(event_size: int = 10) -> Target:
    """Return Neal's normalized funnel (2003, Slice sampling): `z1 ~ N(0, 9)`, and the others `N(0, exp(z1))` given `z1`."""
    event_size = positive_int("event_size", event_size, 2)

    def log_prob(z):
        log_variance, square = z[..., 0], tf.reduce_sum(tf.square(z[..., 1:]), axis=-1)
        mouth = -0.5 * tf.square(log_variance / 3.0) - math.log(3.0) - 0.5 * math.log(2.0 * math.pi)
        neck = -0.5 * square * tf.exp(-log_variance) - 0.5 * (event_size - 1) * (log_variance + math.log(2.0 * math.pi))
        return mouth + neck

    return Target("funnel", event_size, log_prob, log_normalizer=0.0)


def eight_gaussians(noise: float = 0.2) -> Target:
    """Return the normalized density of `tff.data.eight_gaussians`: standard deviation `noise`, on a circle of radius 2."""
    if not (noise > 0 and math.isfinite(noise)):
        raise ValueError(f"`noise` must be positive, got {noise!r}.")
    angles = 2.0 * np.pi * np.arange(8) / 8.0
    centers = 2.0 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    def log_prob(z):
        square = tf.reduce_sum(tf.square(z[..., tf.newaxis, :] - tf.constant(centers, z.dtype)), axis=-1)
        return tf.reduce_logsumexp(-0.5 * square / noise**2, axis=-1) - math.log(16.0 * math.pi * noise**2)

    return Target("eight_gaussians", 2, log_prob, log_normalizer=0.0)


def banana() -> Target:
    """Return the normalized density `z2 ~ N(0, 4)`, `z1 ~ N(z2^2 / 4, 1)`, also in `tff.data.banana`."""

    def log_prob(z):
        z1, z2 = z[..., 0], z[..., 1]
        return -0.5 * tf.square(z1 - 0.25 * tf.square(z2)) - 0.125 * tf.square(z2) - math.log(4.0 * math.pi)

    return Target("banana", 2, log_prob, log_normalizer=0.0)


energies: dict[str, Callable[..., Target]] = {fn.__name__: fn for fn in (u1, u2, u3, u4)}
targets = energies | {fn.__name__: fn for fn in (ring, funnel, eight_gaussians, banana)}
