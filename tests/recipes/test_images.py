"""Maps, networks, recipes and training for images."""

import keras
import numpy as np
import pytest
import scipy.stats
import sklearn.datasets
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.bijectors.composition import inverse_and_log_det
from tfp_flows.bijectors.conditioning import conditional_sizes
from tfp_flows.cli import main as cli
from tfp_flows.recipes import recipe
from tfp_flows.testing import redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
SHAPE = (4, 4, 2)


def network(dtype=tf.float64, params=2, shape=SHAPE, **kwargs):
    return tff.conv_resnet_template(6, 1, image_shape=shape, params=params, seed=1, dtype=dtype, **kwargs)


def multi_scale(dtype=tf.float64):
    blocks = [
        tfb.Chain(
            [
                tff.AffineCouplingLayer(network(dtype), "checkerboard", 0, log_scale_bound=2.0),
                tfb.Invert(tff.Squeeze()),
                tff.ActNorm(8, dtype=dtype),
            ],
            name="scale_0",
        ),
        tff.AffineCouplingLayer(network(dtype, shape=(2, 2, 6)), "channel", 1, log_scale_bound=2.0, name="scale_1"),
    ]
    return tfb.Chain([tff.MultiScale(blocks, SHAPE, fraction=0.25), tfb.Reshape([32], SHAPE)])


# Each keeps the shape of its events; the flag says whether XLA is tried as well.
MAPS = {
    "checkerboard": lambda: tff.AffineCouplingLayer(network(), "checkerboard", 1, log_scale_bound=2.0),
    "channel": lambda: tff.AffineCouplingLayer(network(), mask_type="channel", orientation=0, log_scale_bound=2.0),
    "sliced": lambda: tff.AffineCouplingLayer(network(shape=(4, 4, 1)), "channel", 1, sliced=True, log_scale_bound=2.0),
    "additive": lambda: tff.AffineCouplingLayer(network(params=1), "checkerboard", 0, shift_only=True),
    "spline": lambda: tff.AffineCouplingLayer(
        network(params=8), "checkerboard", 0, transformer=tff.SplineTransformer(num_bins=3, bound=3.0)
    ),
    "conv1x1": lambda: tfb.Chain([tff.LULinear(2, seed=1, dtype=tf.float64), tfb.Reshape(SHAPE, SHAPE)]),
    "actnorm": lambda: tfb.Chain([tff.ActNorm(2, dtype=tf.float64), tfb.Reshape(SHAPE, SHAPE)]),
    "multi_scale": multi_scale,
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_images(name):
    def make():
        bijector = MAPS[name]()
        redraw_weights(bijector, seed=3, scale=0.3)
        return bijector

    testing.check_bijector(make, SHAPE, jit=name == "checkerboard")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spline", "multi_scale"])
def test_maps_of_images_by_xla(name):
    bijector = MAPS[name]()
    redraw_weights(bijector, seed=3, scale=0.3)
    testing.check_compilation(bijector, testing.draw_events(SHAPE))


def test_the_registry_is_complete():
    assert {"image_real_nvp", "glow"} <= set(recipe.RECIPES)


@pytest.mark.parametrize("name", ["image_real_nvp", "glow"])
def test_couplings_of_recipes_have_their_bound(name):
    for options, bound in (({}, 2.0), ({"log_scale_bound": 0.5}, 0.5)):
        flow = getattr(tff, name)((4, 4, 1), filters=4, seed=1, **options)
        couplings = [m for m in flow.submodules if isinstance(m, tff.AffineCouplingLayer)]
        assert {layer._transformer.log_scale_bound for layer in couplings} == {bound}


@pytest.mark.parametrize("orientation", [0, 1])
def test_masks_of_the_courses(orientation):
    board = tff.checkerboard_binary_mask((4, 6), orientation)
    assert board.shape == (4, 6, 1)
    assert board.dtype == tf.float32
    assert board[0, 0, 0] == orientation
    np.testing.assert_array_equal(board[:, 1:] + board[:, :-1], 1.0)
    np.testing.assert_array_equal(board[1:] + board[:-1], 1.0)
    channels = tff.channel_binary_mask(6, orientation)
    np.testing.assert_array_equal(channels[0, 0], [orientation] * 3 + [1 - orientation] * 3)


def test_both_forms_of_the_courses_are_one_class():
    net = tff.get_conv_resnet(SHAPE, 4)
    x = tf.constant(np.random.default_rng(0).normal(size=[3, *SHAPE]).astype("float32"))
    by_type = tff.AffineCouplingLayer(net, "checkerboard", 1)
    by_mask = tff.AffineCouplingLayer(net, tff.checkerboard_binary_mask(SHAPE, 1))
    np.testing.assert_array_equal(by_mask.b, by_type._get_mask(SHAPE))
    y = by_type.forward(x)
    np.testing.assert_allclose(by_mask.forward(tf.identity(x)), y)
    # The formula of the assignment, y = b x + (1 - b) (x exp(log_s) + t).
    b = by_mask.b
    shift, log_scale = net(b * x)
    np.testing.assert_allclose(y, b * x + (1 - b) * (x * tf.exp(log_scale) + shift), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        by_type.forward_log_det_jacobian(x, event_ndims=3),
        tf.reduce_sum((1 - b) * log_scale, axis=[1, 2, 3]),
        rtol=1e-4,
        atol=1e-5,
    )
    # Vectors too: a mask of rank 1.
    dense = tff.AffineCouplingLayer(keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)]), [1.0, 0.0, 1.0])
    v = tf.constant([[1.0, 2.0, 3.0]])
    z = dense.forward(v).numpy()
    assert z[0, 0] == 1.0
    assert z[0, 2] == 3.0
    np.testing.assert_allclose(dense.inverse(z), v, rtol=1e-5)


