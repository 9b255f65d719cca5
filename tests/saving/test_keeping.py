"""A saved model comes back whole, or an error says what cannot be saved."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.testing import redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
X = np.random.default_rng(0).normal(size=[40, 2]).astype(np.float32)


def base(size=2):
    return tfd.MultivariateNormalDiag(tf.zeros(size), tf.ones(size))


def keras_net(units=2):
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(units)])


@tff.serializable
def mixed_flow(width, seed=None):
    """A factory of a user's, with a closure that no file could hold."""
    net = tff.real_nvp_template([width], input_units=1, output_units=1, seed=seed)

    def shift_and_log_scale(x, units, **kwargs):
        return net(x, units, **kwargs)

    return tfd.TransformedDistribution(base(), tfb.RealNVP(1, shift_and_log_scale_fn=shift_and_log_scale))


@tff.serializable
class Half(tfb.Scale):
    """A bijector of a user's."""

    def __init__(self, power, name="half"):
        self.power = power  # TFP wants to find the arguments of a composite tensor
        super().__init__(0.5**power, name=name)


@tff.serializable
class Sinh(tfb.Bijector):
    """One direction only, as a density needs it."""

    def __init__(self, shift, name="sinh"):
        self.shift = shift
        super().__init__(forward_min_event_ndims=1, name=name)

    def _inverse(self, y):
        return tf.sinh(y - self.shift)

    def _inverse_log_det_jacobian(self, y):
        return tf.reduce_sum(tf.math.log(tf.cosh(y - self.shift)), axis=-1)


@tff.serializable
class RadialFlow(tff.RadialFlow):
    """A user's class may have the name of one of this package."""

    def __init__(self, event_size=2):
        super().__init__(event_size)


def shared_network():
    net = tff.masked_autoregressive_template([8], event_size=2)
    layers = [tff.MaskedAutoregressiveFlow(net, name=f"maf_{i}") for i in range(2)]
    return tff.FlowDistribution(base(), tfb.Chain([layers[0], tfb.Permute([1, 0]), layers[1]]))


def tfp_network():
    return tfb.AutoregressiveNetwork(2, event_shape=[2], hidden_units=[6], activation="relu")


