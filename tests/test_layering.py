"""Imports point one way, and every public name is reachable and documented."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest

import tfp_flows as tff

ROOT = pathlib.Path(tff.__file__).parent
# Imports go to lower numbers only.
RANK = {
    "_version": 0,
    "_compat_tfp": 0,
    "_compat_keras": 0,
    "checks": 1,
    "graphs": 1,
    "seeds": 1,
    "numerics": 1,
    "tracking": 1,
    "registry": 2,
    "data": 2,
    "transformers": 3,
    "networks": 4,
    "bijectors": 5,
    "bases": 6,
    "eager_calls": 6,
    "distribution": 7,
    "latent": 8,
    "saving": 8,
    "recipes": 8,
    "evaluation": 8,
    "dynamics": 8,
    "training": 9,
    "tables": 10,
    "inference": 10,
    "testing": 10,
    "destructors": 10,
    "course": 10,
    "sklearn": 11,
    "cli": 11,
}
FILES = [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py"]


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Rooms of the package that a file imports, outside of `if TYPE_CHECKING`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tfp_flows":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
    return found


def test_every_room_has_a_rank():
    assert {room(p) for p in FILES} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = room(path)
    for other in imports(path) - {own}:
        assert RANK[other] < RANK[own], f"{path.name} imports {other}"


def test_data_needs_numpy_only():
    for path in (ROOT / "data").glob("*.py"):
        if path.name == "targets.py":  # loaded at its first use
            continue
        assert not re.search(r"^(import|from) (tensorflow|keras)", path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("name", ["bijectors", "destructors", "dynamics", "networks", "recipes", "transformers"])
def test_rooms_list_what_they_import(name):
    found = vars(getattr(tff, name))
    own = {n for n, v in found.items() if str(getattr(v, "__module__", "")).startswith("tfp_flows") and n[0] != "_"}
    assert own <= set(found["__all__"])


def test_all_is_complete_and_documented():
    for name in tff.__all__:
        value = getattr(tff, name)
        assert name == "__version__" or inspect.getdoc(value), name
        assert name in dir(tff)
    assert len(set(tff.__all__)) == len(tff.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tff.nothing  # noqa: B018


def test_public_modules_can_be_imported_from():
    for name in ("callbacks", "data", "destructors", "diagnostics", "layers", "plots", "sklearn", "streams", "testing"):
        assert importlib.import_module(f"tfp_flows.{name}") is getattr(tff, name)


def test_modules_stay_small():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path.name