@pytest.mark.parametrize("orientation", [0, 1])
def test_slices_of_channels_are_the_channel_mask(orientation):
    net = network(shape=(4, 4, 3))
    redraw_weights(net)

    def whole(x):  # the same network, behind zeros
        halves = tf.split(x, 2, axis=-1)
        zeros = tf.zeros_like(halves[0])
        seen = halves[1] if orientation == 0 else halves[0]
        shift, log_scale = tf.split(net(seen), 2, axis=-1)
        order = (lambda t: [t, zeros]) if orientation == 0 else (lambda t: [zeros, t])
        return tf.concat(order(shift), -1), tf.concat(order(log_scale), -1)

    x = tf.constant(np.random.default_rng(0).normal(size=[5, 4, 4, 6]))
    sliced = tff.AffineCouplingLayer(net, "channel", orientation, sliced=True)
    masked = tff.AffineCouplingLayer(whole, "channel", orientation)
    for direction in ("forward_and_log_det", "inverse_and_log_det"):
        for a, b in zip(getattr(sliced, direction)(x), getattr(masked, direction)(x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    with pytest.raises(ValueError, match="sliced"):
        tff.AffineCouplingLayer(net, "checkerboard", orientation, sliced=True)


def test_squeeze_is_space_to_depth():
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 3, 4, 6, 5]))
    y = tff.Squeeze().forward(x)
    flat = tf.reshape(x, [6, 4, 6, 5])
    np.testing.assert_array_equal(tf.reshape(y, [6, 2, 3, 20]), tf.nn.space_to_depth(flat, 2))
    np.testing.assert_array_equal(tff.Squeeze().inverse(tf.identity(y)), x)
    assert tff.Squeeze().forward_event_shape([4, 6, 5]) == [2, 3, 20]
    assert tff.Squeeze().inverse_event_shape([2, 3, 20]) == [4, 6, 5]
    assert tff.Squeeze(3).forward(tf.ones([6, 6, 1])).shape == [2, 2, 9]


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_preprocessing(alpha):
    bijector = tff.get_preprocess_bijector(alpha, dtype=tf.float64)
    x = tf.constant([[0.1, 0.5, 0.99]], tf.float64)
    p = alpha + (1 - 2 * alpha) * x
    np.testing.assert_allclose(bijector.forward(x), np.log(p / (1 - p)), rtol=1e-6)
    expected = np.sum(np.log((1 - 2 * alpha) / (p * (1 - p))), axis=-1)
    np.testing.assert_allclose(bijector.forward_log_det_jacobian(x, event_ndims=1), expected, rtol=1e-6)


