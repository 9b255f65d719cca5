"""The recipes: one function for each named flow. Each returns a transformed distribution that is ready to train."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import MaskedAutoregressiveFlow, PlanarFlow, RealNVP, Standardize
from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import DEFAULT_LOG_SCALE_BOUND
from tfp_flows.seeds import resolve_seed, split_seed
from tfp_flows.templates import masked_autoregressive_template, real_nvp_template

tfb = tfp.bijectors
tfd = tfp.distributions

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
    if isinstance(plain["preprocess"], Standardize):
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
        return json.dumps({"recipe": name, "arguments": plain})
    except TypeError:
        return None


def from_recipe(text: str) -> FlowDistribution:
    """Builds the flow that a `FlowDistribution.recipe` describes: same architecture, same fixed permutations.

    Raises:
      ValueError: If the text is not a recipe that this version knows.
    """
    try:
        described = json.loads(text)
        build, arguments = RECIPES[described["recipe"]], dict(described["arguments"])
        if isinstance(arguments["preprocess"], dict):
            size = arguments["preprocess"]["standardize"]
            arguments["preprocess"] = Standardize(size, dtype=arguments["dtype"])
        return build(**arguments)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"Not a flow recipe of this version of tfp_flows: {text!r}") from error


def _assemble(
    layers: list[tfb.Bijector], event_size: int, base, preprocess, dtype, name: str | None
) -> FlowDistribution:
    """The distribution of base -> layers in order -> preprocess."""
    if base is None:
        base = tfd.MultivariateNormalDiag(tf.zeros([event_size], dtype), tf.ones([event_size], dtype))
    if not isinstance(base, tfd.Distribution):
        raise ValueError(f"`base` must be a tfd.Distribution, got {base!r}.")
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


def _sizes(event_size, num_layers, minimum_size: int = 1, minimum_layers: int = 1) -> tuple[int, int]:
    return (
        positive_int("event_size", event_size, minimum_size),
        positive_int("num_layers", num_layers, minimum_layers),
    )


@recipe
def planar_flow(
    event_size: int,
    *,
    num_layers: int = 16,
    base: tfd.Distribution | None = None,
    preprocess: tfb.Bijector | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "planar_flow",
) -> FlowDistribution:
    """A composition of planar flows (Rezende and Mohamed 2015), which can be sampled and scored.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of layers.
      base: Distribution of the latent values, with event shape `[D]`; a standard `MultivariateNormalDiag` if `None`.
      preprocess: A bijector on the data's side, such as `standardize(x_train)`.
      seed: Integer seed of the initial weights.
      dtype: `tf.float32` or `tf.float64`.
      name: Name of the distribution.

    Returns:
      A transformed distribution. Cost for each event and layer: sampling `O(D)`; `log_prob` `O(D)` and a scalar solve.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = planar_flow(2, num_layers=4, seed=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])

    References:
      D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv:1505.05770.
    """
    event_size, num_layers = _sizes(event_size, num_layers)
    dtype = tf.as_dtype(dtype)
    layers = [
        PlanarFlow(event_size, seed=s, dtype=dtype, name=f"planar_{i}")
        for i, s in enumerate(split_seed(seed, num_layers))
    ]
    return _assemble(layers, event_size, base, preprocess, dtype, name)


def _coupling_layers(event_size, num_layers, shift_only, hidden_units, activation, log_scale_bound, seed, dtype):
    """Coupling layers that alternate between conditioning on the first and on the last half of the dimensions.

    Beyond two dimensions a fixed random permutation after every second layer mixes the halves.
    """
    first = event_size // 2
    *seeds, permutation_seed = split_seed(seed, num_layers + 1)
    rng = np.random.default_rng(permutation_seed)
    layers: list[tfb.Bijector] = []
    for i, s in enumerate(seeds):
        num_masked = first if i % 2 == 0 else first - event_size
        template = real_nvp_template(
            hidden_units,
            input_units=abs(num_masked),
            output_units=event_size - abs(num_masked),
            shift_only=shift_only,
            activation=activation,
            log_scale_bound=log_scale_bound,
            seed=s,
            dtype=dtype,
            name=f"coupling_{i}",
        )
        layers.append(
            RealNVP(num_masked, shift_and_log_scale_fn=template, is_constant_jacobian=shift_only, name=f"coupling_{i}")
        )
        if event_size > 2 and i % 2 == 1 and i < num_layers - 1:
            layers.append(tfb.Permute(rng.permutation(event_size).astype(np.int32)))
    return layers


@recipe
def nice(
    event_size: int,
    *,
    num_layers: int = 8,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    base: tfd.Distribution | None = None,
    preprocess: tfb.Bijector | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "nice",
) -> FlowDistribution:
    """NICE (Dinh et al. 2014): additive coupling layers, then one trainable scale for each dimension (section 3.3).

    Args:
      event_size: Size `D` of the events, at least 2.
      num_layers: Number of coupling layers, at least 2, so that every dimension is transformed.
      hidden_units: Sizes of the hidden layers of each coupling network.
      activation: Activation of the hidden layers.
      base, preprocess, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: one pass of each network, in both directions.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> nice(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])

    References:
      L. Dinh, D. Krueger and Y. Bengio, NICE, 2014, arXiv:1410.8516.
    """
    event_size, num_layers = _sizes(event_size, num_layers, 2, 2)
    dtype = tf.as_dtype(dtype)
    layers = _coupling_layers(event_size, num_layers, True, hidden_units, activation, None, seed, dtype)
    log_scale = tf.Variable(tf.zeros([event_size], dtype), name="log_scale")
    layers.append(tfb.Scale(log_scale=log_scale, name="scale"))
    return _assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def real_nvp(
    event_size: int,
    *,
    num_layers: int = 8,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    base: tfd.Distribution | None = None,
    preprocess: tfb.Bijector | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "real_nvp",
) -> FlowDistribution:
    """RealNVP (Dinh et al. 2016): affine coupling layers.

    The layers condition on the first and on the last half of the dimensions in turn; beyond two dimensions a fixed
    random permutation after every second layer mixes the halves.

    Args:
      event_size: Size `D` of the events, at least 2.
      num_layers: Number of coupling layers, at least 2, so that every dimension is transformed.
      hidden_units: Sizes of the hidden layers of each coupling network.
      activation: Activation of the hidden layers.
      log_scale_bound: Bound of the log-scale of a layer, by `bound_log_scale`; `None` for none.
      base, preprocess, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: one pass of each network, in both directions.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> real_nvp(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])

    References:
      L. Dinh, J. Sohl-Dickstein and S. Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.
    """
    event_size, num_layers = _sizes(event_size, num_layers, 2, 2)
    dtype = tf.as_dtype(dtype)
    layers = _coupling_layers(event_size, num_layers, False, hidden_units, activation, log_scale_bound, seed, dtype)
    return _assemble(layers, event_size, base, preprocess, dtype, name)


def _autoregressive_layers(event_size, num_layers, hidden_units, activation, log_scale_bound, seed, dtype):
    """Masked autoregressive layers whose order of dimensions reverses from one layer to the next."""
    return [
        MaskedAutoregressiveFlow(
            masked_autoregressive_template(
                hidden_units,
                event_size=event_size,
                activation=activation,
                input_order=("left-to-right", "right-to-left")[i % 2],
                log_scale_bound=log_scale_bound,
                seed=s,
                dtype=dtype,
                name=f"autoregressive_{i}",
            ),
            name=f"autoregressive_{i}",
        )
        for i, s in enumerate(split_seed(seed, num_layers))
    ]


@recipe
def maf(
    event_size: int,
    *,
    num_layers: int = 5,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    base: tfd.Distribution | None = None,
    preprocess: tfb.Bijector | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "maf",
) -> FlowDistribution:
    """Masked autoregressive flow (Papamakarios et al. 2017): the density in one pass of each network.

    The order of the dimensions reverses from one layer to the next.

    Args:
      event_size: Size `D` of the events.
      num_layers: Number of layers.
      hidden_units: Sizes of the hidden layers of each MADE network.
      activation: Activation of the hidden layers.
      log_scale_bound: Bound of the log-scale of a layer, by `bound_log_scale`; `None` for none.
      base, preprocess, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: `log_prob` one pass of each network, sampling `D` passes.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> maf(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])

    References:
      G. Papamakarios, T. Pavlakou and I. Murray, Masked Autoregressive Flow, 2017, arXiv:1705.07057.
    """
    event_size, num_layers = _sizes(event_size, num_layers)
    dtype = tf.as_dtype(dtype)
    layers = _autoregressive_layers(event_size, num_layers, hidden_units, activation, log_scale_bound, seed, dtype)
    return _assemble(layers, event_size, base, preprocess, dtype, name)


@recipe
def iaf(
    event_size: int,
    *,
    num_layers: int = 5,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    base: tfd.Distribution | None = None,
    preprocess: tfb.Bijector | None = None,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "iaf",
) -> FlowDistribution:
    """Inverse autoregressive flow (Kingma et al. 2016): samples, and their density, in one pass of each network.

    The order of the dimensions reverses from one layer to the next.

    Args:
      event_size, num_layers, hidden_units, activation, log_scale_bound: As in `maf`.
      base, preprocess, seed, dtype, name: As in `planar_flow`.

    Returns:
      A transformed distribution. Cost: sampling one pass of each network, `log_prob` of given data `D` passes.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> iaf(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])

    References:
      D. P. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv:1606.04934.
    """
    event_size, num_layers = _sizes(event_size, num_layers)
    dtype = tf.as_dtype(dtype)
    layers = _autoregressive_layers(event_size, num_layers, hidden_units, activation, log_scale_bound, seed, dtype)
    return _assemble([tfb.Invert(layer) for layer in layers], event_size, base, preprocess, dtype, name)
