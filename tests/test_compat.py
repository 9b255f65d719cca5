"""Private names of TFP and TensorFlow, and that they still are what `_compat_tfp` takes them for."""

import ast
import gc
import inspect
import pathlib
import weakref

import keras
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.framework import ops

import tfp_flows as tff
from tfp_flows import _compat_keras, _compat_tfp

tfb, tfd = tfp.bijectors, tfp.distributions


def trace(with_forgetting):
    """A weak reference to a graph that a bijector's log-det was traced in, after all else of it is gone."""

    def log_det(x):
        if not with_forgetting:
            return tfb.Exp().forward_log_det_jacobian(x, event_ndims=1)
        with _compat_tfp.forgetting():
            return tfb.Exp().forward_log_det_jacobian(x, event_ndims=1)

    concrete = tf.function(log_det).get_concrete_function(tf.TensorSpec([3], tf.float32))
    return weakref.ref(concrete.graph)


def test_tfp_keeps_graphs_in_its_cache_and_forgetting_frees_them():
    kept, freed = trace(False), trace(True)
    gc.collect()
    assert freed() is None
    if kept() is None:
        pytest.fail("TFP frees the graphs of its cache by now: `forgetting` has nothing left to do.")
    for key in list(tfb.Bijector._cache.storage):
        if any(map(tf.is_symbolic_tensor, tf.nest.flatten(key()))):
            tfb.Bijector._cache.storage.pop(key)


def test_custom_gradients_are_registered_for_ever_and_unregistering_forgets_them():
    @tf.custom_gradient
    def double(x):
        return 2.0 * x, lambda dy: 2.0 * dy

    before = set(ops.gradient_registry._registry)
    concrete = tf.function(double).get_concrete_function(tf.TensorSpec([3], tf.float32))
    added = set(ops.gradient_registry._registry) - before
    assert added
    assert all(name.startswith("CustomGradient-") for name in added)
    _compat_tfp.unregister_gradients(concrete.graph)
    assert set(ops.gradient_registry._registry) == before


def test_open_tapes_and_forward_accumulators_are_noticed():
    assert not _compat_tfp.could_record_gradients()
    with tf.GradientTape():
        assert _compat_tfp.could_record_gradients()
    x = tf.ones([2])
    with tf.autodiff.ForwardAccumulator(x, x):
        assert _compat_tfp.could_record_gradients()


def test_adam_s_variables_are_in_the_order_of_its_weights():
    weights = [keras.Variable(tf.ones([n])) for n in (2, 3, 4)]
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)
    assert [_compat_keras.index_of_weight(optimizer, w) for w in weights] == [0, 1, 2]
    for slot in ("momentum", "velocity"):
        assert [v.shape for v in optimizer.variables if v.name.endswith(f"_{slot}")] == [(2,), (3,), (4,)]


def test_tfp_makes_private_twins_of_its_classes_where_parts_hold_networks():
    network = tff.MaskedAutoregressiveFlow(tff.masked_autoregressive_template([4], event_size=2))
    assert isinstance(tfb.Chain([network]), _compat_tfp.Chain)
    assert isinstance(tfb.Invert(network), _compat_tfp.Invert)
    assert isinstance(tfb.Blockwise([network], [2]), _compat_tfp.Blockwise)
    base = tfd.MultivariateNormalDiag(tf.zeros(2))
    assert isinstance(tfd.TransformedDistribution(base, network), _compat_tfp.TransformedDistribution.__bases__[0])
    for public, private in ((tfb.Chain, _compat_tfp.Chain), (tfb.Invert, _compat_tfp.Invert)):
        assert issubclass(public, private)
        assert public is not private  # else the public name will do


def test_tfp_samples_by_a_private_method():
    calls = []

    class Noted(_compat_tfp.TransformedDistribution):
        def draw(self, sample_shape, seed, **kwargs):
            calls.append(sample_shape)
            return super().draw(sample_shape, seed, **kwargs)

    Noted(tfd.Normal(0.0, 1.0), tfb.Exp()).sample(3)
    assert len(calls) == 1


def test_what_tfp_says_of_bijectors_and_modules():
    assert _compat_tfp.is_injective(tfb.Exp())
    assert not _compat_tfp.is_injective(tfb.AbsoluteValue())
    bijector = tfb.Scale(tf.Variable([1.0, 2.0]))
    bijector.forward(tf.ones([2]))
    children = _compat_tfp.module_children(bijector)
    assert any(child is bijector.scale for child in children)
    assert len(children) < len(vars(bijector))  # without caches and the like
    flow = tfb.RealNVP(fraction_masked=0.5, shift_and_log_scale_fn=tff.real_nvp_template([4]))
    _compat_tfp.set_input_depth(flow, 6)
    assert flow._masked_size == 3


