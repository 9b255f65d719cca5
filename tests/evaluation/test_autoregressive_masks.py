import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow_probability as tfp

import tfp_flows as tff


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def shown(axes):
    return [ax.images[0].get_array().filled(0.0) for ax in axes]


def test_the_product_of_masks_is_strictly_lower_triangular():
    *layers, product = shown(tff.plots.masks(tff.masked_autoregressive_template([8, 6], event_size=4)))
    assert [m.shape for m in layers] == [(8, 4), (6, 8), (4, 6)]
    assert np.isin(np.concatenate([m.ravel() for m in layers]), [0.0, 1.0]).all()
    np.testing.assert_array_equal(product, layers[2] @ layers[1] @ layers[0])
    np.testing.assert_array_equal(product > 0, np.tri(4, k=-1))


def test_masks_are_those_that_multiply_the_weights():
    network = tff.AutoregressiveNetwork(2, event_shape=3, hidden_units=[5], input_order=[2, 3, 1])
    network.set_weights([np.ones(w.shape) for w in network.weights])
    first, last, product = shown(tff.plots.masks(network))
    kernels = [np.asarray(k) for k in network.masked_weights().kernels]
    np.testing.assert_array_equal(first.T, kernels[0])
    np.testing.assert_array_equal(np.repeat(last.T, 2, axis=1), kernels[1])  # both parameters have the same mask
    np.testing.assert_array_equal(product > 0, [[0, 0, 1], [1, 0, 1], [0, 0, 0]])


def test_all_holders_of_a_network_and_the_network_of_tfp_have_the_same_masks():
    made = tff.masked_autoregressive_template([6], event_size=3)
    theirs = tfp.bijectors.AutoregressiveNetwork(2, event_shape=3, hidden_units=[6])
    theirs(np.zeros([1, 3], np.float32))
    wanted = shown(tff.plots.masks(made))
    for other in (made.fn, tff.MaskedAutoregressiveFlow(made), theirs):
        for actual, expected in zip(shown(tff.plots.masks(other)), wanted, strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_a_figure_is_used():
    figure = plt.figure()
    assert tff.plots.masks(tff.masked_autoregressive_template([4], event_size=2), figure=figure)[0].figure is figure


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (tff.real_nvp_template([4]), "`template` must be a tff.AutoregressiveNetwork"),
        (tff.AutoregressiveNetwork(2, hidden_units=[4]), "`template` must be built"),
    ],
)
def test_without_masks(template, message):
    with pytest.raises(ValueError, match=message):
        tff.plots.masks(template)
