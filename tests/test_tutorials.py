"""Every tutorial: the committed notebook belongs to its source, is small, and runs."""

import importlib.util
import pathlib
import re

import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1] / "docs" / "tutorials"

spec = importlib.util.spec_from_file_location("build_tutorials", ROOT / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

by_name = pytest.mark.parametrize("name", build.names())


def committed(name):
    return nbformat.read(ROOT / f"{name}.ipynb", as_version=4)


@by_name
def test_notebook_belongs_to_its_source(name):
    notebook = committed(name)
    fresh = [(cell.cell_type, cell.source) for cell in build.source(name).cells]
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == fresh, "run: python docs/tutorials/build.py"
    nbformat.validate(notebook)


@by_name
def test_every_cell_has_run_in_order_and_without_error(name):
    code = [cell for cell in committed(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}


@by_name
def test_begins_with_the_installation_and_ends_with_exercises(name):
    cells = committed(name).cells
    assert cells[0].source.startswith("# ")
    assert "REPOSITORY" in cells[0].source
    assert cells[1].source == build.INSTALL
    exercises = cells[-1].source.split("## Exercises\n")[1]
    assert 2 <= len(re.findall(r"^\d\. ", exercises, re.M)) <= 4


def test_each_notebook_has_a_source_and_all_are_small():
    notebooks = sorted(ROOT.glob("*.ipynb"))
    assert [path.stem for path in notebooks] == build.names()
    assert sum(path.stat().st_size for path in notebooks) < 3_000_000


def test_every_tutorial_is_in_the_table_of_contents():
    index = (ROOT.parent / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^tutorials/(\w+)$", index, re.M)) == build.names()


@pytest.mark.slow
@by_name
def test_runs_in_a_small_size(name):
    build.execute(build.small(build.source(name)))
