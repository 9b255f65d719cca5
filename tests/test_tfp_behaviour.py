"""Properties that TFP's own tests check of `tfb.MaskedAutoregressiveFlow` and `tfb.RealNVP`, here of the drop-ins.

The list is that of `masked_autoregressive_test.py` and `real_nvp_test.py` in TensorFlow Probability; the code is not.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions


def funnel(x):
    scale = tf.concat([tf.ones_like(x[..., :1]), tf.exp(x[..., :1] / 2) * tf.ones_like(x[..., 1:])], axis=-1)
    return tfb.Scale(scale)


def gated():
    network = tff.AutoregressiveNetwork(2, 4, hidden_units=[10, 10], activation="relu", seed=1)

    def bijector_fn(x):
        shift, logit = tf.unstack(network(x), axis=-1)
        gate = tf.sigmoid(logit)
        return tfb.Chain([tfb.Shift((1.0 - gate) * shift), tfb.Scale(gate)])

    return bijector_fn


def over_matrices(network):
    def fn(x):
        flat = tf.reshape(x, tf.concat([tf.shape(x)[:-2], [6]], axis=0))
        shift, log_scale = tf.unstack(network(flat), axis=-1)
        return tf.reshape(shift, tf.shape(x)), tf.reshape(log_scale, tf.shape(x))

    return fn


def network(params=2, size=4, units=(10, 10)):
    return tff.AutoregressiveNetwork(params, size, hidden_units=list(units), activation="relu", seed=1)


def shift_only():
    made = network(1)
    return lambda x: (made(x)[..., 0], None)


MAFS = {
    "network": lambda: {"shift_and_log_scale_fn": network()},
    "network_few_units": lambda: {"shift_and_log_scale_fn": network(units=[2])},
    "tfp_network": lambda: {
        "shift_and_log_scale_fn": tfb.AutoregressiveNetwork(2, [4], hidden_units=[10, 10], activation="relu")
    },
    "tfp_template": lambda: {"shift_and_log_scale_fn": tfb.masked_autoregressive_default_template([2])},
    "shift_only": lambda: {"shift_and_log_scale_fn": shift_only(), "is_constant_jacobian": True},
    "unroll_loop": lambda: {"shift_and_log_scale_fn": network(), "unroll_loop": True},
    "gated": lambda: {"bijector_fn": gated()},
    "funnel": lambda: {"bijector_fn": funnel},
    "spline": lambda: {
        "bijector_fn": tff.masked_autoregressive_template([8], event_size=4, transformer=tff.SplineTransformer())
    },
    "matrices": lambda: {"shift_and_log_scale_fn": over_matrices(network(size=6, units=[6])), "event_ndims": 2},
}
SHAPE = {"matrices": [3, 2]}

COUPLING = tff.real_nvp_template([3], seed=1)
NVPS = {
    "network": {"shift_and_log_scale_fn": COUPLING},
    "nice": {"shift_and_log_scale_fn": tff.real_nvp_template([2], shift_only=True), "is_constant_jacobian": True},
    "tfp_template": {"shift_and_log_scale_fn": tfb.real_nvp_default_template([3])},
    "trivial": {"shift_and_log_scale_fn": lambda x, units: (0.1 * x[..., :1], 0.1 * x[..., :1])},
    "constant": {"shift_and_log_scale_fn": lambda x, units: (tf.constant([0.1]), tf.constant([0.5]))},
    "vector_bijector": {
        "bijector_fn": lambda x, units: tfb.ScaleMatvecTriL(tf.linalg.diag(tf.exp(0.1 * x[..., :1] * tf.ones([units]))))
    },
}


def check_both_directions(bijector, x, event_ndims):
    y = bijector.forward(x)
    assert y.shape == x.shape
    back = bijector.inverse(tf.identity(y))
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bijector.forward(back), y, rtol=1e-4, atol=1e-5)
    there = bijector.forward_log_det_jacobian(x, event_ndims=event_ndims)
    again = bijector.inverse_log_det_jacobian(tf.identity(y), event_ndims=event_ndims)
    np.testing.assert_allclose(again, -there, rtol=1e-4, atol=1e-5)


def check_sample_consistent_log_prob(distribution, n, rtol):
    """The mean of `1[|x| < 1] / p(x)` over samples is the volume of the unit ball."""
    x, log_prob = (t.numpy() for t in distribution.experimental_sample_and_log_prob(n, seed=[1, 2]))
    np.testing.assert_allclose(distribution.log_prob(x[:100]), log_prob[:100], rtol=1e-3, atol=1e-3)
    inside = np.linalg.norm(x, axis=-1) < 1.0
    d = x.shape[-1]
    volume = {4: np.pi**2 / 2, 6: np.pi**3 / 6}[d]
    np.testing.assert_allclose(np.mean(np.where(inside, np.exp(-log_prob), 0.0)), volume, rtol=rtol)


@pytest.mark.parametrize("name", MAFS)
def test_maf_batched_and_not(name):
    shape = SHAPE.get(name, [4])
    maf = tff.MaskedAutoregressiveFlow(validate_args=True, **MAFS[name]())
    size = int(np.prod(shape))
    check_both_directions(maf, tf.reshape(tf.range(size, dtype=tf.float32) / 4, shape), len(shape))
    check_both_directions(maf, tf.reshape(tf.range(4 * size, dtype=tf.float32) / 10, [4, *shape]), len(shape))
    assert maf.name.startswith("masked_autoregressive_flow")
    x = tf.zeros(shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = maf.inverse(tf.identity(maf.forward(x)))
    assert tape.gradient(z, x) is not None


@pytest.mark.parametrize(
    ("name", "inverted"),
    [
        *((name, inverted) for name in ("network", "unroll_loop", "matrices") for inverted in (False, True)),
        pytest.param("spline", False, marks=pytest.mark.slow),  # whose loop is in test_one_pass.py
        ("spline", True),
    ],
)
def test_maf_samples_and_density_are_consistent(name, inverted):
    shape = SHAPE.get(name, [4])
    maf = tff.MaskedAutoregressiveFlow(validate_args=True, **MAFS[name]())
    base = tfd.Independent(tfd.Normal(tf.zeros(shape), 1.0), len(shape))
    flat = tfb.Reshape(event_shape_out=[int(np.prod(shape))], event_shape_in=shape)
    chain = tfb.Chain([flat, tfb.Invert(maf) if inverted else maf])
    n = 400_000 if len(shape) == 2 else 100_000
    check_sample_consistent_log_prob(tfd.TransformedDistribution(base, chain, validate_args=True), n, 0.05)
    check_sample_consistent_log_prob(tff.FlowDistribution(base, chain), n, 0.05)


@pytest.mark.parametrize(
    ("bijector", "message"),
    [
        (tfb.Inline(forward_min_event_ndims=1), "`forward_min_event_ndims` > 0 are not supported"),
        (tfb.Inline(forward_min_event_ndims=0, inverse_min_event_ndims=1), "alter `event_ndims` are not supported"),
    ],
)
def test_maf_refuses_bijectors_that_are_not_of_scalars(bijector, message):
    maf = tff.MaskedAutoregressiveFlow(bijector_fn=lambda x: bijector, validate_args=True)
    with pytest.raises(ValueError, match=message):
        maf.forward([1.0, 2.0])


@pytest.mark.parametrize("name", NVPS)
@pytest.mark.parametrize("masked", [{"num_masked": 3}, {"num_masked": -3}, {"fraction_masked": 0.5}, {"num_masked": 2}])
def test_real_nvp_batched_and_not(name, masked):
    kwargs = dict(NVPS[name])
    if name in ("network", "nice"):  # a template that learns its sizes serves one bijector
        kwargs["shift_and_log_scale_fn"] = tff.real_nvp_template([3], shift_only=name == "nice", seed=1)
    elif name == "tfp_template":
        kwargs["shift_and_log_scale_fn"] = tfb.real_nvp_default_template([3])
    nvp = tff.RealNVP(validate_args=True, **masked, **kwargs)
    rng = np.random.default_rng(0)
    for shape in ([4], [3, 4]):
        if name == "tfp_template" and shape == [4]:
            continue  # TFP's own template handles one axis by adding another, to the input alone
        check_both_directions(nvp, tf.constant(rng.normal(size=shape), tf.float32), 1)
    assert nvp.name == "real_nvp"


def test_real_nvp_conditions_of_any_name():
    rng = np.random.default_rng(0)
    a, b = (tf.constant(rng.normal(size=[3, n]), tf.float32) for n in (4, 2))
    kernel = tf.constant(0.3 * rng.normal(size=[4 + 4 + 2, 8]), tf.float32)

    def fn(x0, output_units, a, b):
        assert output_units == 4
        return tf.split(tf.concat([x0, a, b], axis=-1) @ kernel, 2, axis=-1)

    nvp = tff.RealNVP(num_masked=4, shift_and_log_scale_fn=fn, validate_args=True)
    x = tf.constant(rng.normal(size=[3, 8]), tf.float32)
    y = nvp.forward(x, a=a, b=b)
    np.testing.assert_allclose(nvp.inverse(tf.identity(y), a=a, b=b), x, atol=1e-5)
    there = nvp.forward_log_det_jacobian(x, event_ndims=1, a=a, b=b)
    np.testing.assert_allclose(nvp.inverse_log_det_jacobian(tf.identity(y), event_ndims=1, a=a, b=b), -there, atol=1e-5)
    assert np.max(np.abs(nvp.forward(x, a=a + 1.0, b=b) - y)) > 1e-2


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("masked", [3, -3])
def test_real_nvp_samples_and_density_are_consistent(inverted, masked):
    nvp = tff.RealNVP(num_masked=masked, shift_and_log_scale_fn=tff.real_nvp_template([3], seed=1), validate_args=True)
    nvp.forward(tf.zeros([1, 4]))
    for v in nvp.trainable_variables:
        v.assign(0.4 * np.random.default_rng(2).normal(size=v.shape))
    bijector = tfb.Invert(nvp) if inverted else nvp
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
    check_sample_consistent_log_prob(tfd.TransformedDistribution(base, bijector, validate_args=True), 100_000, 0.05)


def test_real_nvp_refuses_wrong_masks():
    fn = lambda x, units: (x[..., :units], None)  # noqa: E731
    for kwargs, error in (
        ({"num_masked": 1, "fraction_masked": 0.5}, ValueError),
        ({"num_masked": 1.5}, TypeError),
        ({"fraction_masked": 1.5}, ValueError),
    ):
        with pytest.raises(error):
            tff.RealNVP(shift_and_log_scale_fn=fn, **kwargs)
    with pytest.raises(ValueError, match="smaller than the event size"):
        tff.RealNVP(num_masked=4, shift_and_log_scale_fn=fn).forward(tf.zeros([2, 4]))
