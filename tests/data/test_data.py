import numpy as np
import pytest
from scipy import integrate

import tfp_flows as tff
from tfp_flows import data

NAMES = list(data.densities)


# Curves that are integrated as `circles` and `moons` are.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("rings", "two_spirals") else n for n in NAMES]
)
def test_samples_agree_with_density_and_moments(name):
    density = data.densities[name]()
    x = density.sample(20_000, seed=1)
    assert x.shape == (20_000, 2)
    assert x.dtype == np.float32
    nll = -density.log_prob(x)
    error = np.std(nll) / np.sqrt(len(nll)) + 1e-4
    assert abs(np.mean(nll) - density.entropy()) < 4 * error
    np.testing.assert_allclose(x.mean(0), density.mean, atol=4 * x.std(0).max() / np.sqrt(len(x)))
    np.testing.assert_allclose(x.std(0), density.stddev, rtol=0.03)
    np.testing.assert_array_equal(x, density.sample(20_000, seed=1))
    assert np.any(x != density.sample(20_000, seed=2))
    assert density.log_prob(x[:6].reshape(2, 3, 2)).shape == (2, 3)
    assert density.name == name


@pytest.mark.parametrize(
    ("density", "raw", "standardized"),
    [
        (data.moons(), 0.2892, 1.1312),
        (data.moons(0.1), 1.0076, 1.8296),
        (data.circles(), 0.6061, 1.7613),
        (data.banana(), 3.5310, None),
        (data.checkerboard(), np.log(8.0), None),
    ],
    ids=["moons", "moons 0.1", "circles", "banana", "checkerboard"],
)
def test_entropy_floors_of_the_design(density, raw, standardized):
    assert density.entropy() == pytest.approx(raw, abs=6e-5)
    if standardized is not None:
        assert density.standardized_entropy() == pytest.approx(standardized, abs=6e-5)


@pytest.mark.parametrize("name", ["pinwheel", "eight_gaussians", "banana"])
def test_densities_integrate_to_one_by_another_quadrature(name):
    density = data.densities[name]()
    reach = 25.0 if name == "banana" else 7.0
    axis = np.linspace(-reach, reach, 1201)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    p = np.exp(density.log_prob(grid))
    total = integrate.simpson(integrate.simpson(p, x=axis), x=axis)
    assert total == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", ["two_spirals", "rings", "swiss_roll"])
def test_quadrature_along_the_curve_has_converged(name):
    """Twice the nodes, the same density."""
    density = data.densities[name]()
    nodes = 2 * len(density._nodes) // density._branches
    twice = data.density.NoisyCurve(name, density._curve, density._branches, density.noise, nodes)
    x = density.sample(50, seed=1)
    np.testing.assert_allclose(density.log_prob(x), twice.log_prob(x), atol=1e-9)


def test_bad_arguments():
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="`n`"):
            data.moons().sample(bad)
    with pytest.raises(ValueError, match="`noise`"):
        data.moons(noise=0.0)
    with pytest.raises(ValueError, match="`factor`"):
        data.circles(factor=1.5)
    with pytest.raises(ValueError, match=r"\[\.\.\., 2\]"):
        data.moons().log_prob(np.zeros([3, 3]))


def test_faithful():
    x, columns = data.faithful()
    assert x.shape == (272, 2)
    assert columns == ["eruptions", "waiting"]
    np.testing.assert_allclose(x.mean(0), [3.4878, 70.897], rtol=1e-4)


def test_standardize():
    x, _ = data.faithful()
    bijector = tff.standardize(x)
    z = bijector.inverse(x).numpy()
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), 1.0, atol=1e-5)
    assert bijector.trainable_variables == ()
    assert sorted(v.name for v in bijector.variables) == ["adapted:0", "scale:0", "shift:0"]
    for bad, message in (
        (np.ones([5, 2]), "constant in column 0"),
        (np.full([300, 2], 0.1), "constant in column 0"),
        (np.ones([1, 2]), "at least 2 rows"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "row 0, column 1"),
        (np.ones(5), r"shape \[N, D\]"),
    ):
        with pytest.raises(ValueError, match=message):
            tff.standardize(bad)


CSV_ERRORS = {
    "": "no rows",
    "a,b\n": "names but no rows",
    "a,b\n1,2\n3\n": "line 3 has 1 fields, expected 2",
    "a,b\n1,x\n": "line 2, column 'b': expected a number, got 'x'",
    "a,b\n1,\n": "line 2, column 'b': the value is missing",
    "a,b\n1,NaN\n": "line 2, column 'b': the value is missing",
    "a,b\n1,inf\n": "line 2, column 'b': expected a finite number",
    "a,a\n1,2\n": "two columns are named 'a'",
    "a,\n1,2\n": "column 2 has no name",
    "1,2\nx,3\n": "line 2, column 'x1': expected a number",
    "a,b\n1,2\n,\n3,4\n": "line 3, column 'a': the value is missing",
    "a\n1\n\n3\n": "a blank line between the rows",
    "NA,NA\n1,2\n": "line 1, column 'x1': the value is missing",
}


@pytest.mark.parametrize("text", CSV_ERRORS)
def test_csv_errors_say_where(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(data.TableError, match=CSV_ERRORS[text]) as error:
        data.read_table(path)
    assert "\n" not in str(error.value)


def test_tables_round_trip(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('"first, one",b\r\n\r\n1,2.5e3\r\n-3,4\r\n')
    table = data.read_table(path)
    assert table.columns == ["first, one", "b"]
    np.testing.assert_array_equal(table.values, [[1.0, 2500.0], [-3.0, 4.0]])
    values = np.random.default_rng(0).normal(size=[5, 2])
    data.write_csv(path, values, table.columns)
    again = data.read_table(path)
    np.testing.assert_array_equal(again.values, values)
    assert again.columns == table.columns
    np.save(tmp_path / "t.npy", values)
    np.testing.assert_array_equal(data.read_table(tmp_path / "t.npy").values, values)
    path.write_text("1,2\n3,4\n")
    assert data.read_table(path).columns == ["x1", "x2"]


def test_other_files(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan]]))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY no")
    for name, message in (
        ("one.npy", "2-D"),
        ("text.npy", "real numbers"),
        ("nan.npy", "row 0, column 1"),
        ("broken.npy", "cannot be read"),
        ("missing.csv", "no such file"),
        ("table.xlsx", "expected a .csv or .npy"),
    ):
        with pytest.raises(data.TableError, match=message):
            data.read_table(tmp_path / name)
    for values, message in (
        (np.ones([1, 2]), "1 row of"),
        (np.array([[1.0, 2.0], [1.0, 3.0]]), "column 'a' is constant"),
    ):
        with pytest.raises(data.TableError, match=message):
            data.check_trainable("t", data.Table(values, ["a", "b"]))


def test_the_byte_order_mark_of_a_spreadsheet_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8-sig")
    assert data.read_table(path).columns == ["a", "b"]
    path.write_text("1,2\n3,4\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(data.read_table(path).values, [[1.0, 2.0], [3.0, 4.0]])
