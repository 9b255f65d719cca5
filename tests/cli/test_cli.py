import json
import os
import subprocess
import sys

import numpy as np
import pytest

import tfp_flows as tff
from tfp_flows import data
from tfp_flows.cli import images, output
from tfp_flows.cli import main as cli
from tfp_flows.cli.tables import FLOWS, gaussian_nll, split
from tfp_flows.recipes.recipe import RECIPES


def run(capsys, *args):
    code = cli.main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A flow fitted for a few epochs to a table of three named columns."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    x = rng.normal(size=[1200, 3]) @ np.array([[2.0, 1.0, 0.0], [0.0, 0.5, 3.0], [0.0, 0.0, 0.1]]) + [100.0, -5.0, 0.0]
    data.write_csv(folder / "table.csv", x, ["length", "width, $cm$_$", "height"])
    code = cli.main(["fit", str(folder / "table.csv"), "--epochs", "2", "--out", str(folder / "fit"), "--verbose", "0"])
    assert code == 0
    return folder


def test_fit_writes_what_it_says(fitted):
    assert sorted(os.listdir(fitted / "fit")) == ["flow.keras", "flow.png", "held_out.csv", "report.json"]
    report = json.loads((fitted / "fit" / "report.json").read_text())
    assert report["columns"] == ["length", "width, $cm$_$", "height"]
    held_out = data.read_table(fitted / "fit" / "held_out.csv")
    assert held_out.columns == report["columns"]
    assert len(held_out.values) == report["held_out_rows"] == 180
    assert (fitted / "fit" / "flow.png").read_bytes().startswith(b"\x89PNG")
    assert not [name for name in os.listdir(fitted) if name.startswith(".")]


def test_sample_score_and_plot(fitted, capsys, tmp_path):
    code, out, _ = run(capsys, "sample", fitted / "fit", "-n", 50, "--seed", 3, "--out", tmp_path / "x.csv")
    assert code == 0
    assert "50 samples" in out
    table = data.read_table(tmp_path / "x.csv")
    assert table.columns == ["length", "width, $cm$_$", "height"]
    assert table.values.shape == (50, 3)

    code, out, _ = run(capsys, "score", fitted / "fit", tmp_path / "x.csv", "--out", tmp_path / "s.csv")
    assert code == 0
    scores = data.read_table(tmp_path / "s.csv").values[:, 0]
    assert f"{scores.mean():.4f} nats" in out
    # Columns are found by name, whatever their order; an unnamed file goes by position.
    data.write_csv(tmp_path / "y.csv", table.values[:, [2, 0, 1]], ["height", "length", "width, $cm$_$"])
    np.save(tmp_path / "z.npy", table.values)
    for name in ("y.csv", "z.npy"):
        assert run(capsys, "score", fitted / "fit", tmp_path / name, "--out", tmp_path / "t.csv")[0] == 0
        np.testing.assert_allclose(data.read_table(tmp_path / "t.csv").values[:, 0], scores, rtol=1e-6)
    assert run(capsys, "plot", fitted / "fit", "--out", tmp_path / "p.png")[0] == 0
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_held_out_score_is_that_of_the_report(fitted, capsys):
    report = json.loads((fitted / "fit" / "report.json").read_text())
    _, out, _ = run(capsys, "score", fitted / "fit", fitted / "fit" / "held_out.csv")
    assert f"{-report['nll']:.4f} nats" in out


def test_gaussian_baseline_and_split():
    rng = np.random.default_rng(0)
    x = rng.normal(size=[4000, 2]) @ np.array([[2.0, 1.0], [0.0, 0.5]])
    train, validation, test = split(x, 0)
    assert [len(train), len(validation), len(test)] == [2800, 600, 600]
    assert len({tuple(row) for part in (train, validation, test) for row in part}) == 4000
    entropy = 1.0 + np.log(2 * np.pi) + np.log(1.0)  # log |det| of the map is log(2 * 0.5) = 0
    assert gaussian_nll(train, test).shape == (600,)
    assert np.mean(gaussian_nll(train, test)) == pytest.approx(entropy, abs=0.1)


