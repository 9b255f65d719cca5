"""The decorator `recipe`, which turns a function that lists layers into a named flow."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bases import make_base
from tfp_flows.bijectors import Standardize, Support
from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import real_dtype
from tfp_flows.registry import serializable

tfb = tfp.bijectors
tfd = tfp.distributions

RECIPES: dict[str, Callable[..., FlowDistribution]] = {}  # each recipe has its `Facts` as `.facts`

# Documentation of options that the docstring of a recipe does not describe.
OPTIONS = {
    "event_size": "Size `D` of the events.",
    "image_shape": "`(H, W, C)`.",
    "num_layers": "Number of layers.",
    "hidden_units": "Sizes of the hidden layers of each network.",
    "activation": "Activation of the hidden layers.",
    "log_scale_bound": """Number `b` that keeps the log-scales of a layer between `-b` and `b`, smoothly, so that no scale
        overflows; `None` for no bound.""",
    "num_bins": "Number of bins of each `SplineTransformer`.",
    "bound": """The splines act on `[-bound, bound]` and are the identity outside. Use standardized data, or
        `preprocess=standardize(x_train)`.""",
    "num_components": "Number of Gaussians in each mixture.",
    "filters": "Filters of each convolutional network.",
    "num_scales": "Number of scales.",
    "fraction": "Fraction of the channels that is factored out after each scale.",
    "network_normalization": '`"weight"` or `"batch"`, within the networks (see `conv_resnet_template`).',
    "trace": """`"exact"`, `"hutchinson"` (an unbiased estimate), or `"auto"`, which is exact up to 8 dimensions.""",
    "rtol": "Relative tolerance of the adaptive solver.",
    "atol": "Absolute tolerance of the adaptive solver.",
    "max_num_steps": "Number of adaptive steps after which a call fails.",
    "solver": """`"dormand_prince"` (adaptive steps), or `"euler"`, `"midpoint"`, `"heun"` or `"rk4"`: `num_steps` fixed steps
        of 1, 2, 2 or 4 passes. Their `log_prob` is close to the density of the samples, not equal.""",
    "num_steps": "Number of steps of a fixed-step solver, which needs it.",
    "alpha": """Pixels in [0, 1] are mapped to the real line by `logit(alpha + (1 - 2 alpha) x)`; `None` for events on the real
        line.""",
    "mixing": """Mixing of the dimensions between layers: `"reverse"` (reversed order), `"permute"` (a random order, drawn
        once) or `"lu"`, a trainable linear map (see `LULinear`).""",
    "inverse": """If true, the networks read latent values instead of data, as in `iaf`. This exchanges the costs:
        sampling takes one pass, and `log_prob` takes D steps, one after another.""",
    "normalization": """Map after each layer: `"actnorm"` (a trainable shift and scale of each dimension, adapted to the
        first batch of `FlowModel.fit`), `"batch_norm"` (batch normalization), or `None`.""",
    "base": """Distribution of the latent values. `None` or `"normal"` is a standard normal distribution, and `"trainable"` a
        normal distribution with a trainable mean and scale for each dimension. `"mixture"` is a `GaussianMixture` and
        `"student_t"` a `StudentT`, and the first `FlowModel.fit` fits them to the latent values of the training data. Columns
        with the support `"circle"` always have a uniform base. `"uniform"` is allowed only if every column has the support
        `"circle"`. You can also pass a distribution over vectors of size `D`, with the flow's dtype. If `support` has
        simplexes, this size is `D` minus their number.""",
    "support": """Where the columns have values: `"real"`, `"positive"`, `(low, high)` (an end may be infinite), `"circle"`
        (angles), `("circle", low, high)` or `"simplex"` (positive columns with sum 1). A tuple is one interval, for all
        columns. Pass a list to give one entry per column, or a `Support`. With angles, an autoregressive flow samples
        in `D` passes, and random orders replace `mixing="lu"`.""",
    "preprocess": """Bijector between the layers and the data, such as `standardize(x_train)`. Data go through its
        `inverse` before the layers, and samples through its `forward` after them. With a `support` other than `"real"`,
        only `None` and `standardize(x_train)` are allowed: the flow maps the columns to the real line, and the first
        `FlowModel.fit` standardizes them there.""",
    "conditional_size": """Length `C` of each condition, such as the number of classes for one-hot labels. `log_prob` and
        `sample` then require `conditional_input`. `None` for no conditions.""",
    "preprocess_condition": """`"standardize"`, `None`, or a bijector whose `inverse` is applied to each condition first. With
        `"standardize"`, the first `FlowModel.fit` measures the mean and standard deviation of the conditions. They are
        saved with the flow, and standardize all later conditions. Columns of zeros and ones stay as they are.""",
    "seed": """Integer seed of the initial weights and of random permutations. With `None`, `keras.utils.set_random_seed`
        determines the weights, and the permutations are always the same.""",
    "dtype": "`tf.float32` or `tf.float64`.",
    "name": "Name of the distribution.",
}
_LAST = ("base", "support", "preprocess", "conditional_size", "preprocess_condition", "seed", "dtype", "name")
_DEFAULTS = {"preprocess_condition": "standardize", "support": "real"}


class Facts(NamedTuple):
    """Facts about a recipe for README, pages, gallery and command line. Costs count passes of each layer's network."""

    paper: str
    arxiv: str
    density: str
    sampling: str
    of_images: bool


