"""Normalizing flows for TensorFlow Probability, trained through Keras 3.

The public names are loaded at their first use, so that `import tfp_flows` is quick and the command line can answer
before TensorFlow is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfp_flows._version import __version__

if TYPE_CHECKING:
    from tfp_flows import data, plots, testing
    from tfp_flows.bijectors import (
        ActNorm,
        BatchNormalization,
        LULinear,
        MaskedAutoregressiveFlow,
        PlanarFlow,
        RealNVP,
        Standardize,
        make_bijector_kwargs,
        standardize,
    )
    from tfp_flows.distribution import FlowDistribution
    from tfp_flows.flows import (
        iaf,
        made,
        maf,
        maf_mog,
        neural_autoregressive,
        nice,
        planar_flow,
        real_nvp,
        spline_autoregressive,
        spline_coupling,
    )
    from tfp_flows.models import FlowModel
    from tfp_flows.numerics import bound_log_scale
    from tfp_flows.templates import (
        AutoregressiveNetwork,
        DenseNetwork,
        Template,
        TransformerTemplate,
        as_template,
        masked_autoregressive_template,
        real_nvp_template,
    )
    from tfp_flows.transformers import (
        AffineTransformer,
        DeepSigmoidalTransformer,
        GaussianMixtureTransformer,
        ShiftTransformer,
        SplineTransformer,
        Transformer,
    )

_MODULES = ("data", "plots", "testing")
_HOME = {
    "bijectors": (
        "ActNorm",
        "BatchNormalization",
        "LULinear",
        "MaskedAutoregressiveFlow",
        "PlanarFlow",
        "RealNVP",
        "Standardize",
        "make_bijector_kwargs",
        "standardize",
    ),
    "distribution": ("FlowDistribution",),
    "flows": (
        "iaf",
        "made",
        "maf",
        "maf_mog",
        "neural_autoregressive",
        "nice",
        "planar_flow",
        "real_nvp",
        "spline_autoregressive",
        "spline_coupling",
    ),
    "models": ("FlowModel",),
    "numerics": ("bound_log_scale",),
    "templates": (
        "AutoregressiveNetwork",
        "DenseNetwork",
        "Template",
        "TransformerTemplate",
        "as_template",
        "masked_autoregressive_template",
        "real_nvp_template",
    ),
    "transformers": (
        "AffineTransformer",
        "DeepSigmoidalTransformer",
        "GaussianMixtureTransformer",
        "ShiftTransformer",
        "SplineTransformer",
        "Transformer",
    ),
}
_HOME_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ActNorm",
    "AffineTransformer",
    "AutoregressiveNetwork",
    "BatchNormalization",
    "DeepSigmoidalTransformer",
    "DenseNetwork",
    "FlowDistribution",
    "FlowModel",
    "GaussianMixtureTransformer",
    "LULinear",
    "MaskedAutoregressiveFlow",
    "PlanarFlow",
    "RealNVP",
    "ShiftTransformer",
    "SplineTransformer",
    "Standardize",
    "Template",
    "Transformer",
    "TransformerTemplate",
    "__version__",
    "as_template",
    "bound_log_scale",
    "data",
    "iaf",
    "made",
    "maf",
    "maf_mog",
    "make_bijector_kwargs",
    "masked_autoregressive_template",
    "neural_autoregressive",
    "nice",
    "planar_flow",
    "plots",
    "real_nvp",
    "real_nvp_template",
    "spline_autoregressive",
    "spline_coupling",
    "standardize",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"tfp_flows.{name}")
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"tfp_flows.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'tfp_flows' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
