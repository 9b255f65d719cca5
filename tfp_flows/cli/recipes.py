"""Names of the recipes, read from the source, so that `--help` does not load TensorFlow."""

from __future__ import annotations

import ast
import functools
import pathlib


def recipe_names(first_argument: str) -> tuple[str, ...]:
    """Return the listed recipes whose first argument is `"event_size"` (for tables) or `"image_shape"`."""
    return tuple(sorted(name for name, argument in _listed().items() if argument == first_argument))


@functools.cache
def _listed() -> dict[str, str]:
    listed = {}
    for path in (pathlib.Path(__file__).parents[1] / "recipes").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                is_recipe = isinstance(call, ast.Call) and ast.unparse(call.func) == "recipe"
                if is_recipe and any(keyword.arg == "paper" for keyword in call.keywords):
                    listed[node.name] = node.args.args[0].arg
    return listed
