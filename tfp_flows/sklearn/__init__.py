"""scikit-learn estimators. scikit-learn is imported at the first use of a name, so that the package works without it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfp_flows.sklearn.density import FlowDensity

__all__ = ["FlowDensity"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module("tfp_flows.sklearn.density"), name)
    except ImportError as error:
        if not (error.name or "sklearn").startswith("sklearn"):
            raise
        raise ImportError(f'{name} needs scikit-learn 1.6 or newer: pip install "tfp_flows[sklearn]"') from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