def recipe(
    *,
    like: Callable | None = None,
    paper: str | None = None,
    arxiv: str | None = None,
    density: str | None = None,
    sampling: str | None = None,
) -> Callable[[Callable], Callable[..., FlowDistribution]]:
    """Turn a function that returns layers into a recipe: a function that returns a `FlowDistribution`.

    The function is called with checked sizes and a resolved seed and dtype, and returns bijectors from the base to the
    data. The decorator adds base, preprocessing and conditions, and completes signature and docstring. Keywords that
    the function takes as `**options` become those of `like`. Each is documented by `Args:` of the function or of `like`, or
    by `OPTIONS`.

    Args:
      like: The function that takes the `**options`.
      paper: Authors and year, a comma, and the title. A recipe without a paper is not listed in `RECIPES`.
      arxiv: Identifier of the paper on arXiv.
      density: Cost of `log_prob`.
      sampling: Cost of `sample`.

    Raises:
      TypeError: If an argument of the function is not documented.
    """

    def decorate(fn: Callable) -> Callable[..., FlowDistribution]:
        signature = _complete_signature(fn, like)
        reads_angles = any("support" in inspect.signature(f).parameters for f in (fn, like) if f is not None)
        facts = Facts(paper, arxiv, density, sampling, "image_shape" in signature.parameters)

        @functools.wraps(fn)
        def made(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            options = bound.arguments
            outer = {key: options.pop(key, None) for key in ("base", "preprocess", "preprocess_condition", "name")}
            options["dtype"] = real_dtype(options["dtype"])
            support = None
            if "event_size" in options:
                options["event_size"] = positive_int("event_size", options["event_size"])
                support = _resolve_support(options, reads_angles, fn.__name__)
            if options["conditional_size"] is not None:
                positive_int("conditional_size", options["conditional_size"])
            layers = fn(**options)
            size = options["event_size"] if "event_size" in options else int(np.prod(options["image_shape"]))
            shared = {key: options[key] for key in ("conditional_size", "dtype", "seed")}
            return assemble(layers, size, support=support, **shared, **outer)

        made.__signature__ = signature
        made.__doc__ = _complete_doc(fn, like, signature, facts)
        made = serializable(made)
        made.facts = facts
        if paper is not None and (fn.__module__ or "").startswith("tfp_flows."):
            RECIPES[fn.__name__] = made
        return made

    return decorate


def _resolve_support(options: dict, reads_angles: bool, name: str) -> Support | None:
    """Replace the options `event_size` and `support` by those of the layers. Return the bijector, `None` for real columns."""
    support = Support.of(options.pop("support"), options["event_size"], options["dtype"])
    if support.circles and not reads_angles:
        raise ValueError(
            f"`support` must have no circle in {name}, whose layers are not periodic: use a coupling or an autoregressive "
            "flow, such as spline_coupling or spline_autoregressive."
        )
    support = None if support.is_identity else support
    if support is not None:
        options["event_size"] = support.latent_size
    if reads_angles:
        options["support"] = support
    return support


def _complete_signature(fn: Callable, like: Callable | None) -> inspect.Signature:
    own = {p.name: p for p in inspect.signature(fn).parameters.values() if p.kind is not p.VAR_KEYWORD}
    shared = {} if like is None else inspect.signature(like).parameters
    parameters = {**own, **{k: p for k, p in shared.items() if k not in own and p.kind is p.KEYWORD_ONLY}}
    defaults = {**_DEFAULTS, "name": fn.__name__}
    for name in _LAST:
        if name in ("preprocess", "support") and "image_shape" in own:
            continue
        given = parameters.pop(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None))
        default = defaults.get(name, None if given.default is given.empty else given.default)
        # The layers get a `Support`; a user may give its description.
        annotation = {"seed": "int | None", "support": given.empty}.get(name, given.annotation)
        parameters[name] = given.replace(default=default, annotation=annotation)
    return inspect.Signature(list(parameters.values()), return_annotation="FlowDistribution")


