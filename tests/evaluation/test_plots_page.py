"""The page of plots runs, with little data and training, and its pictures are in the repository."""

import pathlib
import re

import matplotlib.pyplot as plt
import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def test_the_page_shows_every_plot_and_small_pictures():
    text = (DOCS / "plots.md").read_text(encoding="utf-8")
    for name in ("layers", "animation", "compare", "conditional", "masks", "jacobian"):
        assert f"tff.plots.{name}(" in text
    pictures = re.findall(r"\]\((images/plots_\w+\.\w+)\)", text)
    assert {p.name for p in DOCS.glob("images/plots_*")} == {p.split("/")[1] for p in pictures}
    for picture in pictures:
        assert (DOCS / picture).stat().st_size < (600_000 if picture.endswith(".gif") else 150_000), picture


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "plots.md").read_text(encoding="utf-8"), re.S):
        block = re.sub(r"epochs=\d+", "epochs=1", block.replace("10_000", "300").replace("frames=48", "frames=3"))
        exec(compile(block, "plots.md", "exec"), namespace)
    plt.close("all")
    named = re.findall(r'"(\w+\.(?:png|gif))"', (DOCS / "plots.md").read_text(encoding="utf-8"))
    assert {p.name for p in tmp_path.iterdir()} == set(named)
