"""Make the student's notebook of each assignment: `python assignments/build.py` writes `<name>/release/<name>.ipynb`.

The sources are scripts in jupytext's percent format with nbgrader's cell metadata. Like nbgrader, `release` replaces the text between
`### BEGIN SOLUTION` and `### END SOLUTION` and removes hidden tests, so nbgrader can grade the files.
"""

from __future__ import annotations

import pathlib
import re

import jupytext
import nbformat

ROOT = pathlib.Path(__file__).parent
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.S | re.M)
HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS[ \t]*\n?", re.S | re.M)


def source(folder: pathlib.Path) -> nbformat.NotebookNode:
    """Return the notebook of an assignment, with its solutions."""
    notebook = jupytext.read(folder / "source.py")
    for i, cell in enumerate(notebook.cells):
        cell["id"] = cell.metadata.get("nbgrader", {}).get("grade_id", f"cell-{i}")  # so that builds are equal
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def release(folder: pathlib.Path) -> nbformat.NotebookNode:
    """Return the student's notebook."""
    notebook = source(folder)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = SOLUTION.sub(r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", cell.source)
        else:
            cell.source = SOLUTION.sub("YOUR ANSWER HERE", cell.source)
        cell.source = HIDDEN.sub("", cell.source).rstrip("\n")
    return notebook


def released_file(folder: pathlib.Path) -> pathlib.Path:
    return folder / "release" / f"{folder.name}.ipynb"


def main() -> None:
    for script in sorted(ROOT.glob("*/source.py")):
        path = released_file(script.parent)
        path.parent.mkdir(exist_ok=True)
        path.write_text(nbformat.writes(release(script.parent)) + "\n", encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
