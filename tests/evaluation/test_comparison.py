import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow_probability as tfp

import tfp_flows as tff

tfd = tfp.distributions
X = tff.data.moons().sample(3000, seed=1)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_titles_have_the_nll_and_the_distance_to_the_floor():
    wide = tfd.MultivariateNormalDiag([0.0, 0.0], [5.0, 5.0])
    axes = tff.plots.compare(
        {"wide": wide, "n$": tff.maf(2, num_layers=1, hidden_units=[4], seed=1)}, X, floor=0.5, resolution=12
    )
    nll = -np.mean(wide.log_prob(X))
    assert axes[1].get_title() == f"wide\nNLL {nll:.2f} nats (+{nll - 0.5:.2f})"
    assert axes[2].get_title().startswith("n\\$\nNLL ")
    assert axes[0].get_title() == "held-out data\nfloor 0.50 nats"
    np.testing.assert_allclose(axes[0].collections[0].get_offsets(), X[:2000])


def test_all_panels_have_the_color_scale_of_the_best_flow():
    wide = tfd.MultivariateNormalDiag([0.0, 0.0], [5.0, 5.0])
    spiky = tfd.MultivariateNormalDiag([0.5, 0.25], [1e-2, 1e-2])
    fitting = tfd.MultivariateNormalDiag(X.mean(axis=0), X.std(axis=0))
    axes = tff.plots.compare([wide, fitting, spiky], X, resolution=21)
    images = [ax.collections[0] for ax in axes[1:]]
    top = images[1].get_array().max()
    assert {image.get_clim() for image in images} == {(0.0, top)}
    xs, ys = np.linspace(*axes[1].get_xlim(), 21), np.linspace(*axes[1].get_ylim(), 21)
    wanted = np.exp(fitting.log_prob(np.stack(np.meshgrid(xs, ys), -1).astype(np.float32)))
    np.testing.assert_allclose(images[1].get_array().reshape(21, 21), wanted, rtol=1e-4)
    names = [ax.get_title().split("\n")[0] for ax in axes[1:]]
    assert names == ["MultivariateNormalDiag", "MultivariateNormalDiag 2", "MultivariateNormalDiag 3"]
    assert "(" not in axes[1].get_title()  # without a floor


def test_a_list_is_named_after_the_distributions():
    flow = tff.maf(2, num_layers=1, hidden_units=[4], name="mine")
    axes = tff.plots.compare([flow, tff.FlowModel(flow)], X, resolution=3)
    assert [ax.get_title().split("\n")[0] for ax in axes[1:]] == ["mine", "mine 2"]


def test_rows_are_filled_and_the_lowest_panels_have_labels():
    axes = tff.plots.compare([tff.data.moons()] * 6, X, columns=["a", "b"], resolution=5)
    assert len(axes) == len(axes[0].figure.axes) == 7
    assert [ax.get_xlabel() for ax in axes] == ["", "", "", "a", "a", "a", "a"]
    assert [ax.get_ylabel() for ax in axes] == ["b", "", "", "", "b", "", ""]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tff.plots.compare({}, X), "`flows` must hold at least one flow"),
        (lambda: tff.plots.compare(tff.data.moons(), X), "`flows` must be a dictionary or a list"),
        (lambda: tff.plots.compare({"maf": tff.maf}, X), "`flows` must have a method `log_prob`, got .* for 'maf'"),
        (lambda: tff.plots.compare([tff.data.moons()], X[:, :1]), r"`data` must have shape \[N, 2\], got \[3000, 1\]"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