def test_multi_scale_factors_out_and_keeps_the_size():
    squeeze = [tfb.Invert(tff.Squeeze(), name=f"s{i}") for i in range(3)]
    bijector = tff.MultiScale(squeeze, (8, 8, 1), fraction=0.5)
    assert bijector.latent_shapes == ((4, 4, 2), (2, 2, 4), (1, 1, 16))
    image = tf.reshape(tf.range(64.0), [1, 8, 8, 1])
    z = bijector.inverse(image)
    assert z.shape == [1, 64]
    np.testing.assert_array_equal(np.sort(z[0]), np.arange(64.0))
    # What is factored out first are the last channels of the squeezed image.
    squeezed = tf.nn.space_to_depth(image, 2)
    np.testing.assert_array_equal(z[0, :32], tf.reshape(squeezed[..., 2:], [-1]))
    np.testing.assert_array_equal(bijector.forward(tf.identity(z)), image)


@pytest.fixture(scope="module")
def digits():
    data = sklearn.datasets.load_digits()
    images = data.images.astype(np.uint8)[..., np.newaxis]
    return images, np.eye(10, dtype=np.float32)[data.target]


SMALL = {
    "image_real_nvp": {"num_couplings": 2, "filters": 8, "num_blocks": 1},
    "glow": {"num_scales": 2, "num_steps": 2, "filters": 8},
}


# Where the flow is not the point.
LEAST = {"num_scales": 1, "num_couplings": 1, "filters": 4, "num_blocks": 0}


@pytest.mark.parametrize("name", SMALL)
def test_recipes_are_densities_of_images(name):
    flow = getattr(tff, name)((4, 4, 1), seed=1, dtype=tf.float64, **SMALL[name])
    assert flow.event_shape == (4, 4, 1)
    redraw_weights(flow, seed=2, scale=0.1)
    testing.check_density(flow)
    x = flow.sample(2, seed=(1, 2))
    assert np.all((x > -0.06) & (x < 1.06))  # alpha = 0.05 leaves room on both sides
    # The log-det of the whole flow, by automatic differentiation.
    z, log_det = inverse_and_log_det(flow.bijector, x, 3)
    _, expected = np.linalg.slogdet(testing.jacobian(lambda x: flow.bijector.inverse(tf.identity(x)), x, 3))
    np.testing.assert_allclose(log_det, expected, rtol=1e-7)
    np.testing.assert_allclose(flow.log_prob(x), flow.distribution.log_prob(z) + expected, rtol=1e-7)
    again = tff.from_description(tff.describe(flow))
    assert again.event_shape == (4, 4, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weight", "batch"])
def test_digits_train_and_report_bits(kind, digits):
    images, _ = digits
    flow = tff.image_real_nvp((8, 8, 1), seed=1, network_normalization=kind, **SMALL["image_real_nvp"])
    model = tff.FlowModel(flow, dequantize=17, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(3e-3, global_clipnorm=10.0))
    assert tf.config.get_visible_devices("GPU") or not model.jit_compile, (
        "XLA's convolutions gain nothing on a CPU and compile for long"
    )
    statistics = [w for w in model.non_trainable_weights if "moving_variance" in w.path]
    assert bool(statistics) == (kind == "batch")
    start = [w.numpy() for w in statistics]
    history = model.fit(images[:1500], batch_size=100, epochs=4, validation_data=images[1500:], verbose=0).history
    assert {"loss", "bits_per_dim", "val_loss", "val_bits_per_dim"} <= set(history)
    np.testing.assert_allclose(
        history["val_bits_per_dim"], np.array(history["val_loss"]) / (64 * np.log(2.0)), rtol=1e-3
    )
    # log2(17) = 4.09 bits is what a uniform guess needs.
    assert history["val_bits_per_dim"][-1] < min(3.3, history["val_bits_per_dim"][0])
    for old, weight in zip(start, statistics, strict=True):
        assert np.max(np.abs(weight.numpy() - old)) > 1e-3, f"{weight.path} was not learned"
    samples = model.sample(4, seed=1)
    assert samples.dtype == tf.uint8
    assert samples.shape == (4, 8, 8, 1)
    assert np.max(samples) <= 16


def test_bits_per_dimension_of_known_densities():
    """Uniform on [0, 1]^D is log2(levels) bits exactly; a density that knows the pixels is less."""
    uniform = tfd.Independent(tfd.Uniform(tf.zeros([4, 4, 1]), tf.Variable(tf.ones([4, 4, 1]))), 3)
    model = tff.FlowModel(uniform, dequantize=256, seed=1)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    x = np.random.default_rng(0).integers(0, 256, [50, 4, 4, 1], dtype=np.uint8)
    logs = model.evaluate(x, batch_size=25, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["bits_per_dim"], 8.0, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], 16 * np.log(256.0), rtol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), -16 * np.log(256.0), rtol=1e-5)


