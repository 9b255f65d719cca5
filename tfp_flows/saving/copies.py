"""Pickles and deep copies of flows and bijectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import registry, tracking
from tfp_flows.distribution import dummy_condition
from tfp_flows.saving.reader import finalize_layers, from_description
from tfp_flows.saving.writer import describe


def reduce(module: tf.Module) -> tuple:
    """Return the constructor call that `pickle` and `copy.deepcopy` use for a module."""
    trained = [bool(w.trainable) for w in _weights(module)]
    return rebuild, (describe(module), [v.numpy() for v in _variables(module)], trained)


def rebuild(text: str, values: list[np.ndarray], trained: list[bool]) -> Any:
    """Rebuild a module from its description, with the values of its variables."""
    module = from_description(text)
    if len(_variables(module)) < len(values) and isinstance(module, tfp.distributions.Distribution):
        condition = dummy_condition(module)
        module.log_prob(module.sample(1, **condition), **condition)  # builds what is built at the first call
    variables = _variables(module)
    if [v.shape for v in variables] != [v.shape for v in values]:
        raise ValueError(f"{module!r} has {len(variables)} variables, the pickle has {len(values)}, or other shapes.")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    finalize_layers(module)
    for weight, is_trained in zip(_weights(module), trained, strict=True):
        weight.trainable = is_trained
    return module


def _variables(module: tf.Module) -> list[tf.Variable]:
    """Return all variables, including those of frozen layers, which `module.variables` omits."""
    found = tracking.find(module)
    return [w.value for layer in found.layers for w in layer.variables] + found.variables


def _weights(module: tf.Module) -> list:
    return [w for layer in tracking.find(module).layers for w in layer.weights]


registry.REDUCERS.append(reduce)