BAD_FILES = {
    "text.csv": ("a,b\n1,2\n3,x\n", "line 3, column 'b': expected a number, got 'x'"),
    "missing.csv": ("a,b\n1,2\n3,\n", "line 3, column 'b': the value is missing"),
    "one_row.csv": ("a,b\n1,2\n", "cannot be fitted to 1 row"),
    "constant.csv": ("a,b\n" + "".join(f"{i},2\n" for i in range(20)), "column 'b' is constant"),
    "duplicate.csv": ("a,a\n1,2\n3,4\n", "two columns are named 'a'"),
    "big.csv": ("a,b\n" + "".join(f"{i},{i}e35\n" for i in range(20)), "column 'b' holds values beyond 1e30"),
    "times.csv": (
        "a,b\n" + "".join(f"{i},{1_700_000_000 + i}\n" for i in range(20)),
        "column 'b' varies by 5.77 around 1.7e+09, which is too little",
    ),
    "few.csv": ("a,b\n1,2\n3,4\n5,7\n", "3 rows are too few"),
}


@pytest.mark.parametrize("name", [*BAD_FILES, "not_there.csv", "not_a_density"])
def test_bad_files_are_one_line_and_exit_code_2(name, capsys, tmp_path):
    text, message = BAD_FILES.get(name, (None, "no such file" if name.endswith("csv") else "one of moons"))
    if text is not None:
        (tmp_path / name).write_text(text)
    source = name if name == "not_a_density" else tmp_path / name
    code, out, err = run(capsys, "fit", source, "--out", tmp_path / "out")
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


def test_other_bad_usage(fitted, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "two.csv").write_text("length,other\n1,2\n")
    (tmp_path / "unnamed.csv").write_text("1,2\n3,4\n")
    (tmp_path / "four.csv").write_text("1,2,3,4\n3,4,5,6\n")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("flow.keras", "report.json", "thesis.txt"):
        (other / name).write_text("{}")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "flow.keras").write_bytes(b"PK no")
    (broken / "report.json").write_text("{}")
    for args, message in (
        (["fit", "moons", "--out", tmp_path / "empty"], "exists already"),
        (["fit", "moons", "--out", tmp_path / "empty", "--overwrite"], "not written by tfp-flows"),
        (["fit", "moons", "--out", tmp_path / "no" / "where"], "does not exist"),
        (["fit", "moons", "--out", other, "--overwrite"], "other files too (thesis.txt)"),
        (["score", fitted / "fit", tmp_path / "four.csv"], "has 4 columns"),
        (["sample", tmp_path / "empty", "--out", tmp_path / "x.csv"], "no flow.keras"),
        (["sample", broken, "--out", tmp_path / "x.csv"], "cannot be loaded"),
        (["score", fitted / "fit", tmp_path / "two.csv"], "no column named 'width, $cm$_$', 'height'"),
        (["score", fitted / "fit", tmp_path / "unnamed.csv"], "has 2 columns, the flow has 3"),
        (["score", fitted / "fit", tmp_path / "nothing.csv"], "no such file"),
        (["plot", fitted / "fit", "--out", tmp_path / "x.txt"], ".png"),
    ):
        code, _, err = run(capsys, *args)
        assert code == 2, args
        assert message in err
        assert err.count("\n") == 1
    for args in (["fit", "moons", "--epochs", "0"], ["fit"], ["fit", "moons", "--seed", "-1"], []):
        with pytest.raises(SystemExit) as stop:
            cli.main(args)
        assert stop.value.code == 2
        capsys.readouterr()


