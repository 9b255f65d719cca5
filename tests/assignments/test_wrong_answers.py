"""Tests of the assignments' own tests: the solution passes, and every usual wrong answer is rejected."""

import importlib
import pathlib
import re

import matplotlib.pyplot as plt
import pytest

ROOT = pathlib.Path(__file__).parents[2] / "assignments"
NUMBERS = ["01", "02", "03", "04", "05", "06", "07", "08"]
# Cells that train, or build many networks: their answers are tested by `pytest -m slow`.
TRAINING = {
    "table",
    "multiscale",
    "model",
    "train",
    "make-iaf",
    "coupling",
    "make-vae",
    "fit-rbig",
    "fit-posterior",
    "fit-neural",
    "fit-matching",
}

# Of the given cells, only those whose names the tests use.
NEEDED = {"install", "imports", "data", "networks", "velocity-and-trace", "layers-figure", "ranks-figure"}


def tables(number):
    return importlib.import_module(f"wrong_answers_{number}").WRONG


def cells_of(number):
    """Return `(grade_id, kind, code)` of the code cells."""
    (path,) = ROOT.glob(f"{number}_*/source.py")
    for cell in re.split(r"^# %% ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
        head, _, code = cell.partition("\n")
        if not head.startswith("[markdown]"):
            kind = "answer" if '"solution": true' in head else "test" if '"grade": true' in head else "given"
            yield re.search(r'"grade_id": "([^"]+)"', head)[1], kind, code


def execute(code, namespace, name):
    exec(compile(code, name, "exec"), namespace)
    plt.close("all")


def rejects(answer, test, namespace):
    copy = dict(namespace)
    try:
        execute(answer, copy, "answer")
        execute(test, copy, "test")
    except Exception:  # students' code may fail in any way
        return True
    return False


def accepted(number, training):
    """Return the wrong answers that the tests accept. Raise if they reject the solution."""
    wrong, namespace, found, code_of = tables(number), {"__name__": "__main__"}, [], {}
    needed, since = NEEDED | ({"fit"} if training else set()), []
    for name, kind, code in cells_of(number):
        if kind == "given" and name in needed:
            execute(code, namespace, name)
        elif kind == "answer":
            code_of[name] = code
            since.append(name)
            execute(code, namespace, name)
        elif kind == "test":
            answers, since = since, []  # a cell tests all answers since the last one
            trains = not TRAINING.isdisjoint(answers)
            if trains and not training:
                continue
            for answer in answers if trains == training else ():
                for flaw, (old, new) in wrong[answer].items():
                    assert code_of[answer].count(old) >= 1, (answer, flaw)
                    if not rejects(code_of[answer].replace(old, new), code, namespace):
                        found.append(f"{answer}: {flaw}")
            execute(code, namespace, name)
    return found


@pytest.mark.parametrize("number", NUMBERS)
def test_every_graded_cell_has_wrong_answers(number):
    graded = {name for name, kind, _ in cells_of(number) if kind == "answer"}
    assert graded == set(tables(number))
    assert all(len(flaws) >= 3 for flaws in tables(number).values())


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "training", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["calculation", "training"]
)
def test_wrong_answers_are_rejected(number, training, monkeypatch):
    monkeypatch.setenv("TFP_FLOWS_SMOKE", "1")
    assert accepted(number, training) == []
