"""Orthogonal maps as products of Householder reflections."""

from __future__ import annotations

import warnings

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.adapting import rows_of
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import one_of, positive_int
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed

STARTS = ("random", "pca", "ica")
_LOG_COSH_MEAN, _LOG_COSH_DEVIATION = 0.37457, 0.07955  # moments of log cosh under a unit normal distribution


@serializable
class Rotation(FlowBijector):
    """Orthogonal map `y = Q x`, a trainable product of Householder reflections (Tomczak and Welling 2016, arXiv:1611.09630).

    `Q = H_1 ... H_n` with `H_i = I - 2 v_i v_i' / |v_i|^2` and trainable `reflections` `v_i`, `[n, D]`;
    `log |det dy/dx| = 0`. The columns of `Q` are axes in data space, and `inverse` computes the coordinates along them.
    With the default of `D - 1` reflections, `Q` can be any orthogonal matrix, up to the signs of its columns. All
    reflections are one matrix in the compact form `I - U' S U` (Schreiber and Van Loan 1989).

    A new `Q` is random, with a uniform distribution up to signs. With `start="pca"` or `"ica"`, `adapt(batch)` sets it
    to the axes of a batch on the data side. `FlowModel.fit` calls it once, with its first batch.

    Cost per direction and event: `O(D^2)`. Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[]` and is zero.

    Args:
      event_size: Integer `D`.
      num_reflections: Number of reflections, at least 1; `max(1, D - 1)` if `None`.
      start: `"random"`; `"pca"` for principal axes, if some correlation exceeds 0.2; or `"ica"` for independent
        components of whitened data by scikit-learn's `FastICA`, if some component is not normal. Otherwise `Q` stays random.
      seed: Integer seed of the random start.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If an argument is out of range, or `num_reflections` is too small for `start`. `adapt` raises an
        `ImportError` for `"ica"` without scikit-learn.

    Example:
      >>> layer = tff.Rotation(3, seed=1)
      >>> x = tf.ones([5, 3])
      >>> print(np.round(tf.norm(layer.forward(x), axis=-1) / tf.norm(x, axis=-1), 5))
      [1. 1. 1. 1. 1.]
    """

    is_affine = True

    def __init__(
        self,
        event_size: int,
        *,
        num_reflections: int | None = None,
        start: str = "random",
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "rotation",
    ):
        super().__init__(event_size, constant_log_det=True, dtype=dtype, validate_args=validate_args, name=name)
        self.start = one_of("start", start, STARTS)
        self._seed = resolve_seed(seed)
        most = max(1, event_size - 1)
        count = positive_int("num_reflections", most if num_reflections is None else num_reflections)
        if start != "random" and count < most:
            raise ValueError(f"`num_reflections` must be at least {most} for start={start!r}, got {count}.")
        vectors = np.random.default_rng(self._seed).normal(size=[count, event_size])
        self.reflections = tf.Variable(vectors, dtype=self.dtype, name="reflections")
        if start == "random":
            self.set_adapted()

    def adapt(self, data) -> None:
        axes = None
        if self.start != "random":
            rows = rows_of(f"`data` of {self.name}", data, self.event_size)
            axes = principal_axes(rows) if self.start == "pca" else independent_axes(rows, self._seed)
        if axes is not None:
            self.set_axes(axes)
        self.set_adapted()

    def set_axes(self, axes) -> None:
        """Set `Q` to the orthogonal matrix `axes` `[D, D]`, up to the signs of its columns.

        Raises:
          ValueError: If the matrix has another shape or is not orthogonal, or there are too few reflections.
        """
        axes = np.asarray(axes, np.float64)
        if axes.shape != (self.event_size,) * 2 or not np.allclose(axes.T @ axes, np.eye(self.event_size), atol=1e-4):
            raise ValueError(f"`axes` must be an orthogonal matrix [{self.event_size}, {self.event_size}], got {axes}.")
        vectors = _vectors_of(axes)
        count = self.reflections.shape[0]
        if len(vectors) > count:
            raise ValueError(
                f"`axes` of {self.event_size} dimensions need {len(vectors)} reflections, there are {count}."
            )
        # Further reflections along the first axis cancel in pairs, or flip the sign of the first column.
        rest = np.tile(np.eye(self.event_size)[:1], [count - len(vectors), 1])
        self.reflections.assign(np.concatenate([vectors, rest]))
        self.set_adapted()

    def matrix(self) -> tf.Tensor:
        """Return `Q`, of shape `[D, D]`."""
        v = tf.convert_to_tensor(self.reflections)
        norm = tf.norm(v, axis=-1, keepdims=True)
        u = v / tf.where(norm > 0, norm, tf.ones_like(norm))
        gram = tf.matmul(u, u, transpose_b=True)
        # `S` is the inverse of the upper triangle of `U U'`, with half of its unit diagonal.
        eye = tf.eye(v.shape[0], dtype=v.dtype)
        half = tf.linalg.band_part(gram, 0, -1) * (1.0 - eye) + 0.5 * eye
        factor = tf.linalg.triangular_solve(half, u, lower=False)
        return tf.eye(self.event_size, dtype=v.dtype) - tf.matmul(u, factor, transpose_a=True)

    def forward_and_log_det(self, x):
        return _times(x, self.matrix(), transpose_b=True), tf.zeros([], x.dtype)

    def inverse_and_log_det(self, y):
        return _times(y, self.matrix(), transpose_b=False), tf.zeros([], y.dtype)


