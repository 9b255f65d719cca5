"""The README and the pages of the documentation run, and print what they say."""

import doctest
import html
import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tfp_flows.recipes import recipe

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


PAGES = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in (ROOT / "docs").rglob("*.md")}


BLOCKS = ["README.md", *(f"docs/{name}.md" for name in ("index", "training", "adding-a-flow", "adding-an-objective"))]


@pytest.mark.parametrize("page", sorted(page for page, text in PAGES.items() if ">>> " in text and page not in BLOCKS))
def test_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testfile(str(ROOT / page), module_relative=False, optionflags=FLAGS).failed == 0


def blocks(path):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("page", BLOCKS)
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


def test_pages_are_short_and_their_code_fits_the_window():
    for page, text in PAGES.items():
        prose, code = [], []
        for i, block in enumerate(re.split(r"^ *```", text, flags=re.M)):
            (code if i % 2 else prose).extend(block.splitlines())
        assert [line for line in code if len(line) > 100] == [], page
        prose = [line for line in prose if line and not line.startswith("|")]
        assert len(prose) <= 120 or "benchmarks" in page, f"{page}: {len(prose)} lines of prose"


def test_each_flow_of_the_readme_has_facts_picture_and_example_on_one_page():
    rows = re.findall(r"^\| `(\w+)\S*` \| [^|]* arXiv.*\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert set(recipe.RECIPES) | {"rbig"} == set(rows)
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| `(\w+)\S*` \| [^|]* arXiv", line)
        if row is None:
            continue
        (page,) = [page for page, text in PAGES.items() if page.startswith("docs/flows/") and line in text]
        text = PAGES[page]
        assert len(text.splitlines()) <= 60, page
        assert f"images/flow_{row[1]}.png" in text, page
        assert re.search(rf">>> .*tff\.{row[1]}\(", text), f"{page} must call {row[1]}"
        assert "$$" in text
        assert (ROOT / f"docs/images/flow_{row[1]}.png").stat().st_size < 60_000


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, as text by their path. One build for all tests; a warning, such as a broken link, fails it."""
    for name in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        pytest.importorskip(name)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", str(ROOT / "docs"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == 0, done.stderr
    return {p.relative_to(out).as_posix(): p.read_text(encoding="utf-8") for p in out.rglob("*.html")}


def plain(text):
    return " ".join(html.unescape(re.sub("<[^>]+>", "", text)).split())


def test_names_in_docstrings_and_pages_link_to_their_entries(site):
    recipe = r'<a class="reference internal" href="{}#tfp_flows\.{}"'
    assert re.search(recipe.format(r"\.\./api/recipes\.html", "spline_coupling"), site["flows/which.html"])
    assert re.search(recipe.format("", "iaf"), site["api/recipes.html"].partition('id="tfp_flows.maf"')[2])
    assert re.search(
        recipe.format(r"recipes\.html", "table_flow"),
        site["api/tables.html"].partition('id="tfp_flows.fit_table"')[2],
    )
    fit = site["api/training.html"].partition('id="tfp_flows.FlowModel.fit"')[2]
    assert 'href="https://www.tensorflow.org/api_docs/python/tf/keras/Model#fit"' in fit
    links = sum(len(re.findall(r'href="[^"]*#tfp_flows\.', page)) for page in site.values())
    assert links > 1000


def test_signatures_and_fields_of_the_api_pages(site):
    for path, page in site.items():
        for signature in re.findall(r'<dt class="sig[^>]*>(.*?)</dt>', page, re.S):
            assert not re.search(r"\(\*args, \*\*kwargs\)|<class|<dtype|object at", plain(signature)), plain(signature)
        for returned in re.findall(r"<dt[^>]*>Return type<.*?</dt>\s*<dd[^>]*>(.*?)</dd>", page, re.S):
            assert re.fullmatch(r"[\w.\[\], |]+", plain(returned)), (path, plain(returned))
        assert not re.search(r'<ol class="(upper|lower)', page), f"{path}: an initial has become a list"


def test_docstrings_keep_returned_values_and_authors(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(ROOT / "docs/_extensions")
    lines = ["Returns:", "  A pair: value and log-det.", "", "References:", "  D. P. Kingma and", "  M. Welling 2014."]
    importlib.import_module("rooms").typed_docstring(None, "module", "", None, None, lines)
    expected = [":returns:", "  A pair: value and log-det.", "", "References:"]
    assert lines == [*expected, r"  D\. P. Kingma and", r"  M\. Welling 2014."]
