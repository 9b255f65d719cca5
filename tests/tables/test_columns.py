"""Data frames in and out: exact round trips, and bad tables with messages that name the column."""

import keras
import numpy as np
import pandas as pd
import pytest

import tfp_flows as tff
from tfp_flows.tables.bins import integer_bins

RNG = np.random.default_rng(0)
N = 200
GOOD = pd.DataFrame(
    {
        "age": RNG.integers(17, 90, N),
        "height": RNG.normal(1.7, 0.1, N),
        "sex": RNG.choice(["f", "m"], N),
        "size": pd.Categorical(RNG.choice(["S", "M", "L"], N), ["S", "M", "L"], ordered=True),
        "smokes": RNG.random(N) < 0.3,
        "visits": pd.array(RNG.poisson(3.0, N), "Int64"),
        "income": RNG.lognormal(0.0, 1.0, N).astype("float32"),
        "level": RNG.integers(0, 200, N).astype("uint8"),
    }
)
COLUMNS = tff.Columns.of(GOOD, support={"income": "positive"})


def test_round_trips_are_exact():
    codes = COLUMNS.encode(GOOD)
    assert [c.kind for c in COLUMNS.columns] == [
        "integer",
        "real",
        "category",
        "category",
        "category",
        "integer",
        "real",
        "integer",
    ]
    back = COLUMNS.decode(codes)
    pd.testing.assert_frame_equal(back, GOOD)
    gaps = GOOD.astype({"age": float}).mask(RNG.random(GOOD.shape) < 0.2)
    columns = tff.Columns.of(gaps, missing=True)
    assert columns.columns[0].kind == "integer"  # as pandas reads integers with gaps
    codes = columns.encode(gaps, missing=True)
    assert np.array_equal(np.isnan(codes), gaps.isna())
    assert columns.decode(np.nan_to_num(codes)).dtypes["age"] == "int64"


def test_bins_hold_all_integers_and_their_bounds():
    edges, tails, bounds = integer_bins(np.array([0, 0, 3, 7]), (-np.inf, np.inf), "int64")
    assert (edges, bounds) == (tuple(range(9)), (-1.0, np.inf))
    assert tails[0] == 0.0 < tails[1]
    spiked = np.concatenate([np.zeros(900, int), RNG.integers(1, 100_000, 100)])
    edges, _, _ = integer_bins(spiked, (-np.inf, np.inf), "int64")
    assert edges[:2] == (0, 1)
    assert len(edges) < 200
    edges, tails, _ = integer_bins(np.array([1, 5, 9]), (0.0, 24.0), "int64")
    assert (edges[0], edges[-1], tails) == (1, 24, (0.0, 0.0))


def altered(**columns):
    return GOOD.assign(**columns)


def with_one(column, value):
    frame = GOOD.astype({column: object})
    frame.loc[7, column] = value
    return frame


