"""Condition sizes of composed bijectors, and the keywords that pass a condition to each layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tensorflow_probability import bijectors as tfb

from tfp_flows import _compat_tfp
from tfp_flows.bijectors.composition import members_of, without_invert


def conditional_sizes(bijector: tfb.Bijector) -> set[int]:
    """Return the sizes of `conditional_input` that the layers of a bijector expect."""
    parts = members_of(bijector)
    if parts is not None:
        return set().union(*map(conditional_sizes, parts))
    size = getattr(without_invert(bijector), "conditional_size", None)
    return set() if size is None else {size}


def conditional_kwargs(bijector: tfb.Bijector, conditional_input: Any) -> dict[str, Any]:
    """Return nested keywords, in TFP's form, that pass one condition to every conditional layer."""
    parts = members_of(bijector)
    if parts is not None:
        nested: dict[str, Any] = {}
        for part in parts:
            kwargs = conditional_kwargs(part, conditional_input)
            if nested.setdefault(part.name, kwargs).keys() != kwargs.keys():
                raise ValueError(
                    f"Two bijectors of one Chain are named {part.name!r}, but only one takes a condition. Keywords are passed "
                    "by name: rename one."
                )
        return nested
    return {"conditional_input": conditional_input} if conditional_sizes(bijector) else {}


def make_bijector_kwargs(bijector: tfb.Bijector, name_to_kwargs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Build the nested keywords that TFP passes down a composed bijector, from regular expressions on the layers' names.

    Each layer gets the keywords of the first expression that matches the beginning of its name (`re.match`). For an
    `Invert`, both its names count. Pass the result to `flow.log_prob` and `flow.sample` as `bijector_kwargs`.

    Args:
      bijector: The bijector, such as `flow.bijector`.
      name_to_kwargs: Keywords by regular expression.

    Raises:
      ValueError: If an expression matches no layer.

    Example:
      >>> flow = tff.maf(2, num_layers=2, conditional_size=1)
      >>> kwargs = tff.make_bijector_kwargs(flow.bijector, {"autoregressive": {"conditional_input": tf.ones([5, 1])}})
      >>> flow.log_prob(tf.zeros([5, 2]), bijector_kwargs=kwargs).shape
      TensorShape([5])
    """
    used: set[str] = set()

    def choose(part: tfb.Bijector) -> dict[str, Any]:
        parts = members_of(part)
        if parts is not None:
            return {inner.name: choose(inner) for inner in parts}
        names = [part.name]
        while isinstance(part, _compat_tfp.Invert):
            part = part.bijector
            names.append(part.name)
        for expression, kwargs in name_to_kwargs.items():
            if any(re.match(expression, name) for name in names):
                used.add(expression)
                return dict(kwargs)
        return {}

    result = choose(bijector)
    unused = [expression for expression in name_to_kwargs if expression not in used]
    if unused:
        raise ValueError(f"`name_to_kwargs`: {unused} match no bijector of {bijector.name}.")
    return result
