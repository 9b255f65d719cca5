"""The documentation runs: doctests of the package, and the facts of README and pages."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows.cli.recipes import recipe_names
from tfp_flows.recipes import recipe

ROOT = pathlib.Path(__file__).parents[1]
NAMES = {"keras": keras, "np": np, "tf": tf, "tfp": tfp, "tfb": tfp.bijectors, "tfd": tfp.distributions, "tff": tff}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [m.name for m in pkgutil.walk_packages(tff.__path__, "tfp_flows.") if not m.name.endswith("__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs=NAMES, optionflags=FLAGS).failed == 0


def test_public_callables_have_an_example():
    without = []
    for name in tff.__all__:
        value = getattr(tff, name)
        if callable(value) and ">>>" not in (value.__doc__ or "") and name not in EXEMPT:
            without.append(name)
    assert without == []


# Made by other functions, or shown in the example of another name.
EXEMPT = {"Template", "FlowDistribution", "DenseNetwork", "AutoregressiveNetwork", "standardize"}


def test_readme_has_a_row_of_facts_for_each_recipe():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, fn in recipe.RECIPES.items():
        paper, facts = fn.facts.paper.split(",")[0], fn.facts
        row = f"| `{name}` | {paper}, arXiv:{facts.arxiv} | {facts.density} | {facts.sampling} |"
        assert row in text, f"README.md must hold the line\n{row}"


def test_gallery_has_rows_of_recipes_and_each_density():
    text = (ROOT / "docs/flows/gallery.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rows = [row for row in rows if len(row) == len(rows[0])]  # the first table
    measured = {row[0].strip("`") for row in rows[3:]}
    assert measured <= {*recipe.RECIPES, "rbig"}  # a new recipe may not be measured yet
    assert len(measured) >= 15
    names = [name.replace(" ", "_") for name in rows[0][1:9]]
    assert len(names) == 8
    for name, floor in zip(names, rows[2][1:9], strict=True):
        assert abs(tff.data.densities[name]().entropy() - float(floor)) < 0.006
    above = np.array([[float(cell) for cell in row[1:10]] for row in rows[3:]])
    assert np.all(above > -0.03)
    np.testing.assert_allclose(above[:, :8].mean(axis=1), above[:, 8], atol=0.011)
    assert (ROOT / "docs/images/gallery.png").stat().st_size > 50_000


def test_the_command_line_knows_the_recipes_before_tensorflow():
    of_images = {name for name, fn in recipe.RECIPES.items() if fn.facts.of_images}
    assert set(recipe_names("image_shape")) == of_images
    assert set(recipe_names("event_size")) == set(recipe.RECIPES) - of_images


def test_help_of_a_recipe_explains_every_argument():
    for fn in recipe.RECIPES.values():
        for name in inspect.signature(fn).parameters:
            assert re.search(rf"^  {name}: \w|^  {name}: `", fn.__doc__, re.M), (fn.__name__, name)


def test_every_public_name_is_in_the_api_pages(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs/_extensions")
    rooms = importlib.import_module("rooms")
    listed = {full for found in rooms.rooms(ROOT / "docs/api").values() for full in found.values()}
    for name in set(tff.__all__) - {"__version__"}:
        if inspect.ismodule(getattr(tff, name)):
            own = set(rooms.entries(name).values()) if hasattr(getattr(tff, name), "__all__") else set()
            found = any(full.startswith(f"tfp_flows.{name}.") for full in listed)
            assert found, f"a page in docs/api must have `.. room:: {name}`"
            assert listed >= own
        else:
            assert f"tfp_flows.{name}" in listed, f"`{name}` is in no room of the pages in docs/api"
