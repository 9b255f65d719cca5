"""Data that no density has: a warning that names the column, and arrays whose missing values do not get lost."""

import functools
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfp_flows as tff
from tfp_flows.data.arrays import to_array
from tfp_flows.data.degenerate import find_degenerate

RNG = np.random.default_rng(0)
N = 1000
A, B = RNG.normal(size=[2, N])
COUNTS = RNG.poisson(3, N)

BAD = {
    "counts": (np.column_stack([A, COUNTS]), r"column 1 holds whole numbers"),
    "rounded": (np.column_stack([A, np.round(B, 1)]), r"column 1 is rounded .*0\.1 apart"),
    "repeated_rows": (np.repeat(np.column_stack([A, B])[:100], 10, axis=0), r"only 100 of 1000 rows"),
    "zeros": (np.column_stack([A, np.where(RNG.random(N) < 0.5, 0.0, B)]), r"column 1 is 0 in \d+ % of the rows"),
    "sum": (np.column_stack([A, B, 2.0 * A + B]), r"column 0, column 1, column 2 depend on each other"),
    "shares": (RNG.dirichlet([2, 3, 4], N), r"the rows sum to 1,"),
    # Siblings.
    "clipped": (np.column_stack([A, np.minimum(B, 0.5)]), r"column 1 is 0\.5 in \d+ % of the rows"),
    "sentinel": (np.column_stack([A, np.where(RNG.random(N) < 0.1, -999.0, B)]), r"column 1 is -999 in"),
    "rescaled_levels": (np.column_stack([A, COUNTS / 10.0]), r"column 1 is rounded"),
    "percentages": (100.0 * RNG.dirichlet([2, 3, 4], N), r"the rows sum to 100,"),
    "one_dependent_of_five": (
        np.column_stack([A, B, COUNTS + RNG.random(N), A - B + 3.0]),
        r"column 0, column 1, column 3",
    ),
    "all_levels": (RNG.integers(0, 16, [N, 4]).astype(float), r"dequantize=16"),
}


@pytest.fixture(scope="module")
def model_of():
    """The model for a number of columns, traced once."""

    @functools.cache
    def make(size):
        model = tff.FlowModel(tff.radial_flow(size, num_layers=1, seed=1))
        model.compile(optimizer="adam", jit_compile=False)
        return model

    return make


@pytest.mark.filterwarnings("ignore:`x` has mean", "ignore:.*standardize")
@pytest.mark.parametrize("name", BAD)
def test_fit_names_the_column_and_the_remedy(name, model_of):
    x, message = BAD[name]
    model = model_of(x.shape[1])
    with pytest.warns(UserWarning, match=message):
        model.fit(x, batch_size=500, verbose=0)
    with pytest.warns(UserWarning, match=message):  # a dataset is looked at as well
        model.fit(tf.data.Dataset.from_tensor_slices(x.astype("float32")).batch(500), verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_good_data_are_not_warned_of(dtype):
    good = [
        tff.data.moons().sample(2000, seed=0),
        np.exp(RNG.normal(size=[N, 3])),
        RNG.standard_t(2, [N, 2]),
        RNG.beta(0.5, 0.5, [N, 2]),
    ]
    correlated = RNG.normal(size=[N, 1]) + 0.01 * RNG.normal(size=[N, 4])
    for x in (*good, correlated, RNG.normal(size=[N, 2])[:20]):
        assert find_degenerate(x.astype(dtype)) == []


def test_columns_are_named_where_they_have_names():
    frame = pd.DataFrame({"size": A, "visits": COUNTS.astype(float)})
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[4]))
    model.compile(optimizer="adam", jit_compile=False)
    with pytest.warns(UserWarning, match="column 'visits' holds whole numbers"):
        model.fit(frame, verbose=0)


