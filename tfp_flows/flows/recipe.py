"""What the recipes share: their registry, their description as JSON, and the assembly of the distribution."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Standardize
from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.seeds import resolve_seed

tfb = tfp.bijectors
tfd = tfp.distributions

# Rises when a description would no longer build the same flow.
FORMAT = 3
RECIPES: dict[str, Callable[..., FlowDistribution]] = {}


def recipe(fn: Callable) -> Callable[..., FlowDistribution]:
    """Registers a recipe, resolves its seed, and writes the call down, so that the flow can be built again."""
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def build(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {**bound.arguments, "seed": resolve_seed(bound.arguments["seed"])}
        flow = fn(**arguments)
        flow.recipe = _describe(fn.__name__, arguments)
        return flow

    RECIPES[fn.__name__] = build
    return build


def _describe(name: str, arguments: dict[str, Any]) -> str | None:
    """The call as JSON, or `None` where an argument has no name (a base distribution, a function)."""
    plain = dict(arguments)
    plain["dtype"] = tf.as_dtype(plain["dtype"]).name
    if isinstance(plain.get("preprocess"), Standardize):
        plain["preprocess"] = {"standardize": plain["preprocess"].event_size}
    if "hidden_units" in plain:
        plain["hidden_units"] = [int(n) for n in plain["hidden_units"]]
        activation = keras.activations.get(plain["activation"])
        plain["activation"] = keras.activations.serialize(activation)
        try:
            known = keras.activations.get(plain["activation"]) is activation
        except (TypeError, ValueError):
            known = False
        if not known:  # a lambda, or a function of another library
            return None
    try:
        return json.dumps({"format": FORMAT, "recipe": name, "arguments": plain})
    except TypeError:
        return None


def from_recipe(text: str) -> FlowDistribution:
    """Builds the flow that a `FlowDistribution.recipe` describes: same architecture, same fixed permutations.

    Raises:
      ValueError: If the text is not a recipe that this version knows.
    """
    try:
        described = json.loads(text)
        if described["format"] != FORMAT:
            raise KeyError("format")
        build, arguments = RECIPES[described["recipe"]], dict(described["arguments"])
        if isinstance(arguments.get("preprocess"), dict):
            size = arguments["preprocess"]["standardize"]
            arguments["preprocess"] = Standardize(size, dtype=arguments["dtype"])
        return build(**arguments)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"Not a flow recipe of this version of tfp_flows: {text!r}") from error


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
