import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfp_flows.numerics import bound_log_scale, sech_squared, solve_increasing


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bound_log_scale(dtype):
    x = np.array([-6e4, -50.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 50.0, 6e4])
    v = tf.constant(x, dtype)
    with tf.GradientTape() as tape:
        tape.watch(v)
        y = bound_log_scale(v, 5.0)
    slope = tape.gradient(y, v).numpy().astype(np.float64)
    y = y.numpy().astype(np.float64)
    expected = x / np.sqrt(1.0 + (np.clip(x, -500, 500) / 5.0) ** 2)
    inside = np.abs(x) <= 500
    np.testing.assert_allclose(y[inside], expected[inside], rtol=4e-3 if dtype == "float16" else 1e-5)
    assert np.all(np.abs(y) <= 5.0)
    assert np.all(np.diff(y) > 0) or dtype == "float16"
    assert np.all(np.isfinite(slope))
    assert slope[4] == 1.0
    assert bound_log_scale(v, None) is v


def test_sech_squared_has_no_cancellation():
    a = tf.constant([0.0, 1.0, 20.0, -300.0], tf.float64)
    np.testing.assert_allclose(sech_squared(a), np.cosh(a.numpy()) ** -2.0, rtol=1e-14)


def cubic(s, y):
    return s**3 + 1e-3 * s - y, 3.0 * s**2 + 1e-3


def wide(y):
    return tf.fill(tf.shape(y), tf.cast(-1e6, y.dtype)), tf.fill(tf.shape(y), tf.cast(1e6, y.dtype)), 0.0 * y + 5e5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=20))
def test_solver_on_a_steep_cubic_with_a_poor_start(values):
    y = tf.constant(values, tf.float64)
    s = solve_increasing(cubic, wide, [y]).numpy()
    np.testing.assert_allclose(s**3 + 1e-3 * s, values, rtol=1e-11, atol=1e-13)


def test_solver_says_when_it_has_not_converged():
    s = solve_increasing(cubic, wide, [tf.constant([1.0, np.nan], tf.float64)], max_iterations=2)
    assert np.all(np.isnan(s))


def test_solver_gradient_is_the_implicit_one():
    y = tf.constant([0.5, 8.0, -3.0], tf.float64)
    for jit in (False, True):

        @tf.function(jit_compile=jit)
        def derivatives(y):
            with tf.GradientTape() as outer:
                outer.watch(y)
                with tf.GradientTape() as inner:
                    inner.watch(y)
                    s = solve_increasing(cubic, wide, [y])
                first = inner.gradient(s, y)
            return s, first, outer.gradient(first, y)

        s, first, second = (t.numpy() for t in derivatives(y))
        slope = 3.0 * s**2 + 1e-3
        np.testing.assert_allclose(first, 1.0 / slope, rtol=1e-12)
        np.testing.assert_allclose(second, -6.0 * s / slope**3, rtol=1e-9)
