import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.training import compilation, fitting

tfb, tfd = tfp.bijectors, tfp.distributions
X = tff.data.moons().sample(200, seed=1)


def small(name="maf", **kwargs):
    return getattr(tff, name)(2, **{"num_layers": 1, "hidden_units": [8], "seed": 1, **kwargs})


def compiled(flow=None, rate=1e-3, **kwargs):
    model = tff.FlowModel(small() if flow is None else flow)
    model.compile(optimizer=keras.optimizers.Adam(rate), **kwargs)
    return model


@pytest.fixture(scope="module")
def trained():
    model = compiled()
    model.fit(X, batch_size=50, epochs=2, verbose=0)
    return model


def test_shapes_and_meaning(trained):
    log_prob = trained.distribution.log_prob(X)
    assert trained(X).shape == [200]
    np.testing.assert_allclose(trained(X), log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(trained.predict(X, verbose=0), log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        trained.log_prob(X.reshape(2, 100, 2)), np.reshape(log_prob, [2, 100]), rtol=1e-4, atol=1e-4
    )
    assert trained.evaluate(X, verbose=0) == pytest.approx(-np.mean(log_prob), abs=1e-4)
    assert trained.evaluate(X, verbose=0, return_dict=True).keys() == {"loss"}


def test_sample(trained):
    a, b, c = (trained.sample(7, seed=s) for s in (1, 1, 2))
    assert a.shape == [7, 2]
    np.testing.assert_array_equal(a, b)
    assert np.all(a != c)
    assert trained.sample((2, 3), seed=1).shape == [2, 3, 2]
    assert trained.sample().shape == [2]
    keras.utils.set_random_seed(5)
    first = trained.sample(3).numpy()
    assert np.all(first != trained.sample(3).numpy())
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(first, trained.sample(3))


def test_many_sizes_do_not_retrace(trained):
    for n in (1, 2, 3, 17, 100):
        trained.log_prob(X[:n])
        trained.sample(n, seed=1)
    assert trained._compiled_log_prob.graph.experimental_get_tracing_count() <= 4
    assert trained._compiled_sample.experimental_get_tracing_count() <= 4


def test_log_prob_follows_the_weights():
    model = compiled()
    x = tf.constant(X)
    before = model.log_prob(x).numpy()
    model.fit(X, batch_size=50, verbose=0)
    after = model.log_prob(x)
    assert np.any(before != after)
    np.testing.assert_allclose(after, model.distribution.log_prob(x), rtol=1e-4, atol=1e-4)


def test_validation_forms():
    model = compiled(jit_compile=False)
    for validation in ({"validation_data": X[:50]}, {"validation_data": (X[:50],)}, {"validation_split": 0.25}):
        history = model.fit(X, epochs=1, verbose=0, **validation).history
        assert np.isfinite(history["val_loss"][0])
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(50)
    assert model.fit(dataset, validation_data=dataset, epochs=1, verbose=0).history["val_loss"][0] == pytest.approx(
        model.evaluate(X, verbose=0), abs=1e-4
    )


def test_sample_weight_weighs():
    model = compiled(rate=0.0)
    nll = -np.asarray(model.log_prob(X))
    weight = np.linspace(0, 2, 200)
    loss = model.fit(X, sample_weight=weight, batch_size=200, verbose=0).history["loss"][0]
    assert loss == pytest.approx(np.mean(nll * weight), rel=1e-4)
    history = model.fit(X, sample_weight=weight, batch_size=150, verbose=0, validation_split=0.25).history
    assert history["loss"][0] == pytest.approx(np.mean((nll * weight)[:150]), rel=1e-4)
    assert history["val_loss"][0] == pytest.approx(np.mean(nll[150:]), rel=1e-4)
    with pytest.raises(ValueError, match="`sample_weight` must hold 200"):
        model.fit(X, sample_weight=weight[:5], verbose=0)


def test_keras_callbacks_and_optimizers(tmp_path):
    model = tff.FlowModel(small())
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    model.compile(optimizer=keras.optimizers.AdamW(schedule, clipnorm=1.0), steps_per_execution=2)
    history = model.fit(
        X,
        epochs=3,
        verbose=0,
        validation_data=X,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.ModelCheckpoint(str(tmp_path / "best.weights.h5"), save_weights_only=True),
        ],
    )
    assert len(history.history["loss"]) >= 2
    assert (tmp_path / "log.csv").is_file()
    other = tff.FlowModel(small(seed=2))
    other.load_weights(str(tmp_path / "best.weights.h5"))
    assert np.all(np.isfinite(other.log_prob(X)))


def test_summary_counts_parameters():
    flow, lines = tff.planar_flow(2, num_layers=3), []
    tff.FlowModel(flow).summary(print_fn=lines.append)
    assert re.search(r"Total params:.* 15 ", "\n".join(map(str, lines)))
    assert tff.FlowModel(flow).count_params() == 15