def test_bits_of_a_discretized_gaussian_are_its_entropy():
    """Levels k with the probability of [k, k + 1) under a normal: the bound by noise is tight where it is wide."""
    mean, deviation = 120.0, 20.0
    normal = tfd.Normal(tf.Variable(tf.fill([4, 4, 1], mean / 256)), tf.Variable(tf.fill([4, 4, 1], deviation / 256)))
    model = tff.FlowModel(tfd.Independent(normal, 3), dequantize=256, seed=1)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    x = np.floor(np.random.default_rng(0).normal(mean, deviation, [4000, 4, 4, 1])).astype(np.uint8)
    bits = model.evaluate(x, batch_size=1000, verbose=0, return_dict=True)["bits_per_dim"]
    log_p = np.log2(np.diff(scipy.stats.norm(mean, deviation).cdf(np.arange(257))))
    np.testing.assert_allclose(bits, -np.mean(log_p[x]), atol=2e-3)
    entropy = -np.sum(np.exp2(log_p) * log_p)
    np.testing.assert_allclose(bits, entropy, atol=0.015)  # 64,000 values: standard error 0.004


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("name", ["image_real_nvp", "glow"])
def test_three_scales_are_inverted(name, dtype):
    """Issue: 32 x 32 x 3, below 1e-4 in float32 and 1e-9 in float64, pixels and latent values."""
    flow = getattr(tff, name)((32, 32, 3), seed=1, dtype=dtype, **{**SMALL[name], "num_scales": 3})
    redraw_weights(flow, seed=2, scale=0.1)
    most = 1e-4 if dtype == tf.float32 else 1e-9
    x = tf.constant(np.random.default_rng(3).uniform(0.02, 0.98, [2, 32, 32, 3]), dtype)
    z = flow.bijector.inverse(x)
    assert z.shape == (2, 3072)
    back = flow.bijector.forward(tf.identity(z))
    assert np.max(np.abs(back - x)) < most
    assert np.max(np.abs(flow.bijector.inverse(tf.identity(back)) - z)) < most


def test_integers_are_checked():
    flow = tff.image_real_nvp((4, 4, 1), seed=1, **SMALL["image_real_nvp"])
    model = tff.FlowModel(flow, dequantize=16)
    model.compile(optimizer="adam")
    for bad in (np.full([5, 4, 4, 1], 16), np.full([5, 4, 4, 1], -1), np.full([5, 4, 4, 1], 0.5)):
        with pytest.raises(ValueError, match="must hold the integers 0 to 15"):
            model.fit(bad)
    with pytest.raises(ValueError, match="`dequantize`"):
        tff.FlowModel(flow, dequantize=1)
    with pytest.raises(ValueError, match="dequantize=levels"):
        tff.FlowModel(flow).evaluate(np.zeros([5, 4, 4, 1], np.uint8))


def test_variational_dequantization_starts_uniform_and_has_a_density():
    noise = tff.VariationalDequantization((4, 4, 1), 16, filters=4, seed=1)
    x = tf.cast(np.random.default_rng(0).integers(0, 16, [2000, 4, 4, 1]), tf.uint8)
    y, excess = noise(x, (1, 2))
    u = 16.0 * y.numpy() - x.numpy()
    assert 0.0 <= u.min() <= u.max() <= 1.0
    np.testing.assert_allclose(excess, 16 * np.log(16.0), rtol=1e-4)
    np.testing.assert_allclose(np.quantile(u, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.01)
    # Another flow of noise: E[1 / q(u)] = 1, the volume of the cube, for any density on it.
    redraw_weights(noise, seed=3, scale=0.05)
    small = tff.VariationalDequantization((2, 2, 1), 16, filters=4, seed=1)
    redraw_weights(small, seed=3, scale=0.3)
    one = tf.tile(tf.constant([[[[3], [7]], [[1], [15]]]], tf.uint8), [100_000, 1, 1, 1])
    y, excess = small(one, (3, 4))
    log_q = excess.numpy() - 4 * np.log(16.0)
    assert np.std(log_q) > 0.05
    np.testing.assert_allclose(np.mean(np.exp(-log_q)), 1.0, atol=0.02)


def test_variational_dequantization_trains_and_is_saved(digits, tmp_path):
    images, _ = digits
    flow = tff.image_real_nvp((8, 8, 1), seed=1, **LEAST)
    noise = tff.VariationalDequantization((8, 8, 1), 17, filters=4, seed=2)
    model = tff.FlowModel(flow, dequantize=noise, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), jit_compile=False)
    before = [v.numpy() for v in noise.trainable_variables]
    model.fit(images[:100], batch_size=25, epochs=2, verbose=0)
    moved = [np.any(v.numpy() != old) for v, old in zip(noise.trainable_variables, before, strict=True)]
    assert all(moved)
    model.save(tmp_path / "digits.keras")
    loaded = keras.models.load_model(tmp_path / "digits.keras")
    np.testing.assert_array_equal(loaded.predict(images[:20], verbose=0), model.predict(images[:20], verbose=0))


