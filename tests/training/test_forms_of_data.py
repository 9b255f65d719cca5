"""Forms of data and conditions that users hand over: what is looked at, what is standardized, and what is left as it was."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.training.inputs import Inputs

tfb, tfd = tfp.bijectors, tfp.distributions
RNG = np.random.default_rng(0)
X = RNG.normal(size=[400, 2]).astype("float32")
YEARS = (2000.0 + 10.0 * RNG.normal(size=[400, 1])).astype("float32")


def compiled(flow, **options):
    model = tff.FlowModel(flow, **options)
    model.compile(optimizer="adam", jit_compile=False)
    return model


def conditional(size=1, **options):
    return tff.maf(2, num_layers=1, hidden_units=[4], conditional_size=size, seed=1, **options)


def test_conditions_of_a_sorted_dataset_are_standardized_by_all_of_it():
    years = np.repeat([2000.0, 2001.0, 2002.0, 2003.0], 12_000)[:, None].astype("float32")
    data = tf.data.Dataset.from_tensor_slices((years, RNG.normal(size=[48_000, 2]).astype("float32"))).batch(4000)
    model = compiled(conditional())
    model.fit(data, epochs=1, verbose=0)
    layer = model.distribution.preprocess_condition
    np.testing.assert_allclose(layer.shift, [2001.5], atol=0.01)
    np.testing.assert_allclose(layer.scale, [1.118], atol=0.01)


@pytest.mark.parametrize("kind", ["generator", "unknown_length"])
def test_conditions_that_cannot_be_read_before_are_told(kind):
    def batches():
        for _ in range(3):
            yield YEARS, X

    spec = (tf.TensorSpec([None, 1]), tf.TensorSpec([None, 2]))
    data = batches() if kind == "generator" else tf.data.Dataset.from_generator(batches, output_signature=spec)
    model = compiled(conditional())
    with pytest.warns(UserWarning, match=r"are not standardized.*preprocess_condition\.adapt"):
        model.fit(data, epochs=1, verbose=0)
    assert not model.distribution.preprocess_condition.adapted


def test_a_refused_fit_leaves_nothing_behind():
    model = compiled(conditional(preprocess=tfb.Sigmoid()))
    with pytest.raises(ValueError, match="outside of the bounds"):
        model.fit(1e6 * YEARS, X, verbose=0)
    assert not model.distribution.preprocess_condition.adapted
    inside = RNG.random([400, 2]).astype("float32")
    with pytest.raises(ValueError, match=r"`validation_data` has .* outside of the bounds"):
        model.fit(YEARS, inside, validation_data=(YEARS, inside + 1.0), verbose=0)


def test_a_frame_of_conditions_may_hold_integers_beside_real_numbers():
    frame = pd.DataFrame({"year": np.arange(400) + 1600, "temperature": RNG.normal(size=400)})
    model = compiled(conditional(2))
    model.fit(frame, X, epochs=1, verbose=0)
    assert model.sample(2, conditional_input=frame[:2].astype("Float64")).shape == [2, 2]
    assert model.log_prob(X[:2], conditional_input=frame[:2]).shape == [2]


def test_weights_without_conditions_and_datasets_that_are_read_once():
    weights = np.ones(400, "float32")
    model = compiled(tff.planar_flow(2, num_layers=1, seed=1))
    model.fit(((X[i : i + 100], None, weights[:100]) for i in range(0, 400, 100)), epochs=1, verbose=0)
    once = iter([X[i : i + 4] for i in range(0, 400, 4)])
    data = tf.data.Dataset.from_generator(lambda: once, output_signature=tf.TensorSpec([None, 2]))
    other = compiled(tff.planar_flow(2, num_layers=1, seed=1))
    other.fit(data, epochs=1, verbose=0)
    assert int(other.optimizer.iterations.numpy()) >= 98  # a look costs a batch or two, not half of the data


def test_pairs_of_a_generator_must_be_one_array():
    model = compiled(tff.planar_flow(2, num_layers=1))
    with pytest.raises(ValueError, match="`x` yields pairs, but this distribution has no conditions"):
        model.fit(((X, X + 100.0) for _ in range(2)), verbose=0)
    model.fit(((X, X) for _ in range(2)), verbose=0)


def test_longer_real_numbers_are_cast():
    history = compiled(tff.planar_flow(2, num_layers=1)).fit(X.astype(np.longdouble), verbose=0).history
    assert np.all(np.isfinite(history["loss"]))


def test_metrics_of_labels_are_refused_as_objects_too():
    model = tff.FlowModel(tff.planar_flow(2, num_layers=1))
    model.compile(optimizer="adam", metrics=[keras.metrics.MeanSquaredError()])
    with pytest.raises(ValueError, match=r"`metrics` must hold keras\.metrics\.Metric objects"):
        model.fit(X, verbose=0)


def test_early_stopping_compares_what_fit_reports():
    levels = (RNG.random([300, 8]) < 0.3).astype("uint8")
    model = compiled(tff.planar_flow(8, num_layers=1, seed=1), dequantize=2)
    start = model.evaluate(levels, verbose=0, return_dict=True)["loss"]
    stop = tff.callbacks.EarlyStopping(levels, patience=3)
    stop.set_model(model)
    stop.on_train_begin()
    np.testing.assert_allclose(stop.best, start, rtol=0.02)
    model = compiled(conditional())
    data = tf.data.Dataset.from_tensor_slices((YEARS, X)).batch(100)
    stops = [tff.callbacks.EarlyStopping((YEARS, X)), tff.callbacks.EarlyStopping(data)]
    history = model.fit(YEARS, X, epochs=1, validation_data=(YEARS, X), callbacks=stops, verbose=0).history
    assert all(s.best <= history["val_loss"][0] + 1e-6 for s in stops)


def test_bounded_bases_that_answer_outside_of_their_support():
    flow = tff.FlowDistribution(tfd.Sample(tfd.Exponential(1.0), 2), tfb.Shift([0.0, 0.0]))
    x = tf.constant([[-5.0, -5.0], [1.0, 2.0], [3.0, -1.0]])
    np.testing.assert_allclose(flow.log_prob(x), [-np.inf, -3.0, -np.inf])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.boolean_mask(flow.log_prob(x), [False, True, False]))
    assert np.all(np.isfinite(tape.gradient(total, x)))


def test_a_target_over_the_support_stays_the_function_that_it_is():
    joint = tfd.JointDistributionSequential(
        [tfd.Sample(tfd.LogNormal(0.0, 0.1), 2), lambda s: tfd.Independent(tfd.Normal(s, 10.0), 1)]
    )
    pinned = joint.experimental_pin(None, tf.constant([1.0, 1.0]))
    flow = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0]), [0.1, 0.1]), tfb.Exp())
    model = tff.VariationalFlow(flow, pinned.unnormalized_log_prob, sample_size=64, seed=1)
    z = tf.constant([[1.0, 1.1]])
    np.testing.assert_allclose(model.target_log_prob_fn(z), pinned.unnormalized_log_prob(z))


def test_a_student_t_keeps_what_it_was_adapted_to_and_reaches_far():
    base = tff.MultivariateStudentT(2)
    base.adapt(3.0 * RNG.standard_t(2, size=[500, 2]))
    np.testing.assert_allclose(base.copy().log_prob(X), base.log_prob(X), rtol=1e-6)
    exact = tff.MultivariateStudentT(2, dtype=tf.float64)
    for name in ("loc", "scale_tril", "inverse_df"):
        getattr(exact, name).assign(tf.cast(getattr(base, name), tf.float64))
    far = np.array([[1e20, -3e19]])
    np.testing.assert_allclose(base.log_prob(far.astype("float32")), exact.log_prob(far), rtol=1e-4)


def test_a_line_of_names_may_hold_signs_of_missing_values(tmp_path):
    (tmp_path / "glass.csv").write_text("RI,Na,Mg\n1.0,2.0,3.0\n2.0,3.0,5.0\n")
    assert tff.data.read_csv(tmp_path / "glass.csv").columns == ["RI", "Na", "Mg"]
    (tmp_path / "missing.csv").write_text("NA,NA\n1.0,2.0\n")
    with pytest.raises(tff.data.TableError, match="the value is missing"):
        tff.data.read_csv(tmp_path / "missing.csv")


def test_of_a_long_dataset_the_first_events_are_looked_at(monkeypatch):
    monkeypatch.setattr("tfp_flows.training.inputs.MOST_SECONDS", 1e9)
    inputs = Inputs((2,), tf.float32, None)
    rows = np.zeros([30_000, 2], "float32")
    for given, seen, whole in ((rows, 12_000, False), (rows[:8000], 8000, True)):
        glance = inputs.glance(tf.data.Dataset.from_tensor_slices(given).batch(4000), None)
        assert (len(glance.events), glance.whole) == (seen, whole)
