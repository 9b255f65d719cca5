"""Tables with columns of every kind: normalized densities, exact probabilities, conditionals, files."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import stats

import tfp_flows as tff
from tfp_flows.testing import redraw_weights

RNG = np.random.default_rng(0)
N = 240
KIND = RNG.choice(["a", "b", "c"], N)
ROWS = pd.DataFrame(
    {
        "kind": KIND,
        "count": RNG.poisson(3.0, N) - 1,
        "size": RNG.normal(size=N) + (KIND == "a"),
    }
)
COUNTS = np.arange(-60, 80)  # more is improbable
GRID = np.linspace(-30.0, 30.0, 12_001)


def drawn(any_order, dtype=tf.float64, rows=ROWS, **options):
    """A distribution whose weights are far from the start."""
    columns = tff.Columns.of(rows, missing=any_order, **options)
    distribution = tff.TableDistribution(columns, any_order=any_order, hidden_units=[12, 12], seed=1, dtype=dtype)
    redraw_weights(distribution, seed=1, scale=0.3)
    return distribution


def grid_of(codes, counts, sizes):
    return np.stack([part.ravel() for part in np.meshgrid(codes, counts, sizes, indexing="ij")], axis=-1)


@pytest.mark.parametrize("any_order", [False, True])
def test_the_density_is_normalized(any_order):
    distribution = drawn(any_order, support={"count": (-3, 12)})
    total = 0.0
    for code in range(3):
        density = np.exp(distribution.log_prob(grid_of([code], np.arange(-2, 12), GRID)))
        total += np.trapezoid(density.reshape([14, -1]).sum(axis=0), GRID)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_conditionals_of_each_subset_are_normalized():
    distribution = drawn(True)
    x = grid_of([0, 1, 2], COUNTS, [0.3])
    given = np.tile([False, False, True], [len(x), 1])
    np.testing.assert_allclose(np.exp(distribution.conditional_log_prob(x, given)).sum(), 1.0, atol=1e-6)
    x = grid_of([1], [2], GRID)
    given = np.tile([True, True, False], [len(x), 1])
    np.testing.assert_allclose(np.trapezoid(np.exp(distribution.conditional_log_prob(x, given)), GRID), 1.0, atol=1e-5)
    x[:, 1] = np.nan  # one unknown value
    np.testing.assert_allclose(np.trapezoid(np.exp(distribution.conditional_log_prob(x, given)), GRID), 1.0, atol=1e-5)


def test_a_missing_value_is_summed_out():
    """The last column is summed out exactly; for others the network learns it."""
    distribution = drawn(True)
    x = grid_of([1], [2], GRID)
    whole = np.trapezoid(np.exp(distribution.log_prob(x)), GRID)
    np.testing.assert_allclose(np.exp(distribution.log_prob([[1.0, 2.0, np.nan]])), whole, rtol=1e-5)


def test_only_integers_inside_of_the_bounds_have_a_probability():
    """Integers inside of the bounds have a probability, and other numbers have none. (The sum is tested above.)"""
    distribution = drawn(False, support={"count": (-3, 30)})
    assert np.all(np.isfinite(distribution.log_prob(grid_of([0, 1, 2], np.arange(-2, 30), [0.0]))))
    for outside in ([3.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 30.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.5, 0.0]):
        assert distribution.log_prob(outside) == -np.inf


@pytest.mark.parametrize("any_order", [False, True])
def test_samples_have_the_probabilities_of_log_prob(any_order):
    rows = ROWS.drop(columns="size").assign(flag=RNG.random(N) < 0.3)
    distribution = drawn(any_order, rows=rows)
    x = distribution.sample(20_000, seed=(1, 2)).numpy()
    cells, observed = np.unique(x, axis=0, return_counts=True)
    expected = np.exp(distribution.log_prob(cells)) * len(x)
    often = expected > 20
    assert expected[often].sum() > 0.9 * len(x)
    chi = np.sum((observed - expected)[often] ** 2 / expected[often])
    assert stats.chi2(often.sum()).sf(chi) > 1e-3


def test_quantiles_invert_the_cumulative_probability():
    distribution = drawn(True, support={"size": (-6.0, 8.0)})
    x = np.tile([[1.0, 2.0, np.nan]], [9, 1])
    q = np.linspace(0.1, 0.9, 9)
    x[:, 2] = distribution.conditional_quantile(q, x, 2)
    np.testing.assert_allclose(distribution.conditional_cdf(x, 2), q, atol=1e-6)
    x = grid_of([1], COUNTS, [0.3])
    p = np.exp(distribution.conditional_log_prob(x, np.tile([True, False, True], [len(x), 1])))
    np.testing.assert_allclose(distribution.conditional_cdf(x, 1), np.cumsum(p) - 0.5 * p, atol=1e-6)
    q = np.linspace(0.001, 0.999, 50)
    found = distribution.conditional_quantile(q, np.tile([[1.0, np.nan, 0.3]], [50, 1]), 1).numpy()
    np.testing.assert_array_equal(found, COUNTS[np.searchsorted(np.cumsum(p), q)])


def test_wide_integers_and_their_tails():
    rows = pd.DataFrame({"gain": np.where(RNG.random(N) < 0.7, 0, RNG.integers(-500, 5_000, N)), "sex": KIND})
    distribution = drawn(False, rows=rows)
    counts = np.arange(-30_000, 40_000)
    p = np.exp(distribution.log_prob(np.stack([counts, np.zeros(len(counts))], axis=-1)))
    q = np.exp(distribution.log_prob(np.stack([counts, np.ones(len(counts))], axis=-1)))
    r = np.exp(distribution.log_prob(np.stack([counts, np.full(len(counts), 2.0)], axis=-1)))
    np.testing.assert_allclose((p + q + r).sum(), 1.0, atol=1e-3)
    x = distribution.sample(500, seed=(1, 2)).numpy()
    assert np.all(x == np.floor(x))
    assert np.all(np.isfinite(distribution.log_prob(x)))


@pytest.fixture(scope="module")
def model():
    return tff.fit_table(ROWS.mask(RNG.random(ROWS.shape) < 0.1), any_order=True, seed=1, epochs=2).model


def test_frames_go_in_and_come_out(model):
    samples = model.sample(20, seed=1)
    assert samples.dtypes.astype(str).to_dict() == {**ROWS.dtypes.astype(str), "count": "int64"}
    pd.testing.assert_frame_equal(samples, model.sample(20, seed=1))
    assert np.all(np.isfinite(model.log_prob(samples)))
    assert np.all(np.isfinite(model.log_prob(ROWS, given=["kind"])))
    sums = model.log_prob(ROWS, given=["kind"]) + model.log_prob(ROWS.assign(count=np.nan, size=np.nan))
    np.testing.assert_allclose(sums, model.log_prob(ROWS), atol=1e-4)
    assert model.evaluate(ROWS, verbose=0) > 0.0
    np.testing.assert_allclose(
        model.predict(ROWS, verbose=0), model.log_prob(ROWS), rtol=1e-5, atol=1e-5
    )  # the exact NLL
    assert tff.diagnostics.density_level(model, ROWS[:4], num_samples=50, seed=1).shape == (4,)
    levels = model.cdf(ROWS)
    assert levels.shape == ROWS.shape
    assert levels.min(axis=None) > 0.0
    assert levels.max(axis=None) < 1.0


def test_given_values_are_kept(model):
    gaps = ROWS[:40].astype({"count": "Int64"}).mask(RNG.random([40, 3]) < 0.4)
    full = model.sample(given=gaps, seed=1)
    assert not full.isna().any(axis=None)
    assert full.index.equals(gaps.index)
    for name in ROWS:
        there = gaps[name].notna()
        assert (full.loc[there, name] == gaps.loc[there, name]).all()
    assert set(model.sample(30, given={"kind": "b"}, seed=1)["kind"]) == {"b"}
    assert model.sample(given=ROWS[["size", "kind"]], seed=1).columns.tolist() == list(ROWS)
    quantiles = model.quantile([0.1, 0.5, 0.9], "count", given=ROWS[["size"]])
    assert quantiles.dtype == np.int64
    assert np.all(np.diff(quantiles) >= 0)
    assert model.quantile(0.5, "size").shape == (1,)


def test_files_and_copies_keep_the_columns(model, tmp_path):
    model.save(tmp_path / "x.keras")
    copies = [keras.models.load_model(tmp_path / "x.keras"), type(model).from_config(model.get_config())]
    copies[1].set_weights(model.get_weights())
    for copy in copies:
        np.testing.assert_array_equal(copy.log_prob(ROWS), model.log_prob(ROWS))
        pd.testing.assert_frame_equal(copy.sample(5, seed=1), model.sample(5, seed=1))
    again = model.distribution.copy(name="again")
    assert again.columns.names == list(ROWS)


def test_bad_calls_are_named(model):
    fixed = tff.TableModel(drawn(False, tf.float32))
    for call in (
        lambda: fixed.sample(3, given={"kind": "a"}),
        lambda: fixed.log_prob(ROWS, given=["kind"]),
        lambda: fixed.quantile(0.5, "size"),
        lambda: fixed.cdf(ROWS),
    ):
        with pytest.raises(ValueError, match=r"needs a model of any order.*any_order=True"):
            call()
    bad = [
        (lambda: model.quantile(0.5, "kind"), "`column` must be one of numbers, or an ordered category, got 'kind'"),
        (lambda: model.quantile(1.5, "size"), r"`q` must be a probability in \(0, 1\)"),
        (lambda: model.quantile(0.5, "width"), "`column` must be one of 'kind', 'count', 'size', got 'width'"),
        (lambda: model.log_prob(ROWS, given="kind"), "`given` must be a list of column names, got 'kind'"),
        (lambda: model.sample(3, given={"width": 1.0}), "`given` has a column 'width', expected columns among"),
        (
            lambda: model.sample(3, given={"kind": "z"}),
            "column 'kind' of `given` must hold one of 'a', 'b', 'c', got 'z'",
        ),
        (lambda: model.sample(3, given=ROWS), "`sample_shape` must be left out, or 240"),
        (lambda: model.sample(), "`sample_shape` must be an integer"),
        (lambda: tff.TableModel(tff.maf(2)), "`distribution` must be a tff.TableDistribution"),
        (lambda: tff.fit_table(ROWS[:5]), "at least 10 rows, got 5"),
        (lambda: tff.fit_table(ROWS.mask(ROWS["size"] > 1)), "column 'kind' of `x` must have a value in each row"),
    ]
    for call, message in bad:
        with pytest.raises(ValueError, match=message):
            call()


def test_arrays_of_numbers_can_be_completed():
    x = RNG.normal(size=[60, 2]).astype("float32")
    x[::7, 1] = np.nan
    model, history = tff.fit_table(x, any_order=True, seed=1, epochs=1)
    full = model.sample(given=x, seed=1)
    assert full.dtype == np.float32
    np.testing.assert_array_equal(full[~np.isnan(x)], x[~np.isnan(x)])
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_conditionals_of_a_gaussian():
    """Log-densities and quantiles given each subset of three columns, against the exact ones."""
    scale = np.array([[1.0, 0.8, -0.5], [0.0, 0.7, 0.4], [0.0, 0.0, 0.9]])
    covariance, mean, names = scale.T @ scale, np.array([1.0, -2.0, 5.0]), ["a", "b", "c"]
    x, test = RNG.multivariate_normal(mean, covariance, 8000), RNG.multivariate_normal(mean, covariance, 1000)
    model = tff.fit_table(pd.DataFrame(x, columns=names), any_order=True, seed=1, epochs=40).model
    frame = pd.DataFrame(test, columns=names)
    for seen in ([0], [1], [2], [0, 1], [0, 2], [1, 2]):
        rest, known = [i for i in range(3) if i not in seen], [names[i] for i in seen]
        slope = covariance[np.ix_(rest, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        left = covariance[np.ix_(rest, rest)] - slope @ covariance[np.ix_(seen, rest)]
        center = mean[rest] + (test[:, seen] - mean[seen]) @ slope.T
        exact = stats.multivariate_normal(np.zeros(len(rest)), left).logpdf(test[:, rest] - center)
        assert np.mean(exact - model.log_prob(frame, given=known)) < 0.06
        quantiles = model.quantile([0.05, 0.5, 0.95], names[rest[0]], given=frame[known])
        deviation = np.sqrt(left[0, 0])
        errors = np.abs(quantiles - center[:, :1] - deviation * stats.norm.ppf([0.05, 0.5, 0.95])) / deviation
        assert errors.mean() < 0.15
