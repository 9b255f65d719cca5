import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.networks.autoregressive import made_degrees, made_masks
from tfp_flows.testing import redraw_weights

tfb = tfp.bijectors
X = tf.constant(np.random.default_rng(0).normal(size=[5, 3]), tf.float32)


def dense(units, inputs=1):
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units)])


def functional_with_two_outputs():
    x = keras.Input((1,))
    return keras.Model(x, [keras.layers.Dense(2)(x), keras.layers.Dense(2, "tanh")(x)])


class TakesUnits(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.kernel = self.add_weight(shape=(1, 4), name="kernel")

    def call(self, x, output_units=None):
        assert output_units == 2
        return tf.matmul(x, self.kernel)


def tf_keras_net():
    import tf_keras

    return tf_keras.Sequential([tf_keras.Input((1,)), tf_keras.layers.Dense(4)])


def plain(x):
    return 2.0 * x, -x


def with_units(x, output_units):
    return tf.ones_like(x) * float(output_units), None


def with_other_name(x, n):
    return with_units(x, n)


def with_kwargs(x, **condition_kwargs):
    return x + condition_kwargs["conditional_input"], None


NETS = {
    "sequential": lambda: dense(4),
    "two_outputs": functional_with_two_outputs,
    "layer_with_output_units": TakesUnits,
    "tf_keras": tf_keras_net,
    "fn(x)": lambda: plain,
    "fn(x, output_units)": lambda: with_units,
    "fn(x, n)": lambda: with_other_name,
    "fn(*args)": lambda: lambda *args: with_units(*args),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("flow", [tfb.RealNVP, tff.RealNVP])
def test_as_template_in_real_nvp(name, flow):
    net = NETS[name]()
    bijector = flow(num_masked=1, shift_and_log_scale_fn=tff.as_template(net))
    if hasattr(net, "weights"):
        assert len(bijector.trainable_variables) == len(net.trainable_weights) > 0
    y = bijector.forward(X)
    np.testing.assert_allclose(bijector.inverse(tf.identity(y)), X, atol=1e-5)
    for shape in ([3], [2, 4, 3]):
        assert bijector.forward(tf.ones(shape)).shape == shape


def test_as_template_honours_the_function_exactly():
    shift, log_scale = tff.as_template(lambda x: (x, 100.0 * tf.ones_like(x)))(X)
    np.testing.assert_array_equal(log_scale, 100.0 * tf.ones_like(X))
    np.testing.assert_array_equal(shift, X)
    _, log_scale = tff.as_template(lambda x: (x, 100.0 * tf.ones_like(x)), log_scale_bound=2.0)(X)
    assert np.all(np.asarray(log_scale) < 2.0)


def test_as_template_of_a_template_is_itself():
    template = tff.real_nvp_template([4])
    assert tff.as_template(template) is template


def test_conditions():
    template = tff.as_template(with_kwargs)
    np.testing.assert_array_equal(template(X, conditional_input=X)[0], 2.0 * X)
    bijector = tff.RealNVP(1, shift_and_log_scale_fn=with_kwargs_and_units)
    y = bijector.forward(X, conditional_input=tf.ones([5, 1]))
    np.testing.assert_allclose(y[:, 1:], X[:, 1:] + 1.0, rtol=1e-6)
    with pytest.raises(ValueError, match="no condition named `label`"):
        tff.as_template(dense(4))(X[:, :1], 2, label=X)


def with_kwargs_and_units(x, output_units, conditional_input):
    return tf.ones([output_units]) * conditional_input, None


def test_conditional_networks():
    coupling = tff.real_nvp_template([8], input_units=1, output_units=2, conditional_size=2, seed=1)
    made = tff.masked_autoregressive_template([8], event_size=3, conditional_size=2, seed=1)
    for template, args in ((coupling, (X[:, :1], 2)), (made, (X,))):
        redraw_weights(template)
        a, b = (template(*args, conditional_input=c)[0] for c in (tf.zeros([5, 2]), tf.ones([5, 2])))
        assert np.all(np.any(np.abs(a - b) > 1e-4, axis=-1))
    with pytest.raises(ValueError, match="`conditional_input` must be passed"):
        made(X)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: (x, x, x), "3 outputs"),
        (lambda x: tf.concat([x, x, x], -1), "expected"),
        (dense(3), "shape"),
    ],
)
def test_wrong_outputs_are_named(net, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        tff.RealNVP(1, shift_and_log_scale_fn=net).forward(X)


def test_neither_or_both_functions():
    for cls, kwargs in ((tff.RealNVP, {"num_masked": 1}), (tff.MaskedAutoregressiveFlow, {})):
        with pytest.raises(ValueError, match="got neither"):
            cls(**kwargs)
        with pytest.raises(ValueError, match="got both"):
            cls(shift_and_log_scale_fn=plain, bijector_fn=plain, **kwargs)
    with pytest.raises(ValueError, match="callable"):
        tff.as_template(3)


def test_variables_exist_before_the_first_call_where_sizes_are_known():
    assert len(tff.masked_autoregressive_template([4, 4], event_size=2).trainable_variables) == 6
    assert len(tff.real_nvp_template([4], input_units=1, output_units=1).trainable_variables) == 4
    lazy = tff.real_nvp_template([4])
    chain = tfb.Chain([tfb.Invert(tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=lazy))])
    assert len(chain.trainable_variables) == 0
    tf.function(chain.forward)(X)  # built inside of a graph
    assert len(chain.trainable_variables) == 4
    with pytest.raises(ValueError, match="input_units"):
        tff.real_nvp_template([4], input_units=1)
    with pytest.raises(ValueError, match="output_units"):
        tff.real_nvp_template([4])(X)