FLOWS = {
    "recipe": lambda: tff.maf(2, num_layers=2, hidden_units=[8], preprocess=tff.standardize(X)),
    "recipe_of_base": lambda: tff.real_nvp(
        2, num_layers=2, hidden_units=[8], base=tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.1]), tf.ones(2))
    ),
    "recipe_with_bijector": lambda: tff.planar_flow(2, num_layers=2, preprocess=tfb.Shift(tf.Variable([1.0, 2.0]))),
    "tfp_alone": lambda: tfd.MultivariateNormalTriL(
        tf.Variable([0.0, 1.0]), tfp.util.TransformedVariable(tf.eye(2), tfb.FillScaleTriL())
    ),
    "tfp_chain": lambda: tfd.TransformedDistribution(
        base(), tfb.Chain([tfb.Shift(tf.Variable([1.0, 2.0])), tfb.Invert(tfb.Sinh()), tfb.Softplus(np.float32(0.5))])
    ),
    "tfp_maf": lambda: tfd.TransformedDistribution(base(), tfb.MaskedAutoregressiveFlow(tfp_network())),
    "tfp_spline": lambda: tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [2]),
        tfb.RationalQuadraticSpline(tf.Variable([1.0, 1.0]), tf.Variable([0.5, 1.5]), tf.Variable([1.0])),
    ),
    "mixture": lambda: tfd.MixtureSameFamily(
        tfd.Categorical(logits=tf.Variable(tf.zeros(3))),
        tfd.MultivariateNormalDiag(tf.Variable(tf.random.stateless_normal([3, 2], (1, 2))), tf.ones([3, 2])),
    ),
    "ours_in_tfp": lambda: tfd.TransformedDistribution(
        base(),
        tfb.Chain(
            [
                tff.PlanarFlow(2),
                tff.ActNorm(2),
                tff.LULinear(2, seed=None),
                tff.RadialFlow(2),
                tff.BatchNormalization(2),
            ]
        ),
    ),
    "keras_network": lambda: tfd.TransformedDistribution(
        base(), tff.RealNVP(1, shift_and_log_scale_fn=tff.as_template(keras_net(), log_scale_bound=3.0))
    ),
    "keras_network_in_tfp": lambda: tfd.TransformedDistribution(
        base(), tfb.MaskedAutoregressiveFlow(tff.AutoregressiveNetwork(2, 2, hidden_units=[8], input_order="random"))
    ),
    "splines": lambda: tff.FlowDistribution(
        base(),
        tfb.Invert(
            tff.MaskedAutoregressiveFlow(
                bijector_fn=tff.masked_autoregressive_template(
                    [8], event_size=2, transformer=tff.SplineTransformer(4, bound=3.0)
                )
            )
        ),
    ),
    "shared": shared_network,
    "factory": lambda: mixed_flow(6),
    "numpy_scalars": lambda: tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(np.float64(0.0), np.float64(2.0)), [2]),
        tfb.Chain([tfb.Shift(tf.Variable(np.ones(2))), tfb.Scale(np.array([2.0, 3.0], ">f8"))]),
    ),
    "density_alone": lambda: tfd.TransformedDistribution(base(), Sinh(tf.Variable([0.1, 0.2]))),
    "own_class": lambda: tfd.TransformedDistribution(base(), tfb.Chain([Half(2), tff.SylvesterFlow(2), RadialFlow()])),
    "flow_of_flow": lambda: tfd.TransformedDistribution(tff.nice(2, num_layers=2), tfb.Exp()),
    "conditional": lambda: tff.iaf(2, num_layers=1, hidden_units=[8], conditional_size=3),
    "mask": lambda: tff.FlowDistribution(
        base(4),
        tff.AffineCouplingLayer(tff.real_nvp_template([8], input_units=4, output_units=4), np.array([1.0, 0, 0, 1])),
    ),
    "images": lambda: tff.FlowDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [4, 4, 1]),
        tff.AffineCouplingLayer(tff.conv_resnet_template(4, 1, image_shape=(4, 4, 1)), "checkerboard", 0),
    ),
    "float64": lambda: tff.spline_coupling(2, num_layers=2, hidden_units=[8], dtype=tf.float64),
}


# Their parts are those of others here: recipes, chains, networks in TFP's classes, masks of `images`.
ALIKE = ("recipe_of_base", "flow_of_flow", "float64", "tfp_chain", "keras_network_in_tfp", "mask")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in FLOWS]
)
def test_what_is_saved_comes_back_exactly(name, tmp_path):
    flow = FLOWS[name]()
    conditional = getattr(flow, "conditional_size", None)
    condition = {} if conditional is None else {"conditional_input": np.ones([5, conditional], np.float32)}
    model = tff.FlowModel(flow)
    redraw_weights(flow, seed=3, scale=0.3)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), jit_compile=False)
    path = tmp_path / "flow.keras"
    model.save(path)
    keras.utils.set_random_seed(99)  # nothing may come from a generator
    loaded = keras.models.load_model(path)
    if name == "density_alone":
        x = X
    else:
        x = model.sample(5, seed=1, **condition)
        np.testing.assert_array_equal(loaded.sample(5, seed=1, **condition), x)
    np.testing.assert_array_equal(loaded.log_prob(x, **condition), model.log_prob(x, **condition))
    assert np.all(np.isfinite(model.log_prob(x, **condition)))
    assert len(loaded.trainable_weights) == len(model.trainable_weights) > 0
    assert [w.shape for w in loaded.weights] == [w.shape for w in model.weights]
    assert float(loaded.optimizer.learning_rate) == np.float32(2e-3)
    if name not in ("recipe", "shared", "factory"):
        return
    again = tmp_path / "again.keras"
    loaded.save(again)
    np.testing.assert_array_equal(
        keras.models.load_model(again).log_prob(x, **condition), model.log_prob(x, **condition)
    )


