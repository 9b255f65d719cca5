"""Tests of the assignments' own tests: the solution passes, and every usual wrong answer is rejected."""

import importlib
import pathlib
import re

import matplotlib.pyplot as plt
import pytest

ROOT = pathlib.Path(__file__).parents[2] / "assignments"
NUMBERS = ["05", "06", "07", "08"]
# Cells that train: their answers are tested by `pytest -m slow`.
TRAINING = {"coupling", "make-vae", "fit-rbig", "fit-posterior", "fit-neural", "fit-matching"}


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


def accepted(number, training):
    """Return the wrong answers that the tests accept. Raise if they reject the solution."""
    wrong, namespace, found, code_of = tables(number), {"__name__": "__main__"}, [], {}
    # Of the given cells, only those whose names the tests use.
    needed = {"install", "imports", "data", "networks", "velocity-and-trace", "layers-figure", "ranks-figure"}
    for name, kind, code in cells_of(number):
        if kind == "given" and name in needed:
            execute(code, namespace, name)
        elif kind == "answer":
            code_of[name] = code
            execute(code, namespace, name)
        elif kind == "test":
            answer = name.removesuffix("-test")
            if answer in TRAINING and not training:
                continue
            if (answer in TRAINING) == training:
                for flaw, (old, new) in wrong[answer].items():
                    assert code_of[answer].count(old) >= 1, (answer, flaw)
                    copy = dict(namespace)
                    execute(code_of[answer].replace(old, new), copy, answer)
                    try:
                        execute(code, copy, name)
                    except Exception:  # students' code may fail in any way
                        continue
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