def test_parts_of_tfps_flows_that_it_does_not_make_public():
    made = tfb.AutoregressiveNetwork(2, event_shape=[3], hidden_units=[5], activation="relu")
    made(tf.zeros([1, 3]))
    settings = _compat_tfp.made_settings(made)
    assert {
        "params": 2,
        "hidden_units": [5],
        "activation": "relu",
        "input_order": [1, 2, 3],
    }.items() <= settings.items()
    twin = tfb.AutoregressiveNetwork(**{k: v for k, v in settings.items() if k != "conditional_input_layers"})
    twin(tf.zeros([1, 3]))
    assert [w.shape for w in twin.get_weights()] == [w.shape for w in made.get_weights()]
    assert [m.shape for m in _compat_tfp.made_masks(made)] == [(3, 5), (5, 6)]
    template = tfb.real_nvp_default_template([4])
    assert "hidden_layers" in inspect.getclosurevars(_compat_tfp.template_function(template)).nonlocals
    glow = tfb.Glow(
        output_shape=(4, 4, 1),
        num_glow_blocks=1,
        num_steps_per_block=1,
        coupling_bijector_fn=tfb.GlowDefaultNetwork,
        exit_bijector_fn=tfb.GlowDefaultExitNetwork,
    )
    layers = [m for m in glow.submodules if type(m).__name__ == "ActivationNormalization"]
    assert _compat_tfp.actnorm_state(layers[0]) is None
    glow.inverse(tf.random.stateless_normal([8, 4, 4, 1], [1, 2]))
    assert len(_compat_tfp.actnorm_state(layers[0])) == 2
    mixing = next(m for m in glow.submodules if type(m).__name__ == "OneByOneConv")
    assert isinstance(_compat_tfp.one_by_one_conv(mixing), tfb.ScaleMatvecLU.__bases__[0])


def test_private_names_of_keras():
    layer = keras.layers.Dense(1)
    layer.build((None, 2))
    with pytest.raises(ValueError, match="cannot add new elements"):
        layer.more = keras.Variable([1.0])
    with _compat_keras.open_to_new_weights(layer):
        layer.other = keras.Variable([1.0])
    assert len(layer.weights) == 3
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile(loss="mse")
    epochs = []

    class Jump(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            _compat_keras.start_at_epoch(self.model, 3)

        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)

    model.fit(tf.ones([4, 1]), tf.ones([4, 1]), epochs=5, verbose=0, callbacks=[Jump()])
    assert epochs == [3, 4]
    _compat_keras.start_at_epoch(model, None)
    assert model.train_function is not None
    _compat_keras.forget_functions(model)
    assert model.train_function is None
    asked = []

    class Asked(keras.Model):
        def evaluate(self, *args, **kwargs):
            asked.append(_compat_keras.is_validation_in_fit(kwargs))
            return super().evaluate(*args, **kwargs)

        def _maybe_symbolic_build(self, **kwargs):
            asked.append("build")
            return super()._maybe_symbolic_build(**kwargs)

    inputs = keras.Input([1])
    model = Asked(inputs, keras.layers.Dense(1)(inputs))
    model.compile(loss="mse")
    model.fit(tf.ones([4, 1]), tf.ones([4, 1]), verbose=0, validation_data=(tf.ones([4, 1]), tf.ones([4, 1])))
    assert {"build", True} <= set(asked)


def test_private_names_of_others_are_used_nowhere_else():
    """Underscored attributes that nothing in the package defines are somebody else's."""
    files = list(pathlib.Path(tff.__file__).parent.rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    own = {"_replace", "_fields"}  # of named tuples, public
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                own.add(node.target.id)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":
                own.add(ast.literal_eval(node.args[1]))
            elif isinstance(node, ast.Assign):
                own |= {t.id for target in node.targets for t in ast.walk(target) if isinstance(t, ast.Name)}
    count = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                if path.name.startswith("_compat"):
                    count.add(node.attr)
                else:
                    assert node.attr in own, f"{path}:{node.lineno}: {ast.unparse(node)}"
        if not path.name.startswith("_compat"):
            text = path.read_text(encoding="utf-8")
            for name in (
                "gradient_registry",
                "_TF_MODULE_IGNORED",
                "__bases__[0]",
                "_use_cached",
                "tensorflow.python",
                ".src.",
            ):
                assert name not in text, (path, name)
    assert len(count) <= 25
