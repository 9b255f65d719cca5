"""Flows of TFP come in with what they have learned: same log-density, and then they train and are saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions


def normal(size):
    return tfd.MultivariateNormalDiag(tf.zeros(size), tf.ones(size))


def redraw(variables, scale=0.3):
    rng = np.random.default_rng(3)
    for v in variables:
        if v.dtype.is_floating and v.trainable:
            masked = (v.numpy() == 0) & (
                v.shape.rank == 2
            )  # of a network of TFP, whose masks are in its initial weights
            v.assign(np.where(masked, 0, v + scale * rng.normal(size=v.shape)))


def maf(**options):
    made = tfb.AutoregressiveNetwork(2, event_shape=[3], hidden_units=[8, 8], activation="tanh", **options)
    made(tf.zeros([1, 3]))
    bijectors = [tfb.MaskedAutoregressiveFlow(made), tfb.Permute([2, 0, 1]), tfb.Scale(tf.Variable([1.0, 2.0, 0.5]))]
    redraw(made.trainable_variables)
    return tfd.TransformedDistribution(normal(3), tfb.Chain(bijectors))


def real_nvp(**options):
    layers = []
    for _ in range(2):
        template = tfb.real_nvp_default_template([8, 6], activation=tf.nn.relu, **options)
        layers += [tfb.RealNVP(num_masked=2, shift_and_log_scale_fn=template), tfb.Permute([1, 2, 0])]
    flow = tfd.TransformedDistribution(normal(3), tfb.Chain(layers))
    flow.log_prob(tf.zeros([1, 3]))
    redraw([v for layer in layers[::2] for v in layer.parameters["shift_and_log_scale_fn"].variables])
    return flow


def glow(blocks=1, **options):
    bijector = tfb.Glow(
        output_shape=(4, 4, 2),
        num_glow_blocks=blocks,
        num_steps_per_block=1,
        coupling_bijector_fn=lambda shape: tfb.GlowDefaultNetwork(shape, num_hidden=6),
        exit_bijector_fn=tfb.GlowDefaultExitNetwork,
        **options,
    )
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [32]), bijector)
    images = tf.constant(np.random.default_rng(0).normal(size=[16, 4, 4, 2]).astype("float32"))
    flow.log_prob(images)  # starts from data
    redraw(flow.trainable_variables, 0.1)
    return flow


CASES = {
    "maf": maf,
    "maf of random order": lambda: maf(input_order="random", hidden_degrees="random"),
    "maf from the right": lambda: maf(input_order="right-to-left", use_bias=False),
    "real_nvp": real_nvp,
    "nice, which trains as real_nvp does": lambda: real_nvp(shift_only=True),
    "glow": glow,
    "glow of two scales": lambda: glow(blocks=2),
    "glow without actnorm": lambda: glow(use_actnorm=False),
}


# The variants of Glow have its density; what trains and is saved are the layers of `image_real_nvp` and `glow`.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "glow" else name for name in CASES]
)
def test_the_copy_has_the_same_density_trains_and_is_saved(name, tmp_path):
    flow = CASES[name]()
    before = [(v, v.numpy()) for v in flow.variables]
    copy = tff.from_tfp(flow)
    shape = flow.event_shape.as_list()
    x = 0.7 * np.random.default_rng(1).normal(size=[64, *shape]).astype("float32")
    expected = flow.log_prob(tf.constant(x)).numpy()
    np.testing.assert_allclose(copy.log_prob(x), expected, rtol=2e-5, atol=2e-5)
    assert np.std(expected) > 0.1
    if " " in name:  # a variant: compiled once is enough
        return
    model = tff.FlowModel(copy)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    model.fit(x, batch_size=32, epochs=1, verbose=0)
    assert np.max(np.abs(copy.log_prob(x) - expected)) > 1e-4  # it trains,
    np.testing.assert_array_equal(flow.log_prob(tf.constant(x)), expected)  # and the original does not
    for v, old in before:
        np.testing.assert_array_equal(v, old)
    model.save(tmp_path / "copy.keras")
    again = keras.models.load_model(tmp_path / "copy.keras")
    np.testing.assert_array_equal(again.log_prob(x), model.log_prob(x))


def test_a_conditional_network():
    made = tfb.AutoregressiveNetwork(
        3, event_shape=[4], conditional=True, conditional_event_shape=[2], hidden_units=[8], activation="relu"
    )
    x, c = np.random.default_rng(0).normal(size=[2, 5, 4]).astype("float32")
    made(x, conditional_input=c[:, :2])
    redraw(made.trainable_variables)
    copy = tff.from_tfp(made)
    np.testing.assert_allclose(
        copy(x, conditional_input=c[:, :2]), made(x, conditional_input=c[:, :2]), rtol=1e-5, atol=1e-6
    )


def test_what_cannot_be_copied_says_why():
    closure = tfb.RealNVP(1, shift_and_log_scale_fn=lambda x, units: (x, x))
    with pytest.raises(ValueError, match=r"only tfb\.real_nvp_default_template can be copied"):
        tff.from_tfp(tfd.TransformedDistribution(normal(2), closure))
    with pytest.raises(ValueError, match=r"only a tfb\.AutoregressiveNetwork can be copied"):
        tff.from_tfp(tfb.MaskedAutoregressiveFlow(lambda x: (x, x)))
    unmasked = tfb.AutoregressiveNetwork(2, event_shape=[3], hidden_units=[4])
    unmasked(tf.zeros([1, 3]))
    unmasked.set_weights([np.ones_like(w) for w in unmasked.get_weights()])
    with pytest.raises(ValueError, match="is not autoregressive: it has weights"):
        tff.from_tfp(unmasked)
    with pytest.raises(ValueError, match="has no weights yet"):
        tff.from_tfp(tfb.AutoregressiveNetwork(2, hidden_units=[4]))
    with pytest.raises(ValueError, match="`flow` must be"):
        tff.from_tfp(3)
    with pytest.raises(ValueError, match="has not seen data yet"):
        tff.from_tfp(tfb.Glow((4, 4, 1), 1, 1, tfb.GlowDefaultNetwork, tfb.GlowDefaultExitNetwork))
    inline = tfb.Inline(forward_fn=tf.exp, inverse_fn=tf.math.log, forward_min_event_ndims=0)
    with pytest.raises(ValueError, match=r"`flow`: .*Inline, cannot be copied"):
        tff.from_tfp(inline)
