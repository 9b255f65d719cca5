"""The planar flow at its limits: the inverse of a tanh planar flow is what no other library has."""

import numpy as np
import pytest
import tensorflow as tf

import tfp_flows as tff
from tfp_flows.bijectors.tanh_equation import constrained_u


def test_constraint_of_the_paper():
    """DESIGN: for u = (-2, 0.5) and w = (1, -0.4), w.u_hat = -1 + softplus(w.u) = -0.894917."""
    u_hat, slope = constrained_u(tf.constant([-2.0, 0.5], tf.float64), tf.constant([1.0, -0.4], tf.float64))
    np.testing.assert_allclose(np.dot(u_hat, [1.0, -0.4]), -0.894917, atol=5e-7)
    np.testing.assert_allclose(slope - 1.0, -0.894917, atol=5e-7)


def extreme_flow(n, size, rng):
    """A PlanarFlow whose variables hold n cases at once: w.u_hat from -0.999999 to 1000, |w| from 0.5 to 3."""
    w = rng.normal(size=[n, size])
    w *= rng.uniform(0.5, 3.0, [n, 1]) / np.linalg.norm(w, axis=-1, keepdims=True)
    slope = np.where(rng.random(n) < 0.5, 10.0 ** rng.uniform(-6, 0, n), 1.0 + 10.0 ** rng.uniform(-3, 3, n))
    wu = np.where(slope > 30.0, slope, np.log(np.expm1(np.minimum(slope, 30.0))))
    norm2 = np.sum(w**2, axis=-1, keepdims=True)
    across = rng.normal(size=[n, size])
    across -= np.sum(across * w, axis=-1, keepdims=True) * w / norm2
    flow = tff.PlanarFlow(size, dtype=tf.float64)
    flow.w, flow.u = tf.constant(w), tf.constant(wu[:, None] * w / norm2 + across)
    flow.b = tf.constant(rng.normal(size=n))
    return flow, slope


@pytest.mark.parametrize(
    ("jit", "scale"), [(False, 1.0), (False, 1e4), pytest.param(True, 1.0, marks=pytest.mark.slow), (True, 1e4)]
)
def test_inverse_to_machine_precision_on_1e5_cases(scale, jit):
    rng = np.random.default_rng(0)
    worst_there, worst_back = 0.0, 0.0
    for size in (1, 2, 5, 32):
        n = 25_000
        flow, slope = extreme_flow(n, size, rng)
        assert slope.min() < 2e-6
        assert slope.max() > 900
        forward, inverse = (tf.function(f, jit_compile=jit) for f in (flow._forward, flow._inverse))
        y = tf.constant(scale * rng.normal(size=[n, size]))
        x = inverse(y)
        assert np.all(np.isfinite(x))

        # forward(inverse(y)) = y. Where |x| > |y|, rounding x alone already moves y by |x| ulps.
        error = np.linalg.norm(forward(x) - y, axis=-1)
        size_of = np.maximum.reduce([np.ones(n), np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1)])
        worst_there = max(worst_there, np.max(error / size_of))

        # inverse(forward(x)) = x up to the condition number of the Jacobian I + u_hat w^T sech^2.
        back = inverse(forward(x))
        u_hat, _ = constrained_u(flow.u, flow.w)
        s = np.sum(x * flow.w, axis=-1) + flow.b
        det = np.exp(flow._forward_log_det_jacobian(x))
        sech2 = 1.0 / np.cosh(np.clip(s, -350, 350)) ** 2
        rank_one = np.linalg.norm(u_hat, axis=-1) * np.linalg.norm(flow.w, axis=-1) * sech2
        condition = (1.0 + rank_one) * (1.0 + rank_one / det)
        worst_back = max(worst_back, np.max(np.linalg.norm(back - x, axis=-1) / size_of / condition))
    assert worst_there < 1e-12, worst_there
    assert worst_back < 1e-12, worst_back


