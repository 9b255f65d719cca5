"""`FlowVAE`: against the plain autoencoder, a model whose likelihood is known, and on digits."""

import pathlib

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.bijectors.composition import forward_and_log_det
from tfp_flows.bijectors.conditioning import conditional_kwargs
from tfp_flows.testing import redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
H, L = 6, 2


def networks(event=5, hidden=H, latent=L):
    encoder = keras.Sequential([keras.Input((event,)), keras.layers.Dense(hidden, "tanh")])
    decoder = keras.Sequential([keras.Input((latent,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(event)])
    return encoder, decoder


def build(posterior=None, **kwargs):
    keras.utils.set_random_seed(3)
    encoder, decoder = networks()
    model = tff.FlowVAE(encoder, decoder, latent_size=L, posterior=posterior, seed=1, **kwargs)
    rng = np.random.default_rng(5)
    for weight in (*encoder.weights, *decoder.weights, *model.loc_layer.weights, *model.log_scale_layer.weights):
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return model


def events(n=40, size=5):
    return np.random.default_rng(0).integers(0, 2, [n, size]).astype(np.float32)


def compiled(model, rate=1e-2):
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    return model


def test_no_layers_are_the_plain_autoencoder():
    """And the plain one's terms are those of the textbook, written out here."""
    x = events()
    plain = compiled(build())
    logs = plain.evaluate(x, batch_size=40, verbose=0, return_dict=True)
    for flow in (tff.planar_flow(L, num_layers=0), tff.iaf(L, num_layers=1, conditional_size=H, hidden_units=[4])):
        model = compiled(build(flow))
        # An autoregressive flow starts as the identity.
        for key, value in model.evaluate(x, batch_size=40, verbose=0, return_dict=True).items():
            np.testing.assert_allclose(value, logs[key], rtol=1e-5, err_msg=key)
    seed = (1, 2)
    z, log_q = plain.encode(tf.constant(x), seed)
    h = plain.encoder(x)
    loc, scale = plain.loc_layer(h).numpy(), np.exp(tff.bound_log_scale(plain.log_scale_layer(h)).numpy())
    normal = tfd.MultivariateNormalDiag(loc, scale)
    np.testing.assert_allclose(log_q, normal.log_prob(z), rtol=1e-4, atol=1e-5)
    terms = plain.loss_terms(tf.constant(x), seed, training=False)
    reconstruction, kl = terms["reconstruction"], terms["kl"]
    logits = plain.decoder(z).numpy()
    np.testing.assert_allclose(
        reconstruction, np.sum(np.logaddexp(0.0, logits) - x * logits, axis=-1), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(kl, log_q - tfd.MultivariateNormalDiag(tf.zeros(L)).log_prob(z), rtol=1e-4, atol=1e-4)
    assert np.std(kl) > 0.01


@pytest.mark.parametrize("name", ["planar_flow", "radial_flow", "sylvester_flow", "iaf"])
def test_the_density_of_a_posterior_sample_is_that_of_the_flow(name):
    """The inverse direction is the judge: log q(z | x) from z alone."""
    flow = getattr(tff, name)(L, num_layers=2, conditional_size=H, hidden_units=[4], seed=1)
    redraw_weights(flow, seed=2, scale=0.4)
    model = build(flow)
    x = tf.constant(events())
    z, log_q = model.encode(x, (3, 4))
    h = model.encoder(x)
    base = tfd.MultivariateNormalDiag(model.loc_layer(h), tf.exp(tff.bound_log_scale(model.log_scale_layer(h))))
    kwargs = conditional_kwargs(flow.bijector, h)
    posterior = tfd.TransformedDistribution(base, flow.bijector)
    np.testing.assert_allclose(log_q, posterior.log_prob(tf.identity(z), bijector_kwargs=kwargs), rtol=2e-4, atol=2e-4)
    # Other features, another map.
    moved = forward_and_log_det(flow.bijector, z, 1, **conditional_kwargs(flow.bijector, h[::-1]))[0]
    assert not np.allclose(moved, forward_and_log_det(flow.bijector, z, 1, **kwargs)[0], atol=1e-3)


def test_importance_bounds_approach_the_likelihood_of_a_linear_model():
    """With a linear decoder and normal noise, x ~ N(b, W W' + s^2 I)."""
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    noise = 0.7
    model = tff.FlowVAE(
        encoder,
        decoder,
        latent_size=2,
        posterior=tff.planar_flow(2, num_layers=1, conditional_size=4, seed=1),
        likelihood=lambda out: tfd.MultivariateNormalDiag(out, tf.fill([4], noise)),
        seed=1,
    )
    x = np.random.default_rng(0).normal(size=[20, 4]).astype(np.float32)
    w, b = (v.numpy() for v in decoder.weights)
    exact = tfd.MultivariateNormalFullCovariance(b, w.T @ w + noise**2 * np.eye(4, dtype=np.float32)).log_prob(x)
    bounds = [model.log_likelihood(x, num_samples=n, seed=2, batch_size=8) for n in (1, 50, 5000)]
    assert bounds[0].shape == (20,)
    gaps = [np.mean(exact - bound) for bound in bounds]
    assert gaps[0] > gaps[1] > gaps[2]
    np.testing.assert_allclose(bounds[2], exact, atol=0.1)


def test_free_bits_and_beta():
    x = events()
    one = build(free_bits=1000.0)
    compiled(one, 1e-1)
    before = [w.numpy() for w in one.log_scale_layer.weights]
    kl = one.fit(x, batch_size=40, epochs=1, verbose=0).history["kl"][0]
    assert kl < 1000.0
    np.testing.assert_allclose(
        one.history.history["loss"][0] - 1000.0, one.history.history["reconstruction"][0], rtol=1e-4
    )
    assert any(np.any(w.numpy() != old) for w, old in zip(one.log_scale_layer.weights, before, strict=True))
    history = compiled(build(beta=tff.linear_annealing(0.0, 1.0, 10)), 0.0).fit(x, batch_size=40, verbose=0).history
    np.testing.assert_allclose(history["loss"], history["reconstruction"], rtol=1e-5)
    np.testing.assert_allclose(np.add(history["reconstruction"], history["kl"]), history["negative_elbo"], rtol=1e-5)


def test_every_weight_trains_also_those_of_a_flow_prior():
    model = build(
        tff.sylvester_flow(L, num_layers=1, conditional_size=H, hidden_units=[], seed=1),
        prior=tff.real_nvp(L, num_layers=2, hidden_units=[4], seed=2),
    )
    compiled(model)
    names = [w.path for w in model.trainable_weights]
    assert len(set(map(id, model.trainable_weights))) == len(names)
    before = [w.numpy() for w in model.trainable_weights]
    model.fit(events(), batch_size=20, epochs=3, verbose=0)
    assert model.jit_compile, "XLA could not compile the step"
    still = [n for n, w, old in zip(names, model.trainable_weights, before, strict=True) if np.all(w.numpy() == old)]
    assert still == []


def test_digits_samples_and_reconstructions():
    x = (sklearn.datasets.load_digits().data[:600] / 16.0 > 0.4).astype(np.float32)
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu")])
    decoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(64)])
    flow = tff.planar_flow(8, num_layers=4, hidden_units=[], conditional_size=64, seed=1)
    model = tff.FlowVAE(encoder, decoder, latent_size=8, posterior=flow, seed=1)
    compiled(model, 5e-3)
    history = model.fit(x[:500], batch_size=50, epochs=40, validation_data=x[500:], verbose=0).history
    # Independent pixels cost this much; the model must know more.
    p = np.clip(x[:500].mean(axis=0), 0.01, 0.99)
    independent = -np.mean(np.sum(x[500:] * np.log(p) + (1 - x[500:]) * np.log(1 - p), axis=-1))
    assert history["val_negative_elbo"][-1] < independent - 1.5
    bound = model.log_likelihood(x[500:], num_samples=50, seed=1)
    assert -np.mean(bound) < history["val_negative_elbo"][-1]
    samples, again = model.sample(10, seed=1), model.sample(10, seed=1)
    assert samples.shape == (10, 64)
    np.testing.assert_array_equal(samples, again)
    assert np.all((samples >= 0) & (samples <= 1))
    assert set(np.unique(model.sample(10, seed=1, mean=False))) <= {0.0, 1.0}
    rebuilt = model.reconstruct(x[:100], seed=1)
    assert np.mean((rebuilt.numpy() > 0.5) == x[:100]) > 0.85


def test_bad_arguments_are_named():
    encoder, decoder = networks()

    def make(**kwargs):
        return tff.FlowVAE(**{"encoder": encoder, "decoder": decoder, "latent_size": L, **kwargs})

    with pytest.raises(ValueError, match="`encoder` must be a Keras 3 model"):
        make(encoder=keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match="`decoder` must take latent values"):
        make(latent_size=3)
    with pytest.raises(ValueError, match="the encoder gives 6 features"):
        make(posterior=tff.planar_flow(L, conditional_size=4))
    with pytest.raises(ValueError, match="`posterior` must have event shape"):
        make(posterior=tff.planar_flow(3))
    with pytest.raises(ValueError, match="`prior` must not be conditional"):
        make(prior=tff.planar_flow(L, conditional_size=6))
    with pytest.raises(ValueError, match="`free_bits`"):
        make(free_bits=-1.0)
    scalar = compiled(make(likelihood=lambda out: tfd.Normal(out, 1.0)))
    with pytest.raises(ValueError, match=r"does it need tfd\.Independent"):
        scalar.fit(events(5), batch_size=5, verbose=0)
    with pytest.raises(ValueError, match="takes no conditions and no weights"):
        scalar.fit(tf.data.Dataset.from_tensors((events(), events(), np.ones(40))))
    with pytest.raises(NotImplementedError, match="reconstruct"):
        scalar.predict(events())
    model = compiled(make())
    with pytest.raises(ValueError, match="`x` must"):
        model.fit(np.zeros([5, 3], np.float32))
    with pytest.raises(ValueError, match="`y` must be left out"):
        model.fit(events(), y=events())
    with pytest.raises(ValueError, match="finite"):
        model.fit(np.full([5, 5], np.nan, np.float32))
    with pytest.raises(ValueError, match=r"cannot be described in a \.keras file"):
        model.save("x.keras")
    assert not pathlib.Path("x.keras").exists()


def test_a_likelihood_s_own_variables_are_trained_and_bits_are_data():
    scale = tf.Variable(0.5)
    model = compiled(build(likelihood=lambda out: tfd.Independent(tfd.Normal(out, tf.exp(scale)), 1)), 1e-1)
    model.fit(events().astype(np.uint8), batch_size=20, epochs=1, verbose=0)
    assert scale.numpy() != 0.5


def test_an_evaluation_repeats_and_draws_other_noise_for_each_batch():
    model, x = compiled(build()), events(20)
    one, two, again = (
        model.evaluate(np.tile(x, [n, 1]), batch_size=20, verbose=0, return_dict=True)["loss"] for n in (1, 2, 2)
    )
    assert two == again
    assert abs(two - one) > 1e-3


def test_above_the_free_bits_the_whole_kl_term_counts():
    history = compiled(build(free_bits=0.01), 0.0).fit(events(), batch_size=40, verbose=0).history
    assert history["kl"][0] > 0.02
    np.testing.assert_allclose(history["loss"], np.add(history["reconstruction"], history["kl"]), rtol=1e-5)