def test_class_conditional(digits):
    images, classes = digits
    flow = tff.image_real_nvp((8, 8, 1), conditional_size=10, seed=1, **LEAST)
    assert conditional_sizes(flow.bijector) == {10}
    model = tff.FlowModel(flow, dequantize=17, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(3e-3, global_clipnorm=10.0), jit_compile=False)
    model.fit(classes[:200], images[:200], batch_size=25, epochs=2, verbose=0)
    scores = [model.predict(np.roll(classes[:50], k, axis=1), y=images[:50], verbose=0) for k in range(2)]
    assert np.max(np.abs(scores[0] - scores[1])) > 1e-3
    assert model.sample(3, seed=1, conditional_input=classes[:3]).shape == (3, 8, 8, 1)


def test_streams_of_images(digits):
    images, _ = digits
    model = tff.FlowModel(tff.glow((8, 8, 1), num_scales=2, num_steps=1, filters=8, seed=1), dequantize=17, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(images[:200]).batch(50)
    history = model.fit(data, epochs=2, verbose=0).history
    assert history["bits_per_dim"][1] < history["bits_per_dim"][0]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`mask` must be an array of zeros and ones"):
        tff.AffineCouplingLayer(network(), [0.5, 1.0])
    with pytest.raises(ValueError, match="both zeros and ones"):
        tff.AffineCouplingLayer(network(), [1.0, 1.0])
    with pytest.raises(ValueError, match="`mask_type`"):
        tff.AffineCouplingLayer(network(), "stripes")
    with pytest.raises(ValueError, match="either `mask` or `mask_type`"):
        tff.AffineCouplingLayer(network())
    with pytest.raises(ValueError, match="`orientation`"):
        tff.checkerboard_binary_mask((4, 4), 2)
    with pytest.raises(ValueError, match="must hold 2 parameters"):
        tff.AffineCouplingLayer(network(params=3), "channel").forward(tf.ones([1, *SHAPE], tf.float64))
    with pytest.raises(ValueError, match="multiple of 2"):
        tff.Squeeze().forward(tf.ones([5, 4, 1]))
    with pytest.raises(ValueError, match="`num_scales`"):
        tff.image_real_nvp((6, 6, 1), num_scales=3)
    with pytest.raises(ValueError, match="`fraction`"):
        tff.MultiScale([tfb.Identity(name="a"), tfb.Identity(name="b")], (4, 4, 1))
    with pytest.raises(ValueError, match="`params`"):
        tff.conv_resnet_template(4, 1, image_shape=SHAPE, params=1.5)
    with pytest.raises(ValueError, match="`alpha`"):
        tff.get_preprocess_bijector(0.5)
    with pytest.raises(ValueError, match="`image_shape`"):
        tff.glow((8, 8))


def test_temperature_interpolation_and_sample_grids(digits, tmp_path):
    images, _ = digits
    flow = tff.image_real_nvp((8, 8, 1), seed=1, **{**SMALL["image_real_nvp"], "num_scales": 2, "num_couplings": 1})
    redraw_weights(flow, seed=2, scale=0.05)
    cold = tff.at_temperature(flow, 0.5)
    z, cold_z = (f.bijector.inverse(f.sample(200, seed=(1, 2))).numpy() for f in (flow, cold))
    np.testing.assert_allclose(cold_z, 0.5 * z, rtol=1e-2, atol=1e-2)
    ends = tf.constant(images[:2] / 17.0 + 0.01, tf.float32)
    way = tff.interpolate(flow, ends[0], ends[1], num_steps=5)
    assert way.shape == (5, 8, 8, 1)
    np.testing.assert_allclose(way[0], ends[0], atol=1e-3)
    np.testing.assert_allclose(way[-1], ends[1], atol=1e-3)
    # Between, the latent values keep their length.
    lengths = np.linalg.norm(flow.bijector.inverse(tf.identity(way)), axis=-1)
    assert np.all(lengths > 0.95 * min(lengths[0], lengths[-1]))
    with pytest.raises(ValueError, match="`temperature`"):
        tff.at_temperature(flow, 0.0)
    with pytest.raises(ValueError, match="`num_steps`"):
        tff.interpolate(flow, ends[0], ends[1], num_steps=1)
    model = tff.FlowModel(flow, dequantize=17)
    model.compile(optimizer="adam", jit_compile=False)
    grid = tff.callbacks.SampleGrid(tmp_path / "samples", every=2, num_samples=4)
    model.fit(images[:50], batch_size=50, epochs=3, verbose=0, callbacks=[grid])
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["epoch-0002.png"]


def test_the_shell_names_what_is_wrong_with_a_file(tmp_path, capsys):
    path = tmp_path / "images.npy"
    cases = {
        "expected shape": np.zeros([20, 5]),
        "expected integers": np.zeros([20, 4, 4]),
        "too few": np.zeros([5, 4, 4], int),
        "nothing to learn": np.zeros([20, 4, 4], int),
        "expected levels": np.full([20, 4, 4], -1),
    }
    for message, array in cases.items():
        np.save(path, array)
        assert cli.main(["fit", str(path), "--flow", "glow", "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["fit", "moons", "--flow", "glow"]) == 2
    assert "read from a .npy file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_shell_fits_samples_scores_and_draws(tmp_path, capsys, digits):
    images, out = tmp_path / "images.npy", tmp_path / "digits"
    np.save(images, digits[0][:600, ..., 0])
    fit = ["fit", str(images), "--flow", "image_real_nvp", "--epochs", "3", "--batch-size", "50", "--verbose", "0"]
    assert cli.main([*fit, "--out", str(out)]) == 0
    assert "bits per dimension" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {"flow.keras", "report.json", "held_out.npy", "flow.png"}
    assert cli.main(["sample", str(out), "-n", "5", "--out", str(tmp_path / "s.npy")]) == 0
    assert np.load(tmp_path / "s.npy").shape == (5, 8, 8, 1)
    assert cli.main(["score", str(out), str(out / "held_out.npy")]) == 0
    assert cli.main(["plot", str(out), "--out", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").exists()


@pytest.mark.slow
def test_digits_beat_the_full_covariance_gaussian(digits):
    """By 0.3 bits per dimension at least, with the same dequantization and on images that neither has seen."""
    images = digits[0][np.random.default_rng(0).permutation(len(digits[0]))]
    train, test = images[:1500], images[1500:]
    rng = np.random.default_rng(1)
    x, x_test = ((part + rng.uniform(size=part.shape)).reshape(len(part), 64) / 17 for part in (train, test))
    gaussian = tfd.MultivariateNormalFullCovariance(x.mean(axis=0), np.cov(x.T))
    gaussian_bits = -np.mean(gaussian.log_prob(x_test)) / (64 * np.log(2.0)) + np.log2(17)
    flow = tff.image_real_nvp((8, 8, 1), num_scales=2, filters=32, num_blocks=1, seed=1)
    model = tff.FlowModel(flow, dequantize=17, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(0.0, 1800, warmup_target=1e-3, warmup_steps=100)
    model.compile(optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-3, global_clipnorm=10.0))
    model.fit(train, batch_size=50, epochs=60, verbose=0)
    bits = model.evaluate(test, verbose=0, return_dict=True)["bits_per_dim"]
    print(f"digits: {bits:.3f} bits per dimension, Gaussian {gaussian_bits:.3f}")
    assert bits < gaussian_bits - 0.3


def test_conditions_broadcast_against_images():
    flow = tff.image_real_nvp((4, 4, 1), conditional_size=3, seed=1, dtype=tf.float64, **SMALL["image_real_nvp"])
    redraw_weights(flow, seed=2, scale=0.1)
    x, classes = flow.sample(1, seed=(1, 2), conditional_input=np.eye(3)[:1]), np.eye(3)
    one_image = flow.log_prob(x[0], conditional_input=classes)
    one_by_one = [flow.log_prob(x, conditional_input=c)[0] for c in classes]
    np.testing.assert_allclose(one_image, one_by_one, rtol=1e-9)
    assert np.ptp(one_image) > 1e-6
    np.testing.assert_allclose(flow.log_prob(x, conditional_input=classes), one_image, rtol=1e-9)
    assert flow.sample(3, seed=(1, 2), conditional_input=classes).shape == (3, 4, 4, 1)


def test_variational_dequantization_in_float64():
    noise = tff.VariationalDequantization((4, 4, 1), 16, filters=4, seed=1)
    y, log_q = noise(tf.ones([2, 4, 4, 1], tf.uint8), (1, 2), dtype=tf.float64)
    assert y.dtype == log_q.dtype == tf.float64


@pytest.mark.parametrize("normalization", ["weight", "batch"])
@pytest.mark.parametrize("make", [tff.conv_resnet_template, tff.glow_template])
def test_hidden_kernels_are_drawn_by_the_seed_and_each_for_itself(make, normalization):
    network = make(6, image_shape=SHAPE, normalization=normalization, seed=1)
    np.testing.assert_array_equal(network(tf.ones([2, *SHAPE])), 0.0)

    def hidden(seed):
        made = make(6, image_shape=SHAPE, normalization=normalization, seed=seed)
        return [w.numpy() for w in made.trainable_weights if len(w.shape) == 4 and w.shape[-1] == 6]

    first, again, other = hidden(1), hidden(1), hidden(2)
    assert len(first) >= 2
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.all(a != c)
    assert len({kernel.ravel()[0] for kernel in first}) == len(first)


def test_sample_grids_show_the_same_noise(tmp_path):
    flow = tff.image_real_nvp((4, 4, 1), num_scales=1, num_couplings=1, filters=2, num_blocks=0, seed=1)
    for seed in (1, 1, 2):
        grid = tff.callbacks.SampleGrid(tmp_path / str(seed), every=1, num_samples=4, seed=seed)
        grid.set_model(tff.FlowModel(flow))
        for epoch in range(2):
            grid.on_epoch_end(epoch)
    first, second, other = (
        (tmp_path / name).read_bytes() for name in ("1/epoch-0001.png", "1/epoch-0002.png", "2/epoch-0001.png")
    )
    assert first == second
    assert first != other


def test_an_evaluation_repeats_and_dequantizes_each_batch_with_other_noise():
    x = np.random.default_rng(0).integers(0, 4, [20, 2]).astype(np.uint8)
    model = tff.FlowModel(tff.real_nvp(2, num_layers=2, hidden_units=[4], seed=1), dequantize=4, seed=1)
    model.compile(optimizer="adam", jit_compile=False)
    one, two, again = (
        model.evaluate(np.tile(x, [n, 1]), batch_size=20, verbose=0, return_dict=True)["loss"] for n in (1, 2, 2)
    )
    assert two == again
    assert abs(two - one) > 1e-4


def test_variational_noise_reads_the_image():
    noise = tff.VariationalDequantization((2, 2, 1), 16, filters=4, seed=1)
    redraw_weights(noise, seed=3, scale=0.3)
    dark, bright = (16.0 * noise(tf.fill([5, 2, 2, 1], level), (1, 2))[0] - level for level in (0.0, 15.0))
    assert np.max(np.abs(dark - bright)) > 1e-2


def test_a_prediction_repeats_and_dequantizes_other_batches_with_other_noise():
    x = np.random.default_rng(0).integers(0, 4, [20, 2]).astype(np.uint8)
    model = tff.FlowModel(tff.real_nvp(2, num_layers=2, hidden_units=[4], seed=1), dequantize=4, seed=1)
    model.compile(optimizer="adam", jit_compile=False)
    first, again = (model.predict(x, verbose=0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    x[-1, 0] = 3 - x[-1, 0]
    assert np.all(model.predict(x, verbose=0) != first)


def test_networks_of_one_flow_and_of_neighboring_seeds_share_no_weights():
    def kernels(seed):
        flow = tff.image_real_nvp((4, 4, 1), filters=4, num_blocks=1, seed=seed)
        return [v.numpy() for v in flow.trainable_variables if v.shape.rank == 4]

    first, second = kernels(1), kernels(2)
    assert all(np.any(k != 0) for k in first)
    for i, kernel in enumerate(first):
        others = [*first[:i], *second]
        assert not any(k.shape == kernel.shape and np.array_equal(k, kernel) for k in others)