def test_a_shared_network_stays_shared():
    flow = shared_network()
    copy = tff.from_description(tff.describe(flow))
    assert len(copy.trainable_variables) == len(flow.trainable_variables) == 4
    assert copy.bijector.bijectors[0]._shift_and_log_scale_fn is copy.bijector.bijectors[2]._shift_and_log_scale_fn


def fixed_scale():
    scale = tfp.util.TransformedVariable([1.0, 2.0], tfb.Exp(), trainable=False)
    return tfd.MultivariateNormalDiag(tf.Variable([0.0, 1.0]), scale)


def frozen_network():
    flow = tff.maf(2, num_layers=2, hidden_units=[8], seed=1)
    flow.bijector.bijectors[0]._conditioner.fn.trainable = False
    return flow


def frozen_layer():
    net = keras_net()
    net.layers[0].trainable = False
    return tff.FlowDistribution(base(), tff.RealNVP(1, shift_and_log_scale_fn=tff.as_template(net)))


def frozen_tfp_network():
    net = tfb.AutoregressiveNetwork(2, event_shape=[2], hidden_units=[6], activation="relu", trainable=False)
    return tfd.TransformedDistribution(base(), tfb.Chain([tfb.MaskedAutoregressiveFlow(net), tff.PlanarFlow(2)]))


@pytest.mark.parametrize("make", [fixed_scale, frozen_network, frozen_layer, frozen_tfp_network])
def test_what_is_not_trained_stays_so_and_training_goes_on(make, tmp_path):
    model = tff.FlowModel(make())
    assert 0 < len(model.trainable_weights) < len(model.weights)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(X, batch_size=10, verbose=0, shuffle=False)
    model.save(tmp_path / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Keras skips an optimizer that does not fit, with a warning
        loaded = keras.models.load_model(tmp_path / "m.keras")
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    assert int(loaded.optimizer.iterations) == 4
    losses = [m.fit(X, batch_size=10, epochs=2, verbose=0, shuffle=False).history["loss"] for m in (model, loaded)]
    np.testing.assert_array_equal(*losses)


def test_a_layer_that_is_frozen_after_a_save_is_frozen_in_the_next_file(tmp_path):
    net = keras_net()
    model = tff.FlowModel(tff.FlowDistribution(base(), tff.RealNVP(1, shift_and_log_scale_fn=tff.as_template(net))))
    for trainable in (4, 2):
        model.save(tmp_path / "m.keras")
        assert len(keras.models.load_model(tmp_path / "m.keras").trainable_weights) == trainable
        net.layers[0].trainable = False


def test_saving_draws_no_random_number(tmp_path):
    model = tff.FlowModel(FLOWS["keras_network"]())
    state = random.getstate()
    model.save(tmp_path / "m.keras")
    assert random.getstate() == state


@tff.serializable
def maybe_inverted(bijector, inverted=False):
    """May return what it was given."""
    return tfb.Invert(bijector) if inverted else bijector


@tff.serializable
def shifted(by):
    """Made of a list that may change."""
    return tfb.Shift(tf.constant(by))


def test_a_factory_that_returns_its_argument():
    planar = tff.PlanarFlow(2, name="mine")
    assert maybe_inverted(planar) is planar
    assert type(tff.from_description(tff.describe(maybe_inverted(tfb.Scale(2.0))))) is tfb.Scale
    copies = [tff.from_description(tff.describe(item)) for item in (planar, maybe_inverted(planar, True))]
    assert [c.name for c in copies] == ["mine", "invert_mine"]


def test_what_was_noted_does_not_change():
    array, units = np.array([1.0, 2.0]), [8]
    shift, flow = shifted(array), tff.made(2, hidden_units=units, seed=1)
    array += 5.0
    units.append(9)
    np.testing.assert_array_equal(tff.from_description(tff.describe(shift)).shift, [1.0, 2.0])
    assert len(tff.from_description(tff.describe(flow)).variables) == len(flow.variables)


@pytest.mark.parametrize(
    "item",
    [
        tf.Variable([1.0], constraint=tf.nn.relu),
        np.array(["a"]),
        np.array([object()]),
        tfb.LambertWTail(0.0, 1.0, tf.constant(0.1)),
    ],
    ids=["constraint", "text", "objects", "no_parameters"],
)
def test_values_that_cannot_be_described(item):
    with pytest.raises(ValueError, match="save_weights"):
        tff.describe({"part": item})


def test_factories_take_names():
    with pytest.raises(ValueError, match=r"not \*args"):
        tff.serializable(lambda *args: args)


@tff.serializable
class Forgetful(tfb.Shift):
    """Its constructor draws what its arguments do not tell."""

    def __init__(self, name="forgetful"):
        super().__init__(np.random.default_rng().normal(size=2).astype(np.float32), name=name)


def unknown_class():
    class Mine(tff.PlanarFlow):
        pass

    return tfd.TransformedDistribution(base(), Mine(2))


UNKEPT = {
    "closure": (
        lambda: tff.FlowDistribution(
            base(), tfb.RealNVP(1, shift_and_log_scale_fn=lambda x, n: tuple([tff_net(x)] * 2))
        ),
        r"bijector\.shift_and_log_scale_fn is a function",
    ),
    "subclass": (unknown_class, "Mine"),
    "lambda_layer": (
        lambda: tff.FlowDistribution(base(), tff.RealNVP(1, shift_and_log_scale_fn=tff.as_template(with_lambda()))),
        r"shift_and_log_scale_fn\.fn: Keras cannot serialize",
    ),
    "forgetful": (
        lambda: tfd.TransformedDistribution(base(), tfb.Chain([Forgetful(), tff.PlanarFlow(2)])),
        "log-density of a copy",
    ),
    "activation": (lambda: tff.maf(2, num_layers=1, activation=lambda x: x), r"activation is a function"),
}
tff_net = keras.layers.Dense(1)


def with_lambda():
    return keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda t: 2 * t), keras.layers.Dense(2)])


