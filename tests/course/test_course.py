"""The names of the course notebooks, with their signatures, used as a learner uses them."""

import inspect
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import course

tfb, tfd = tfp.bijectors, tfp.distributions

SIGNATURES = {
    "get_conv_resnet": ["input_shape", "filters"],
    "checkerboard_binary_mask": ["shape", "orientation"],
    "channel_binary_mask": ["num_channels", "orientation"],
    "forward": ["x", "b", "shift_and_log_scale_fn"],
    "inverse": ["y", "b", "shift_and_log_scale_fn"],
    "forward_log_det_jacobian": ["x", "b", "shift_and_log_scale_fn"],
    "inverse_log_det_jacobian": ["y", "b", "shift_and_log_scale_fn"],
    "AffineCouplingLayer": ["shift_and_log_scale_fn", "mask", "orientation"],
    "Squeeze": [],
    "realnvp_block": ["shift_and_log_scale_fns", "squeeze"],
    "RealNVPMultiScale": ["acl_block_1", "acl_block_2", "acl_block_3"],
    "get_preprocess_bijector": ["alpha"],
    "RealNVPModel": ["realnvp_multiscale", "preprocess"],
    "affine_coupling_layer_block": ["shift_and_log_scale_fns", "mask"],
    "Conv2DResidualBlock": ["num_filters", "kernel_size", "l2reg_coeff"],
    "get_shift_and_log_scale_resnet": ["input_shape", "kernel_size", "l2reg_coeff", "residual_blocks"],
    "get_datasets": ["images_train", "images_val", "shuffle_buffer", "batch_size"],
    "get_shift_and_log_scale_fn": ["input_size", "hidden_units", "activation"],
    "get_dataset": ["data_array", "shuffle_buffer_size", "batch_size"],
    "base_distribution": [],
    "maf_flow": ["base_dist", "num_layers", "hidden_units"],
    "train_model": ["maf_model", "opt", "training_dataset", "epochs", "loss_metric"],
    "layer_transformations": ["maf_model", "base_dist_samples"],
    "gaussian_mixture": [],
}


def test_names_and_signatures():
    assert set(SIGNATURES) == set(course.__all__)
    page = (pathlib.Path(__file__).parents[2] / "docs" / "course.md").read_text(encoding="utf-8")
    for name, expected in SIGNATURES.items():
        parameters = list(inspect.signature(getattr(course, name)).parameters.values())
        assert [p.name for p in parameters[: len(expected)]] == expected, name
        assert all(p.kind == p.POSITIONAL_OR_KEYWORD for p in parameters[: len(expected)]), name
        variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        rest = [p for p in parameters[len(expected) :] if p.kind not in variadic]
        assert all(p.default is not p.empty for p in rest), name
        assert re.search(rf"`{name}[`(]", page), name
    assert inspect.signature(course.checkerboard_binary_mask).parameters["orientation"].default == 0
    assert inspect.signature(course.channel_binary_mask).parameters["orientation"].default == 0
    fn = inspect.signature(course.get_shift_and_log_scale_fn).parameters
    assert (list(fn["hidden_units"].default), fn["activation"].default) == ([32, 32], "relu")


def test_free_functions_are_the_layer():
    net = tff.get_conv_resnet((4, 4, 2), 4)
    x = tf.constant(np.random.default_rng(0).normal(size=[3, 4, 4, 2]).astype("float32"))
    b = course.checkerboard_binary_mask((4, 4))
    layer = course.AffineCouplingLayer(net, "checkerboard", 0)
    y = course.forward(x, b, net)
    np.testing.assert_allclose(y, layer.forward(x), atol=1e-6)
    np.testing.assert_allclose(course.inverse(y, b, net), x, atol=1e-5)
    log_det = course.forward_log_det_jacobian(x, b, net)
    np.testing.assert_allclose(log_det, layer.forward_log_det_jacobian(x, event_ndims=3), atol=1e-5)
    np.testing.assert_allclose(course.inverse_log_det_jacobian(y, b, net), -log_det, atol=1e-5)


def perturb(variables):
    rng = np.random.default_rng(0)
    for v in variables:
        v.assign(v + 0.1 * rng.normal(size=v.shape).astype("float32"))


def imperial():
    """The multi-scale bijector from the parts of the Imperial notebook, with its masks."""
    shapes = [(4, 4, 1), (2, 2, 4), (2, 2, 2)]
    masks = [tff.checkerboard_binary_mask((4, 4)), tff.channel_binary_mask(4), tff.checkerboard_binary_mask((2, 2))]
    blocks = []
    for shape, mask in zip(shapes, masks, strict=True):
        residual = [course.Conv2DResidualBlock(4, 3, 5e-5)]
        fns = [course.get_shift_and_log_scale_resnet(shape, 3, 5e-5, residual)]
        fns.append(course.get_shift_and_log_scale_resnet(shape, 3, 5e-5, [4]))
        blocks.append(course.affine_coupling_layer_block(fns, mask))
    return course.RealNVPMultiScale(*blocks)


