"""The default flow for tables: a fitted base, early stopping from the start, and the words of the command line."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import bases, data
from tfp_flows.cli import main as cli
from tfp_flows.testing import check_normalized, redraw_weights

tfb, tfd = tfp.bijectors, tfp.distributions
RNG = np.random.default_rng(0)
MIX = np.array([[1.0, 0.8, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 2.0]])
# Enough rows for one flow; of fewer than 1000, as `test_an_outlier...` has them, five are trained.
NORMAL = RNG.normal(size=[1200, 3]) @ MIX + 5.0
HEAVY = RNG.standard_normal([1200, 3]) @ MIX / np.sqrt(RNG.chisquare(2.5, [1200, 1]) / 2.5) - 3.0


def test_a_new_base_is_the_standard_normal_and_an_adapted_one_the_gaussian():
    base = tff.MultivariateStudentT(3, dtype=tf.float64)
    standard = tfd.MultivariateNormalDiag(tf.zeros(3, tf.float64), tf.ones(3, tf.float64))
    np.testing.assert_allclose(base.log_prob(NORMAL), standard.log_prob(NORMAL), rtol=1e-12)
    base.adapt(NORMAL)
    assert base.inverse_df == 0.0
    gaussian = tfd.MultivariateNormalTriL(NORMAL.mean(0), np.linalg.cholesky(np.cov(NORMAL.T, bias=True)))
    np.testing.assert_allclose(base.log_prob(NORMAL), gaussian.log_prob(NORMAL), rtol=1e-4)
    assert base.log_prob(NORMAL[0]).shape == ()
    assert base.log_prob(NORMAL.reshape([2, 600, 3])).shape == (2, 600)


def test_heavy_tails_make_it_a_student_t_whose_density_and_samples_are_right():
    base = tff.MultivariateStudentT(3, dtype=tf.float64)
    base.adapt(HEAVY)
    df = 1.0 / base.inverse_df.numpy()
    assert 2.0 <= df <= 4.0
    exact = tfd.MultivariateStudentTLinearOperator(
        df, base.loc, tf.linalg.LinearOperatorLowerTriangular(base.scale_tril)
    )
    np.testing.assert_allclose(base.log_prob(HEAVY), exact.log_prob(HEAVY), rtol=1e-9)
    x = base.sample(40_000, seed=(1, 2)).numpy()
    np.testing.assert_array_equal(x, base.sample(40_000, seed=(1, 2)))
    z = np.linalg.solve(base.scale_tril.numpy(), (x - base.loc.numpy()).T)
    ratio = np.sum(z**2, axis=0) / 3.0  # of Fisher's distribution with 3 and df degrees of freedom
    from scipy import stats

    assert stats.kstest(ratio, stats.f(3, df).cdf).pvalue > 1e-3
    plane = tff.MultivariateStudentT(2)
    plane.adapt(HEAVY[:, :2])
    check_normalized(plane, limit=300.0, resolution=3000, tolerance=0.02)  # the tails beyond hold about a hundredth


def test_columns_that_depend_on_each_other_have_a_base():
    rows = np.column_stack([NORMAL[:, 0], 2.0 * NORMAL[:, 0], NORMAL[:, 1]])
    loc, scale_tril, _ = bases.fit_student_t(rows)
    assert np.all(np.isfinite(scale_tril))
    assert np.all(np.diag(scale_tril) > 0)
    few = RNG.normal(size=[5, 20])
    assert np.all(np.isfinite(bases.fit_student_t(few)[1]))
    assert loc.shape == (3,)


@pytest.mark.parametrize("bad", [np.ones([5, 2]), np.ones([1, 3]), np.full([5, 3], np.nan), np.ones([5])])
def test_bad_rows_are_refused(bad):
    with pytest.raises(ValueError, match="`rows` must be finite, of shape"):
        tff.MultivariateStudentT(3).adapt(bad)


@pytest.mark.parametrize("rows", [pytest.param(NORMAL, marks=pytest.mark.slow), HEAVY])
def test_the_untrained_flow_is_its_base_and_saved(rows, tmp_path):
    flow = tff.table_flow(rows, seed=1)
    base = tff.MultivariateStudentT(3, dtype=tf.float64)
    base.adapt((rows - rows.mean(0)) / rows.std(0))
    expected = base.log_prob((rows - rows.mean(0)) / rows.std(0)) - np.sum(np.log(rows.std(0)))
    np.testing.assert_allclose(flow.log_prob(rows), expected, atol=2e-3)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    if rows is HEAVY:  # what training moves is kept as well
        redraw_weights(flow, seed=1, scale=0.1)
    model.save(tmp_path / "x.keras")
    copy = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_allclose(copy.log_prob(rows), model.log_prob(rows), rtol=1e-5)
    np.testing.assert_allclose(copy.sample(5, seed=1), model.sample(5, seed=1), rtol=1e-4)


def test_training_never_ends_above_its_start():
    """With so high a rate every epoch is worse than the start, which Keras' own callback would not go back to."""
    x, validation = NORMAL[:60], NORMAL[60:120]
    flow = tff.table_flow(x, seed=1)
    start = -np.mean(flow.log_prob(validation))
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(0.1), jit_compile=False)
    stop = tff.callbacks.EarlyStopping(validation, patience=3)
    history = model.fit(x, batch_size=15, epochs=8, validation_data=validation, callbacks=[stop], verbose=0).history
    assert len(history["loss"]) == 3
    assert min(history["val_loss"]) > start
    np.testing.assert_allclose(-np.mean(model.log_prob(validation)), start, rtol=1e-5)


