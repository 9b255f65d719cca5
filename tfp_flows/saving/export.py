"""Export of a flow as a SavedModel that runs without this package."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.saving.files import written_whole


def export(
    filepath: str | os.PathLike,
    distribution: tfp.distributions.Distribution,
    conditional_size: int | None,
    log_prob: Callable,
    sample: Callable,
    variables: Sequence[tf.Variable],
) -> None:
    """Write `log_prob(x)` and `sample(n, seed)`, with `conditional_input` last, as attributes and signatures."""
    path = pathlib.Path(filepath)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"`filepath` must be a new or empty one, got {str(filepath)!r}.")
    dtype = tf.as_dtype(distribution.dtype)
    x = tf.TensorSpec([None, *distribution.event_shape], dtype)
    n, seed = tf.TensorSpec([], tf.int32), tf.TensorSpec([2], tf.int32)
    served = tf.Module()
    served.kept = list(variables)
    if conditional_size is None:
        served.log_prob = tf.function(lambda x: {"log_prob": log_prob(x)}, [x])
        served.sample = tf.function(lambda n, seed: {"samples": sample(n, seed)}, [n, seed])
    else:
        condition = tf.TensorSpec([None, conditional_size], dtype)
        served.log_prob = tf.function(lambda x, conditional_input: {"log_prob": log_prob(x, conditional_input)})
        served.sample = tf.function(lambda n, seed, conditional_input: {"samples": sample(n, seed, conditional_input)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        given = [] if conditional_size is None else [condition]
        signatures = {"log_prob": served.log_prob.get_concrete_function(x, *given)}
        try:
            signatures["sample"] = served.sample.get_concrete_function(n, seed, *given)
            if given:  # Python calls may pass one condition for all rows
                one = tf.TensorSpec([conditional_size], dtype)
                served.log_prob.get_concrete_function(x, one)
                served.sample.get_concrete_function(n, seed, one)
        except NotImplementedError:  # a bijector without a forward direction: a density alone
            del served.sample
        tf.saved_model.save(served, part, signatures=signatures)
