import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows as tff


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def flow(event_size=2, conditional_size=1, **options):
    made = tff.maf(event_size, num_layers=1, hidden_units=[8], conditional_size=conditional_size, seed=1, **options)
    tff.testing.redraw_weights(made, seed=2)
    return made


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_panels_show_the_density_under_each_condition(dtype):
    made = flow(dtype=dtype)
    conditions = np.array([-1.0, 2.0])
    axes = tff.plots.conditional(tff.FlowModel(made), conditions, resolution=15, columns=["a", "$b"])
    assert [ax.get_title() for ax in axes] == ["condition -1", "condition 2"]
    assert (axes[0].get_ylabel(), axes[1].get_ylabel()) == (r"\$b", "")  # at the left of a row only
    images = [ax.collections[0] for ax in axes]
    xs, ys = np.linspace(*axes[0].get_xlim(), 15), np.linspace(*axes[0].get_ylim(), 15)
    grid = tf.constant(np.stack(np.meshgrid(xs, ys), -1), dtype)
    for image, c in zip(images, conditions, strict=True):
        wanted = np.exp(made.log_prob(grid, conditional_input=[c]))
        np.testing.assert_allclose(image.get_array().reshape(15, 15), wanted, rtol=1e-4, atol=1e-6)
    assert images[0].get_clim() == images[1].get_clim() == (0.0, max(i.get_array().max() for i in images))
    step = (xs[1] - xs[0]) * (ys[1] - ys[0])
    assert all(i.get_array().sum() * step > 0.85 for i in images)  # the limits hold most of both densities


def test_curves_of_one_dimension():
    made = flow(1, 2)
    conditions = [[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]]
    (ax,) = tff.plots.conditional(made, conditions, labels=["first", "second", "third"], limits=(-4, 4), resolution=10)
    assert [line.get_label() for line in ax.get_lines()] == ["first", "second", "third"]
    for line, c in zip(ax.get_lines(), conditions, strict=True):
        x, y = line.get_data()
        wanted = np.exp(made.log_prob(x[:, None].astype(np.float32), conditional_input=c))
        np.testing.assert_allclose(y, wanted, rtol=1e-5)
    assert np.abs(np.subtract(ax.get_lines()[0].get_ydata(), ax.get_lines()[2].get_ydata())).max() > 0.01
    assert ax.get_xlim() == (-4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tff.plots.conditional(tff.maf(2, num_layers=1), [0.0]), "`flow` must be a flow with conditions"),
        (
            lambda: tff.plots.conditional(flow(3), [0.0]),
            r"`flow` must have events of shape \[2\], \[1\] or \[\], got \[3\]",
        ),
        (lambda: tff.plots.conditional(flow(2, 2), [0.0]), r"`conditions` must have shape \[K, 2\].*got \[1\]"),
        (lambda: tff.plots.conditional(flow(), [0.0], labels=["a", "b"]), "`labels` must name 1 conditions, got 2"),
        (lambda: tff.plots.conditional(flow(), [0.0], limits=(0, 1)), r"`limits` must hold \(low, high\)"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
