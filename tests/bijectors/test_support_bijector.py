"""`Support`: each kind of column against automatic differentiation, its bounds, its errors, and its start from rows."""

import math
import pickle

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.bijectors.composition import density_parts

tfb, tfd = tfp.bijectors, tfp.distributions
INF = math.inf
KINDS = {
    "positive": "positive",
    "above": (-2.0, INF),
    "below": (-INF, 3.0),
    "interval": (-1.0, 4.0),
    "mixed": ["real", (0.0, 1.0), "positive", (-INF, 0.0)],
    "circle": ("circle", 1.0, 25.0),
    "simplex": "simplex",
    "all": [
        ("simplex", 1),
        "circle",
        ("simplex", 2),
        "real",
        ("simplex", 1),
        ("simplex", 2),
        ("simplex", 1),
        "positive",
    ],
}


def made(name, dtype=tf.float64, **kwargs):
    size = len(KINDS[name]) if isinstance(KINDS[name], list) else 4
    support = tff.Support(size, KINDS[name], dtype=dtype, **kwargs)
    if not any(entry[0] == "circle" for entry in support.columns):
        support.shift.assign(np.linspace(-0.5, 1.0, support.latent_size))
        support.scale.assign(np.linspace(0.5, 2.0, support.latent_size))
    return support