def test_each_fold_starts_with_a_new_optimizer():
    model, history = tff.fit_table(NORMAL[:40], seed=1, epochs=1)
    assert len(history["loss"]) == 5
    assert not any(np.any(v.numpy()) for v in model.optimizer.variables)


def test_settings_follow_from_the_rows():
    for rows in (1, 10, 100, 999, 1000, 5000, 50_000, 10**6):
        settings = tff.table_training(rows)
        steps = rows // settings.batch_size
        assert 1 <= settings.batch_size <= 256
        assert steps >= min(rows, 4)
        assert 20 <= settings.epochs <= 200
        assert settings.epochs * steps >= min(800, 200 * steps)
    with pytest.raises(ValueError, match="`rows` must be"):
        tff.table_training(0)


# --- the command line ---


def fit(tmp_path, rows, columns, *options):
    data.write_csv(tmp_path / "x.csv", rows, columns)
    out = tmp_path / "out"
    assert (
        cli.main(["fit", str(tmp_path / "x.csv"), "--out", str(out), "--epochs", "2", "--verbose", "0", *options]) == 0
    )
    return json.loads((out / "report.json").read_text())


def test_the_report_says_when_a_gaussian_is_as_good(tmp_path, capsys):
    report = fit(tmp_path, NORMAL, ["a", "b", "c"])
    printed = capsys.readouterr().out
    assert report["gain_over_gaussian"] < report["gain_standard_error"]
    assert "The flow is" in printed
    assert "`--flow gaussian` fits that" in printed
    report = fit(tmp_path, NORMAL, ["a", "b", "c"], "--flow", "gaussian", "--overwrite")
    assert abs(report["gain_over_gaussian"]) < 0.02
    assert "--flow gaussian" not in capsys.readouterr().out


def test_a_flow_that_is_better_is_not_talked_down(tmp_path, capsys):
    report = fit(tmp_path, HEAVY, ["a", "b", "c"])
    assert report["gain_over_gaussian"] > report["gain_standard_error"]
    assert "--flow gaussian" not in capsys.readouterr().out


def test_an_outlier_among_the_held_out_rows_costs_little(tmp_path):
    rows = HEAVY[:200].copy()
    held_out = np.random.default_rng(0).permutation(200)[:30]  # as the command splits
    rows[held_out[0]] = rows.mean(0) + 40.0 * rows.std(0)
    report = fit(tmp_path, rows, ["a", "b", "c"])
    assert report["nll"] < report["gaussian_nll"]
    assert report["nll"] < 9.0


def test_what_no_density_has_is_told_by_the_names_of_the_columns(tmp_path, capsys):
    rows = np.column_stack([NORMAL[:, 0], np.round(NORMAL[:, 1]), NORMAL[:, 0] + 1e-9])
    fit(tmp_path, rows, ["length", "visits", "again"], "--flow", "gaussian")  # rows are looked at for any flow
    told = capsys.readouterr().err
    assert "warning" in told
    assert "column 'visits' holds whole numbers" in told
    assert "columns 'length' and 'again' are equal" in told or "'length', column 'again' depend" in told


def test_equal_columns_are_told_where_a_gaussian_has_no_density(tmp_path, capsys):
    rows = np.round(np.column_stack([NORMAL, NORMAL[:, 0]]), 1)
    report = fit(tmp_path, rows, ["a", "b", "c", "d"], "--epochs", "1", "--flow", "maf")
    told = capsys.readouterr()
    assert report["gaussian_nll"] is None
    assert report["gain_over_gaussian"] is None
    assert "its covariance is singular" in told.out
    assert "columns 'a' and 'd' are equal" in told.err
    assert told.err.count("rounded") == 1
    assert "columns 'a', 'b', 'c', 'd' are rounded (values 0.1 apart at the least)" in told.err
