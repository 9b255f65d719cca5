"""Every hiding place of a variable, found by `find`, by `FlowModel`, and by `trainable_variables` where TFP allows."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import tracking

tfb, tfd = tfp.bijectors, tfp.distributions
X = tff.data.moons().sample(64, seed=1)


def base():
    return tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))


def net(units=2):
    return keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dense(units)])


class Additive(tfb.Bijector):
    """A user's own coupling bijector; `shift_of` returns the shift of the second dimension."""

    def __init__(self, **attributes):
        super().__init__(forward_min_event_ndims=1)
        for name, value in attributes.items():
            setattr(self, name, value)

    def shift_of(self, x):
        raise NotImplementedError

    def _forward(self, x):
        return tf.concat([x[..., :1], x[..., 1:] + self.shift_of(x[..., :1])], -1)

    def _inverse(self, y):
        return tf.concat([y[..., :1], y[..., 1:] - self.shift_of(y[..., :1])], -1)

    def _forward_log_det_jacobian(self, x):
        return tf.zeros(tf.shape(x)[:-1])


class Attribute(Additive):
    def shift_of(self, x):
        return self.net(x)


class InList(Additive):
    def shift_of(self, x):
        return self.nets[0](x) + self.nets[1]["second"](x)


def in_closure():
    inner = net(1)

    class Closure(Additive):
        def shift_of(self, x):
            return inner(x)

    return Closure()


GLOBAL_NET = net(2)


def uses_a_global(x, output_units):
    del output_units
    return tf.split(GLOBAL_NET(x), 2, axis=-1)


def function_over(model):
    def fn(x, output_units):
        del output_units
        return tf.split(model(x), 2, axis=-1)

    return fn


def partial_over(model):
    return functools.partial(lambda model, x, output_units: tf.split(model(x), 2, axis=-1), model)


class CallableObject:
    def __init__(self):
        self.model = net()

    def method(self, x, output_units):
        return tf.split(self.model(x), 2, axis=-1)


def tfp_made():
    return tfb.AutoregressiveNetwork(params=2, hidden_units=[4], activation="tanh")


def real_nvp(fn):
    return tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=fn)


PLACES = {
    "our_bijectors": (lambda: tfb.Chain([tff.PlanarFlow(2), tfb.Invert(tff.PlanarFlow(2))]), 6),
    "blockwise": (lambda: tfb.Blockwise([tfb.Scale(tf.Variable(2.0)), tfb.Shift(tf.Variable(0.5))]), 2),
    "transformed_variable": (lambda: tfb.Scale(tfp.util.TransformedVariable([1.0, 2.0], tfb.Softplus())), 1),
    "tfp_autoregressive_network": (lambda: tfb.MaskedAutoregressiveFlow(tfp_made()), 4),
    "keras_attribute": (lambda: Attribute(net=net(1)), 4),
    "keras_in_list_and_dict": (lambda: InList(nets=[net(1), {"second": net(1)}]), 8),
    "keras_in_closure_of_a_class": (in_closure, 4),
    "closure": (lambda: real_nvp(function_over(net())), 4),
    "global": (lambda: real_nvp(uses_a_global), 4),
    "partial": (lambda: real_nvp(partial_over(net())), 4),
    "bound_method": (lambda: real_nvp(CallableObject().method), 4),
    "tf_function": (lambda: real_nvp(tf.function(function_over(net()))), 4),
    "tf1_template": (lambda: real_nvp(tfb.real_nvp_default_template([4])), 4),
    "shared_network_counts_once": (lambda: tfb.Chain([real_nvp(fn := function_over(net())), real_nvp(fn)]), 4),
}


@pytest.mark.filterwarnings("ignore:`tf.layers.dense` is deprecated", "ignore:`layer.updates` will be removed")
@pytest.mark.parametrize("place", PLACES)
def test_flow_model_finds_and_trains(place):
    make, expected = PLACES[place]
    model = tff.FlowModel(tfd.TransformedDistribution(base(), make()))
    assert len(model.trainable_variables) == expected
    assert len({id(v.value) for v in model.trainable_variables}) == expected
    model.compile(optimizer=keras.optimizers.Adam(0.05), run_eagerly=True)
    before = [w.numpy().copy() for w in model.trainable_variables]
    model.fit(X, batch_size=32, epochs=1, verbose=0)
    moved = [np.any(w.numpy() != old) for w, old in zip(model.trainable_variables, before, strict=True)]
    assert all(moved), place


def test_joint_map_and_trainable_base():
    joint = tfb.JointMap([tff.PlanarFlow(2), tfb.Scale(tf.Variable(2.0))])
    assert len(tracking.find(joint).trainable_variables) == 4
    d = tfd.MultivariateNormalDiag(tf.Variable([0.0, 1.0]), tfp.util.TransformedVariable([1.0, 1.0], tfb.Exp()))
    assert len(tff.FlowModel(d).trainable_variables) == 2


def test_no_variable_is_an_error_that_says_what_was_searched():
    with pytest.raises(ValueError, match=r"no trainable variable.*[Cc]losures"):
        tff.FlowModel(base())
    frozen = net()
    frozen.trainable = False
    with pytest.raises(ValueError, match="frozen"):
        tff.FlowModel(tfd.TransformedDistribution(base(), real_nvp(function_over(frozen))))


