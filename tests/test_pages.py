"""The README and the pages of the documentation run, and print what they say."""

import doctest
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize(
    "page",
    [
        "docs/getting-started.md",
        "docs/conventions.md",
        "docs/conditional.md",
        "docs/supports.md",
        "docs/variational.md",
        "docs/saving.md",
        "docs/several-devices.md",
        "docs/flows/autoregressive.md",
        "docs/flows/transformers.md",
        "docs/flows/image.md",
        "docs/flows/destructors.md",
        "docs/flows/continuous.md",
        "docs/time-series.md",
        "docs/course.md",
    ],
)
def test_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert ">>>" in text
    assert doctest.testfile(str(ROOT / page), module_relative=False, optionflags=FLAGS).failed == 0


def blocks(path):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/index.md", "docs/training.md", "docs/adding-a-flow.md", "docs/adding-an-objective.md"]
)
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """All Python of a page, in order and in one namespace, with fewer epochs and layers."""
    monkeypatch.chdir(tmp_path)
    code = blocks(page)
    assert code
    namespace = {}
    for block in code:
        for setting, least in (("epochs", 1), ("num_layers", 2)):
            block = re.sub(rf"\b{setting}=\d+", f"{setting}={least}", block)
        exec(compile(block, page, "exec"), namespace)