def _times(x: tf.Tensor, matrix: tf.Tensor, transpose_b: bool) -> tf.Tensor:
    flat = tf.reshape(x, [-1, matrix.shape[0]])
    return tf.reshape(tf.matmul(flat, matrix, transpose_b=transpose_b), tf.shape(x))


def principal_axes(rows: np.ndarray) -> np.ndarray | None:
    """Return eigenvectors of the covariance in columns, or `None` if no correlation exceeds both 0.2 and six standard errors.

    Without correlation, the eigenvectors are arbitrary. For two variables of equal variance they always lie at 45 degrees.
    """
    covariance = np.atleast_2d(np.cov(rows.T))
    deviation = np.sqrt(np.maximum(np.diag(covariance), np.finfo(np.float64).tiny))
    correlation = covariance / np.outer(deviation, deviation)
    if np.max(np.abs(correlation - np.diag(np.diag(correlation)))) < max(0.2, 6.0 / np.sqrt(len(rows))):
        return None
    return np.linalg.eigh(covariance)[1]


def independent_axes(rows: np.ndarray, seed: int) -> np.ndarray | None:
    """Return the axes of the independent components of white rows, in columns, estimated from a random half of the rows.

    Return `None` if that half has fewer than twice as many rows as dimensions, or if in the other half every
    component's mean of `log cosh` is within five standard errors of its value for normal data.
    """
    try:
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise ImportError("Independent components need scikit-learn: pip install 'tfp_flows[ica]'") from error
    if len(rows) < 4 * rows.shape[1]:
        return None
    rows, others = np.array_split(rows[np.random.default_rng(seed).permutation(len(rows))], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any orthogonal matrix is valid
        found = FastICA(whiten=False, max_iter=200, random_state=seed % 2**32).fit(rows - rows.mean(axis=0))
    left, _, right = np.linalg.svd(found.components_)
    axes = (left @ right).T
    components = others @ axes
    components = (components - components.mean(axis=0)) / components.std(axis=0)
    contrast = np.mean(np.logaddexp(components, -components), axis=0) - np.log(2.0) - _LOG_COSH_MEAN
    return None if np.max(np.abs(contrast)) < 5.0 * _LOG_COSH_DEVIATION / np.sqrt(len(others)) else axes


def _vectors_of(q: np.ndarray) -> np.ndarray:
    """Return Householder vectors `[max(1, D - 1), D]` whose reflections, in order, give `q` up to signs of columns."""
    rest, size = q.copy(), len(q)
    vectors = []
    for i in range(max(1, size - 1)):
        v = np.zeros(size)
        v[i:] = rest[i:, i]
        v[i] += np.copysign(np.linalg.norm(v), v[i])
        rest -= 2.0 * np.outer(v, v @ rest) / (v @ v)
        vectors.append(v)
    return np.array(vectors)
