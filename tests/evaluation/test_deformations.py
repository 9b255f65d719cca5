import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions
X = tff.data.moons().sample(80, seed=1)
BASE = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def points(ax):
    """Points of a panel; the grid is the first collection."""
    return np.asarray(ax.collections[-1].get_offsets())


def lines(ax):
    return np.stack(ax.collections[0].get_segments())


def moved(flow, seed=2):
    tff.testing.redraw_weights(flow, seed=seed)
    return flow


def test_samples_end_as_those_of_the_model_and_data_end_in_the_base():
    flow = moved(tff.maf(2, num_layers=3, hidden_units=[8], preprocess=tff.standardize(X), seed=1))
    axes = tff.plots.layers(flow, X, num_samples=50, seed=3)
    assert axes.shape == (2, 4)  # standardizing has no panel
    np.testing.assert_allclose(points(axes[0, -1]), tff.FlowModel(flow).sample(50, seed=3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(points(axes[0, 0]), flow.distribution.sample(50, seed=tf.constant([3, 0])))
    np.testing.assert_allclose(points(axes[1, 0]), flow.bijector.inverse(X[:50]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(points(axes[1, -1]), X[:50])
    first = flow.bijector.bijectors[-1].forward(tf.constant(points(axes[0, 0]), tf.float32))
    np.testing.assert_allclose(points(axes[0, 1]), first, rtol=1e-5, atol=1e-6)
    for above, below in zip(*axes, strict=True):
        assert (above.get_xlim(), above.get_ylim()) == (below.get_xlim(), below.get_ylim())


def test_the_grid_is_regular_at_its_start_and_moved_by_the_flow():
    flow = moved(tff.planar_flow(2, num_layers=2, seed=1))
    axes = tff.plots.layers(flow, X, num_samples=20)
    for start in (axes[0, 0], axes[1, -1]):
        assert np.ptp(lines(start)[0, :, 0]) == 0 and np.ptp(lines(start)[-1, :, 1]) == 0  # noqa: PT018
    end = flow.bijector.forward(tf.constant(lines(axes[0, 0]).reshape(-1, 2), tf.float32))
    np.testing.assert_allclose(lines(axes[0, -1]).reshape(-1, 2), end, rtol=1e-5, atol=1e-5)
    assert len(tff.plots.layers(flow, num_samples=20, grid=False)[0, 0].collections) == 1


def test_permutations_have_no_panel_and_move_no_point():
    shift = tfb.Shift([5.0, 0.0])
    flow = tfd.TransformedDistribution(BASE, tfb.Chain([tfb.Permute([1, 0]), tfb.Invert(shift), tfb.Permute([1, 0])]))
    axes = tff.plots.layers(flow, X, num_samples=30)[:, :]
    assert axes.shape == (2, 2)
    for row in axes:
        np.testing.assert_allclose(points(row[1]) - points(row[0]), np.tile([0.0, -5.0], [30, 1]), atol=1e-5)
    np.testing.assert_allclose(points(axes[1, 1]), X[:30])


def test_deep_flows_show_evenly_spaced_layers():
    flow = tfd.TransformedDistribution(BASE, tfb.Chain([tfb.Shift([1.0, 0.0], name=f"shift_{i}") for i in range(10)]))
    axes = tff.plots.layers(flow, num_samples=20, max_panels=3)[0]
    means = [points(ax)[:, 0].mean() for ax in axes]
    np.testing.assert_allclose(np.diff(means), 5.0, rtol=1e-5)
    assert [ax.get_title() for ax in axes] == ["base", "layer 5\nshift", "layer 10 (data)\nshift"]


def test_a_condition_reaches_the_layers():
    flow = moved(tff.maf(2, num_layers=1, hidden_units=[8], conditional_size=1, seed=1))
    ends = [points(tff.plots.layers(flow, num_samples=20, conditional_input=[c])[0, -1]) for c in (0.0, 3.0)]
    wanted = [flow.sample(20, seed=tf.constant([0, 0]), conditional_input=[c]) for c in (0.0, 3.0)]
    np.testing.assert_allclose(ends, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(ends[1] - ends[0]).max() > 0.1


@pytest.mark.parametrize(("inverted", "data"), [(False, None), pytest.param(True, X, marks=pytest.mark.slow)])
def test_continuous_flows_are_shown_along_their_trajectories(inverted, data):
    layer = tff.ContinuousFlow(2, hidden_units=[8], seed=1)
    tff.testing.redraw_weights(layer, seed=2, scale=0.6)
    flow = tfd.TransformedDistribution(BASE, tfb.Chain([tfb.Invert(layer) if inverted else layer]))
    axes = tff.plots.layers(flow, data, num_samples=30, max_panels=9, grid=False)
    assert axes.shape == (1 if data is None else 2, 9)
    h = -0.125 if inverted else 0.125
    for row in axes:  # the last place is the solver's: an error of the integration would be a jump before it
        way = np.stack([points(ax) for ax in row]).astype(np.float32)
        for time, before, now, after in ((1, *way[:3]), (6, *way[5:8]), (7, *way[6:9])):
            velocity = layer.velocity(1 - time / 8 if inverted else time / 8, now)
            np.testing.assert_allclose((after - before) / (2 * h), velocity, atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tff.plots.layers(tff.maf(3, num_layers=1)), r"`flow` must have events of shape \[2\], got \(3,\)"),
        (lambda: tff.plots.layers(tff.data.moons()), "`flow` must be a flow"),
        (
            lambda: tff.plots.layers(tff.maf(2, num_layers=1), X[:, :1]),
            r"`data` must have shape \[N, 2\], got \[80, 1\]",
        ),
        (
            lambda: tff.plots.layers(tff.maf(2, num_layers=1), max_panels=1),
            "`max_panels` must be an integer of at least 2",
        ),
        (lambda: tff.plots.layers(tff.maf(2, num_layers=1, conditional_size=1)), "conditional_input"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
