"""`AutoregressiveNetwork` against `tfb.AutoregressiveNetwork`: arguments, outputs, weights."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions
CONFIGS = {
    "no_hidden": {"params": 4, "event_shape": 3},
    "one_dimension": {"params": 2, "event_shape": [1], "hidden_units": [4]},
    "usual": {"params": 2, "event_shape": [5], "hidden_units": [16, 8], "activation": "relu"},
    "right_to_left": {"params": 3, "event_shape": 4, "hidden_units": [10, 7, 10], "input_order": "right-to-left"},
    "explicit_order": {"params": 1, "event_shape": 4, "hidden_units": [6], "input_order": [2, 4, 1, 3]},
    "few_units_no_bias": {
        "params": 1,
        "event_shape": 9,
        "hidden_units": [5, 5],
        "use_bias": False,
        "activation": "tanh",
    },
    "all_layers": {
        "params": 2,
        "event_shape": 3,
        "hidden_units": [8, 8],
        "conditional": True,
        "conditional_event_shape": [2],
        "activation": "relu",
    },
    "first_layer": {
        "params": 2,
        "event_shape": 3,
        "hidden_units": [8, 8],
        "conditional": True,
        "conditional_event_shape": 2,
        "conditional_input_layers": "first_layer",
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_same_weights_same_outputs_as_tfp(name):
    config = CONFIGS[name]
    size = np.ravel(config["event_shape"])[0]
    theirs = tfb.AutoregressiveNetwork(**config)
    theirs.build([None, size])
    ours = tff.AutoregressiveNetwork(**config)
    assert [tuple(w.shape) for w in ours.weights] == [w.shape for w in theirs.get_weights()]
    ours.set_weights(theirs.get_weights())
    rng = np.random.default_rng(0)
    for batch_shape in ((), (5,), (2, 3)):
        x = rng.normal(size=[*batch_shape, size]).astype(np.float32)
        kwargs = {}
        if config.get("conditional"):
            kwargs = {"conditional_input": rng.normal(size=[*batch_shape, 2]).astype(np.float32)}
        out = ours(x, **kwargs)
        assert out.shape == (*batch_shape, size, config["params"])
        flat = {key: value.reshape(-1, 2) for key, value in kwargs.items()}
        expected = theirs(x.reshape(-1, size), **flat)  # TFP's fails at more batch axes for one dimension
        np.testing.assert_allclose(out, tf.reshape(expected, out.shape), atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_autoregressive_whatever_the_weights_are(name):
    """The masks multiply in the call: weights that anybody assigns cannot break the property."""
    config = {**CONFIGS[name], "dtype": "float64"}
    network = tff.AutoregressiveNetwork(**config)
    rng = np.random.default_rng(0)
    for w in network.weights:
        w.assign(rng.normal(size=w.shape))
    size = network.event_size
    x = tf.constant(rng.normal(size=[70, size]))
    kwargs = {"conditional_input": tf.constant(rng.normal(size=[70, 2]))} if network.conditional else {}
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = tf.reduce_sum(network(x, **kwargs), axis=-1)
    jacobian = tape.batch_jacobian(out, x).numpy()
    degree = network.degrees[0]
    forbidden = degree[:, None] <= degree[None, :]  # output i, input j
    assert np.all(jacobian[:, forbidden] == 0)
    if name not in ("no_hidden", "few_units_no_bias"):
        assert np.all(np.any(jacobian != 0, axis=0)[~forbidden])


@pytest.mark.parametrize("circular_inputs", [(), (0, 7)])
def test_large_masks_are_the_same_in_graphs(circular_inputs):
    """Graphs compute them from degrees."""
    options = {"input_order": "random", "hidden_degrees": "random", "activation": "tanh", "seed": 1}
    network = tff.AutoregressiveNetwork(2, 40, hidden_units=[512], circular_inputs=circular_inputs, **options)
    x = tf.random.stateless_normal([5, 40], [1, 2])
    np.testing.assert_allclose(tf.function(network)(x), network(x), rtol=1e-5, atol=1e-5)


def test_a_masked_weight_that_is_not_a_number_does_not_matter():
    network = tff.AutoregressiveNetwork(1, 2, hidden_units=[3])
    expected = network(tf.ones([1, 2]))
    kernel = network.weights[0].numpy()
    kernel[1] = np.nan  # the last input leads nowhere
    network.weights[0].assign(kernel)
    np.testing.assert_array_equal(network(tf.ones([1, 2])), expected)


@pytest.mark.parametrize(
    ("input_shape", "condition_shape"),
    list(itertools.product(([3], [1, 3], [2, 3], [2, 2, 3]), ([4], [1, 4], [2, 4], [2, 1, 4], [2, 2, 4]))),
    ids=str,
)
def test_conditions_broadcast(input_shape, condition_shape):
    made = tff.AutoregressiveNetwork(2, event_shape=[3], conditional=True, conditional_event_shape=[4])
    expected = np.broadcast_shapes(input_shape[:-1], condition_shape[:-1])
    assert made(tf.ones(input_shape), conditional_input=tf.ones(condition_shape)).shape == (*expected, 3, 2)


def test_the_size_may_be_learned_at_the_first_call():
    made = tff.AutoregressiveNetwork(2, hidden_units=[9], activation=tf.math.exp, input_order="random", seed=4)
    assert made.event_shape is None
    assert made(np.zeros((3, 5), np.float32)).shape == (3, 5, 2)
    assert made.event_shape == [5]
    assert made.count_params() == 6 * 9 + 10 * 10
    assert sorted(made.degrees[0]) == [1, 2, 3, 4, 5]


def test_regularizers_constraints_and_initializers():
    made = tff.AutoregressiveNetwork(
        2,
        4,
        hidden_units=[5],
        kernel_regularizer=keras.regularizers.L2(0.1),
        kernel_constraint="unit_norm",
        bias_constraint=keras.constraints.NonNeg(),
        kernel_initializer=keras.initializers.GlorotNormal(),
        bias_initializer="ones",
        output_initializer="zeros",
    )
    assert len(made.losses) == 2
    assert made.weights[0].constraint is not None
    np.testing.assert_array_equal(made.weights[1], np.ones(5))
    np.testing.assert_array_equal(made(tf.ones([1, 4])), np.zeros([1, 4, 2]))


def test_in_tfd_autoregressive_and_tfp_maf():
    made = tff.AutoregressiveNetwork(1, event_shape=[6], hidden_units=[20, 20], activation="relu")
    pixels = tfd.Autoregressive(
        lambda x: tfd.Independent(tfd.Bernoulli(logits=made(x)[..., 0], dtype=tf.float32), 1), sample0=tf.zeros([6])
    )
    assert pixels.log_prob(pixels.sample(3)).shape == (3,)
    flow = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [2]),
        tfb.MaskedAutoregressiveFlow(tff.AutoregressiveNetwork(2, 2, hidden_units=[4])),
    )
    assert flow.sample((3, 1)).shape == (3, 1, 2)


def test_in_a_functional_model_of_keras_3():
    made = tff.AutoregressiveNetwork(2, 3, True, [4], hidden_units=[8])
    x, condition = keras.Input((3,)), keras.Input((4,))
    model = keras.Model([x, condition], made(x, conditional_input=condition))
    assert model.output_shape == (None, 3, 2)
    assert made.compute_output_shape((5, 1, 3), (7, 4)) == (5, 7, 3, 2)
    model.compile(optimizer="adam", loss="mse")
    before = made.get_weights()
    model.fit([np.ones([8, 3]), np.ones([8, 4])], np.ones([8, 3, 2]), verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, made.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: tff.AutoregressiveNetwork(2, 3), (3,)),
        (lambda: tff.AutoregressiveNetwork(2), (3,)),
        (lambda: tff.DenseNetwork([4], 2), (3,)),
        (lambda: tff.conv_resnet_template(4, image_shape=(4, 4, 1)), (4, 4, 1)),
        (lambda: tff.glow_template(4, image_shape=(4, 4, 1)), (4, 4, 1)),
        (lambda: tff.maf(3, num_layers=1).log_prob, (3,)),
    ],
    ids=["made", "made without its size", "dense", "residual", "glow", "distribution"],
)
def test_a_functional_model_of_keras_2_is_refused(make, shape):
    """It would not track the weights, and `fit` would train nothing."""
    import tf_keras

    with pytest.raises(ValueError, match=r"`x` must be .* got a symbolic tensor of tf_keras .* use a tf_keras network"):
        make()(tf_keras.Input(shape))


def test_a_condition_of_keras_2_is_refused():
    import tf_keras

    with pytest.raises(ValueError, match=r"`conditional_input` must be .* got a symbolic tensor of tf_keras"):
        tff.AutoregressiveNetwork(2, [4], True, [6])(tf.zeros([1, 4]), conditional_input=tf_keras.Input([6]))


@pytest.mark.parametrize(
    ("kwargs", "argument"),
    [
        ({"params": 0}, "params"),
        ({"event_shape": [2, 2]}, "event_shape"),
        ({"event_shape": -1}, "event_shape"),
        ({"conditional": True, "conditional_event_shape": [4]}, "event_shape"),
        ({"conditional": True, "event_shape": [4]}, "conditional_event_shape"),
        ({"conditional_event_shape": [4]}, "conditional_event_shape"),
        ({"conditional": True, "event_shape": 4, "conditional_event_shape": [10, 4]}, "conditional_event_shape"),
        ({"conditional_input_layers": "last_layer"}, "conditional_input_layers"),
        ({"event_shape": 3, "input_order": "sideways"}, "input_order"),
        ({"event_shape": 3, "input_order": [1, 1, 2]}, "input_order"),
        ({"event_shape": 3, "hidden_units": [4], "hidden_degrees": "some"}, "hidden_degrees"),
        ({"event_shape": 3, "hidden_units": [4], "hidden_degrees": [[1, 2]]}, "hidden_degrees"),
        ({"event_shape": 3, "hidden_units": [2], "hidden_degrees": [[1, 9]]}, "hidden_degrees"),
        ({"hidden_units": "64"}, "hidden_units"),
    ],
)
def test_bad_arguments_are_named(kwargs, argument):
    with pytest.raises(ValueError, match=rf"^(Parameter )?`{argument}.* got "):
        tff.AutoregressiveNetwork(**{"params": 2, **kwargs})


def test_missing_unexpected_and_wrong_conditions():
    conditional = tff.AutoregressiveNetwork(2, [4], True, [6])
    for network, kwargs in (
        (conditional, {}),
        (conditional, {"conditional_input": tf.zeros([5])}),
        (tff.AutoregressiveNetwork(2, [4]), {"conditional_input": tf.zeros([5])}),
    ):
        with pytest.raises(ValueError, match="`conditional_input` must"):
            network(tf.zeros([1, 4]), **kwargs)
    with pytest.raises(ValueError, match=r"\[..., 4\]"):
        tff.AutoregressiveNetwork(2, [4])(tf.zeros([1, 5]))


@pytest.mark.parametrize("hidden_units", [[], [16, 16]])
def test_angles_are_read_periodically_and_only_by_later_dimensions(hidden_units):
    options = {"hidden_units": hidden_units, "input_order": [2, 3, 1], "circular_inputs": [1, 2], "activation": "tanh"}
    network = tff.AutoregressiveNetwork(2, 3, bias_initializer="normal", seed=1, **options)
    x = tf.random.stateless_normal([4, 3], [1, 2])
    turned = x + tf.constant([0.0, 2.0 * np.pi, -4.0 * np.pi])
    np.testing.assert_allclose(network(turned), network(x), atol=1e-5)
    jacobian = _jacobian(network, x)
    for i, degree in enumerate(options["input_order"]):
        for j, other in enumerate(options["input_order"]):
            assert np.any(jacobian[:, i, :, :, j] != 0) == (other < degree)


def _jacobian(network, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = network(x)
    found = tape.jacobian(y, x).numpy()  # [N, D, P, N, D]
    return np.einsum("ndpne->ndpe", found)[:, :, :, np.newaxis]
