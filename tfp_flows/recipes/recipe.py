"""What the recipes share: their registry, and the assembly of the distribution."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Standardize
from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.registry import serializable

tfb = tfp.bijectors
tfd = tfp.distributions

RECIPES: dict[str, Callable[..., FlowDistribution]] = {}


_PREPROCESS_CONDITION = """
      preprocess_condition: Bijector whose `inverse` is applied to `conditional_input` first, of a flow with conditions.
        `"standardize"`, the default, is a `Standardize` that the first `FlowModel.fit` adapts to the conditions; it is
        saved with the flow. `None` for none.
"""


def recipe(fn: Callable) -> Callable[..., FlowDistribution]:
    """Registers a recipe: by its name here, and for descriptions of the flows that it makes.

    Gives it the argument `preprocess_condition`, which is the same for all.
    """

    @functools.wraps(fn)
    def made(*args, preprocess_condition="standardize", **kwargs):
        return _with_condition(fn(*args, **kwargs), preprocess_condition)

    signature = inspect.signature(fn)
    parameters = list(signature.parameters.values())
    place = 1 + list(signature.parameters).index("conditional_size")
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters.insert(place, inspect.Parameter("preprocess_condition", kind, default="standardize"))
    made.__signature__ = signature.replace(parameters=parameters)
    made.__doc__ = fn.__doc__.replace("\n\n    Returns:", _PREPROCESS_CONDITION + "\n    Returns:", 1)
    RECIPES[fn.__name__] = serializable(made)
    return RECIPES[fn.__name__]


def _with_condition(flow: FlowDistribution, preprocess_condition: tfb.Bijector | str | None) -> FlowDistribution:
    """The flow with a bijector in front of its condition."""
    bijector, size = preprocess_condition, flow.conditional_size
    if isinstance(bijector, str) and bijector == "standardize":
        bijector = None if size is None else Standardize(size, dtype=flow.dtype, name="standardize_condition")
    if bijector is None:
        return flow
    return FlowDistribution(flow.distribution, flow.bijector, preprocess_condition=bijector, name=flow.name)


def assemble(
    layers: list[tfb.Bijector], event_size: int, base, preprocess, dtype, name: str | None
) -> FlowDistribution:
    """The distribution of base -> layers in order -> preprocess."""
    if base is None:
        base = tfd.MultivariateNormalDiag(tf.zeros([event_size], dtype), tf.ones([event_size], dtype))
    if isinstance(base, str) and base == "trainable":
        base = tfd.MultivariateNormalDiag(
            tf.Variable(tf.zeros([event_size], dtype), name="loc"),
            tfp.util.TransformedVariable(tf.ones([event_size], dtype), tfb.Exp(), name="scale_diag"),
        )
    if not isinstance(base, tfd.Distribution):
        raise ValueError(f'`base` must be a tfd.Distribution, None or "trainable", got {base!r}.')
    if base.event_shape.as_list() != [event_size] or base.dtype != dtype:
        raise ValueError(
            f"`base` must have event shape [{event_size}] and dtype {dtype.name}, "
            f"got event shape {base.event_shape} and dtype {tf.as_dtype(base.dtype).name}."
        )
    if preprocess is not None:
        if not isinstance(preprocess, tfb.Bijector):
            raise ValueError(f"`preprocess` must be a tfb.Bijector such as standardize(x), got {preprocess!r}.")
        if preprocess.dtype not in (None, dtype):
            raise ValueError(f"`preprocess` has dtype {tf.as_dtype(preprocess.dtype).name}, the flow {dtype.name}.")
        if isinstance(preprocess, Standardize) and preprocess.event_size != event_size:
            raise ValueError(f"`preprocess` standardizes {preprocess.event_size} columns, the flow has {event_size}.")
        layers = [*layers, preprocess]
    return FlowDistribution(base, tfb.Chain(layers[::-1]), name=name)


def sizes(event_size, num_layers, minimum_size: int = 1, minimum_layers: int = 1) -> tuple[int, int]:
    """The two sizes, checked."""
    return (
        positive_int("event_size", event_size, minimum_size),
        positive_int("num_layers", num_layers, minimum_layers),
    )