@pytest.mark.parametrize("name", UNKEPT)
def test_what_cannot_be_described_raises_at_save(name, tmp_path):
    make, message = UNKEPT[name]
    model = tff.FlowModel(make())
    path = tmp_path / "flow.keras"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=message) as raised:
        model.save(path)
    assert "save_weights" in str(raised.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["flow.keras"]


def small_file(path, change=None):
    model = tff.FlowModel(tff.planar_flow(2, num_layers=1, seed=1))
    model.compile(optimizer="adam")
    model.save(path)
    if change is not None:
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        config = json.loads(parts["config.json"])
        config["config"]["distribution"] = change(config["config"]["distribution"])
        parts["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w") as new:
            for name, content in parts.items():
                new.writestr(name, content)
    return model


KERAS_FUNCTION = {
    "class_name": "function",
    "config": "disable_interactive_logging",
    "module": "keras.config",
    "registered_name": "disable_interactive_logging",
}


def _changed(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


HOSTILE = {
    "no_json": (lambda text: "{", "Not a description"),
    "no_text": (lambda text: 3, "Not a description"),
    "other_format": (_changed(format=3), "has format 3, this version"),
    "unknown_name": (
        _changed(objects=[{"call": "os.system", "arguments": [["x", "echo"]]}]),
        "'os.system', which is not",
    ),
    "attribute": (
        _changed(objects=[{"tfp": "bijectors.__builtins__", "arguments": []}]),
        "not a bijector or distribution",
    ),
    "private": (_changed(objects=[{"tfp": "math.exp", "arguments": []}]), "not a bijector or distribution"),
    "argument": (_changed(objects=[{"call": "tfp_flows>planar_flow", "arguments": [["x", 1]]}]), "object 0"),
    "reference": (_changed(root={"ref": 99}), "no object 99"),
    "kind": (_changed(objects=[{"pickle": "abc"}]), "cannot be read at"),
    "array": (
        _changed(objects=[{"array": {"dtype": "float32", "shape": [3], "data": "AA=="}, "tensor": False}]),
        "buffer size",
    ),
    "function": (_changed(objects=[{"keras": KERAS_FUNCTION}]), "names the function 'disable_interactive_logging'"),
    "activation": (
        _changed(objects=[{"activation": KERAS_FUNCTION}]),
        "names the function 'disable_interactive_logging'",
    ),
    "function_inside": (
        _changed(
            objects=[
                {
                    "keras": keras.saving.serialize_keras_object(keras.layers.Activation("relu"))
                    | {"config": KERAS_FUNCTION}
                }
            ]
        ),
        "names the function",
    ),
    "no_layer": (
        _changed(objects=[{"keras": keras.saving.serialize_keras_object(keras.optimizers.SGD())}]),
        "is not a layer",
    ),
    "negative": (_changed(root={"ref": -1}), "no object -1"),
    "deep": (
        lambda text: '{"format": 4, "objects": [], "root": ' + '{"list": [' * 5000 + "]}" * 5000 + "}",
        "Not a description",
    ),
    "huge": (_changed(objects=[{"call": "tfp_flows>planar_flow", "arguments": [["event_size", 10**13]]}]), "object 0"),
    "empty": (_changed(root={}), "its root"),
    "lambda": (
        _changed(objects=[{"keras": keras.saving.serialize_keras_object(keras.layers.Lambda(lambda t: t))}]),
        "(?i)lambda",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_changed_file_gives_a_clear_error(name, tmp_path):
    change, message = HOSTILE[name]
    path = tmp_path / "flow.keras"
    small_file(path, change)
    with pytest.raises((ValueError, TypeError), match=message):
        keras.models.load_model(path)


def test_a_truncated_file_gives_a_clear_error(tmp_path):
    path = tmp_path / "flow.keras"
    small_file(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((ValueError, OSError, zipfile.BadZipFile), match=r"(?i)zip|keras"):
        keras.models.load_model(path)


EXPORTED = {
    "maf": (lambda: tff.maf(2, num_layers=1, hidden_units=[8], seed=1), {}),
    "conditional_iaf": (lambda: tff.iaf(2, num_layers=1, hidden_units=[8], conditional_size=3, seed=1), {}),
    "images": (
        lambda: tff.image_real_nvp((4, 4, 1), num_scales=1, num_couplings=1, num_blocks=0, filters=4, seed=1),
        {"dequantize": 256},
    ),
}
READ_EXPORT = """
import sys
sys.modules["tfp_flows"] = sys.modules["tensorflow_probability"] = sys.modules["keras"] = None
import numpy as np
import tensorflow as tf
for name in sys.argv[2:]:
    data = dict(np.load(f"{sys.argv[1]}/{name}.npz"))
    loaded = tf.saved_model.load(f"{sys.argv[1]}/{name}")
    condition = [tf.constant(data["condition"])] if data["condition"].size else []
    samples = loaded.sample(tf.constant(len(data["samples"])), tf.constant([3, 0]), *condition)["samples"]
    np.testing.assert_allclose(samples, data["samples"], rtol=1e-5, atol=1e-5)
    log_prob = loaded.log_prob(tf.constant(data["x"]), *condition)["log_prob"]
    np.testing.assert_allclose(log_prob, data["log_prob"], rtol=1e-5)
    keywords = {"conditional_input": condition[0][:1]} if condition else {}
    one = loaded.signatures["log_prob"](x=tf.constant(data["x"][:1]), **keywords)["log_prob"]
    np.testing.assert_allclose(one, data["log_prob"][:1], rtol=1e-5)
"""


@pytest.mark.parametrize("names", [("conditional_iaf", "images"), pytest.param(("maf",), marks=pytest.mark.slow)])
def test_an_exported_model_runs_without_this_package(names, tmp_path):
    for name in names:
        make, options = EXPORTED[name]
        flow = make()
        redraw_weights(flow, seed=3, scale=0.2)
        model = tff.FlowModel(flow, **options)
        size = getattr(flow, "conditional_size", None)
        condition = np.ones([5, size or 0], np.float32) * np.arange(5, dtype=np.float32)[:, np.newaxis]
        given = {} if size is None else {"conditional_input": condition}
        x = flow.sample(5, seed=(1, 2), **given)
        np.savez(
            tmp_path / name,
            x=x,
            condition=condition,
            log_prob=model.log_prob(x, **given),
            samples=model.sample(5, seed=3, **given),
        )
        model.export(tmp_path / name)
        assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
        with pytest.raises(ValueError, match="new or empty"):
            model.export(tmp_path / name)
    arguments = [sys.executable, "-c", READ_EXPORT, str(tmp_path), *names]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


SAVE_FOREVER = """
import sys
sys.modules["matplotlib"] = None
import keras
import numpy as np
import tfp_flows
[getattr(tfp_flows, name) for name in tfp_flows.__all__]
path, x, y = sys.argv[1:]
model = keras.models.load_model(path)
np.save(y, model.log_prob(np.load(x)).numpy())
print("ready", flush=True)
while True:
    model.save(path)
"""


def test_a_process_that_only_imported_the_package_reads_and_killed_while_it_saves_leaves_a_whole_file(tmp_path):
    """Nor has the process matplotlib (which TensorFlow Probability itself imports where it is installed)."""
    path = tmp_path / "flow.keras"
    model = small_file(path)
    expected = model.log_prob(X)
    np.save(tmp_path / "x.npy", X)
    arguments = [str(path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
        rng = np.random.default_rng(1)
        for _ in range(20):  # among saves, whatever each of them is at
            time.sleep(0.1 * rng.uniform())
            os.kill(process.pid, signal.SIGSTOP)
            with zipfile.ZipFile(path) as file:
                assert file.testzip() is None
            os.kill(process.pid, signal.SIGCONT)
    finally:
        process.kill()
        process.wait()
    np.testing.assert_array_equal(keras.models.load_model(path).log_prob(X), expected)


def test_two_of_one_name_are_refused():
    with pytest.raises(ValueError, match="registered as 'shifted' already"):

        @tff.serializable
        def shifted():
            """Another one."""


def test_a_tf_checkpoint_of_the_bare_distribution(tmp_path):
    flow = tff.maf(2, num_layers=2, hidden_units=[8], seed=1, preprocess=tff.standardize(X))
    redraw_weights(flow, seed=2, scale=0.3)
    path = tf.train.Checkpoint(flow=flow).write(str(tmp_path / "flow"))
    other = tff.maf(2, num_layers=2, hidden_units=[8], seed=5, preprocess=tff.Standardize(2))
    status = tf.train.Checkpoint(flow=other).read(path)
    status.assert_existing_objects_matched()
    np.testing.assert_array_equal(other.log_prob(X), flow.log_prob(X))


def small_multi_scale():
    masks = [tff.checkerboard_binary_mask((4, 4)), tff.channel_binary_mask(4), tff.checkerboard_binary_mask((2, 2))]
    networks = [tff.get_conv_resnet(shape, 4) for shape in ((4, 4, 1), (2, 2, 4), (2, 2, 2))]
    blocks = [tff.course.affine_coupling_layer_block([net], mask) for net, mask in zip(networks, masks, strict=True)]
    return tff.course.RealNVPMultiScale(*blocks)


@pytest.mark.parametrize("given", [small_multi_scale, pytest.param(lambda: None, marks=pytest.mark.slow)])
def test_the_models_of_the_courses_are_kept(given, tmp_path):
    model = tff.course.RealNVPModel(given(), image_shape=(4, 4, 1), filters=4)
    redraw_weights(model.flow, seed=2, scale=0.1)
    model.compile(optimizer="adam")
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(0).uniform(size=[3, 4, 4, 1]).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
