"""Normalizing flows for TensorFlow Probability, trained through Keras 3.

Importing the package loads TensorFlow and Keras, and registers its classes for `keras.models.load_model`. The command
line skips this import, so that `--help` answers at once. Each subpackage lists its public names in `__all__`.
"""

import pathlib
import sys

from tfp_flows._version import __version__

_program = pathlib.Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else ""

if _program != "tfp-flows" and "tfp_flows.cli" not in sys.orig_argv:
    from tfp_flows import (
        bases,
        bijectors,
        course,
        data,
        destructors,
        distribution,
        dynamics,
        inference,
        latent,
        networks,
        recipes,
        saving,
        sklearn,
        tables,
        testing,
        training,
        transformers,
    )
    from tfp_flows.bases import *
    from tfp_flows.bijectors import *
    from tfp_flows.data import streams
    from tfp_flows.destructors import rbig
    from tfp_flows.distribution import *
    from tfp_flows.dynamics import *
    from tfp_flows.evaluation import diagnostics, plots
    from tfp_flows.inference import *
    from tfp_flows.inference import calibration, mcmc
    from tfp_flows.latent import *
    from tfp_flows.networks import *
    from tfp_flows.numerics import bound_log_scale
    from tfp_flows.recipes import *
    from tfp_flows.registry import serializable
    from tfp_flows.saving import *
    from tfp_flows.tables import *
    from tfp_flows.training import *
    from tfp_flows.training import callbacks, layers
    from tfp_flows.transformers import *

    __all__ = ["__version__", "bound_log_scale", "rbig", "serializable"]
    __all__ += [
        "calibration",
        "callbacks",
        "course",
        "data",
        "destructors",
        "diagnostics",
        "layers",
        "plots",
        "sklearn",
        "streams",
        "testing",
    ]
    __all__ += bases.__all__ + bijectors.__all__ + distribution.__all__ + dynamics.__all__ + inference.__all__
    __all__ += latent.__all__ + networks.__all__ + recipes.__all__ + saving.__all__ + tables.__all__
    __all__ += training.__all__ + transformers.__all__

    # `from tfp_flows.layers import LogProb` works like `tff.layers.LogProb`, wherever the module lies.
    for _module in (calibration, callbacks, diagnostics, layers, mcmc, plots, streams):
        sys.modules[f"{__name__}.{_module.__name__.rsplit('.', 1)[1]}"] = _module
    sys.modules[f"{__name__}.flows"] = flows = recipes  # earlier name
