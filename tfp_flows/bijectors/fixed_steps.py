"""Runge-Kutta methods with a fixed number of equal steps."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# For each method, the row `a` of each stage (its distances from the start of the step along earlier velocities) and the
# weights `b` of the velocities. The time of a stage is the sum of its row.
TABLEAUS = {
    "euler": ([[]], [1.0]),
    "midpoint": ([[], [1 / 2]], [0.0, 1.0]),
    "heun": ([[], [1.0]], [1 / 2, 1 / 2]),
    "rk4": ([[], [1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}


def num_stages(method: str) -> int:
    """Return the number of evaluations of a step."""
    return len(TABLEAUS[method][1])


def solve(
    method: str, derivative: Callable, state: tf.Tensor, num_steps: int, backwards: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Solve `dx/dt = derivative(t, x)` from 0 to 1, or from 1 to 0.

    Args:
      method: A key of `TABLEAUS`.
      derivative: Function of a scalar time and of states `[N, D]`.
      state: Start `[N, D]`.
      num_steps: Number of steps.
      backwards: Whether to solve from 1 to 0.

    Returns:
      The end `[N, D]`, and the points of all evaluations `[num_steps * stages, N, D]`, for `integrate`.
    """
    rows, weights = TABLEAUS[method]
    start, size = (1.0, -1.0 / num_steps) if backwards else (0.0, 1.0 / num_steps)
    points = tf.TensorArray(state.dtype, num_steps * len(rows), element_shape=state.shape)

    def step(i, state, points):
        time = start + size * tf.cast(i, state.dtype)
        slopes: list[tf.Tensor] = []
        for j, row in enumerate(rows):
            point = _advance(state, size, row, slopes)
            points = points.write(i * len(rows) + j, point)
            slopes.append(derivative(time + size * sum(row), point))
        return i + 1, _advance(state, size, weights, slopes), points

    options = {"maximum_iterations": num_steps, "parallel_iterations": 1}
    shapes = (tf.TensorShape([]), state.shape, tf.TensorShape(None))
    start_of_loop = (tf.zeros([], tf.int32), state, points)
    _, end, points = tf.while_loop(lambda *_: True, step, start_of_loop, shapes, **options)
    return end, points.stack()


def integrate(method: str, integrand: Callable, points: tf.Tensor, num_steps: int, backwards: bool) -> tf.Tensor:
    """Return the integral of `integrand(t, x)`, values `[N]`, along the path of a solution, by the same method.

    This loop is separate from that of `solve`, so that a graph without the log-det does not run it.
    """
    rows, weights = TABLEAUS[method]
    start, size = (1.0, -1.0 / num_steps) if backwards else (0.0, 1.0 / num_steps)

    def step(i, total):
        time = start + size * tf.cast(i, points.dtype)
        for j, (row, weight) in enumerate(zip(rows, weights, strict=True)):
            if weight:
                total += size * weight * integrand(time + size * sum(row), points[i * len(rows) + j])
        return i + 1, total

    options = {"maximum_iterations": num_steps, "parallel_iterations": 1}
    total = tf.zeros(tf.shape(points)[1:2], points.dtype)
    shapes = (tf.TensorShape([]), tf.TensorShape([None]))
    return tf.while_loop(lambda *_: True, step, (tf.zeros([], tf.int32), total), shapes, **options)[1]


def _advance(state: tf.Tensor, size: float, weights: list[float], slopes: list[tf.Tensor]) -> tf.Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            state += size * weight * slope
    return state