DATES = pd.date_range("2020-01-01", periods=N)
BAD = {  # name: (table, part of the message)
    "no rows": (GOOD[:0], "at least 2 rows and 1 column, got 0 rows"),
    "no columns": (GOOD[[]], "at least 2 rows and 1 column, got 0 rows and 0 columns"),
    "one dimension": (
        GOOD["height"].to_numpy(),
        r"`x` must be a data frame or an array of shape \[N, D\], got shape \[200\]",
    ),
    "dates": (altered(day=DATES), "column 'day' of `x` must hold numbers or categories, got dtype datetime64"),
    "times": (altered(wait=DATES - DATES[0]), "column 'wait' of `x` .* got dtype timedelta64"),
    "complex": (altered(z=GOOD["height"] * 1j), "column 'z' of `x` must hold real numbers, got dtype complex128"),
    "infinite": (altered(height=np.inf), "column 'height' of `x` must hold finite numbers, got inf in row 0"),
    "missing number": (
        altered(height=GOOD["height"].mask(GOOD.index == 3)),
        "'height' .* missing value in row 3 .*dropna",
    ),
    "missing text": (
        altered(sex=GOOD["sex"].mask(GOOD.index == 5)),
        "column 'sex' .* missing value in row 5 .*any_order=True",
    ),
    "empty": (altered(height=np.nan), "column 'height' of `x` must have a value in each row"),
    "constant": (altered(age=3), "column 'age' of `x` is constant .*: leave it out"),
    "constant text": (altered(sex="f"), "column 'sex' of `x` is constant .'f'."),
    "row numbers": (altered(id=np.arange(N)), "column 'id' of `x` counts the rows"),
    "names": (altered(name=[f"name {i}" for i in range(N)]), "column 'name' of `x` has 200 categories in 200 rows"),
    "large integers": (
        altered(code=RNG.integers(10**9, size=N)),
        "column 'code' of `x` must hold integers below 2.*16777216",
    ),
    "large numbers": (altered(height=GOOD["height"] * 1e35), "column 'height' of `x` must hold numbers up to 1e30"),
    "tiny variation": (
        altered(height=1e6 + 1e-5 * GOOD["height"]),
        "column 'height' .* too little to be seen in float32",
    ),
    "mixed types": (with_one("sex", 1), "column 'sex' of `x` must hold values of one type, got number .1. and text"),
    "lists": (
        altered(tags=[[1, 2]] * N),
        "column 'tags' of `x` must hold numbers, text or flags, got objects such as a list",
    ),
    "tuples": (altered(pair=[(i % 2, 1) for i in range(N)]), "column 'pair' of `x` .* got values of type tuple"),
    "twice": (
        pd.concat([GOOD, GOOD[["age"]]], axis=1),
        "`x` must have columns with different names, got two named 'age'",
    ),
    "levels": (pd.concat({"a": GOOD}, axis=1), "`x` must have one name for each column, got 2 levels"),
    "sparse": (altered(s=pd.arrays.SparseArray(GOOD["height"])), "column 's' of `x` must be dense"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_tables_are_named(kind):
    table, message = BAD[kind]
    with pytest.raises(ValueError, match=message):
        tff.Columns.of(table)


BAD_ROWS = {  # for known columns
    "other order": (
        GOOD[[*GOOD.columns[1:], "age"]],
        "columns in another order: expected 'age', got 'height' in its place",
    ),
    "absent": (GOOD.drop(columns=["sex", "size"]), "`x` has no column 'sex', 'size', expected the columns 'age'"),
    "unknown": (altered(more=1.0), "`x` has a column 'more', expected only the columns"),
    "array": (np.zeros([3, 8]), "`x` must be a data frame with the columns 'age', .* got ndarray"),
    "fraction": (altered(age=GOOD["age"] + 0.5), "column 'age' of `x` must hold whole numbers, got .* in row 0"),
    "text": (altered(height="tall"), "column 'height' of `x` must hold numbers, got dtype"),
    "number": (altered(sex=1.5), "column 'sex' of `x` must hold categories, got dtype float64"),
    "new category": (
        altered(sex=["x", *GOOD["sex"][1:]]),
        "column 'sex' of `x` must hold one of 'f', 'm', got 'x' in row 0",
    ),
    "missing": (altered(age=GOOD["age"].mask(GOOD.index == 9)), "column 'age' of `x` .* missing value in row 9"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_rows_that_do_not_fit_are_named(kind):
    rows, message = BAD_ROWS[kind]
    with pytest.raises(ValueError, match=message):
        COLUMNS.encode(rows)


def test_bad_supports_are_named():
    with pytest.raises(ValueError, match="`support` has a column 'weight'"):
        tff.Columns.of(GOOD, support={"weight": "positive"})
    with pytest.raises(ValueError, match="`support` of column 'sex' must be"):
        tff.Columns.of(GOOD, support={"sex": "positive"})
    with pytest.raises(ValueError, match="`support` of column 'age' must be"):
        tff.Columns.of(GOOD, support={"age": "circle"})
    with pytest.raises(
        ValueError, match=r"column 'height' of `x` must lie between 0 and 1, by `support`, got .* in row 0"
    ):
        tff.Columns.of(GOOD, support={"height": (0.0, 1.0)})


def test_a_flow_model_keeps_the_names_of_a_frame(tmp_path):
    frame = pd.DataFrame(RNG.normal(size=[200, 2]), columns=["a", "b"])
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[4], preprocess=tff.standardize(frame), seed=1))
    model.compile(optimizer="adam", jit_compile=False)
    with pytest.raises(ValueError, match="`validation_data` has the columns in another order"):
        model.fit(frame, validation_data=frame[["b", "a"]], verbose=0)
    model.fit(frame, epochs=1, validation_data=frame[:50], verbose=0)
    model.save(tmp_path / "x.keras")
    copy = keras.models.load_model(tmp_path / "x.keras")
    pd.testing.assert_frame_equal(copy.sample(3, seed=1), model.sample(3, seed=1))
    assert list(copy.sample(3, seed=1).columns) == ["a", "b"]
    np.testing.assert_allclose(copy.log_prob(frame), copy.log_prob(frame.to_numpy()), rtol=1e-5)
    assert tff.diagnostics.density_level(copy, frame[:3], num_samples=100, seed=1).shape == (3,)
    for call in (copy.log_prob, copy.fit, copy.evaluate, copy.predict):
        with pytest.raises(ValueError, match=r"another order: expected 'a', got 'b' in its place\..*x\[\['a', 'b'\]\]"):
            call(frame[["b", "a"]])
        with pytest.raises(ValueError, match="`x` has no column 'b'"):
            call(frame[["a"]])


def test_conditions_keep_their_names_too():
    frame = pd.DataFrame(RNG.normal(size=[100, 3]), columns=["a", "b", "c"])
    model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[4], conditional_size=1, seed=1))
    model.compile(optimizer="adam", jit_compile=False)
    model.fit(frame[["c"]], frame[["a", "b"]], epochs=1, verbose=0)
    assert list(model.sample(2, conditional_input=frame[["c"]][:2]).columns) == ["a", "b"]
    with pytest.raises(ValueError, match="`conditional_input` has no column 'c'"):
        model.log_prob(frame[["a", "b"]], conditional_input=frame[["a"]])