@pytest.mark.parametrize("r", [0.0, 1e-300, 1e-12, 1.0, 30.0, 1e8, 1e300])
@pytest.mark.parametrize("wu", [-1000.0, -700.0, -30.0, -1.0, 0.0, 3.0, 1e3, 1e6])
def test_extreme_weights_and_points_give_numbers(wu, r):
    flow = tff.PlanarFlow(1, dtype=tf.float64)
    flow.w.assign([1.0])
    flow.u.assign([wu])
    flow.b.assign(0.0)
    x = flow.inverse(tf.constant([[r], [-r]], tf.float64))
    assert np.all(np.isfinite(x))
    np.testing.assert_allclose(x[0], -x[1])
    np.testing.assert_allclose(flow.forward(tf.identity(x))[0, 0], r, rtol=1e-9, atol=1e-300 + 1e-9 * abs(wu) * (r > 0))
    assert np.all(np.isfinite(flow.inverse_log_det_jacobian(tf.identity(x))))


def test_gradients_of_the_inverse_against_finite_differences_and_second_derivatives():
    flow = tff.PlanarFlow(2, dtype=tf.float64, seed=1)
    flow.u.assign([1.5, -0.7])
    y = tf.constant([[0.3, -0.9]], tf.float64)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(y)
        with tf.GradientTape() as inner:
            inner.watch(y)
            z = tf.reduce_sum(flow.inverse(y) ** 3)
        first = inner.gradient(z, y)
        total = tf.reduce_sum(first)
    second = outer.gradient(total, y).numpy()

    def value(y):
        return tf.reduce_sum(flow.inverse(tf.constant(y)) ** 3).numpy()

    h, base = 1e-4, y.numpy()
    steps = [np.array([[h, 0.0]]), np.array([[0.0, h]])]
    numeric = [[(value(base + s) - value(base - s)) / (2 * h) for s in steps]]
    np.testing.assert_allclose(first, numeric, rtol=1e-6)
    hessian = [
        [
            (value(base + s + t) - value(base + s - t) - value(base - s + t) + value(base - s - t)) / (4 * h * h)
            for t in steps
        ]
        for s in steps
    ]
    np.testing.assert_allclose(second, [np.sum(hessian, axis=0)], rtol=1e-4, atol=1e-5)
    with tf.GradientTape() as tape:
        z = flow.inverse(tf.identity(y))
    before = z.numpy()
    gradient = tape.jacobian(z, flow.w).numpy()
    flow.w.assign_add([1e-6, 0.0])
    np.testing.assert_allclose(
        (flow.inverse(tf.identity(y)).numpy() - before) / 1e-6, gradient[..., 0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("size", [1, 2, 5, 32])
def test_a_new_flow_is_nearly_the_identity_for_every_seed(size):
    x = tf.constant(np.random.default_rng(0).normal(size=[200, size]))
    for seed in range(10):
        y, log_det = tff.PlanarFlow(size, seed=seed, dtype=tf.float64).forward_and_log_det(x)
        assert 0.0 < np.max(np.linalg.norm(y - x, axis=-1)) < 0.03 * np.sqrt(size), seed
        assert np.max(np.abs(log_det)) < 0.06, seed


def test_zero_w_is_a_translation_with_finite_gradients():
    flow = tff.PlanarFlow(2, dtype=tf.float64)
    flow.w.assign([0.0, 0.0])
    flow.b.assign(0.5)
    x = tf.ones([3, 2], tf.float64)
    np.testing.assert_allclose(flow.forward(x), 1.0 + flow.u * np.tanh(0.5) + 0.0 * x)
    np.testing.assert_allclose(flow.forward_log_det_jacobian(x), 0.0, atol=1e-15)
    np.testing.assert_allclose(flow.inverse(flow.forward(x)), x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(flow.inverse(tf.identity(x)) ** 2)
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(loss, flow.trainable_variables) if g is not None)


def test_nan_stays_in_its_row():
    flow = tff.PlanarFlow(2, seed=1)
    x = flow.inverse(tf.constant([[1.0, 2.0], [np.nan, 0.0], [3.0, 4.0]])).numpy()
    assert np.isnan(x[1]).all()
    assert np.isfinite(x[[0, 2]]).all()


def test_wrong_event_size_is_named():
    with pytest.raises(ValueError, match="events of size 3"):
        tff.PlanarFlow(3).forward(tf.ones([5, 2]))
    with pytest.raises(ValueError, match="`event_size`"):
        tff.PlanarFlow(-1)