def test_frozen_layer_stays_as_it_is():
    first, second = net(), net()
    for n in (first, second):
        n.build((None, 1))
    second.trainable = False
    flow = tfd.TransformedDistribution(
        base(), tfb.Chain([tff.RealNVP(1, shift_and_log_scale_fn=n) for n in (first, second)])
    )
    assert len(flow.trainable_variables) == 4
    model = tff.FlowModel(flow)
    assert len(model.trainable_variables) == 4
    before = second.get_weights()
    model.compile(optimizer="sgd")
    model.fit(X, epochs=1, verbose=0)
    for a, b in zip(before, second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_keras_2_layer_stays_as_it_is():
    made = tfp_made()
    made.build([None, 2])
    made.trainable = False
    bijector = tfb.Chain([tfb.MaskedAutoregressiveFlow(made), tfb.Shift(tf.Variable([0.0, 0.0]))])
    model = tff.FlowModel(tfd.TransformedDistribution(base(), bijector))
    assert len(model.trainable_variables) == 1
    assert len(model.non_trainable_variables) == 4


def test_nested_layer_is_not_listed_twice():
    inner = net()
    inner.build((None, 1))
    outer = keras.Sequential([keras.Input((1,)), inner])
    found = tracking.find([inner, outer])
    assert found.layers == [outer] or found.layers == [inner]
    assert len(found.trainable_variables) == 4


def test_libraries_are_not_walked_and_cycles_end():
    loop = {}
    loop["self"] = loop
    loop["v"] = tf.Variable(1.0)
    loop["fn"] = np.sin
    assert len(tracking.find(loop).variables) == 1


def test_adopted_names_are_legal_and_unique():
    with tf.name_scope("a"):
        variables = [
            tf.Variable(1.0, name="b"),
            tf.Variable(2.0, name="b"),
            tf.Variable([3], trainable=False, dtype=tf.int32),
        ]
    adopted = tracking.adopt(tracking.Found([], variables))
    assert len({v.name for v in adopted}) == 3
    assert not any("/" in v.name or ":" in v.name for v in adopted)
    assert [v.value is w for v, w in zip(adopted, variables, strict=True)] == [True] * 3
    assert [v.trainable for v in adopted] == [True, True, False]


def test_modules_skip_the_bijector_cache():
    """`tracking` reads a private name of tf.Module; when it goes, results of old calls would be walked into."""
    assert "_cache" in tfb.Bijector._TF_MODULE_IGNORED_PROPERTIES
    bijector = tff.PlanarFlow(2)
    bijector.forward(tf.Variable([[1.0, 2.0]]))
    assert len(tracking.find(bijector).variables) == 3


def gradient_descent(flow):
    variables = flow.trainable_variables
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(flow.log_prob(X))
    for v, g in zip(variables, tape.gradient(loss, variables), strict=True):
        v.assign_sub(0.01 * g)
    return float(loss)


def test_gradient_tape_over_trainable_variables():
    flow = tff.real_nvp(2, num_layers=2, hidden_units=[8], seed=1)
    losses = [gradient_descent(flow) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


def test_tfp_math_minimize():
    flow = tff.planar_flow(2, num_layers=2, seed=1)
    losses = tfp.math.minimize(
        lambda: -tf.reduce_mean(flow.log_prob(X)),
        num_steps=20,
        optimizer=keras.optimizers.Adam(0.01),
        trainable_variables=flow.trainable_variables,
    )
    assert losses[-1] < losses[0]


def test_tf_keras_model_that_holds_the_distribution():
    import tf_keras

    class Model(tf_keras.Model):
        def __init__(self, flow):
            super().__init__()
            self.flow = flow

        def call(self, x):
            return self.flow.log_prob(x)

    flow = tff.maf(2, num_layers=2, hidden_units=[8], seed=1)
    model = Model(flow)
    model(X)
    assert len(model.trainable_variables) == len(flow.trainable_variables) == 8
    model.compile(optimizer="adam", loss=lambda y, log_prob: -log_prob)
    history = model.fit(X, X, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_checkpoint_of_a_bare_distribution(tmp_path):
    flow = tff.real_nvp(2, num_layers=2, hidden_units=[4], seed=1)
    expected = [v.numpy() for v in flow.trainable_variables]
    path = tf.train.Checkpoint(flow=flow).write(str(tmp_path / "flow"))
    for v in flow.trainable_variables:
        v.assign(tf.zeros_like(v))
    tf.train.Checkpoint(flow=flow).read(path).expect_partial()
    for v, e in zip(flow.trainable_variables, expected, strict=True):
        np.testing.assert_array_equal(v, e)


def test_the_trap_is_still_there():
    """The README's warning: a bare Keras 3 model over log_prob has no weights, and fit says nothing."""
    flow = tfd.TransformedDistribution(base(), real_nvp(function_over(net())))

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def call(self, x):
            return self.flow.log_prob(x)

    model = Model()
    model.compile(optimizer="adam", loss=lambda y, log_prob: -log_prob)
    history = model.fit(X, X, batch_size=64, epochs=3, verbose=0).history["loss"]
    assert model.trainable_variables == []
    assert history[0] == pytest.approx(history[-1], abs=1e-5)