def test_jit_auto_is_xla_and_falls_back(monkeypatch):
    monkeypatch.setattr(fitting, "LEAST_STEPS_TO_COMPILE", 0)
    assert compiled().jit_compile is True
    assert compiled(run_eagerly=True).jit_compile is False
    assert compiled(jit_compile=False).jit_compile is False

    class Stubborn(tfd.MultivariateNormalDiag):  # a py_function cannot be compiled
        def _log_prob(self, x):
            return super()._log_prob(tf.ensure_shape(tf.py_function(lambda t: t, [x], x.dtype), x.shape))

    model = compiled(Stubborn(tf.Variable([0.0, 1.0])))
    with pytest.warns(UserWarning, match="XLA cannot compile"):
        history = model.fit(X, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError)):
        compiled(Stubborn(tf.Variable([0.0, 1.0])), jit_compile=True).fit(X, verbose=0)


@pytest.mark.parametrize("name", ["maf", "planar_flow"])
def test_float64_is_kept(name):
    flow = getattr(tff, name)(2, num_layers=1, dtype=tf.float64, seed=1)
    model = compiled(flow, jit_compile=False)
    x = X.astype(np.float64) + 1e-12
    assert model.fit(x, epochs=1, verbose=0, validation_split=0.2).history.keys() == {"loss", "val_loss"}
    assert all(w.dtype == "float64" for w in model.weights)
    np.testing.assert_allclose(model.predict(x, verbose=0), flow.log_prob(x), rtol=1e-10)
    assert model.evaluate(x, verbose=0) == pytest.approx(-np.mean(flow.log_prob(x)), abs=1e-5)


def bad(change):
    x = X.copy()
    change(x)
    return x


def put(value, row=37, column=1):
    return lambda x: x.__setitem__((row, column), value)


BAD_INPUT = {
    "nan": (bad(put(np.nan)), r"`x` must be finite.*nan in row 37, column 1"),
    "infinity": (bad(put(-np.inf)), r"-inf in row 37, column 1"),
    "overflow": (bad(put(0.0)).astype(np.float64) * 1e300, r"finite in float32"),
    "size": (np.zeros([5, 3], "f"), r"`x` must have shape \[N, 2\], got \[5, 3\]"),
    "rank 1": (np.zeros([5], "f"), r"shape \[N, 2\], got \[5\]"),
    "rank 3": (np.zeros([5, 2, 1], "f"), r"shape \[N, 2\], got \[5, 2, 1\]"),
    "empty": (np.zeros([0, 2], "f"), r"`x` is empty"),
    "integer": (np.zeros([5, 2], int), r"`x` has dtype int64.*astype\(\"float32\"\)"),
    "bool": (np.zeros([5, 2], bool), r"dtype bool"),
    "object": (np.array([["a", 1.0]], object), r"dtype object"),
}


@pytest.mark.parametrize("what", BAD_INPUT)
def test_bad_arrays_are_named_and_change_nothing(trained, what):
    x, message = BAD_INPUT[what]
    before = [w.numpy() for w in trained.weights]
    for method in (trained.fit, trained.evaluate, trained.predict):
        with pytest.raises(ValueError, match=message):
            method(x, verbose=0)
    with pytest.raises(ValueError, match=message.replace("`x`", "`validation_data`")):
        trained.fit(X, validation_data=x, verbose=0)
    for w, old in zip(trained.weights, before, strict=True):
        np.testing.assert_array_equal(w, old)


def test_bad_datasets_and_arguments(trained):
    of = tf.data.Dataset.from_tensor_slices
    for dataset, message in (
        (of(X), r"batch the dataset first"),
        (of(np.zeros([4, 3], "f")).batch(2), r"must yield batches of shape \[None, 2\]"),
        (of(np.zeros([4, 2], int)).batch(2), r"int64.*tf.cast"),
    ):
        with pytest.raises(ValueError, match=message):
            trained.fit(dataset, verbose=0)
    with pytest.raises(ValueError, match="`y` must be left out"):
        trained.fit(X, X.copy())
    with pytest.raises(ValueError, match="`y` must be left out"):
        trained.evaluate(X, np.zeros(len(X)))
    assert trained.evaluate(X, X, verbose=0) == trained.evaluate(X, verbose=0)
    with pytest.raises(ValueError, match="there is no `y`"):
        trained.fit(X, validation_data=(X, X))
    with pytest.raises(ValueError, match="`loss` must be left out"):
        trained.compile(optimizer="adam", loss="mse")
    with pytest.raises(ValueError, match=r"`distribution` must be a tfd\.Distribution"):
        tff.FlowModel(tff.PlanarFlow(2))
    with pytest.raises(ValueError, match=r"`x` must have shape \[\.\.\., 2\]"):
        trained.log_prob(np.zeros([5, 3], "f"))


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_loss_that_turns_nan_stops_and_keeps_finite_weights(jit_compile):
    """Finite data, but a step so long that the next loss overflows."""
    model = compiled(small("maf", num_layers=1), rate=1e9, jit_compile=jit_compile)
    with pytest.raises(FloatingPointError, match=r"in epoch \d+, step \d+.*weights are those before"):
        model.fit(1e3 * X, batch_size=20, epochs=5, verbose=0)
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    model.compile(optimizer=keras.optimizers.Adam(1e-4))
    assert np.all(np.isfinite(model.log_prob(X)))


