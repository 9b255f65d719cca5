"""Every assignment: the solution runs, the student's notebook is the generated one, and stops at the first gap."""

import importlib.util
import pathlib
import re

import jupyter_client
import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1] / "assignments"
FOLDERS = sorted(p.parent for p in ROOT.glob("*/source.py"))
by_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)

spec = importlib.util.spec_from_file_location("build", ROOT / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One kernel, which imports TensorFlow once; `run` empties its namespace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFP_FLOWS_SMOKE", "1")
        patch.setenv("MPLBACKEND", "agg")
        manager = jupyter_client.KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(tmp_path_factory.mktemp("kernel")))
    yield manager
    manager.shutdown_kernel(now=True)


def run(notebook, kernel):
    clear = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%reset -f")])
    for each in (clear, notebook):
        nbclient.NotebookClient(each, timeout=600, km=kernel).execute()
    return notebook


def roles(notebook):
    return [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]


# Only 01 and 03 run here in every test run: together they contain every kind of cell. The calculations of 05 to 08 run in
# assignments/test_wrong_answers.py.
@pytest.mark.parametrize(
    "folder",
    [pytest.param(p, marks=pytest.mark.slow) if not p.name.startswith(("01", "03")) else p for p in FOLDERS],
    ids=lambda p: p.name,
)
def test_solution_runs(folder, kernel):
    run(build.source(folder), kernel)


@by_folder
def test_release_is_generated_and_without_solutions(folder):
    fresh = build.release(folder)
    committed = nbformat.read(build.released_file(folder), as_version=4)
    assert nbformat.writes(fresh) == nbformat.writes(committed), "run: python assignments/build.py"
    for cell in committed.cells:
        assert "SOLUTION" not in cell.source
        assert "HIDDEN" not in cell.source
    nbformat.validate(committed)


@by_folder
def test_release_stops_at_the_first_gap(folder, kernel):
    notebook = build.release(folder)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="NotImplementedError"):
        run(notebook, kernel)
    # The first cell that failed is the test of the first function to write.
    failed = next(
        i for i, cell in enumerate(notebook.cells) if any(o.output_type == "error" for o in cell.get("outputs", []))
    )
    gaps = [
        i for i, role in enumerate(roles(notebook)) if role.get("solution") and notebook.cells[i].cell_type == "code"
    ]
    assert gaps[0] < failed
    assert not any(g > gaps[0] and g < failed for g in gaps)


@by_folder
def test_cells_are_marked_for_nbgrader(folder):
    notebook = build.source(folder)
    ids = [role.get("grade_id") for role in roles(notebook)]
    assert None not in ids, "a cell has no nbgrader metadata"
    assert len(set(ids)) == len(ids)
    for i, (cell, role) in enumerate(zip(notebook.cells, roles(notebook), strict=True)):
        if cell.cell_type == "code" and role["solution"]:
            assert cell.source.startswith("#### GRADED CELL ####")
            name = re.search(r"^(?:def|class) (\w+)", cell.source, re.M)[1]
            tests = [c for c, r in zip(notebook.cells, roles(notebook), strict=True) if r["grade"] and r["locked"]]
            assert any(name + "(" in c.source for c in tests), f"{name} has no test"
        if role["grade"] and not role["solution"]:
            assert role["locked"] is True
            assert role["points"] > 0
            assert i > 0
