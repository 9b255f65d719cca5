"""TFP's own trainable bijectors, networks and distributions under our models: what comes out of a training is a density.

After it the density integrates to one, no mean NLL is below the entropy of the data, and whatever hangs on a variable or a
layer (constraints, masks, penalties, trainable flags) has held.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import tfp_flows as tff
from tfp_flows import testing

tfb, tfd = tfp.bijectors, tfp.distributions

MIX = np.array([[1.0, 0.0], [0.9, 0.6]])
ENTROPY = np.log(2.0 * np.pi * np.e) + np.log(np.linalg.det(MIX))


def rows(n, seed):
    return (np.random.default_rng(seed).normal(size=[n, 2]) @ MIX.T).astype(np.float32)


def base():
    return tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))


def flow_over(bijector):
    return tfd.TransformedDistribution(base(), bijector)


def made(**kwargs):
    return tfb.AutoregressiveNetwork(params=2, event_shape=[2], hidden_units=[12, 12], activation="tanh", **kwargs)


def spline():
    def positions(size):
        raw = tf.Variable(tf.zeros([2, size]))
        return tfp.util.DeferredTensor(raw, lambda t: 8.0 * tf.nn.softmax(t), shape=[2, size])

    slopes = tfp.util.TransformedVariable(tf.ones([2, 3]), tfb.Softplus(low=0.1))
    return tfb.RationalQuadraticSpline(positions(4), positions(4), slopes, range_min=-4.0)


def couplings():
    return tfb.Chain(
        [
            tfb.RealNVP(1, shift_and_log_scale_fn=tfb.real_nvp_default_template([12])),
            tfb.Permute([1, 0]),
            tfb.RealNVP(1, shift_and_log_scale_fn=tfb.real_nvp_default_template([12])),
        ]
    )


def ffjord():
    network = tf_keras.Sequential([tf_keras.layers.Dense(8, "tanh"), tf_keras.layers.Dense(2)])
    return tfb.FFJORD(
        lambda t, x: network(x),
        trace_augmentation_fn=tfp.python.bijectors.ffjord.trace_jacobian_exact,
    )


BIJECTORS = {
    "made": lambda: tfb.MaskedAutoregressiveFlow(made()),
    "made_no_hidden": lambda: tfb.MaskedAutoregressiveFlow(tfb.AutoregressiveNetwork(params=2, event_shape=[2])),
    "made_with_constraints": lambda: tfb.MaskedAutoregressiveFlow(
        made(kernel_constraint=tf_keras.constraints.MaxNorm(1.0), bias_constraint=tf_keras.constraints.NonNeg())
    ),
    "made_right_to_left": lambda: tfb.MaskedAutoregressiveFlow(made(input_order="right-to-left")),
    "made_template": lambda: tfb.MaskedAutoregressiveFlow(tfb.masked_autoregressive_default_template([12, 12])),
    "made_bijector_fn": lambda: tfb.MaskedAutoregressiveFlow(bijector_fn=affine_of(made())),
    "coupling_templates": couplings,
    "triangular": lambda: tfb.ScaleMatvecTriL(tfp.util.TransformedVariable(tf.eye(2), tfb.FillScaleTriL())),
    "lu": lambda: tfb.ScaleMatvecLU(tf.Variable(tf.eye(2)), tf.constant([0, 1])),
    "scale_shift": lambda: tfb.Chain(
        [tfb.Shift(tf.Variable([0.1, 0.1])), tfb.Scale(tfp.util.TransformedVariable(tf.ones(2), tfb.Exp()))]
    ),
    "sinh_arcsinh": lambda: tfb.SinhArcsinh(
        tf.Variable([0.1, -0.1]), tfp.util.TransformedVariable([1.0, 1.2], tfb.Softplus())
    ),
    "spline": spline,
    "constrained_scale": lambda: tfb.Scale(
        tf.Variable([1.0, 1.0], constraint=lambda v: tf.clip_by_value(v, 0.5, 0.8), name="scale")
    ),
}


def affine_of(network):
    def bijector_fn(x):
        shift, log_scale = tf.unstack(network(x), axis=-1)
        return tfb.Chain([tfb.Shift(shift), tfb.Scale(log_scale=tf.tanh(log_scale))])

    bijector_fn.network = network
    return bijector_fn


def trained(flow, epochs=20):
    model = tff.FlowModel(flow)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(rows(2000, 0), batch_size=200, epochs=epochs, verbose=0)
    return model


# Nothing can break these but what breaks a neighbor: `made` without constraints or hidden layers, in another order, read by
# a function or made by a template (as in `coupling_templates`), and matrices or scales as `triangular` has one.
ALIKE = ("made", "made_no_hidden", "made_right_to_left", "made_template", "made_bijector_fn", "lu", "scale_shift")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in BIJECTORS]
)
def test_maximum_likelihood_gives_a_density(name):
    flow = flow_over(BIJECTORS[name]())
    model = trained(flow)
    testing.check_normalized(flow, resolution=300, tolerance=1e-3)
    testing.check_above_entropy(flow, rows(20_000, 1), ENTROPY)
    if name.startswith("made") and name != "made_bijector_fn":
        allowed = np.tril(np.ones([2, 2], bool)) if name != "made_right_to_left" else np.triu(np.ones([2, 2], bool))
        j = testing.jacobian(flow.bijector.inverse, tf.constant(rows(50, 2)), 1)
        assert not np.any(j[:, ~allowed])
        assert model.evaluate(rows(20_000, 1), verbose=0) < ENTROPY + 0.1 or "constraints" in name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("made", marks=pytest.mark.slow),  # as with constraints
        pytest.param("made_template", marks=pytest.mark.slow),
        "made_with_constraints",
        "coupling_templates",
        pytest.param("triangular", marks=pytest.mark.slow),
    ],
)
def test_reverse_kl_gives_a_density(name):
    """A normalized target has `log Z = 0`, which no ELBO exceeds."""
    flow = flow_over(tfb.Invert(BIJECTORS[name]()))
    target = tfd.MultivariateNormalTriL(tf.zeros(2), tf.constant(MIX, tf.float32))
    model = tff.VariationalFlow(flow, target.log_prob, sample_size=100, log_normalizer=0.0, seed=1)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(steps_per_epoch=15, epochs=20, verbose=0)
    testing.check_normalized(flow, resolution=300, tolerance=1e-3)
    z = tf.function(flow.sample)(20_000, seed=(1, 2))
    gap = (tf.function(flow.log_prob)(z) - target.log_prob(z)).numpy()
    assert gap.mean() > -4.0 * gap.std() / np.sqrt(len(gap))


@pytest.mark.parametrize("name", ["mixture", "normal"])
def test_trainable_distributions(name):
    if name == "normal":
        flow = tfp.experimental.util.make_trainable(tfd.MultivariateNormalTriL, batch_and_event_shape=[2], seed=(1, 2))
    else:
        components = tfd.MultivariateNormalDiag(
            tf.Variable([[-1.0, 0.0], [1.0, 0.5]]), tfp.util.TransformedVariable(tf.ones([2, 2]), tfb.Exp())
        )
        flow = tfd.MixtureSameFamily(tfd.Categorical(logits=tf.Variable([0.0, 0.1])), components)
    trained(flow)
    testing.check_normalized(flow, tolerance=1e-3)
    testing.check_above_entropy(flow, rows(20_000, 1), ENTROPY)


def test_batch_normalization_keeps_the_constraint_of_its_scale():
    layer = tf_keras.layers.BatchNormalization(gamma_constraint=lambda x: tf.nn.relu(x) + 1e-3)
    flow = flow_over(tfb.BatchNormalization(layer, training=True))
    trained(flow)
    assert np.all(layer.gamma.numpy() > 0)
    evaluated = flow_over(tfb.BatchNormalization(layer, training=False))
    testing.check_normalized(evaluated, tolerance=1e-3)


@pytest.mark.slow
def test_continuous_flow_of_tfp():
    flow = flow_over(ffjord())
    trained(flow, epochs=3)
    testing.check_normalized(flow, resolution=120, tolerance=1e-3)
    testing.check_above_entropy(flow, rows(2_000, 1), ENTROPY)


def test_glow_stays_above_the_entropy():
    glow = tfb.Glow(
        output_shape=[4, 4, 1],
        num_glow_blocks=1,
        num_steps_per_block=1,
        coupling_bijector_fn=tfb.GlowDefaultNetwork,
        exit_bijector_fn=tfb.GlowDefaultExitNetwork,
        use_actnorm=False,
    )
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [16]), glow)
    x = np.random.default_rng(0).normal(size=[400, 4, 4, 1]).astype(np.float32)
    model = tff.FlowModel(flow)
    model.compile(keras.optimizers.Adam(1e-4), jit_compile=False)
    # TFP's Glow wants batches of a known size.
    model.fit(tf.data.Dataset.from_tensor_slices(x).batch(100, drop_remainder=True), epochs=3, verbose=0)
    held_out = np.random.default_rng(1).normal(size=[400, 4, 4, 1]).astype(np.float32)
    testing.check_above_entropy(flow, held_out, 16 * 0.5 * np.log(2 * np.pi * np.e))


# --- what hangs on a variable or a layer ---


def test_a_constraint_of_a_variable_holds_in_every_kind_of_variable():
    def clip(v):
        return tf.clip_by_value(v, 0.5, 0.8)

    class Clip(keras.constraints.Constraint):
        def __call__(self, w):
            return clip(tf.convert_to_tensor(w))

    class Seven(keras.regularizers.Regularizer):
        def __call__(self, x):
            del x
            return 7.0 * tf.ones([])

    plain = tf.Variable(1.0, constraint=clip)
    of_keras = keras.Variable(1.0, name="of_keras")
    of_keras.constraint = Clip()
    of_keras.regularizer = Seven()

    def scale_fn(x, output_units):
        del x, output_units
        return None, tf.math.log([of_keras.value])

    flow = flow_over(tfb.Chain([tfb.Scale(plain), tfb.RealNVP(1, shift_and_log_scale_fn=scale_fn)]))
    model = tff.FlowModel(flow)
    assert any(w is of_keras for w in model.trainable_weights)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    loss = model.fit(3.0 * rows(400, 0), epochs=2, verbose=0).history["loss"][-1]
    assert loss > 7.0 + ENTROPY
    assert plain.numpy() == np.float32(0.8)
    assert of_keras.numpy() == np.float32(0.8)
    assert model.evaluate(3.0 * rows(400, 0), verbose=0) < loss - 6.0  # the penalty is no part of the NLL


@pytest.mark.parametrize("model_kind", ["likelihood", "variational"])
def test_penalties_of_tf_keras_networks_are_in_the_training_loss(model_kind):
    def build(strength):
        network = made(kernel_regularizer=tf_keras.regularizers.L2(strength), kernel_initializer=start)
        bijector = tfb.MaskedAutoregressiveFlow(network)
        if model_kind == "likelihood":
            model = tff.FlowModel(flow_over(bijector))
        else:
            model = tff.VariationalFlow(flow_over(tfb.Invert(bijector)), base().log_prob, seed=1)
        return network, model

    start = tf_keras.initializers.RandomNormal(stddev=0.3, seed=3)
    losses = []
    for strength in (1e-9, 0.5):
        network, model = build(strength)
        model.compile(keras.optimizers.SGD(0.0), jit_compile=False)  # nothing moves: the loss is that of the start
        fit = {"steps_per_epoch": 2} if model_kind == "variational" else {"x": rows(100, 0)}
        losses.append(model.fit(**fit, verbose=0).history["loss"][0])
    penalty = 0.5 * sum(np.sum(np.square(w)) for w in network.get_weights() if w.ndim == 2)
    np.testing.assert_allclose(losses[1] - losses[0], penalty, rtol=1e-3)


def test_activity_penalties_of_tf_keras_networks_are_in_the_training_loss():
    network = tf_keras.Sequential(
        [tf_keras.layers.Dense(2, activity_regularizer=lambda a: 5.0 + 0.0 * tf.reduce_sum(a))]
    )
    flow = flow_over(tff.RealNVP(1, shift_and_log_scale_fn=network))
    model = tff.FlowModel(flow)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    loss = model.fit(rows(100, 0), batch_size=100, verbose=0).history["loss"][0]
    # Keras 2 takes the mean over the batch.
    np.testing.assert_allclose(loss - model.evaluate(rows(100, 0), verbose=0), 5.0 / 100, atol=1e-3)


def test_a_tf_keras_layer_that_is_frozen_later_stays_as_it_is():
    network = made()
    model = tff.FlowModel(
        flow_over(tfb.Chain([tfb.Shift(tf.Variable([0.0, 0.0])), tfb.MaskedAutoregressiveFlow(network)]))
    )
    assert len(model.trainable_weights) == 7
    network.trainable = False
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    assert len(model.trainable_weights) == 1
    before = network.get_weights()
    model.fit(rows(100, 0), verbose=0)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    network.trainable = True
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    assert len(model.trainable_weights) == 7


def test_aggregation_and_names_are_those_of_the_variable():
    v = tf.Variable([1.0, 1.0], aggregation=tf.VariableAggregation.MEAN, name="a/scale")
    model = tff.FlowModel(flow_over(tfb.Scale(v)))
    (weight,) = model.trainable_weights
    assert (weight.aggregation, weight.name, weight.value is v) == ("mean", "a_scale", True)


def test_a_second_model_knows_what_was_frozen_after_the_first():
    network = made()
    flow = flow_over(tfb.MaskedAutoregressiveFlow(network))
    first = tff.FlowModel(flow)
    assert len(first.trainable_weights) == 6
    network.trainable = False
    second = tff.FlowModel(flow_over(tfb.Chain([tfb.Shift(tf.Variable([0.0, 0.0])), flow.bijector])))
    assert len(second.trainable_weights) == 1