def test_what_asarray_would_drop():
    x = np.column_stack([A, B])
    masked = np.ma.masked_array(x, mask=np.zeros_like(x, bool))
    np.testing.assert_array_equal(to_array("x", masked), x)
    masked[3, 1] = np.ma.masked
    with pytest.raises(ValueError, match="`x` has 1 masked values"):
        to_array("x", masked)
    frame = pd.DataFrame(x, columns=["a", "b"]).astype("Float64")
    np.testing.assert_array_equal(to_array("x", frame), x)
    frame.iloc[7, 1] = pd.NA
    with pytest.raises(ValueError, match=r"column 'b' of `x` must be finite, got a missing value in row 7"):
        to_array("x", frame)
    with pytest.raises(ValueError, match=r"column 'c' of `x` has dtype category"):
        to_array("x", pd.DataFrame({"a": A, "c": pd.Categorical(["u", "v"] * (N // 2))}))
    with pytest.raises(ValueError, match=r"column 'when' of `x` has dtype datetime"):
        to_array("x", pd.DataFrame({"a": A, "when": pd.date_range("2026-01-01", periods=N)}))
    with pytest.raises(ValueError, match=r"column 'n' of `x` has dtype int64.*astype"):
        to_array("x", pd.DataFrame({"a": A, "n": COUNTS}))
    assert to_array("x", pd.DataFrame({"n": COUNTS, "m": COUNTS})).dtype == np.int64
    np.testing.assert_array_equal(to_array("x", pd.Series(A).astype("Float32")), A.astype("float32"))
    from scipy import sparse

    with pytest.raises(ValueError, match=r"sparse.*toarray"):
        tff.standardize(sparse.csr_matrix(x))


def test_what_a_generator_yields_beside_the_events():
    x = np.column_stack([A, B]).astype("float32")
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[4]))
    model.compile(optimizer="adam", jit_compile=False)
    model.fit(((x[:10], x[:10]) for _ in range(3)), steps_per_epoch=2, verbose=0)
    with pytest.raises(ValueError, match="`x` yields pairs, but this distribution has no conditions"):
        model.fit(((x[:10], A[:10]) for _ in range(3)), steps_per_epoch=2, verbose=0)
    with pytest.raises(ValueError, match="Batches must hold events alone"):
        model.train_on_batch(x[:10], A[:10])


def test_keywords_that_keras_applies_to_labels_are_refused():
    x = np.column_stack([A, B]).astype("float32")
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[4]))
    with pytest.raises(ValueError, match=r"`loss` must be left out.*model\.fit"):
        model.compile(optimizer="adam", loss="mse")
    with pytest.raises(ValueError, match="`loss_weights` must be left out"):
        model.compile(optimizer="adam", loss_weights=[1.0])
    for key in ("metrics", "weighted_metrics"):
        model.compile(optimizer="adam", jit_compile=False, **{key: ["mae"]})
        for call in (lambda: model.fit(x, verbose=0), lambda: model.train_on_batch(x)):
            with pytest.raises(ValueError, match=f"`{key}` must hold keras.metrics.Metric objects, got 'mae'"):
                call()
    model.compile(optimizer="adam", jit_compile=False)
    with pytest.raises(ValueError, match="`class_weight` requires arrays of conditions"):
        model.fit(x, class_weight={0: 1.0}, verbose=0)
    with pytest.raises(ValueError, match="`class_weight` must be left out"):
        model.train_on_batch(x, class_weight={0: 1.0})
    model.trainable = False
    model.compile(optimizer="adam", jit_compile=False)
    with pytest.raises(ValueError, match="has no trainable weight: set `trainable = True`"):
        model.fit(x, verbose=0)
    variational = tff.VariationalFlow(tff.iaf(2, num_layers=1), lambda z: -tf.reduce_sum(z**2, -1))
    variational.compile(optimizer="adam", jit_compile=False)
    with pytest.raises(ValueError, match="`class_weight` must be left out"):
        variational.fit(class_weight={0: 1.0}, verbose=0)


def test_a_large_gradient_names_the_row_and_advises_only_what_is_not_done():
    x = np.column_stack([A, B]).astype("float32")
    x[77, 1] = 1e12
    flow = tff.maf(2, num_layers=2, hidden_units=[4], log_scale_bound=None, seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-3, global_clipnorm=1.0), jit_compile=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.fit(x, batch_size=500, verbose=0)
    told = [str(w.message) for w in seen if "gradient of" in str(w.message)]
    assert len(told) == 1
    assert "row 77" in told[0]
    assert "column 1" in told[0]
    assert "Standardize the data" in told[0]
    assert "global_clipnorm" not in told[0]


@pytest.mark.parametrize("form", ["one_hot", "integers"])
def test_class_weights_are_those_of_the_conditions(form):
    x, classes = np.column_stack([A, B]).astype("float32"), (A > 1.0).astype(int)
    c = np.eye(2, dtype="float32")[classes] if form == "one_hot" else classes[:, None]
    model = tff.FlowModel(tff.real_nvp(2, num_layers=2, hidden_units=[4], conditional_size=c.shape[1], seed=1))
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)  # nothing moves: the loss is that of the start
    loss = model.fit(c, x, batch_size=N, verbose=0, class_weight={0: 0.5, 1: 3.0}).history["loss"][0]
    nll = -np.asarray(model.log_prob(x, conditional_input=c))
    np.testing.assert_allclose(loss, np.mean(nll * np.where(classes == 1, 3.0, 0.5)), rtol=1e-4)
    with pytest.raises(ValueError, match="no weight of class 1"):
        model.fit(c, x, class_weight={0: 1.0}, verbose=0)
    with pytest.raises(ValueError, match="conditions that are classes"):
        model.fit(c + 0.25, x, class_weight={0: 1.0, 1: 1.0}, verbose=0)