@pytest.mark.parametrize("kind", [pytest.param("coursera", marks=pytest.mark.slow), "imperial"])
def test_the_image_models_train(kind):
    """Both forms are invertible, with the right log-det, and their loss falls."""
    multi_scale = imperial() if kind == "imperial" else course.RealNVPMultiScale(image_shape=(4, 4, 1), filters=4)
    model = course.RealNVPModel(multi_scale, course.get_preprocess_bijector(0.05), image_shape=(4, 4, 1))
    model.build((1, 4, 4, 1))
    with pytest.raises(ValueError, match="input_shape"):
        model.build((1, 8, 8, 1))
    perturb(model.trainable_variables)
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(size=[1, 4, 4, 1]).astype("float32"))
    z, log_det = multi_scale.forward_and_log_det(x)
    assert z.shape == (1, 2, 2, 4)
    np.testing.assert_allclose(multi_scale.inverse(tf.identity(z)), x, atol=1e-4)
    copies = tf.repeat(x, 16, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        one_of_each = tf.linalg.trace(tf.reshape(multi_scale.forward_and_log_det(copies)[0], [16, 16]))
    jacobian = tf.reshape(tape.gradient(one_of_each, copies), [16, 16])
    np.testing.assert_allclose(tf.linalg.slogdet(jacobian)[1], tf.squeeze(log_det), atol=1e-3)

    images = np.clip(rng.normal(0.5, 0.1, size=[128, 4, 4, 1]) * np.linspace(0.5, 1.5, 16).reshape(4, 4, 1), 0, 1)
    images = np.round(255 * images).astype(np.uint8)
    train, validation = course.get_datasets(images[:96], images[96:], 96, 32)
    statistics = [w for w in model.non_trainable_weights if "moving" in w.path]
    assert len(statistics) > 8
    before = [w.numpy() for w in statistics]
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    history = model.fit(train, validation_data=validation, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 1.0
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert all(np.any(w.numpy() != old) for w, old in zip(statistics, before, strict=True))
    assert model.sample(4).shape == (4, 4, 4, 1)
    np.testing.assert_allclose(
        -np.mean(model.predict(validation, verbose=0)), model.evaluate(validation, verbose=0), rtol=1e-4
    )


def test_blocks_are_checked():
    with pytest.raises(ValueError, match="6 networks"):
        course.realnvp_block([tff.get_conv_resnet((4, 4, 1), 4)])
    with pytest.raises(ValueError, match="known input shape"):
        course.realnvp_block([lambda x: (x, x)] * 6)
    with pytest.raises(ValueError, match="all three blocks"):
        course.RealNVPMultiScale(tfb.Identity())
    with pytest.raises(ValueError, match="must be bijectors"):
        course.RealNVPMultiScale(1, 2, 3)
    multi_scale = course.RealNVPMultiScale(image_shape=(4, 4, 1), filters=4)
    with pytest.raises(ValueError, match="was made for"):
        course.RealNVPModel(multi_scale, image_shape=(8, 8, 1))
    assert course.RealNVPModel(multi_scale).flow.event_shape == (4, 4, 1)
    dataset = course.get_dataset(np.ones([4, 2]), 4, 2)
    with pytest.raises(ValueError, match="no trainable"):
        course.train_model(course.base_distribution(), keras.optimizers.Adam(), dataset, 1, keras.metrics.Mean())
    with pytest.raises(ValueError, match="`num_layers`"):
        course.maf_flow(course.base_distribution(), 0, [8])
    with pytest.raises(ValueError, match="at least one"):
        course.affine_coupling_layer_block([], [1.0, 0.0])


def test_the_networks_have_the_notebooks_sizes():
    fn = course.get_shift_and_log_scale_fn(2)
    assert fn.count_params() == 2 * (2 * 32 + 32 + 32 * 32 + 32 + 32 * 2 + 2)
    block = course.Conv2DResidualBlock(4, 3, 5e-5, dtype="float64")
    x = tf.random.normal([2, 4, 4, 1], dtype=tf.float64)
    assert block(x).dtype == tf.float64
    assert block.count_params() == (9 * 4 + 4) + 16 + (9 * 4 + 1) + 4
    again = course.Conv2DResidualBlock.from_config(block.get_config())
    again(x)
    again.set_weights(block.get_weights())
    np.testing.assert_allclose(again(x), block(x))


def test_the_block_is_in_the_order_of_the_notebook():
    fns = [tff.get_conv_resnet((4, 4, 1), 4) for _ in range(3)] + [tff.get_conv_resnet((2, 2, 4), 4) for _ in range(3)]
    block = course.realnvp_block(fns, tff.Squeeze())
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 4, 4, 1]).astype("float32"))
    y = x
    for half in (0, 1):
        for i in range(3):
            mask = course.channel_binary_mask(4, i % 2) if half else course.checkerboard_binary_mask((4, 4), i % 2)
            y = course.forward(y, mask, fns[3 * half + i])
        y /= np.sqrt(1.0 + 1e-5)  # moving statistics 0 and 1
        y = y if half else tff.Squeeze().forward(y)
    np.testing.assert_allclose(block.forward(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("base", ["base_distribution", "gaussian_mixture"])
def test_the_maf_of_the_notebook_trains(base):
    keras.utils.set_random_seed(1)
    flow = course.maf_flow(getattr(course, base)(), 2, [16])
    dataset = course.get_dataset(tff.data.moons().sample(256, seed=1), 256, 64)
    losses = course.train_model(flow, keras.optimizers.Adam(1e-2), dataset, 10, keras.metrics.Mean())
    assert losses[-1] < losses[0] - 0.3
    z = flow.distribution.sample(5, seed=1)
    steps = course.layer_transformations(flow, z)
    assert len(steps) == 2
    np.testing.assert_allclose(steps[-1], flow.bijector.forward(tf.identity(z)), rtol=1e-5)


def test_the_loop_trains_a_flow_of_tfp():
    """Whose network has no variables before its first call."""
    made = tfb.AutoregressiveNetwork(params=2, hidden_units=[8], activation="relu")
    flow = tfd.TransformedDistribution(course.base_distribution(), tfb.MaskedAutoregressiveFlow(made))
    dataset = course.get_dataset(tff.data.moons().sample(64, seed=1), 64, 32)
    losses = course.train_model(flow, keras.optimizers.Adam(1e-2), dataset, 3, keras.metrics.Mean())
    assert losses[-1] < losses[0]


def test_the_loop_reports_each_epoch_by_itself():
    flow = course.maf_flow(course.base_distribution(), 1, [4])
    x = tff.data.moons().sample(64, seed=1)
    metric = keras.metrics.Mean()
    metric.update_state(1e6)  # of an earlier use
    losses = course.train_model(flow, keras.optimizers.SGD(0.0), course.get_dataset(x, 64, 32), 2, metric)
    np.testing.assert_allclose(losses, -np.mean(flow.log_prob(x)), rtol=1e-5)


def test_the_first_network_of_a_block_acts_first_and_masks_alternate():
    fns = [course.get_shift_and_log_scale_fn(2) for _ in range(3)]
    mask = tf.constant([1.0, 0.0])
    x = y = tf.constant(np.random.default_rng(0).normal(size=[5, 2]).astype("float32"))
    for fn, b in zip(fns, (mask, 1 - mask, mask), strict=True):
        y = course.forward(y, b, fn)
    np.testing.assert_allclose(course.affine_coupling_layer_block(fns, mask).forward(x), y, rtol=1e-5, atol=1e-6)


def test_a_multi_scale_class_of_the_learner_that_does_not_tell_its_shapes():
    class RealNVPMultiScale(tfb.Bijector):
        """A learner's class, with nothing but the maps."""

        def __init__(self, **kwargs):
            super().__init__(forward_min_event_ndims=3, **kwargs)
            self.squeeze = tff.Squeeze()
            self.coupling = tff.AffineCouplingLayer(tff.get_conv_resnet((2, 2, 4), 4), "channel", 0)

        def _forward(self, x):
            return self.coupling.forward(self.squeeze.forward(x))

        def _inverse(self, y):
            return self.squeeze.inverse(self.coupling.inverse(y))

        def _forward_log_det_jacobian(self, x):
            return self.coupling.forward_log_det_jacobian(self.squeeze.forward(x), event_ndims=3)

    images = np.random.default_rng(0).random([32, 4, 4, 1]).astype("float32")
    for given in (RealNVPMultiScale(), RealNVPMultiScale):
        model = tff.course.RealNVPModel(given, tff.get_preprocess_bijector(0.05), image_shape=(4, 4, 1))
        if given is RealNVPMultiScale:
            model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
            model.fit(images, batch_size=16, epochs=1, verbose=0)
        assert model.sample(3).shape == (3, 4, 4, 1)
        assert np.all(np.isfinite(model.log_prob(images)))
        assert len(model.trainable_weights) > 0


def test_the_loop_refuses_a_flow_without_variables():
    dataset = course.get_dataset(tff.data.moons().sample(64, seed=1), 64, 32)
    with pytest.raises(ValueError, match="no trainable variables"):
        course.train_model(course.base_distribution(), keras.optimizers.SGD(0.1), dataset, 1, keras.metrics.Mean())