def test_nan_in_a_stream_stops_at_its_step_with_the_weights_before():
    model = compiled(rate=1e-2)
    stream = np.split(X.copy(), 8)
    stream[5][3, 0] = np.nan
    seen = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(model.get_weights()))
    with pytest.raises(FloatingPointError, match="The loss was nan in epoch 1, step 6"):
        model.fit(tf.data.Dataset.from_tensor_slices(np.stack(stream)), epochs=2, verbose=0, callbacks=[record])
    for a, b in zip(model.get_weights(), seen[4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations) == 5
    model.fit(X, epochs=1, verbose=0)  # and training can go on


def test_the_step_that_failed_is_counted_within_its_epoch():
    batches = np.stack(np.split(X.copy(), 8))
    batches[6, 3, 0] = np.nan  # the third batch of the second epoch
    with pytest.raises(FloatingPointError, match="The loss was nan in epoch 2, step 3"):
        compiled().fit(tf.data.Dataset.from_tensor_slices(batches), epochs=2, steps_per_epoch=4, verbose=0)


@pytest.mark.parametrize(
    "name", ["planar_flow", pytest.param("nice", marks=pytest.mark.slow), "real_nvp", "maf", "iaf"]
)
def test_save_and_load_are_exact(name, tmp_path):
    kwargs = {"num_layers": 2 if name in ("real_nvp", "nice") else 1}
    if name != "planar_flow":
        kwargs |= {"hidden_units": [8], "activation": "tanh"}
    model = compiled(getattr(tff, name)(2, preprocess=tff.standardize(X), **kwargs), jit_compile=False)
    model.fit(X, epochs=1, verbose=0)
    path = tmp_path / "flow.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded.log_prob(X), model.log_prob(X))
    np.testing.assert_array_equal(loaded.sample(5, seed=3), model.sample(5, seed=3))
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 7
    if name == "real_nvp":  # optimizer and compile settings go on where they were
        losses = [m.fit(X, batch_size=50, epochs=2, verbose=0, shuffle=False).history["loss"] for m in (model, loaded)]
        np.testing.assert_array_equal(*losses)
    assert os.listdir(tmp_path) == ["flow.keras"]


def test_save_refuses_what_it_cannot_describe_and_loses_nothing(tmp_path):
    path = tmp_path / "flow.keras"
    compiled().save(path)
    content = path.read_bytes()
    loc = tf.Variable([0.0, 0.0])
    closure = tfb.Inline(lambda x: x + loc, lambda y: y - loc, lambda y: tf.zeros([]), forward_min_event_ndims=1)
    model = compiled(tfd.TransformedDistribution(tfd.MultivariateNormalDiag(loc), closure))
    with pytest.raises(ValueError, match="save_weights"):
        model.save(path)
    model.save_weights(str(tmp_path / "w.weights.h5"))
    with pytest.raises(ValueError, match=r"\.keras"):
        compiled().save(tmp_path / "flow.h5")
    with pytest.raises(ValueError, match="overwrite"):
        compiled().save(path, overwrite=False)
    assert path.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["flow.keras", "w.weights.h5"]


def test_many_models_are_no_reason_for_a_warning(caplog):
    """TensorFlow warns of functions that are traced often, and takes those of other models for the same."""
    kept = []
    for i in range(6):
        model = tff.FlowModel(tff.real_nvp(2, num_layers=2, hidden_units=[2], seed=1))
        for rows in (i + 2, i + 3):
            model.distribution.log_prob(X[:rows])
            model.log_prob(X[:rows])
            model.sample(rows, seed=1)
        kept.append(model)
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]


def test_model_call_is_right_after_an_update_on_the_same_tensor():
    scale = tf.Variable([1.0, 1.0])
    model = tff.FlowModel(tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2)), tfb.Scale(scale)))
    x = tf.constant([[3.0, 3.0]])
    model(x)
    scale.assign([3.0, 3.0])
    np.testing.assert_allclose(model(x), model.log_prob(x), rtol=1e-6)


@pytest.mark.parametrize("activation", [tf.nn.silu, lambda x: x], ids=["tf.nn", "lambda"])
def test_a_function_that_keras_cannot_name_is_refused_at_save(activation, tmp_path):
    with pytest.raises(ValueError, match="save_weights"):
        compiled(small(activation=activation)).save(tmp_path / "flow.keras")


