import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.evaluation.plots import jacobians

tfb = tfp.bijectors
MATRIX = np.array([[2.0, 0.0, 0.0], [-3.0, 0.5, 0.0], [0.0, 1.0, -4.0]])
GROWS = tfb.Inline(forward_fn=lambda x: tf.pad(x, [[0, 0], [0, 1]]), forward_min_event_ndims=1)
LINEAR = tfb.ScaleMatvecTriL(MATRIX)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def shown(ax):
    return ax.images[0].get_array()


def test_entries_of_a_linear_map_and_its_inverse():
    x = np.random.default_rng(0).normal(size=[7, 3])
    ax = tff.plots.jacobian(LINEAR, x)
    np.testing.assert_allclose(shown(ax).filled(0.0), np.abs(MATRIX), rtol=1e-12)
    np.testing.assert_array_equal(shown(ax).mask, MATRIX == 0)
    assert len(ax.patches) == np.sum(MATRIX == 0)  # hatched
    inverse = shown(tff.plots.jacobian(LINEAR, x, direction="inverse")).filled(0.0)
    np.testing.assert_allclose(inverse, np.abs(np.linalg.inv(MATRIX)), atol=1e-12)


def test_the_mean_is_over_the_absolute_values_of_all_points(monkeypatch):
    x = np.array([[1.0, -2.0], [-3.0, 0.5], [0.25, 4.0]])
    bijector = tfb.Chain([tfb.Permute([1, 0]), tff.RealNVP(1, shift_and_log_scale_fn=lambda x, n, **_: (x**2, None))])
    wanted = [[np.abs(2.0 * x[:, 0]).mean(), 1.0], [1.0, 0.0]]  # slopes of both signs
    np.testing.assert_allclose(shown(tff.plots.jacobian(bijector, x)).filled(0.0), wanted, rtol=1e-6)
    monkeypatch.setattr(jacobians, "_MOST_VALUES", 4)  # one row at a time
    np.testing.assert_allclose(shown(tff.plots.jacobian(bijector, x)).filled(0.0), wanted, rtol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_flows_and_models_agree_with_automatic_differentiation(direction):
    flow = tff.maf(4, num_layers=1, hidden_units=[8], conditional_size=2, preprocess_condition=tfb.Scale(2.0), seed=1)
    tff.testing.redraw_weights(flow, seed=2)
    x = tff.testing.draw_events((4,), seed=3)
    condition = [0.5, -1.0]
    kwargs = flow.bijector_kwargs(condition)
    rows = tff.testing.jacobian(lambda v: getattr(flow.bijector, direction)(v, **kwargs), tf.cast(x, tf.float32), 1)
    for holder in (flow, tff.FlowModel(flow)):
        ax = tff.plots.jacobian(holder, x, direction=direction, conditional_input=condition)
        np.testing.assert_allclose(shown(ax).filled(0.0), np.abs(rows).mean(axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(shown(ax).mask, np.triu(np.ones([4, 4]), 1))


def test_points_are_drawn_where_the_size_is_known():
    bijector = tff.MaskedAutoregressiveFlow(tff.masked_autoregressive_template([4], event_size=3, dtype=tf.float64))
    assert shown(tff.plots.jacobian(tfb.Chain([bijector]))).shape == (3, 3)
    assert shown(tff.plots.jacobian(tff.PlanarFlow(5))).shape == (5, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tff.plots.jacobian(tfb.Exp()), r"`x` must be given, an array \[N, D\]"),
        (
            lambda: tff.plots.jacobian(tff.PlanarFlow(3), np.zeros([2, 4])),
            r"`x` must have shape \[N, 3\], got \[2, 4\]",
        ),
        (lambda: tff.plots.jacobian(tfb.Exp(), np.zeros([2, 3]), direction="both"), "`direction` must be one of"),
        (
            lambda: tff.plots.jacobian(tfb.CholeskyOuterProduct()),
            "`bijector` must map vectors, got one for events of rank 2",
        ),
        (lambda: tff.plots.jacobian(tff.data.moons()), "`bijector` must be a tfb.Bijector"),
        (lambda: tff.plots.jacobian(GROWS, np.zeros([2, 3])), "`bijector` must map 3 to 3 dimensions"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
