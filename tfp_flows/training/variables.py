"""Search for the variables of a distribution or bijector, in its objects and in a call under a gradient tape."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.distribution import dummy_condition


def building_calls(distribution: tfp.distributions.Distribution) -> list[Callable]:
    """Return calls that build a distribution. Zeros may be outside the support, so the second call scores a sample."""
    if not distribution.event_shape.is_fully_defined():
        return []
    condition = dummy_condition(distribution)
    zeros = tf.zeros([1, *distribution.event_shape], distribution.dtype)
    return [
        lambda: distribution.log_prob(zeros, **condition),
        lambda: distribution.log_prob(distribution.sample(1, **condition), **condition),
    ]


def variables_of(distribution: tfp.distributions.Distribution) -> tuple[tracking.Found, list[tf.Variable]]:
    """Build a distribution, and return the result of `tracking.find` and all variables outside Keras layers."""
    found, variables, touched, problem = search(distribution, building_calls(distribution))
    if not found.trainable_variables and not any(found.is_trainable(v) for v in variables):
        raise ValueError(
            f"{distribution} has no trainable variable, so there is nothing to train. Searched: the attributes of "
            "the distribution, its bijectors and its base, containers, functions with what their closures and "
            "globals refer to, Keras layers (a frozen layer does not count), and every variable that one call of "
            f"log_prob reads ({touched} were read)." + (f" That call failed: {problem}" if problem else "")
        ) from problem
    if problem is not None:
        warnings.warn(
            f"log_prob of {distribution} failed ({problem}), so only variables that a search of its attributes, "
            "functions and layers finds are trained.",
            stacklevel=3,
        )
    return found, variables


def search(
    module: tf.Module, calls: Sequence[Callable]
) -> tuple[tracking.Found, list[tf.Variable], int, Exception | None]:
    """Run the first call that succeeds, which builds the module, and then search it.

    Returns the result, its variables with those that the call read, their number, and the error if no call succeeds.
    """
    touched, problem = [], None
    for call in calls:
        try:
            touched, problem = tracking.touched_variables(call), None
            break
        except Exception as error:  # user code may raise anything; then only the search counts
            problem = problem or error
    found = tracking.find(module)
    searched = [w.value for layer in found.layers for w in layer.variables] + found.variables
    known = {id(part) for v in searched for part in tracking.parts(v)}
    return found, found.variables + [v for v in touched if id(v) not in known], len(touched), problem
