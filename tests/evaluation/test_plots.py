import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

import tfp_flows as tff
from tfp_flows.evaluation.plots import DATA_COLOR, SAMPLE_COLOR

X = tff.data.moons().sample(300, seed=1)
Z = np.random.default_rng(0).normal(size=[200, 4])


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def drawn(ax):
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba()).std() > 1.0


def test_density_shows_the_density():
    ax = tff.plots.density(tff.data.moons(), X, columns=["a", "b"], resolution=50)
    assert drawn(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
    image = ax.collections[0].get_array().reshape(50, 50)
    xs, ys = np.linspace(*ax.get_xlim(), 50), np.linspace(*ax.get_ylim(), 50)
    expected = np.exp(tff.data.moons().log_prob(np.stack(np.meshgrid(xs, ys), -1).astype(np.float32)))
    np.testing.assert_allclose(image, expected, rtol=1e-4)
    flow = tff.planar_flow(2, num_layers=1)
    assert drawn(tff.plots.density(flow, limits=[(-2, 2), (-1, 1)], resolution=10))


def test_samples_alone_have_the_color_of_samples():
    ax = tff.plots.density(tff.data.moons(), samples=X, resolution=10)
    assert to_hex(ax.collections[1].get_facecolor()[0]) == to_hex(SAMPLE_COLOR)


def test_data_and_samples_share_limits():
    left, right = tff.plots.data_and_samples(X, X[:50] * 3)
    assert left.get_xlim() == right.get_xlim()
    for ax, color in ((left, DATA_COLOR), (right, SAMPLE_COLOR)):
        width = np.ptp([ax.get_xlim(), ax.get_ylim()], axis=1) / np.ptp(X, axis=0)  # of each axis by its own column
        assert np.all((width > 0.8) & (width < 1.5))
        assert to_hex(ax.collections[0].get_facecolor()[0]) == to_hex(color)
    assert len(left.collections[0].get_offsets()) == len(right.collections[0].get_offsets()) == 50


def test_history():
    ax = tff.plots.history({"loss": [90.0, 2.0, 1.5], "val_loss": [3.0, 2.5, 2.0]}, floor=1.0)
    assert [line.get_label() for line in ax.get_lines()] == ["training", "validation", "floor"]
    assert drawn(ax)


def test_corner():
    axes = tff.plots.corner(Z, Z + 1.0, columns=list("abcd"))
    assert axes.shape == (4, 4)
    assert axes[0, 0].get_legend_handles_labels()[1] == ["data", "samples"]
    for points, wanted in zip(axes[1, 0].collections, (Z, Z + 1.0), strict=True):
        np.testing.assert_allclose(points.get_offsets(), wanted[:, :2])
    assert axes[3, 0].get_xlabel() == "a"
    assert axes[3, 0].get_ylabel() == "d"
    assert drawn(axes[0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tff.plots.density(tff.data.moons()), "`limits`"),
        (lambda: tff.plots.density(tff.data.moons(), Z), r"`data` must have shape \[N, 2\]"),
        (lambda: tff.plots.corner(Z, Z[:, :2]), r"`samples` must have shape \[N, 4\]"),
        (lambda: tff.plots.history({}), "`log`"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"tfp_flows\[plots\]"):
        tff.plots.history({"loss": [1.0]})
