"""Normalizing flows for TensorFlow Probability, trained through Keras 3.

Importing the package loads TensorFlow and Keras, and registers its classes with Keras. Only for the command line, the public
names are loaded at their first use.
"""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from tfp_flows._version import __version__

if TYPE_CHECKING:
    from tfp_flows import callbacks, course, data, destructors, diagnostics, layers, plots, streams, testing
    from tfp_flows.bases import MultivariateStudentT
    from tfp_flows.bijectors import (
        ActNorm,
        AffineCouplingLayer,
        BatchNormalization,
        ContinuousFlow,
        LULinear,
        MarginalGaussianization,
        MaskedAutoregressiveFlow,
        MultiScale,
        PlanarFlow,
        RadialFlow,
        RealNVP,
        Rotation,
        Squeeze,
        Standardize,
        SylvesterFlow,
        channel_binary_mask,
        checkerboard_binary_mask,
        get_preprocess_bijector,
        make_bijector_kwargs,
        standardize,
    )
    from tfp_flows.description import describe, from_description, serializable
    from tfp_flows.destructors import rbig
    from tfp_flows.distribution import FlowDistribution
    from tfp_flows.dynamics import EncodedFlow, rollout, sequence_windows
    from tfp_flows.flows import (
        at_temperature,
        continuous_flow,
        from_tfp,
        gaussianization_flow,
        glow,
        iaf,
        image_real_nvp,
        interpolate,
        made,
        maf,
        maf_mog,
        neural_autoregressive,
        nice,
        planar_flow,
        radial_flow,
        real_nvp,
        spline_autoregressive,
        spline_coupling,
        sylvester_flow,
        table_flow,
        table_training,
    )
    from tfp_flows.models import (
        FlowModel,
        FlowVAE,
        UniformDequantization,
        VariationalDequantization,
        VariationalFlow,
        linear_annealing,
    )
    from tfp_flows.numerics import bound_log_scale
    from tfp_flows.templates import (
        AutoregressiveNetwork,
        DenseNetwork,
        Template,
        TransformerTemplate,
        as_template,
        conv_resnet_template,
        get_conv_resnet,
        glow_template,
        masked_autoregressive_template,
        real_nvp_template,
    )
    from tfp_flows.transformers import (
        AffineTransformer,
        DeepSigmoidalTransformer,
        GaussianMixtureTransformer,
        QuantileSplineTransformer,
        ShiftTransformer,
        SplineTransformer,
        Transformer,
    )

_MODULES = ("callbacks", "course", "data", "destructors", "diagnostics", "layers", "plots", "streams", "testing")
_HOME = {
    "bases": ("MultivariateStudentT",),
    "bijectors": (
        "ActNorm",
        "AffineCouplingLayer",
        "BatchNormalization",
        "ContinuousFlow",
        "LULinear",
        "MarginalGaussianization",
        "MaskedAutoregressiveFlow",
        "MultiScale",
        "PlanarFlow",
        "RadialFlow",
        "RealNVP",
        "Rotation",
        "Squeeze",
        "Standardize",
        "SylvesterFlow",
        "channel_binary_mask",
        "checkerboard_binary_mask",
        "get_preprocess_bijector",
        "make_bijector_kwargs",
        "standardize",
    ),
    "destructors": ("rbig",),
    "description": ("describe", "from_description", "serializable"),
    "distribution": ("FlowDistribution",),
    "dynamics": ("EncodedFlow", "rollout", "sequence_windows"),
    "flows": (
        "at_temperature",
        "continuous_flow",
        "from_tfp",
        "gaussianization_flow",
        "glow",
        "iaf",
        "image_real_nvp",
        "interpolate",
        "made",
        "maf",
        "maf_mog",
        "neural_autoregressive",
        "nice",
        "planar_flow",
        "radial_flow",
        "real_nvp",
        "spline_autoregressive",
        "spline_coupling",
        "sylvester_flow",
        "table_flow",
        "table_training",
    ),
    "models": (
        "FlowModel",
        "FlowVAE",
        "UniformDequantization",
        "VariationalDequantization",
        "VariationalFlow",
        "linear_annealing",
    ),
    "numerics": ("bound_log_scale",),
    "templates": (
        "AutoregressiveNetwork",
        "DenseNetwork",
        "Template",
        "TransformerTemplate",
        "as_template",
        "conv_resnet_template",
        "get_conv_resnet",
        "glow_template",
        "masked_autoregressive_template",
        "real_nvp_template",
    ),
    "transformers": (
        "AffineTransformer",
        "DeepSigmoidalTransformer",
        "GaussianMixtureTransformer",
        "QuantileSplineTransformer",
        "ShiftTransformer",
        "SplineTransformer",
        "Transformer",
    ),
}
_HOME_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ActNorm",
    "AffineCouplingLayer",
    "AffineTransformer",
    "AutoregressiveNetwork",
    "BatchNormalization",
    "ContinuousFlow",
    "DeepSigmoidalTransformer",
    "DenseNetwork",
    "EncodedFlow",
    "FlowDistribution",
    "FlowModel",
    "FlowVAE",
    "GaussianMixtureTransformer",
    "LULinear",
    "MarginalGaussianization",
    "MaskedAutoregressiveFlow",
    "MultiScale",
    "MultivariateStudentT",
    "PlanarFlow",
    "QuantileSplineTransformer",
    "RadialFlow",
    "RealNVP",
    "Rotation",
    "ShiftTransformer",
    "SplineTransformer",
    "Squeeze",
    "Standardize",
    "SylvesterFlow",
    "Template",
    "Transformer",
    "TransformerTemplate",
    "UniformDequantization",
    "VariationalDequantization",
    "VariationalFlow",
    "__version__",
    "as_template",
    "at_temperature",
    "bound_log_scale",
    "callbacks",
    "channel_binary_mask",
    "checkerboard_binary_mask",
    "continuous_flow",
    "conv_resnet_template",
    "course",
    "data",
    "describe",
    "destructors",
    "diagnostics",
    "from_description",
    "from_tfp",
    "get_conv_resnet",
    "gaussianization_flow",
    "get_preprocess_bijector",
    "glow",
    "glow_template",
    "iaf",
    "image_real_nvp",
    "interpolate",
    "layers",
    "linear_annealing",
    "made",
    "maf",
    "maf_mog",
    "make_bijector_kwargs",
    "masked_autoregressive_template",
    "neural_autoregressive",
    "nice",
    "planar_flow",
    "plots",
    "radial_flow",
    "rbig",
    "real_nvp",
    "real_nvp_template",
    "rollout",
    "sequence_windows",
    "serializable",
    "spline_autoregressive",
    "spline_coupling",
    "standardize",
    "streams",
    "sylvester_flow",
    "table_flow",
    "table_training",
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


def _is_command() -> bool:
    """Whether this process is the command `tfp-flows`, which answers `--help` before TensorFlow is loaded."""
    program = pathlib.Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else ""
    return program == "tfp-flows" or "tfp_flows.cli" in sys.orig_argv


if not _is_command():
    # `keras.models.load_model` finds a class only where it was registered, that is, imported.
    importlib.import_module("tfp_flows.course")
    importlib.import_module("tfp_flows.layers")
