"""Keras layers over distributions and bijectors: trained, saved and used inside other Keras models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import tfp_flows as tff
from tfp_flows import tracking

tfb, tfd = tfp.bijectors, tfp.distributions
X = tff.data.moons().sample(256, seed=1)


def functional(flow):
    inputs = keras.Input([2])
    return keras.Model(inputs, flow.log_prob(inputs))


def fit(model, x=X):
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=lambda _, log_prob: -log_prob)
    return model.fit(x, np.zeros(len(X)), epochs=3, verbose=0).history["loss"]


def test_log_prob_of_a_symbolic_input_makes_a_model_that_trains_and_is_saved(tmp_path):
    flow = tff.maf(2, num_layers=2, hidden_units=[8], preprocess=tff.standardize(X), seed=1)
    model = functional(flow)
    assert {id(w.value) for w in model.trainable_weights} == {id(v) for v in flow.trainable_variables}
    losses = fit(model)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(model.predict(X, verbose=0), flow.log_prob(X), atol=1e-5)
    model.compile(optimizer="adam", loss="mse")  # a function cannot be saved
    model.save(tmp_path / "x.keras")
    copy = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(copy.predict(X, verbose=0), model.predict(X, verbose=0))


def test_any_distribution_of_tfp_and_its_penalties_and_constraints():
    network = tfb.AutoregressiveNetwork(
        2, event_shape=[2], hidden_units=[8], activation="tanh", kernel_regularizer=tf_keras.regularizers.L2(0.1)
    )
    bijector = tfb.MaskedAutoregressiveFlow(network)
    flow = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2)), bijector)
    inputs = keras.Input([2])
    model = keras.Model(inputs, tff.layers.LogProb(flow)(inputs))
    fit(model)
    assert len(model.trainable_weights) == 4
    tff.testing.check_normalized(flow, tolerance=1e-3)
    nll = model.evaluate(X, np.zeros(len(X)), verbose=0)
    assert nll > -np.mean(flow.log_prob(X)) + 0.01  # Keras adds the penalty


def test_conditional_flow_behind_a_network():
    features, events = keras.Input([4]), keras.Input([2])
    condition = keras.layers.Dense(3, "tanh")(features)
    flow = tff.maf(2, num_layers=1, hidden_units=[8], conditional_size=3, seed=1)
    model = keras.Model([features, events], flow.log_prob(events, conditional_input=condition))
    losses = fit(model, [np.random.default_rng(0).normal(size=[len(X), 4]), X])
    assert losses[-1] < losses[0]
    by_tuple = tff.FlowModel(flow)((condition, events))
    assert by_tuple.shape == (None,)
    with pytest.raises(ValueError, match="takes events, or"):
        tff.FlowModel(tff.maf(2, num_layers=1))((features, events))


def test_sample_layer_draws_anew_and_gradients_pass():
    flow = tff.real_nvp(2, num_layers=2, hidden_units=[8], conditional_size=3, seed=1)
    layer = tff.layers.Sample(flow, seed=1)
    rows = tf.zeros([500, 3])
    with tf.GradientTape() as tape:
        first = layer(rows)
        loss = tf.reduce_mean(first**2)
    assert all(g is not None for g in tape.gradient(loss, layer.trainable_weights))
    assert np.any(first.numpy() != layer(rows).numpy())
    np.testing.assert_allclose(np.std(first, axis=0), 1.0, atol=0.15)
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(rows), tff.layers.Sample(flow, seed=1)(rows))
    assert tff.layers.Sample(tfd.MultivariateNormalDiag(tf.Variable([0.0, 5.0])))(rows).shape == (500, 2)


def test_bijector_layers_are_inverse_and_saved(tmp_path):
    planar = tff.PlanarFlow(2, seed=1)
    tff.testing.redraw_weights(planar, scale=1.0)
    inputs = keras.Input([2])
    forward, log_det = tff.layers.Forward(planar, log_det=True)(inputs)
    model = keras.Model(inputs, [forward, log_det, tff.layers.Inverse(planar)(forward)])
    y, log_det, x = model.predict(X, verbose=0)
    np.testing.assert_allclose(x, X, atol=1e-4)
    np.testing.assert_allclose(log_det, planar.forward_log_det_jacobian(tf.constant(X), event_ndims=1), atol=1e-5)
    model.save(tmp_path / "x.keras")
    for mine, theirs in zip(
        keras.models.load_model(tmp_path / "x.keras").predict(X, verbose=0), (y, log_det, x), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    with pytest.raises(ValueError, match="`bijector` must be"):
        tff.layers.Forward(tff.maf(2))
    with pytest.raises(ValueError, match="`distribution` must be"):
        tff.layers.LogProb(planar)


class Mine(tff.layers.Model):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts
        self.head = keras.layers.Dense(2)

    def call(self, x):
        h = self.head(x)
        for part in self.parts["maps"] if isinstance(self.parts, dict) else self.parts:
            h = part.forward(h)
        return h


@pytest.mark.parametrize("container", [list, tuple, lambda parts: {"maps": parts}])
def test_a_model_of_your_own_sees_what_it_holds(container):
    coupling = tfb.RealNVP(1, shift_and_log_scale_fn=tff.real_nvp_template([8]))  # learns its sizes at the first call
    model = Mine(container([tff.PlanarFlow(2, seed=1), coupling]))
    model(X[:2])
    assert len(model.trainable_weights) == 3 + 4 + 2
    before = model.get_weights()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    model.fit(X, X + 1.0, verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_plain_keras_model_still_sees_nothing():
    """If this fails, Keras sees tf.Modules by now, and `tff.layers.Model` has nothing left to do."""

    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.planar = tff.PlanarFlow(2, seed=1)

    assert not Plain().trainable_weights


def test_a_flow_that_is_used_twice_has_its_weights_once(tmp_path):
    flow = tff.maf(2, num_layers=1, hidden_units=[4], seed=1)
    first, second = keras.Input([2]), keras.Input([2])
    model = keras.Model([first, second], [flow.log_prob(first), flow.log_prob(second)])
    assert len(model.trainable_weights) == len(flow.trainable_variables)
    inputs = keras.Input([2])
    both = keras.Model(inputs, [flow.log_prob(inputs), tff.layers.Inverse(flow.bijector)(inputs)])
    assert len(both.trainable_weights) == len(flow.trainable_variables)
    model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    x = np.random.default_rng(0).normal(size=[5, 2]).astype("float32")
    assert len(again.trainable_weights) == len(model.trainable_weights)
    for mine, theirs in zip(model.predict([x, x], verbose=0), again.predict([x, x], verbose=0), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_layers_refuse_weights_of_another_structure(tmp_path):
    def make(seed):
        inputs = keras.Input([6])
        return keras.Model(inputs, tff.real_nvp(6, num_layers=3, hidden_units=[4], seed=seed).log_prob(inputs))

    make(1).save_weights(tmp_path / "a.weights.h5")
    make(1).load_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="permutations or variable orders"):
        make(2).load_weights(tmp_path / "a.weights.h5")


def test_a_model_sees_lists_that_grow_methods_and_networks_that_learn_their_sizes():
    class Grown(tff.layers.Model):
        def __init__(self):
            super().__init__()
            self.flows = []
            self.flows.append(tff.planar_flow(2, num_layers=2, seed=1))
            self.density = tff.radial_flow(2, num_layers=1, seed=1).log_prob
            template = tff.real_nvp_template([4])
            self.late = tfd.TransformedDistribution(
                tfd.MultivariateNormalDiag(tf.zeros(2)), tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=template)
            )

        def call(self, x):
            return self.flows[0].log_prob(x) + self.density(x) + self.late.log_prob(x)

    model = Grown()
    model.compile(optimizer="adam", loss=lambda _, log_prob: -log_prob)
    x = np.random.default_rng(0).normal(size=[50, 2]).astype("float32")
    model(x[:1])
    before = model.get_weights()
    model.fit(x, x, epochs=1, verbose=0)
    assert len(model.trainable_weights) == 6 + 3 + 4
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True) if a.size > 1)


def test_log_dets_are_one_for_each_row_whatever_its_rank():
    forward = tff.layers.Forward(tfb.Exp(), log_det=True)
    np.testing.assert_allclose(forward(tf.constant([1.0, 2.0, 3.0]))[1], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(forward(tf.ones([2, 4, 4, 1]))[1], [16.0, 16.0])


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_frozen_stays_frozen_in_a_file(whole, tmp_path):
    layer = tff.layers.LogProb(tff.maf(2, num_layers=2, hidden_units=[4], seed=1))
    inputs = keras.Input([2])
    model = keras.Model(inputs, layer(inputs))
    if whole:
        layer.trainable = False
    else:
        tracking.find(layer.module).layers[0].trainable = False
    model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    assert len(again.trainable_weights) == len(model.trainable_weights) < len(model.weights)
