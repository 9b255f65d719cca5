"""Names of the recipes, read from the source, so that `--help` lists them without loading TensorFlow."""

from __future__ import annotations

import ast
import pathlib


def recipe_names(first_argument: str) -> tuple[str, ...]:
    """Return the listed recipes whose first argument is `"event_size"` (for tables) or `"image_shape"`."""
    names = []
    for path in (pathlib.Path(__file__).parents[1] / "recipes").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].arg == first_argument:
                calls = [d for d in node.decorator_list if isinstance(d, ast.Call) and ast.unparse(d.func) == "recipe"]
                names += [node.name for call in calls if any(k.arg == "paper" for k in call.keywords)]
    return tuple(sorted(names))
