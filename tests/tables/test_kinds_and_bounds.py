"""Kinds of columns that a dtype does not tell, values that are impossible, and rows that are held out."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfp_flows as tff
from tfp_flows.testing import redraw_weights

RNG = np.random.default_rng(0)
N = 80
ROWS = pd.DataFrame(
    {
        "sex": RNG.choice(["f", "m"], N),
        "age": RNG.integers(18, 30, N),
        "height": RNG.normal(1.7, 0.1, N),
        "flag": RNG.random(N) < 0.5,
    }
)


def model_of(rows, any_order=True, **options):
    columns = tff.Columns.of(rows, missing=any_order, **options)
    distribution = tff.TableDistribution(columns, any_order=any_order, hidden_units=[8], seed=1)
    redraw_weights(distribution, seed=1, scale=0.3)
    return tff.TableModel(distribution, seed=1)


@pytest.fixture(scope="module")
def model():
    return model_of(ROWS, support={"height": "positive", "age": (10, 40)})


def test_held_out_rows_give_categories_and_ranges_only():
    rows = pd.concat([ROWS, ROWS.assign(sex="x", age=300, height=9.0)])
    first, both = tff.Columns.of(rows, fit_rows=np.arange(N)), tff.Columns.of(ROWS)
    sex, age, height, _ = first.columns
    np.testing.assert_allclose(np.exp(sex.weights)[2], 0.5 / (N + 1.5))
    assert sex.categories == ("f", "m", "x")
    assert age.edges[-1] > 300
    assert age.tails == both.columns[1].tails
    assert (height.shift, height.scale) == (both.columns[2].shift, both.columns[2].scale)
    with pytest.raises(
        ValueError, match="column 'height' of `x` must have at least 2 values in the rows to learn from"
    ):
        tff.Columns.of(ROWS.assign(height=ROWS["height"].mask(ROWS.index > 5)), missing=True, fit_rows=[50, 60, 70])


def test_validation_rows_do_not_give_frequencies(monkeypatch):
    seen = []
    monkeypatch.setattr("tfp_flows.tables.fit._fit_encoded", lambda d, rows, held, *_: seen.append((d, rows, held)))
    tff.fit_table(ROWS, seed=1)
    (distribution, rows, held), *_ = seen
    assert len(held) == round(0.15 * N)
    assert distribution.columns.columns[2].shift == pytest.approx(rows[:, 2].mean())


@pytest.mark.parametrize(
    ("name", "value", "bounds"), [("height", -1.0, "0 and inf"), ("age", 40, "10 and 40"), ("age", -500, "10 and 40")]
)
def test_nothing_is_conditioned_on_the_impossible(model, name, value, bounds):
    message = f"column '{name}' of `given` must lie between {bounds}, exclusively, got {value:g} in row 0"
    for call in (model.sample, lambda given: model.quantile(0.5, "age" if name == "height" else "height", given=given)):
        with pytest.raises(ValueError, match=message):
            call(given={name: value})
    rows = ROWS.assign(**{name: value})
    with pytest.raises(ValueError, match=f"column '{name}' of `x` must lie between {bounds}"):
        model.log_prob(rows, given=[name])
    assert np.all(np.isneginf(model.log_prob(rows)))
    assert np.all(np.isneginf(model.log_prob(rows, given=["sex"])))
    model.quantile(0.5, name, given=rows)  # the values of the column itself are not used
    levels = model.cdf(rows[:3])
    assert levels[name].notna().all()
    assert levels.drop(columns=name).isna().all(axis=None)


def test_an_empty_dictionary_is_a_row_without_knowledge(model):
    assert len(model.sample(given={}, seed=1)) == 1
    pd.testing.assert_frame_equal(model.sample(5, given={}, seed=1), model.sample(5, seed=1))
    assert model.quantile(0.5, "age", given={}).shape == (1,)
    assert model.quantile(0.5, "age", given=ROWS[[]]).shape == (N,)


@pytest.mark.parametrize(
    "gap", [{"sex": np.nan}, {"age": None}, {"flag": pd.NA}, {"height": pd.NaT}, {"sex": None, "flag": None}]
)
def test_a_whole_column_may_be_missing(model, gap):
    full = model.sample(given=ROWS[:3].assign(**gap), seed=1)
    assert not full.isna().any(axis=None)
    assert full.dtypes.equals(ROWS.dtypes)


def test_whole_numbers_with_gaps_can_be_real():
    gaps = ROWS.assign(weight=RNG.integers(50, 90, N).astype(float), phone=RNG.integers(5e7, 9e7, N).astype(float))
    gaps.loc[0, ["weight", "phone"]] = np.nan
    assert [c.kind for c in tff.Columns.of(gaps, missing=True).columns[-2:]] == ["integer", "real"]
    columns = tff.Columns.of(gaps.astype({"weight": "Int64"}), missing=True, kinds={"weight": "real", "age": "real"})
    assert [(c.kind, c.dtype) for c in columns.columns[1:5:3]] == [("real", "float64")] * 2
    columns = tff.Columns.of(gaps[1:], kinds={"weight": "integer"})
    pd.testing.assert_frame_equal(columns.decode(columns.encode(gaps[1:])), gaps[1:].reset_index(drop=True))
    for kinds, message in (
        ({"width": "real"}, "`kinds` has a column 'width'"),
        ({"sex": "category"}, '`kinds` of column \'sex\' must be "real" or "integer"'),
        ({"sex": "real"}, "column 'sex' of `x` must hold numbers, since `kinds`"),
        ({"height": "integer"}, "column 'height' of `x` must hold whole numbers, since `kinds`.* in row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            tff.Columns.of(ROWS, kinds=kinds)


def test_objects_of_numbers_are_numbers():
    objects = ROWS[["age", "height"]].astype(object)
    columns = tff.Columns.of(objects)
    assert [c.kind for c in columns.columns] == ["integer", "real"]
    assert (
        tff.Columns.of(pd.DataFrame({"a": pd.Series(list(np.arange(9) % 4), dtype=object)})).columns[0].kind
        == "integer"
    )
    np.testing.assert_array_equal(columns.encode(objects), columns.encode(ROWS[["age", "height"]]))
    mixed = objects.assign(age=[True, *objects["age"][1:]])
    for rows in (mixed, pd.DataFrame({"a": [1, True, 0, False]}, dtype=object)):
        with pytest.raises(ValueError, match="must hold values of one type, got flag"):
            tff.Columns.of(rows)


def test_flags_are_not_numbers():
    rows = pd.DataFrame({"code": pd.Categorical([0, 1, 2] * 4), "flag": [True, False] * 6})
    columns = tff.Columns.of(rows)
    with pytest.raises(ValueError, match="column 'code' of `x` must hold one of 0, 1, 2, got True in row 0"):
        columns.encode(rows.assign(code=rows["flag"]))
    with pytest.raises(ValueError, match="column 'flag' of `x` must hold categories, got dtype int64"):
        columns.encode(rows.assign(flag=1))
    np.testing.assert_array_equal(columns.encode(rows.astype({"code": int})), columns.encode(rows))


def test_integers_that_alias_are_refused():
    columns = tff.Columns.of(ROWS[["age"]])
    for value in (2**24, 2**24 + 1, -(2**24)):
        with pytest.raises(ValueError, match=r"column 'age' of `x` must hold integers below 2\*\*24 .* in row 0"):
            columns.encode(pd.DataFrame({"age": [value, 20]}))
    with pytest.raises(ValueError, match="integers below"):
        tff.Columns.of(pd.DataFrame({"i": [1, 2**24, 3]}))
    large = model_of(pd.DataFrame({"i": RNG.integers(0, 2**24 - 1, N)}), any_order=False)
    assert np.all(np.isfinite(large.log_prob(large.sample(2000, seed=1))))
    column = tf.constant([[np.nan]])
    assert (
        model_of(pd.DataFrame({"i": [0, 2**24 - 1, 5]})).distribution.conditional_quantile([0.999], column, 0) < 2**24
    )


def test_arrays_hold_numbers_or_flags():
    for array in (
        ROWS[["sex", "age"]].to_numpy(object),
        ROWS[["sex"]].to_numpy(str),
        ROWS[["flag", "age"]].to_numpy(object),
    ):
        with pytest.raises(ValueError, match=r"`x` must be a data frame if it holds text.*pd\.DataFrame\(x\)"):
            tff.Columns.of(array)
    flags = ROWS[["flag", "flag"]].to_numpy()
    columns = tff.Columns.of(flags)
    back = columns.decode(columns.encode(flags))
    assert back.dtype == bool
    np.testing.assert_array_equal(back, flags)


def test_labels_and_dtypes_come_back(tmp_path):
    rows = pd.DataFrame({0: RNG.normal(size=N), 7: RNG.integers(0, 5, N), "a": pd.array(RNG.normal(size=N), "Float64")})
    model = model_of(rows)
    model.save(tmp_path / "x.keras")
    for each in (model, keras.models.load_model(tmp_path / "x.keras")):
        samples = each.sample(3, given={0: 0.5}, seed=1)
        assert samples.columns.tolist() == each.cdf(rows[:2]).columns.tolist() == [0, 7, "a"]
        assert samples.dtypes.tolist() == rows.dtypes.tolist()
        assert each.quantile(0.5, 7).shape == (1,)
    assert not model.sample(3, seed=1).equals(model.sample(3, seed=1 + 2**31))


def test_a_flow_model_returns_labels_and_dtypes_until_it_is_fitted_to_an_array(tmp_path):
    rows = pd.DataFrame({0: RNG.normal(size=N), 1: RNG.normal(size=N).astype("float32")})
    model = tff.FlowModel(tff.planar_flow(2, num_layers=1, seed=1))
    model.compile(optimizer="adam", jit_compile=False)
    model.fit(rows, epochs=1, verbose=0)
    model.save(tmp_path / "x.keras")
    for each in (model, keras.models.load_model(tmp_path / "x.keras")):
        samples = each.sample(3, seed=1)
        assert samples.columns.tolist() == [0, 1]
        assert samples.dtypes.tolist() == rows.dtypes.tolist()
        assert each.sample((2, 3)).shape == (2, 3, 2)
    with pytest.raises(ValueError, match="`x` has the columns in another order"):
        model.adapt(rows[[1, 0]])
    assert np.any(model.sample(3, seed=1).to_numpy() != model.sample(3, seed=1 + 2**31).to_numpy())
    model.fit(tf.data.Dataset.from_tensor_slices(rows.to_numpy("float32")).batch(40), epochs=1, verbose=0)
    assert isinstance(model.sample(3), pd.DataFrame)
    model.fit(rows.to_numpy(), validation_data=rows, epochs=1, verbose=0)
    assert model.columns is None
    assert tf.is_tensor(model.sample(3))
