"""Supports of columns: bounds, angles and shares, as the last bijector of a flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.adapting import deviation_or_one, rows_of
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import positive_int
from tfp_flows.numerics import wrap
from tfp_flows.registry import serializable

_SUM_TOLERANCE = 1e-3  # shares are often rounded
_EXPECTED = '"real", "positive", "circle", "simplex", (low, high), ("circle", low, high) or ("simplex", label)'


@serializable
class Support(FlowBijector):
    """Map from standardized real values to columns with bounds, angles and shares: `y = g(u)` with `u = shift + scale x`.

    The support of a column, its map, and its part of `log |det dy/du|`:

    - `"real"`, the same as `(-inf, inf)`: `y = u`, and 0.
    - `"positive"`, the same as `(0, inf)`, or `(low, inf)`: `y = low + exp(u)`, and `u`.
    - `(-inf, high)`: `y = high - exp(-u)`, and `-u`.
    - `(low, high)`: `y = low + (high - low) sigmoid(u)`, and `log((y - low) (high - y) / (high - low))`.
    - `"circle"`, the same as `("circle", -pi, pi)`, or `("circle", low, high)`, an angle of any unit:
      `y = low + (high - low) frac(u / (2 pi) + 1 / 2)`, and `log((high - low) / (2 pi))`.
    - `"simplex"`, or `("simplex", label)`, shares that sum to one: `y = softmax(u, 0)`, and `sum(log(y))` over the shares.

    The log-det of the bijector is their sum plus `sum(log(scale))`, in nats. An angle may be any real number, as in
    `tfd.VonMises`: the density is periodic, and integrates to one over a period. Columns with equal simplex entries belong
    to one simplex. Its `K` shares have `K - 1` free dimensions: latent events have one number less for each simplex, and the
    density is with respect to the first `K - 1` shares, as in `tfd.Dirichlet`. Its map is the additive log-ratio (Aitchison
    1982, Journal of the Royal Statistical Society B 44).

    `adapt(rows)` sets `shift` and `scale`, of the size `D'` of latent events, to mean and standard deviation of `u`, and
    leaves those of angles at 0 and 1. They are non-trainable variables, saved with a flow, which `FlowModel.fit` sets from
    its rows. `forward` returns values strictly inside of the support. Outside, `inverse` returns NaN, and the log-density of
    a flow is minus infinity.

    Cost per direction and event: `O(D)`. Shapes: `[..., D']` to `[..., D]`; log-det `[...]`.

    Args:
      event_size: Number `D` of columns.
      support: One of the entries above for all columns, or a list with one entry for each.
      clip: Distance to a bound, in data units. Values closer to a bound, or beyond it by no more than `clip`, are read as
        values at that distance. With `None`, a value on a bound is outside.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If an argument does not fit; the message names the column.

    Example:
      >>> support = tff.Support(3, ["positive", (0.0, 10.0), "real"])
      >>> print(support.forward([0.0, 0.0, 0.0]).numpy())
      [1. 5. 0.]
    """

    def __init__(
        self,
        event_size: int,
        support: Any = "real",
        *,
        clip: float | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "support",
    ):
        if clip is not None and (isinstance(clip, bool) or not 0.0 < clip < math.inf):
            raise ValueError(f"`clip` must be a positive number or None, got {clip!r}.")
        super().__init__(event_size, dtype=dtype, validate_args=validate_args, name=name)
        self.columns, self.clip = read_support(support, self.event_size), clip
        last = {entry: j for j, entry in enumerate(self.columns) if entry[0] == "simplex"}
        self.dependent = tuple(sorted(last.values()))  # columns that follow from the others
        latent = [j for j in range(self.event_size) if j not in self.dependent]  # the column of each latent dimension
        self.latent_size = positive_int("latent_size", len(latent))
        self.circles = tuple(i for i, j in enumerate(latent) if self.columns[j][0] == "circle")
        members: dict[Any, list[int]] = {}
        for j, entry in enumerate(self.columns):
            members.setdefault(entry if entry[0] == "simplex" else _kind_of(entry), []).append(j)
        self._groups = []
        for columns in members.values():
            bounds = np.array([self.columns[j][1:] for j in columns if self.columns[j][0] != "simplex"])
            group = _kind_of(self.columns[columns[0]])(columns, [latent.index(j) for j in columns if j in latent])
            group.set_bounds(bounds.reshape([-1, 2]), self.dtype, clip)
            self._groups.append(group)
        self.shift = tf.Variable(tf.zeros([self.latent_size], self.dtype), trainable=False, name="shift")
        self.scale = tf.Variable(tf.ones([self.latent_size], self.dtype), trainable=False, name="scale")

    @classmethod
    def of(cls, support: Any, event_size: int, dtype: tf.DType) -> Support:
        """Return the bijector for entries of `support`, or `support` itself if it is one.

        Raises:
          ValueError: If it is for another number of columns or dtype.
        """
        if not isinstance(support, Support):
            return cls(event_size, support, dtype=dtype)
        if support.event_size != event_size or support.dtype != dtype:
            raise ValueError(
                f"`support` must be for {event_size} columns in {dtype.name}, got a Support for {support.event_size} in "
                f"{support.dtype.name}."
            )
        return support

    @property
    def is_identity(self) -> bool:
        """Whether all columns are real, so that a flow needs no map for its support."""
        return all(isinstance(group, _Line) for group in self._groups)

    def adapt(self, data) -> None:
        """Set `shift` and `scale` from rows `[N, D]`, or from an iterator of batches; at most 131,072 rows count.

        Raises:
          ValueError: If a value is not finite or outside of the support; the message names row, column and bounds.
        """
        self.fit_scale(data)
        self.set_adapted()

    def fit_scale(self, data) -> None:
        """Do as `adapt` does, but without marking the bijector as adapted, so that `fit` adapts it again."""
        rows = rows_of(f"`data` of {self.name}", data, self.event_size)
        self.check("data", rows)
        u = self._unconstrain(tf.constant(rows, self.dtype))[0].numpy().astype(np.float64)
        shift, scale = u.mean(axis=0), deviation_or_one(u.std(axis=0), np.abs(u).max(axis=0), self.dtype)
        shift[list(self.circles)], scale[list(self.circles)] = 0.0, 1.0
        self.shift.assign(shift)
        self.scale.assign(scale)

    def check(self, name: str, rows: Any, columns: Sequence[str] | None = None) -> None:
        """Raise a `ValueError` that names row, column and bounds if finite rows `[N, D]` have a value outside.

        `columns` are the names of the columns, if they have names.
        """
        rows = np.asarray(rows)
        outside = self._is_outside(tf.constant(rows, self.dtype)).numpy()
        if not outside.any():
            return
        row, column = np.argwhere(outside)[0]
        entry, count = self.columns[column], int(outside.any(axis=1).sum())
        shown = column if columns is None else repr(columns[column])
        if entry[0] == "simplex" and rows[row, column] > 0.0:
            total = sum(rows[row, j] for j in range(self.event_size) if self.columns[j] == entry)
            problem = f"shares that sum to {total:.6g} instead of 1 in row {row}, from column {shown} on"
        else:
            bounds = f"({entry[1]:g}, {entry[2]:g})" if entry[0] == "interval" else "(0, 1)"
            problem = (
                f"{rows[row, column]} in row {row}, column {shown}, on or outside of the bounds {bounds} of `support`"
            )
        raise ValueError(
            f"`{name}` has {problem}, where the flow has no density ({count} such rows in all): correct such rows or leave "
            "them out, change `support`, or, for values on a bound, give support=tff.Support(..., clip=distance)."
        )

    def into_range(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outside = tf.reduce_any(self._is_outside(y), axis=-1) & tf.reduce_all(tf.math.is_finite(y), axis=-1)
        inside = self._constrain(tf.convert_to_tensor(self.shift))[0]
        return tf.where(outside[..., tf.newaxis], inside, y), outside

    def _is_outside(self, y: tf.Tensor) -> tf.Tensor:
        return self._by_columns("columns", [group.outside(part) for group, part in self._parts("columns", y)])

    def _constrain(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        results = [group.forward(part) for group, part in self._parts("latent", u)]
        log_det = tf.add_n([tf.reduce_sum(log_slope, axis=-1) for _, log_slope in results])
        return self._by_columns("columns", [value for value, _ in results]), log_det

    def _unconstrain(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        results = [group.inverse(part) for group, part in self._parts("columns", y)]
        log_det = tf.add_n([tf.reduce_sum(log_slope, axis=-1) for _, log_slope in results])
        return self._by_columns("latent", [value for value, _ in results]), log_det

    def _parts(self, side: str, value: tf.Tensor) -> list:
        """Return each group with its part of the last axis."""
        if len(self._groups) == 1:
            return [(self._groups[0], value)]
        return [(group, tf.gather(value, getattr(group, side), axis=-1)) for group in self._groups]

    def _by_columns(self, side: str, parts: list[tf.Tensor]) -> tf.Tensor:
        """Join the parts of the groups in the order of the columns."""
        if len(parts) == 1:
            return parts[0]
        order = np.argsort([index for group in self._groups for index in getattr(group, side)])
        return tf.gather(tf.concat(parts, axis=-1), order, axis=-1)

    def forward_and_log_det(self, x):
        self._check_size(x, self.latent_size)
        y, log_det = self._constrain(self.shift + self.scale * x)
        return y, log_det + tf.reduce_sum(tf.math.log(self.scale))

    def inverse_and_log_det(self, y):
        self._check_size(y, self.event_size)
        u, log_det = self._unconstrain(y)
        return (u - self.shift) / self.scale, log_det - tf.reduce_sum(tf.math.log(self.scale))

    def check_events(self, value):
        """Leave the check to the two directions, whose events may differ in size."""

    def _check_size(self, value: tf.Tensor, size: int) -> None:
        if value.shape.rank == 0 or (value.shape.rank is not None and value.shape[-1] not in (None, size)):
            raise ValueError(f"Support expects events of size {size}, got a tensor of shape {value.shape}.")

    def _forward_event_shape(self, shape):
        return shape[:-1].concatenate([self.event_size])

    def _inverse_event_shape(self, shape):
        return shape[:-1].concatenate([self.latent_size])

    def _forward_event_shape_tensor(self, shape):
        return tf.concat([shape[:-1], [self.event_size]], axis=0)

    def _inverse_event_shape_tensor(self, shape):
        return tf.concat([shape[:-1], [self.latent_size]], axis=0)


def read_support(support: Any, event_size: int) -> list[tuple]:
    """Return one entry for each column: `("interval", low, high)`, `("circle", low, high)` or `("simplex", label)`.

    Raises:
      ValueError: If an entry is unknown, or their number is not `event_size`.
    """
    if not isinstance(support, list):
        support = [support] * event_size
    if len(support) != event_size:
        raise ValueError(f"`support` must have one entry for each of {event_size} columns, got {len(support)}.")
    entries = [_read_entry(entry, f"[{j}]") for j, entry in enumerate(support)]
    for entry in entries:
        if entry[0] == "simplex" and entries.count(entry) < 2:
            raise ValueError(f"`support` must have at least 2 columns of a simplex, got one {entry!r}.")
    return entries


def _read_entry(entry: Any, where: str) -> tuple:
    names = {"real": (-math.inf, math.inf), "positive": (0.0, math.inf), "circle": ("circle", -math.pi, math.pi)}
    if isinstance(entry, str) and entry == "simplex":
        return ("simplex", None)
    given = names.get(entry, ()) if isinstance(entry, str) else entry if isinstance(entry, tuple) else ()
    if len(given) == 2 and given[0] == "simplex" and isinstance(given[1], (str, int)):
        return ("simplex", given[1])
    kind, *bounds = given if len(given) == 3 else ("interval", *given)
    numbers = len(bounds) == 2 and all(isinstance(b, (int, float, np.number)) for b in bounds)
    if kind not in ("interval", "circle") or not numbers or not bounds[0] < bounds[1]:
        raise ValueError(f"`support{where}` must be {_EXPECTED} with low < high, got {entry!r}.")
    if kind == "circle" and not np.all(np.isfinite(bounds)):
        raise ValueError(f"`support{where}` must be a circle with finite ends, got {entry!r}.")
    return (kind, *map(float, bounds))


class _Group:
    """Columns with one kind of map: their indices among the columns and among the latent dimensions, and their bounds."""

    def __init__(self, columns: list[int], latent: list[int]):
        self.columns, self.latent = columns, latent

    def set_bounds(self, bounds: np.ndarray, dtype: tf.DType, clip: float | None) -> None:
        real = dtype.as_numpy_dtype
        self.low, self.high = bounds.T.astype(real)
        # The outermost numbers that are strictly inside, to which rounding may not add.
        tiny = np.finfo(real).tiny
        first, last = np.nextafter(self.low, real(np.inf)), np.nextafter(self.high, real(-np.inf))
        self.first = np.where(self.low == 0.0, tiny, first)
        self.last = np.where(self.high == 0.0, -tiny, last)
        self.clip = clip

    def outside(self, y):
        if self.clip is not None:
            return (y < self.low - self.clip) | (y > self.high + self.clip)
        return (y <= self.low) | (y >= self.high)

    def _inside(self, y):
        return tf.clip_by_value(y, self.first, self.last)

    def _clipped(self, y):
        if self.clip is None:
            return y
        clipped = tf.clip_by_value(y, self.low + self.clip, self.high - self.clip)
        return tf.where(self.outside(y), tf.cast(math.nan, y.dtype), clipped)


class _Line(_Group):
    def forward(self, u):
        return u, tf.zeros_like(u)

    inverse = forward


class _Half(_Group):
    """One bound: the map is `low + exp(u)`, or `high - exp(-u)`."""

    def set_bounds(self, bounds, dtype, clip):
        super().set_bounds(bounds, dtype, clip)
        self.sign = np.where(np.isfinite(self.low), 1.0, -1.0).astype(self.low.dtype)
        self.bound = np.where(np.isfinite(self.low), self.low, self.high)

    def forward(self, u):
        return self._inside(self.bound + self.sign * tf.exp(self.sign * u)), self.sign * u

    def inverse(self, y):
        log_distance = tf.math.log(self.sign * (self._clipped(y) - self.bound))
        return self.sign * log_distance, -log_distance


class _Interval(_Group):
    def forward(self, u):
        width, tail = self.high - self.low, (self.high - self.low) * tf.sigmoid(-tf.abs(u))
        y = tf.where(u < 0.0, self.low + tail, self.high - tail)  # digits near both ends
        return self._inside(y), tf.math.log(width) - tf.math.softplus(u) - tf.math.softplus(-u)

    def inverse(self, y):
        y = self._clipped(y)
        lower, upper = tf.math.log(y - self.low), tf.math.log(self.high - y)
        return lower - upper, tf.math.log(self.high - self.low) - lower - upper


class _Circle(_Group):
    """Angles: latent values are on `[-pi, pi)`, or anywhere on the real line if the layers do not wrap them."""

    def set_bounds(self, bounds, dtype, clip):
        super().set_bounds(bounds, dtype, clip)
        self.first = np.where(self.low >= bounds[:, 0], self.low, self.first)  # the circle is closed at its low end
        self.unit = (self.high - self.low) / (2.0 * self.low.dtype.type(math.pi))

    def outside(self, y):
        return tf.zeros_like(y, tf.bool)

    def forward(self, u):
        y = self.low + self.unit * (wrap(u, 2.0 * math.pi)[0] + math.pi)
        # The high end is the low one.
        return self._inside(tf.where(y > self.last, self.low, y)), tf.math.log(self.unit) + tf.zeros_like(u)

    def inverse(self, y):
        u = (y - self.low) / self.unit - math.pi
        return wrap(u, 2.0 * math.pi)[0], -tf.math.log(self.unit) + tf.zeros_like(u)


class _Simplex(_Group):
    def outside(self, y):
        least = 0.0 if self.clip is None else -self.clip
        wrong_sum = tf.abs(tf.reduce_sum(y, axis=-1, keepdims=True) - 1.0) > _SUM_TOLERANCE
        return (y < least if self.clip else y <= least) | wrong_sum

    def forward(self, u):
        log_y = tf.nn.log_softmax(tf.concat([u, tf.zeros_like(u[..., :1])], axis=-1))
        return tf.maximum(tf.exp(log_y), np.finfo(log_y.dtype.as_numpy_dtype).tiny), log_y

    def inverse(self, y):
        if self.clip is not None:
            y = tf.where(self.outside(y), tf.cast(math.nan, y.dtype), tf.maximum(y, self.clip))
            y /= tf.reduce_sum(y, axis=-1, keepdims=True)
        log_y = tf.math.log(y)
        return log_y[..., :-1] - log_y[..., -1:], -log_y


def _kind_of(entry: tuple) -> type[_Group]:
    """Return the class of the map for an entry."""
    if entry[0] != "interval":
        return {"circle": _Circle, "simplex": _Simplex}[entry[0]]
    return (_Line, _Half, _Interval)[int(np.isfinite(entry[1])) + int(np.isfinite(entry[2]))]


def column_map(bounds: tuple[float, float], dtype: tf.DType) -> _Group:
    """Return the map from the real line to the open interval `bounds`, for values `[..., 1]`."""
    group = _kind_of(("interval", *bounds))([0], [0])
    group.set_bounds(np.array([bounds]), dtype, None)
    return group


def unconstrained(bounds: tuple[float, float], values: np.ndarray) -> np.ndarray:
    """Return values inside of `bounds` on the real line, in float64."""
    return column_map(bounds, tf.float64).inverse(tf.constant(values[:, np.newaxis]))[0].numpy()[:, 0]
