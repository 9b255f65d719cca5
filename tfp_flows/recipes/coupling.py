"""Coupling flows: `coupling_flow`, and named flows that fix its transformer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import RealNVP, Support
from tfp_flows.checks import positive_int
from tfp_flows.networks import real_nvp_template
from tfp_flows.numerics import DEFAULT_LOG_SCALE_BOUND
from tfp_flows.recipes.mixing import (
    angles_of,
    before_each_layer,
    each_layer,
    mixing_for,
    mixing_layer,
    mixing_order,
    normalization_layers,
    spline_of_angles,
)
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed, structure_seed
from tfp_flows.transformers import AffineTransformer, ShiftTransformer, SplineTransformer, Transformer
from tfp_flows.transformers.columns import for_columns


def coupling_layers(
    event_size: int,
    transformer: Transformer | Sequence[Transformer],
    *,
    num_layers: int = 8,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    mixing: str = "permute",
    normalization: str | None = None,
    conditional_size: int | None = None,
    support: Support | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
) -> list[tfb.Bijector]:
    """Return coupling layers that condition on the first and the last half of the dimensions in turn.

    With angles in `support`, networks read cosines and sines, and permutations replace `"lu"`.

    Args:
      event_size: Size `D` of the events, at least 2.
      num_layers: Number of layers, at least 2.
      mixing: Map after layers 2, 4, 6 and so on, but not after the last, to mix the halves: `"reverse"`, `"permute"` (a random
        order, drawn once) or `"lu"`, a trainable linear map (see `LULinear`). With two dimensions, only `"lu"` has an effect.
    """
    positive_int("event_size", event_size, 2)
    is_angle = angles_of(support, event_size, normalization)
    mixing = mixing_for(mixing, is_angle)
    transformers = each_layer(transformer, positive_int("num_layers", num_layers, 2))
    first = event_size // 2
    seeds, mixing_seed = split_seed(seed, num_layers + 1)[:-1], split_seed(structure_seed(seed), num_layers + 1)[-1]
    mixing_seeds = split_seed(mixing_seed, num_layers)
    shared = {"activation": activation, "conditional_size": conditional_size, "dtype": dtype}
    layers: list[tfb.Bijector] = []
    mixed = {i for i in range(1, num_layers - 1, 2) if event_size > 2 or mixing == "lu"}
    orders = [mixing_order(mixing, event_size, mixing_seeds[i]) if i in mixed else None for i in range(num_layers)]
    for i, angles in enumerate(before_each_layer(is_angle, orders)):
        num_masked = first if i % 2 == 0 else first - event_size
        sizes = {"input_units": abs(num_masked), "output_units": event_size - abs(num_masked)}
        read, moved = (angles[:first], angles[first:]) if i % 2 == 0 else (angles[first:], angles[:first])
        own = {"transformer": for_columns(transformers[i], moved, spline_of_angles(transformers[i]))}
        own |= {"circular_inputs": np.flatnonzero(read).tolist(), "seed": seeds[i], "name": f"coupling_{i}"}
        conditioner = real_nvp_template(hidden_units, **sizes, **own, **shared)
        constant = isinstance(transformers[i], ShiftTransformer)
        layers.append(RealNVP(num_masked, None, conditioner, is_constant_jacobian=constant, name=f"coupling_{i}"))
        layers += normalization_layers(normalization, event_size, dtype, str(i))
        if i in mixed:
            layers.append(mixing_layer(mixing, event_size, mixing_seeds[i], dtype, f"mixing_{i}"))
    return layers


@recipe(like=coupling_layers)
def coupling_flow(event_size: int, transformer: Transformer | Sequence[Transformer] | None = None, **options):
    """Build a coupling flow with any transformer. Layers condition on the first and the last half of the dimensions in turn.

    Args:
      transformer: A `Transformer`: the increasing map that a layer applies to each number of one half, with parameters that a
        network computes from the other half. Or a list with one per layer, from base to data. `AffineTransformer()` if
        `None`.

    Example:
      >>> tff.coupling_flow(3, tff.SplineTransformer(num_bins=4), num_layers=2).sample(5).shape
      TensorShape([5, 3])
    """
    return coupling_layers(event_size, AffineTransformer() if transformer is None else transformer, **options)


@recipe(
    like=coupling_layers,
    paper="Dinh et al. 2014, NICE: Non-linear Independent Components Estimation",
    arxiv="1410.8516",
    density="1 pass",
    sampling="1 pass",
)
def nice(event_size: int, *, num_layers: int = 8, dtype: tf.DType = tf.float32, **options):
    """Build a NICE flow (Dinh et al. 2014): additive coupling layers, then a trainable scale per dimension (section 3.3).

    Example:
      >>> tff.nice(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])
    """
    if (support := options.get("support")) is not None and support.circles:
        raise ValueError("`support` must have no circle in nice, which scales each column: use spline_coupling.")
    layers = coupling_layers(event_size, ShiftTransformer(), num_layers=num_layers, dtype=dtype, **options)
    log_scale = tf.Variable(tf.zeros([event_size], dtype), name="log_scale")
    return [*layers, tfb.Scale(log_scale=log_scale, name="scale")]


@recipe(
    like=coupling_layers,
    paper="Dinh et al. 2016, Density estimation using Real NVP",
    arxiv="1605.08803",
    density="1 pass",
    sampling="1 pass",
)
def real_nvp(
    event_size: int, *, num_layers: int = 8, log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND, **options
):
    """Build a RealNVP (Dinh et al. 2016). Each layer shifts and scales one half of the dimensions by amounts that a network
    computes from the other half.

    Example:
      >>> tff.real_nvp(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])
    """
    return coupling_layers(event_size, AffineTransformer(log_scale_bound), num_layers=num_layers, **options)


@recipe(
    like=coupling_layers,
    paper="Durkan et al. 2019, Neural Spline Flows",
    arxiv="1906.04032",
    density="1 pass",
    sampling="1 pass",
)
def spline_coupling(
    event_size: int, *, num_layers: int = 4, num_bins: int = 8, bound: float = 5.0, mixing: str = "lu", **options
):
    """Build a neural spline flow (Durkan et al. 2019): coupling layers with rational-quadratic splines.

    Splines act on `[-bound, bound]`. With `mixing="lu"`, the trainable linear maps after every second layer can bring other
    values into this interval.

    Example:
      >>> tff.spline_coupling(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])
    """
    spline = SplineTransformer(num_bins, bound)
    return coupling_layers(event_size, spline, num_layers=num_layers, mixing=mixing, **options)
