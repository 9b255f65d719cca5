"""Bases that recipes take by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bases.mixture import GaussianMixture
from tfp_flows.bases.student_t import StudentT
from tfp_flows.bases.uniform_angles import UniformAngles

tfb, tfd = tfp.bijectors, tfp.distributions


def _normal(size: int, dtype: tf.DType, seed: int) -> tfd.Distribution:
    return tfd.MultivariateNormalDiag(tf.zeros([size], dtype), tf.ones([size], dtype))


def _trainable(size: int, dtype: tf.DType, seed: int) -> tfd.Distribution:
    scale = tfp.util.TransformedVariable(tf.ones([size], dtype), tfb.Exp(), name="scale_diag")
    return tfd.MultivariateNormalDiag(tf.Variable(tf.zeros([size], dtype), name="loc"), scale)


BASES: dict[str, Callable[[int, tf.DType, int], tfd.Distribution]] = {
    "normal": _normal,
    "trainable": _trainable,
    "mixture": lambda size, dtype, seed: GaussianMixture(size, dtype=dtype, seed=seed),
    "student_t": lambda size, dtype, seed: StudentT(size, dtype=dtype),
}


def make_base(
    base: tfd.Distribution | str | None, event_size: int, angles: Sequence[int], dtype: tf.DType, seed: int
) -> tfd.Distribution:
    """Return the base of a flow. One that is given by name has uniform angles in the columns `angles`.

    Raises:
      ValueError: If `base` is neither a distribution of vectors of that size and dtype, nor a known name.
    """
    name = "normal" if base is None else base
    num_others = event_size - len(angles)
    if isinstance(name, str) and name == "uniform":
        if num_others:
            raise ValueError(
                f'`base="uniform"` is for flows of angles, and {num_others} columns have another `support`: leave `base` '
                'out, which makes the angles uniform, or give support="circle".'
            )
        return UniformAngles(event_size, dtype=dtype)
    if isinstance(name, str) and name in BASES:
        if not angles:
            return BASES[name](event_size, dtype, seed)
        others = BASES[name](num_others, dtype, seed) if num_others else None
        return UniformAngles(event_size, angles, others, dtype=dtype)
    if not isinstance(base, tfd.Distribution):
        names = ", ".join(f'"{known}"' for known in (*BASES, "uniform"))
        raise ValueError(f"`base` must be a tfd.Distribution, None or one of {names}, got {base!r}.")
    if base.event_shape.as_list() != [event_size] or base.dtype != dtype:
        raise ValueError(
            f"`base` must have event shape [{event_size}] and dtype {dtype.name}, "
            f"got event shape {base.event_shape} and dtype {tf.as_dtype(base.dtype).name}."
        )
    return base
