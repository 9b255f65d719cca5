"""CSV files with integers, categories and missing values, from the shell."""

import json
import types

import numpy as np
import pandas as pd
import pytest

from tfp_flows.cli import main as cli
from tfp_flows.cli.mixed import MixedTask, read_frame
from tfp_flows.tables import Columns

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, 150),
        "job": RNG.choice(["cook", "nurse", "smith"], 150),
        "wage": RNG.normal(20.0, 5.0, 150).round(2),
    }
)


def run(capsys, *args):
    code = cli.main(list(map(str, args)))
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    ROWS.mask(RNG.random(ROWS.shape) < 0.1).to_csv(folder / "people.csv", index=False)
    options = ["--any-order", "--epochs", "1", "--verbose", "0", "--out", str(folder / "fit")]
    assert cli.main(["fit", str(folder / "people.csv"), *options]) == 0
    return folder / "fit"


def test_the_report_names_kinds_and_a_baseline(fitted):
    report = json.loads((fitted / "report.json").read_text())
    assert report["columns"] == list(ROWS)
    assert report["kinds"] == ["integer", "category", "real"]
    assert np.isfinite([report["nll"], report["independent_nll"]]).all()
    assert (fitted / "flow.png").is_file()


def test_samples_are_integers_and_categories(fitted, capsys, tmp_path):
    code, out, _ = run(capsys, "sample", fitted, "-n", 30, "--seed", 3, "--out", tmp_path / "x.csv")
    assert (code, out) == (0, f"wrote 30 rows of age, job, wage to {tmp_path / 'x.csv'}\n")
    samples = pd.read_csv(tmp_path / "x.csv")
    assert samples.dtypes.astype(str).to_dict() == ROWS.dtypes.astype(str).to_dict()
    assert set(samples["job"]) <= set(ROWS["job"])


def test_given_rows_are_completed(fitted, capsys, tmp_path):
    ROWS[["wage", "job"]][:5].to_csv(tmp_path / "given.csv", index=False)
    assert (
        run(capsys, "sample", fitted, "--given", tmp_path / "given.csv", "-n", 2, "--out", tmp_path / "x.csv")[0] == 0
    )
    full = pd.read_csv(tmp_path / "x.csv")
    assert full["wage"].tolist() == np.repeat(ROWS["wage"][:5], 2).tolist()
    assert full["age"].dtype == np.int64
    (tmp_path / "given.csv").write_text("job\npilot\n")
    code, _, err = run(capsys, "sample", fitted, "--given", tmp_path / "given.csv", "--out", tmp_path / "x.csv")
    assert code == 2
    assert "column 'job' of `given` must hold one of 'cook', 'nurse', 'smith', got 'pilot' in row 0" in err


def test_scores_have_levels(fitted, capsys, tmp_path):
    rows = ROWS[:12].astype({"age": "Int64"})
    rows.loc[3, "age"] = pd.NA
    rows[["job", "age", "wage"]].to_csv(tmp_path / "x.csv", index=False)  # columns are found by name
    code, out, _ = run(capsys, "score", fitted, tmp_path / "x.csv", "--out", tmp_path / "s.csv")
    assert code == 0
    assert "rows with missing values have no density level" in out
    scores = pd.read_csv(tmp_path / "s.csv")
    assert list(scores) == ["log_prob", "density_level", "age_level", "job_level", "wage_level"]
    assert scores["log_prob"].notna().all()
    assert scores["density_level"].isna().tolist() == scores["age_level"].isna().tolist() == [i == 3 for i in range(12)]
    (tmp_path / "x.csv").write_text("age,wage\n30,20.5\n")
    code, _, err = run(capsys, "score", fitted, tmp_path / "x.csv")
    assert code == 2
    assert "has no column 'job', expected the columns 'age', 'job', 'wage'" in err


def test_a_fixed_order_refuses_gaps_and_typing_errors(capsys, tmp_path):
    ROWS.to_csv(tmp_path / "x.csv", index=False)
    options = ["--epochs", 1, "--verbose", 0, "--out", tmp_path / "fit"]
    code, out, _ = run(capsys, "fit", tmp_path / "x.csv", *options)
    assert code == 0
    assert "columns: 1 real, 1 integer, 1 category; conditionals in the order of the columns" in out
    assert run(capsys, "plot", tmp_path / "fit", "--out", tmp_path / "x.png")[0] == 0
    code, _, err = run(capsys, "sample", tmp_path / "fit", "--given", tmp_path / "x.csv", "--out", tmp_path / "y.csv")
    assert code == 2
    assert "`given` needs a model of any order" in err
    ROWS.mask(ROWS["age"] > 70).to_csv(tmp_path / "x.csv", index=False)
    code, _, err = run(capsys, "fit", tmp_path / "x.csv", "--out", tmp_path / "y")
    assert code == 2
    assert "column 'age' must have a value in each row" in err
    assert "use --any-order" in err
    ROWS.astype({"wage": object}).replace({"wage": {ROWS["wage"][4]: "2o.5"}}).to_csv(tmp_path / "x.csv", index=False)
    code, _, err = run(capsys, "fit", tmp_path / "x.csv", "--out", tmp_path / "y")
    assert code == 2
    assert "expected a number, got" in err
    assert run(capsys, "fit", "moons", "--any-order")[0] == 2


def test_signs_of_gaps_are_categories_in_text_only(tmp_path):
    (tmp_path / "x.csv").write_text("job,age,ok,city\nNone,3,True,nan\ncook,NA,null,Rome\nNA,5,False,\n?,6,True,NaN\n")
    frame = read_frame(str(tmp_path / "x.csv"), gaps=True)
    assert frame["job"].tolist()[:3] == ["None", "cook", "NA"]
    assert frame.isna().sum().tolist() == [1, 1, 1, 3]
    assert frame["age"].dtype == float
    assert [type(value) for value in frame["ok"].dropna()] == [bool] * 3
    assert read_frame(str(tmp_path / "x.csv"))["job"].tolist()[3] == "?"
    columns = Columns.of(frame[["job", "age", "ok"]], missing=True)
    again = read_frame(str(tmp_path / "x.csv"), columns)[columns.names]
    np.testing.assert_array_equal(*(columns.encode(rows, missing=True) for rows in (again, frame[columns.names])))


def test_the_report_learns_nothing_from_held_out_rows(tmp_path, monkeypatch):
    ROWS.to_csv(tmp_path / "x.csv", index=False)
    args = types.SimpleNamespace(
        source=str(tmp_path / "x.csv"),
        any_order=False,
        seed=1,
        epochs=1,
        batch_size=None,
        learning_rate=None,
        verbose=0,
    )
    task = MixedTask(args)
    monkeypatch.setattr("tfp_flows.tables.fit.fit_distribution", lambda *_: None)
    task.fit()
    age, job, wage = task.columns.columns
    assert wage.shift == pytest.approx(task.train["wage"].mean())
    counts = task.train["job"].value_counts()[list(job.categories)].to_numpy() + 0.5
    np.testing.assert_allclose(np.exp(job.weights), counts / counts.sum())
    assert (age.edges[0], age.edges[-1]) == (0, ROWS["age"].max() + 1)