@pytest.mark.parametrize("hidden", [[], [7], [5, 9], [1, 1]])
@pytest.mark.parametrize("order", ["left-to-right", "right-to-left"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_made_connectivity(hidden, order, size):
    """The product of the masks tells which output can see which input: those before it, and no other."""
    masks = made_masks(made_degrees(size, hidden, order))
    paths = masks[0].astype(int)
    for mask in masks[1:]:
        paths = paths @ mask
    before = np.triu(np.ones([size, size], bool), 1)
    before = before if order == "left-to-right" else before.T
    assert not np.any((paths > 0) & ~before)
    if not hidden or min(hidden) >= size - 1:
        np.testing.assert_array_equal(paths > 0, before)
    for degrees in made_degrees(size, hidden, order)[1:]:
        assert np.all(np.diff(degrees) >= 0)


def test_masks_hold_whatever_the_weights_are():
    template = tff.masked_autoregressive_template([6], event_size=3, seed=1)
    for v in template.trainable_variables:
        v.assign(tf.ones_like(v))
    with tf.GradientTape() as tape:
        tape.watch(x := tf.identity(X))
        first = tf.reduce_sum(template(x)[0][:, 0])
    np.testing.assert_array_equal(tape.gradient(first, x, unconnected_gradients="zero"), tf.zeros_like(x))


def test_initializers_regularizers_and_activations_by_keras_names():
    template = tff.real_nvp_template(
        [4],
        input_units=2,
        output_units=2,
        activation="gelu",
        kernel_initializer="ones",
        bias_initializer="zeros",
        kernel_regularizer=keras.regularizers.L2(0.5),
    )
    np.testing.assert_array_equal(template.trainable_variables[0], np.ones([2, 4]))
    assert float(sum(template.fn.losses)) == pytest.approx(0.5 * 8)
    bijector = tff.RealNVP(2, shift_and_log_scale_fn=template)
    flow = tfp.distributions.TransformedDistribution(tfp.distributions.MultivariateNormalDiag(tf.zeros(4)), bijector)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    x = np.random.default_rng(0).normal(size=[64, 4]).astype("f")
    trained, scored = (
        model.fit(x, batch_size=64, verbose=0).history["loss"][0],
        model.evaluate(x, batch_size=64, verbose=0),
    )
    assert trained - scored == pytest.approx(4.0, abs=1e-4)


def test_bounded_log_scale_by_default():
    template = tff.masked_autoregressive_template([4], event_size=3)
    redraw_weights(template, scale=100.0)
    assert np.all(np.abs(template(X)[1]) <= 5.0)


def test_rank_one_input_as_courses_call_it():
    shift, log_scale = tff.real_nvp_template([4], shift_only=True)(tf.ones([2]), 1)
    assert shift.shape == [1]
    assert log_scale is None


def test_masked_kernels_and_biases_are_regularized():
    template = tff.masked_autoregressive_template(
        [4],
        event_size=2,
        kernel_initializer="ones",
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L1(1.0),
        bias_regularizer=keras.regularizers.L1(100.0),
    )
    total = float(sum(template.fn.losses))
    assert total % 100.0 == pytest.approx(np.sum(np.abs(template.trainable_variables[0])))  # the last kernel is zero
    assert total > 400.0


def test_weights_that_a_call_builds_are_there_after_it():
    bijector = tff.RealNVP(1, shift_and_log_scale_fn=tff.as_template(keras.layers.Dense(4)))
    assert bijector.trainable_variables == ()
    bijector.forward(X)
    assert len(bijector.trainable_variables) == 2


def test_a_coupling_layer_must_know_the_size_of_an_event():
    bijector = tff.RealNVP(1, shift_and_log_scale_fn=lambda x, n: (x, None))
    with pytest.raises(NotImplementedError, match="must be known"):
        tf.function(bijector.forward, autograph=False).get_concrete_function(tf.TensorSpec([None, None]))
