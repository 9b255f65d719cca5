"""Write the tutorials as executed notebooks.

`python docs/tutorials/build.py` runs every source `NAME.py` and writes `NAME.ipynb` with its outputs. To run some of them, give
their names. `--small` runs them with few steps and writes nothing. `--text` runs nothing: it renews the text of the notebooks
whose code has not changed. The sources are scripts in jupytext's percent format.
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import os
import pathlib
import re
import tempfile
import time

import jupytext
import nbclient
import nbformat
from PIL import Image

ROOT = pathlib.Path(__file__).parent
INSTALL = """\
import importlib.util

# Replace REPOSITORY by the address of the repository, or by the path of your clone.
if importlib.util.find_spec("tfp_flows") is None:
    !git clone --depth 1 REPOSITORY tfp_flows_clone
    %pip install -q "./tfp_flows_clone[plots,diagnostics,calibration,matching,sklearn,search]\""""
SMALL = {
    "epochs": 1,
    "steps_per_epoch": 20,
    "num_simulations": 400,
    "num_results": 20,
    "num_burnin_steps": 20,
    "num_layers": 2,
    "resolution": 20,
    "frames": 3,
    "max_trials": 1,
}
COLORS = 96
TENSORFLOW = re.compile(
    r"^(?:INFO|WARNING):tensorflow:.*\n(?:Instructions for updating:\n.*\n(?:Instead of:\n.*\nUse:\n.*\n)?)?",
    re.M,
)


def names() -> list[str]:
    return sorted(path.stem for path in ROOT.glob("*.py") if path.name != "build.py")


def source(name: str) -> nbformat.NotebookNode:
    """Return the notebook of a tutorial without outputs. Its second cell installs the package where it is missing."""
    notebook = jupytext.read(ROOT / f"{name}.py")
    notebook.cells.insert(1, nbformat.v4.new_code_cell(INSTALL))
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"  # so that builds are equal
        if cell.cell_type == "code" and i > 1:
            cell.source += _semicolon(cell.source)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {
        "kernelspec": kernel,
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    return notebook


def _semicolon(code: str) -> str:
    """Return the semicolon that hides the value of the last line, unless it prints. The formatter would remove it."""
    last = ast.parse(code).body[-1]
    hides = isinstance(last, ast.Expr) and not ast.unparse(last).startswith("print(")
    return ";" if hides else ""


def renew(name: str) -> nbformat.NotebookNode:
    """Return the notebook of a tutorial with the outputs that it has. Raise a `ValueError` if its code has changed."""
    notebook, old = source(name), nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    code = [[cell for cell in each.cells if cell.cell_type == "code"] for each in (notebook, old)]
    trees = [
        [ast.dump(ast.parse(cell.source)) for cell in cells[1:]] for cells in code
    ]  # layout does not matter
    if trees[0] != trees[1]:
        raise ValueError(
            f"The code of {name} has changed: run `python docs/tutorials/build.py {name}`."
        )
    for cell, executed in zip(*code, strict=True):
        cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
    clean(notebook)
    return notebook


def small(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Reduce the settings of a notebook, such as `epochs=30`, to a size that only shows that the cells run."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for setting, value in SMALL.items():
                cell.source = re.sub(rf"\b{setting}=[\d_]+", f"{setting}={value}", cell.source)
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.pop("MPLBACKEND", None)  # pictures go into the notebook
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook, timeout=900, resources={"metadata": {"path": folder}}
        )
        return client.execute()


def clean(notebook: nbformat.NotebookNode) -> list[str]:
    """Remove times, warnings and all but the smallest form of each output. Return the warnings."""
    warnings = []
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        warnings += [
            each.text
            for each in cell.outputs
            if each.output_type == "stream" and each.name == "stderr"
        ]
        cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
        for output in cell.outputs:
            if (
                output.output_type == "stream"
            ):  # TensorFlow warns on the standard output of a notebook
                warnings += TENSORFLOW.findall(output.text)
                output.text = TENSORFLOW.sub("", output.text)
            data = output.get("data", {})
            if "image/png" in data:
                output.data = {"image/png": _few_colors(data["image/png"])}
            output.pop("metadata", None)
            if output.output_type != "stream":
                output["metadata"] = {}
        cell.outputs = [each for each in cell.outputs if each.get("text") or each.get("data")]
    return warnings


def _few_colors(png: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="tutorials to run; all of them by default")
    parser.add_argument(
        "--small", action="store_true", help="run with few steps, and write nothing"
    )
    parser.add_argument("--text", action="store_true", help="run nothing, and renew the text only")
    args = parser.parse_args()
    for name in args.names or names():
        if args.text:
            (ROOT / f"{name}.ipynb").write_text(
                nbformat.writes(renew(name)) + "\n", encoding="utf-8"
            )
            continue
        notebook = source(name)
        begin = time.time()
        execute(small(notebook) if args.small else notebook)
        seconds = time.time() - begin
        warnings = clean(notebook)
        path = ROOT / f"{name}.ipynb"
        if not args.small:
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(
            f"{name}: {seconds:.0f} s, {len(nbformat.writes(notebook)) // 1024} KB",
            *warnings,
            sep="\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