def _complete_doc(fn: Callable, like: Callable | None, signature: inspect.Signature, facts: Facts) -> str:
    head, _, tail = inspect.cleandoc(fn.__doc__).partition("\nExample:")
    head, _, own = head.partition("\nArgs:\n")
    shared = inspect.cleandoc((like and like.__doc__) or "").partition("\nArgs:\n")[2]
    texts = dict(OPTIONS)
    for arguments in (shared, own):
        texts |= re.findall(r"^  (\w+): (.*?)(?=^  \w+: |\Z)", arguments, re.M | re.S)
    missing = [name for name in signature.parameters if name not in texts]
    if missing:
        raise TypeError(f"{fn.__name__}: the arguments {missing} are documented neither there nor in OPTIONS.")
    lines = [head.rstrip(), "", "Args:"]
    lines += [f"  {name}: {' '.join(texts[name].split())}" for name in signature.parameters]
    cost = ""
    if facts.density is not None:
        cost = f" Cost per event and layer, without conditions: `log_prob` {facts.density}, sampling {facts.sampling}."
        cost += " A pass is one evaluation of the layer's network." if "pass" in cost else ""
        cost += " The D steps together do about as much arithmetic as one pass." if "in D steps" in cost else ""
        cost += " A scalar solve inverts a monotone function of one number." if "scalar solve" in cost else ""
    lines += ["", "Returns:", "  A transformed distribution." + cost]
    lines += ["", "Raises:", "  ValueError: If an argument is out of range; the message names it."]
    lines += ["", "Example:" + tail.rstrip()]
    if facts.paper is not None:
        lines += ["", "References:", f"  {facts.paper}, arXiv:{facts.arxiv}."]
    return "\n".join(lines)


def assemble(
    layers: list[tfb.Bijector],
    event_size: int,
    conditional_size: int | None = None,
    *,
    base: tfd.Distribution | str | None = None,
    support: Support | None = None,
    preprocess: tfb.Bijector | None = None,
    preprocess_condition: tfb.Bijector | str | None = None,
    seed: int,
    dtype: tf.DType,
    name: str | None,
) -> FlowDistribution:
    """Return the distribution of the base, mapped by the layers in order and then by `support` or `preprocess`."""
    base = make_base(base, event_size, [] if support is None else _before(layers, support.circles), dtype, seed)
    if preprocess is not None:
        _check_preprocess(preprocess, event_size if support is None else support.event_size, dtype)
        if support is not None and not isinstance(preprocess, Standardize):
            raise ValueError(
                f"`preprocess` must be standardize(x) or None together with `support`, got {preprocess!r}."
            )
        if support is not None and preprocess.examples is not None:
            support.fit_scale(preprocess.examples)
    last = preprocess if support is None else support
    layers = layers if last is None else [*layers, last]
    if isinstance(preprocess_condition, str) and preprocess_condition == "standardize":
        preprocess_condition = None
        if conditional_size is not None:
            preprocess_condition = Standardize(conditional_size, dtype=dtype, name="standardize_condition")
    return FlowDistribution(base, tfb.Chain(layers[::-1]), preprocess_condition=preprocess_condition, name=name)


def _before(layers: list[tfb.Bijector], dimensions: Sequence[int]) -> list[int]:
    """Return where the permutations among the layers take dimensions of their output from."""
    dimensions = list(dimensions)
    for layer in reversed(layers):
        if isinstance(layer, tfb.Permute):
            dimensions = [int(i) for i in tf.get_static_value(layer.permutation)[dimensions]]
    return dimensions


def _check_preprocess(preprocess: tfb.Bijector, event_size: int, dtype: tf.DType) -> None:
    if not isinstance(preprocess, tfb.Bijector):
        raise ValueError(f"`preprocess` must be a tfb.Bijector such as standardize(x), got {preprocess!r}.")
    if preprocess.dtype not in (None, dtype):
        raise ValueError(f"`preprocess` has dtype {tf.as_dtype(preprocess.dtype).name}, the flow {dtype.name}.")
    if isinstance(preprocess, Standardize) and preprocess.event_size != event_size:
        raise ValueError(f"`preprocess` standardizes {preprocess.event_size} columns, the flow has {event_size}.")