@pytest.mark.parametrize("name", KINDS)
def test_the_map_its_inverse_and_both_log_dets(name):
    support = made(name)
    x = testing.draw_events([support.latent_size], (7,), seed=1, scale=1.0)
    free = [j for j in range(support.event_size) if j not in support.dependent]

    def forward(x):
        return tf.gather(support.forward(x), free, axis=-1)

    def inverse(y):
        """The inverse as a function of the free columns."""
        parts, columns = list(tf.unstack(y, axis=-1)), dict.fromkeys(range(support.event_size))
        columns.update(zip(free, parts, strict=True))
        for last in support.dependent:
            others = [j for j in free if support.columns[j] == support.columns[last]]
            columns[last] = 1.0 - tf.add_n([columns[j] for j in others])
        return support.inverse(tf.stack(list(columns.values()), axis=-1))

    y = support.forward(tf.identity(x))
    np.testing.assert_allclose(support.inverse(tf.identity(y)), x, atol=1e-9)
    expected = np.linalg.slogdet(testing.jacobian(forward, x, 1))[1]
    np.testing.assert_allclose(support.forward_log_det_jacobian(tf.identity(x)), expected, atol=1e-9)
    back = np.linalg.slogdet(testing.jacobian(inverse, tf.gather(y, free, axis=-1), 1))[1]
    np.testing.assert_allclose(support.inverse_log_det_jacobian(tf.identity(y)), back, atol=1e-9)
    np.testing.assert_allclose(back, -expected, atol=1e-9)
    assert support.forward_event_shape([3, support.latent_size]) == [3, support.event_size]
    assert support.inverse_event_shape([3, support.event_size]) == [3, support.latent_size]
    compiled = tf.function(support.forward, jit_compile=True)
    np.testing.assert_allclose(compiled(x), y, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_it_is_saved_and_copied_with_what_it_adapted_to(name):
    support = made(name)
    x = testing.draw_events([support.latent_size], (50,), seed=2, scale=1.0)
    y = support.forward(tf.identity(x)).numpy()
    support.adapt(y)
    assert support.adapted
    z = support.inverse(y).numpy()
    angles = list(support.circles)
    np.testing.assert_allclose(np.delete(z, angles, 1).mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.delete(z, angles, 1).std(axis=0), 1.0, atol=1e-9)
    np.testing.assert_array_equal(support.shift.numpy()[angles], 0.0)
    np.testing.assert_array_equal(support.scale.numpy()[angles], 1.0)
    for copy in (pickle.loads(pickle.dumps(support)), tff.from_description(tff.describe(support))):
        np.testing.assert_array_equal(copy.inverse(y), z)
        assert copy.adapted


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("name", ["positive", "interval", "below", "all", "simplex"])
def test_no_value_is_ever_on_a_bound(name, dtype):
    support = made(name, dtype)
    size = support.latent_size
    x = np.concatenate([np.diag(np.full(size, 1.0)), -np.diag(np.full(size, 1.0)), np.zeros([1, size])])
    for scale in (0.0, 1.0, 30.0, 1e3, 1e30):
        y = support.forward(tf.constant(scale * x, dtype)).numpy()
        for j, entry in enumerate(support.columns):
            low, high = entry[1:] if entry[0] != "simplex" else (0.0, 1.0)
            column = y[:, j].astype(np.float64)
            assert np.all(column >= low if entry[0] == "circle" else column > low)
            assert np.all(column <= high if entry[0] == "simplex" else column < high)
        if name != "simplex":
            assert np.all(np.isfinite(support.inverse(y)))


def test_outside_is_marked_and_gradients_stay_finite():
    support = made("all")
    inside = support.forward(tf.zeros([1, support.latent_size], tf.float64)).numpy()
    rows = np.repeat(inside, 6, axis=0)
    rows[1, 7] = -1.0  # not positive
    rows[2, 0] += 0.1  # shares that do not sum to one
    rows[3, [2, 5]] = [-0.25, 1.25]
    rows[4, 1] += 2 * math.pi  # an angle may be any number
    rows[5, 3] = np.nan
    y = tf.constant(rows)
    with tf.GradientTape() as tape:
        tape.watch(y)
        x, log_det, outside = density_parts(support, y, 1)
    np.testing.assert_array_equal(outside, [False, True, True, True, False, False])
    assert np.all(np.isfinite(log_det[:5]))
    assert np.all(np.isfinite(tape.gradient([x, log_det], y)[:5]))
    np.testing.assert_allclose(x[4], x[0], atol=1e-12)
    assert np.isnan(x[5]).any()


def test_clip_moves_values_on_a_bound_and_no_others():
    support = tff.Support(3, [(0.0, 1.0), "positive", "real"], clip=1e-3, dtype=tf.float64)
    rows = np.array([[0.0, 0.0, 5.0], [1.0005, -0.0005, 5.0], [0.3, 2.0, 5.0]])
    np.testing.assert_allclose(
        support.forward(tf.identity(support.inverse(rows)))[:2, :2], [[1e-3, 1e-3], [0.999, 1e-3]]
    )
    np.testing.assert_allclose(support.forward(tf.identity(support.inverse(rows)))[2], rows[2])
    support.check("x", rows)
    with pytest.raises(ValueError, match=r"`x` has 1\.1 in row 0, column 0, on or outside of the bounds \(0, 1\)"):
        support.check("x", [[1.1, 1.0, 0.0]])
    shares = tff.Support(3, "simplex", clip=1e-3, dtype=tf.float64)
    y = shares.forward(tf.identity(shares.inverse([[0.0, 0.25, 0.75]])))
    np.testing.assert_allclose(y, np.array([[1e-3, 0.25, 0.75]]) / 1.001)


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ("nonnegative", r"`support\[0\]` must be \"real\", \"positive\".*, got 'nonnegative'"),
        (["real", (1.0, 1.0)], r"`support\[1\]` must be .* with low < high, got \(1\.0, 1\.0\)"),
        (["real", (0.0, "1")], r"`support\[1\]` must be"),
        (["real", ("circle", 0.0, INF)], r"`support\[1\]` must be a circle with finite ends"),
        (["real"], r"`support` must have one entry for each of 2 columns, got 1"),
        (["simplex", "real"], "`support` must have at least 2 columns of a simplex"),
        ([0.0, 1.0], r"`support\[0\]` must be"),
        (None, r"`support\[0\]` must be"),
    ],
)
def test_bad_supports_are_refused(support, message):
    with pytest.raises(ValueError, match=message):
        tff.Support(2, support)
    with pytest.raises(ValueError, match=message):
        tff.spline_coupling(2, support=support)


def test_bad_arguments_and_rows_are_refused():
    for clip in (0.0, -1.0, INF, True):
        with pytest.raises(ValueError, match="`clip` must be a positive number or None"):
            tff.Support(2, clip=clip)
    with pytest.raises(ValueError, match=r"`data` has 0\.0 in row 1, column 1, on or outside of the bounds \(0, inf\)"):
        tff.Support(2, "positive").adapt([[1.0, 2.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"`data` has shares that sum to 1\.2 instead of 1 in row 0, from column 0 on"):
        tff.Support(2, "simplex").adapt([[0.6, 0.6], [0.5, 0.5]])
    with pytest.raises(ValueError, match="Support expects events of size 2"):
        tff.Support(3, "simplex").forward(tf.zeros([5, 3]))