def test_overwrite_and_free_names(fitted, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["fit", "faithful", "--flow", "made", "--epochs", "1", "--verbose", "0"]
    assert run(capsys, *args)[0] == 0
    assert os.listdir(tmp_path) == ["faithful-made"]
    assert output.next_name("faithful-made").name == "faithful-made-2"
    before = (tmp_path / "faithful-made" / "report.json").read_text()
    code, out, _ = run(capsys, *args, "--out", "faithful-made", "--overwrite", "--seed", 5)
    assert code == 0
    assert "full-covariance Gaussian" in out
    assert os.listdir(tmp_path) == ["faithful-made"]
    assert (tmp_path / "faithful-made" / "report.json").read_text() != before


def test_flow_names_are_those_of_the_recipes():
    assert {*FLOWS, *images.IMAGE_FLOWS} == set(RECIPES)


def test_help_needs_no_tensorflow_and_the_shell_gets_exit_codes():
    code = "import sys; sys.argv = ['tfp-flows', 'fit', 'nothing.csv']\nfrom tfp_flows.cli import main as cli\n"
    code += "status = cli.main(); assert 'tensorflow' not in sys.modules; sys.exit(status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "tfp-flows: error: nothing.csv: no such file.\n"


def test_version():
    assert tff.__version__.count(".") == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_moons_by_default_is_within_a_tenth_of_the_floor(seed, capsys, tmp_path):
    assert run(capsys, "fit", "moons", "--seed", seed, "--out", tmp_path / "m", "--verbose", 0)[0] == 0
    report = json.loads((tmp_path / "m" / "report.json").read_text())
    assert -3 * report["nll_standard_error"] < report["nll"] - report["floor"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_faithful_beats_the_gaussian(seed, capsys, tmp_path):
    assert run(capsys, "fit", "faithful", "--seed", seed, "--out", tmp_path / "f", "--verbose", 0)[0] == 0
    report = json.loads((tmp_path / "f" / "report.json").read_text())
    assert report["nll"] < report["gaussian_nll"]


def test_the_default_fit_has_the_seed_and_options_of_the_command(capsys, tmp_path, monkeypatch):
    def fit_table(x, **options):
        raise ValueError(f"{len(x)} rows, {[options[k] for k in ('seed', 'epochs', 'batch_size', 'learning_rate')]}")

    monkeypatch.setattr("tfp_flows.tables.fit.fit_table", fit_table)
    options = ["--rows", 50, "--seed", 3, "--epochs", 4, "--batch-size", 5, "--learning-rate", 0.1]
    code, _, err = run(capsys, "fit", "moons", *options, "--out", tmp_path / "x")
    assert (code, err) == (2, "tfp-flows: error: moons: 34 rows, [3, 4, 5, 0.1]\n")


def test_the_least_likely_row_is_counted_from_one(fitted, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.tile([[100.0, -5.0, 0.0]], [6, 1])
    values[3] += 30.0
    data.write_csv(tmp_path / "x.csv", values, ["length", "width, $cm$_$", "height"])
    _, out, _ = run(capsys, "score", fitted / "fit", tmp_path / "x.csv")
    assert "least likely: data row 4," in out
    assert os.listdir(tmp_path) == ["x.csv"]  # scores are written where `--out` says, or nowhere


def test_standardized_nats_are_those_of_data_of_deviation_one(fitted):
    report = json.loads((fitted / "fit" / "report.json").read_text())
    deviation = data.read_table(fitted / "table.csv").values.std(axis=0)
    assert report["standardized_offset"] == pytest.approx(-np.sum(np.log(deviation)), abs=0.2)
    assert abs(report["standardized_offset"]) > 1.0


def test_equal_columns_are_told_before_the_fit(capsys, tmp_path):
    data.write_csv(tmp_path / "x.csv", np.random.default_rng(0).normal(size=[100, 2])[:, [0, 0, 1]], ["a", "b", "c"])
    code, _, err = run(capsys, "fit", tmp_path / "x.csv", "--flow", "gaussian", "--out", tmp_path / "y")
    assert code == 0
    assert "tfp-flows: warning: " in err
    assert "are equal" in err