def test_distributions_that_are_no_density_of_a_row():
    for distribution, message in (
        (tfd.MultivariateNormalDiag(tf.Variable(tf.zeros([3, 2]))), "batch shape"),
        (tfd.JointDistributionSequential([tfd.Normal(tf.Variable(0.0), 1.0)]), "joint"),
        (tfd.Categorical(tf.Variable([0.0, 1.0])), "real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            tff.FlowModel(distribution)


def test_a_failing_log_prob_is_told():
    net = keras.Sequential([keras.layers.Dense(4)])

    def broken(x, output_units):
        return tf.split(net(tf.reshape(x, [-1, 7])), 2, axis=-1)

    bijector = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=broken)
    with pytest.raises(ValueError, match="That call failed"):
        tff.FlowModel(tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2)), bijector))
    base = tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0]))
    with pytest.warns(UserWarning, match="only variables that a search"):
        tff.FlowModel(tfd.TransformedDistribution(base, bijector))


def test_evaluate_weighs():
    model = compiled()
    nll, weight = -np.asarray(model.log_prob(X)), np.linspace(0, 2, 200)
    assert model.evaluate(X, sample_weight=weight, batch_size=200, verbose=0) == pytest.approx(
        np.mean(nll * weight), rel=1e-4
    )
    with pytest.raises(ValueError, match="there is no `y`"):
        model.fit(X, validation_data=(X, None, weight), verbose=0)
    with pytest.raises(ValueError, match="pairs"):
        model.fit(tf.data.Dataset.from_tensor_slices((X, X)).batch(10), verbose=0)


def test_float64_validation_beside_a_dataset():
    model = compiled(tfd.MultivariateNormalDiag(tf.Variable([1e9, 0.0], dtype=tf.float64)), rate=0.0, jit_compile=False)
    x = np.tile([[1e9 + 20.0, 0.0]], [4, 1])
    history = model.fit(tf.data.Dataset.from_tensor_slices(x).batch(4), validation_data=x, verbose=0).history
    assert history["val_loss"][0] == pytest.approx(history["loss"][0], rel=1e-6)


def test_the_step_is_named_with_several_steps_per_execution():
    model = tff.FlowModel(small())
    model.compile(optimizer="sgd", steps_per_execution=4)
    x = X.copy()
    x[2 * 25] = np.nan
    with pytest.raises(FloatingPointError, match="The loss was nan in epoch 1, step 3"):
        model.fit(tf.data.Dataset.from_tensor_slices(x).batch(25), verbose=0)


@pytest.mark.parametrize("recipe", [tff.maf, tff.real_nvp, tff.planar_flow])
def test_keras_summary(recipe):
    lines = []
    tff.FlowModel(recipe(2, num_layers=2)).summary(print_fn=lambda line, **_: lines.append(line))
    assert any("Trainable params" in line for line in lines)


def test_numbers_of_rows_that_recur_are_compiled_and_see_new_weights(monkeypatch):
    monkeypatch.setattr(compilation, "LEAST_ROWS_TO_COMPILE", 2000)
    model = tff.FlowModel(tff.real_nvp(2, num_layers=2, hidden_units=[8], conditional_size=1, seed=1))
    testing.redraw_weights(model.distribution, seed=1)
    calls, x = model._compiled_log_prob, np.random.default_rng(0).normal(size=[1000, 2]).astype("f4")
    for _ in range(4):
        compiled = model.log_prob(x, conditional_input=x[:, :1])
        np.testing.assert_allclose(compiled, model.distribution.log_prob(x, conditional_input=x[:, :1]), atol=1e-4)
    assert len(calls._compiled) == 1
    testing.redraw_weights(model.distribution, seed=2)
    again = model.log_prob(x, conditional_input=x[:, :1])
    np.testing.assert_allclose(again, model.distribution.log_prob(x, conditional_input=x[:, :1]), atol=1e-4)
    assert np.max(np.abs(again - compiled)) > 0.1
    with tf.GradientTape() as tape:  # the plain graph, which has gradients
        value = tf.reduce_mean(model.log_prob(x, conditional_input=x[:, :1]))
    assert all(g is not None for g in tape.gradient(value, model.distribution.trainable_variables))
    for n in range(1001, 1008):
        for _ in range(3):
            model.log_prob(np.resize(x, [n, 2]), conditional_input=np.zeros([n, 1], "f4"))
    assert len(calls._compiled) == compilation.MOST_COMPILED_SIZES
    continuous = tff.FlowModel(tff.continuous_flow(2, hidden_units=[4], solver="euler", num_steps=2, seed=1))
    for _ in range(4):
        continuous.log_prob(x)
    assert not continuous._compiled_log_prob._compiled
