"""Autoregressive flows: `autoregressive_flow`, and named flows that fix its transformer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import MaskedAutoregressiveFlow, Support
from tfp_flows.checks import positive_int
from tfp_flows.networks import masked_autoregressive_template
from tfp_flows.numerics import DEFAULT_LOG_SCALE_BOUND
from tfp_flows.recipes.mixing import (
    angles_of,
    each_layer,
    mixing_for,
    mixing_layer,
    normalization_layers,
    spline_of_angles,
)
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed, structure_seed
from tfp_flows.transformers import (
    AffineTransformer,
    DeepSigmoidalTransformer,
    GaussianMixtureTransformer,
    SplineTransformer,
    Transformer,
)
from tfp_flows.transformers.columns import for_columns


def autoregressive_layers(
    event_size: int,
    transformer: Transformer | Sequence[Transformer],
    *,
    num_layers: int = 5,
    hidden_units: Sequence[int] = (64, 64),
    activation="relu",
    mixing: str = "reverse",
    normalization: str | None = None,
    inverse: bool = False,
    conditional_size: int | None = None,
    support: Support | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
) -> list[tfb.Bijector]:
    """Return masked autoregressive layers. Reversals and permutations are input orders, not separate layers.

    With angles in `support`, networks read cosines and sines, sampling takes `D` passes, and permutations replace `"lu"`.
    """
    is_angle = angles_of(support, event_size, normalization)
    mixing = mixing_for(mixing, is_angle)
    transformers = each_layer(transformer, positive_int("num_layers", num_layers))
    transformers = [for_columns(t, is_angle, spline_of_angles(t)) for t in transformers]
    if event_size == 1 and all(isinstance(t, AffineTransformer) for t in transformers):
        warnings.warn(
            "In one dimension an affine autoregressive flow is a Gaussian, whatever its networks: for event_size=1 take "
            "spline_autoregressive, neural_autoregressive, or made(1, num_components=8).",
            stacklevel=5,
        )
    orders = ("left-to-right", "right-to-left") if mixing == "reverse" else ("left-to-right",)
    seeds, mixing_seeds = (split_seed(s, 2 * num_layers)[::2] for s in (seed, structure_seed(seed)))
    shared = {"activation": activation, "conditional_size": conditional_size, "dtype": dtype}
    shared["circular_inputs"] = np.flatnonzero(is_angle).tolist()
    layers: list[tfb.Bijector] = []
    for i in range(num_layers):
        order = orders[i % len(orders)]
        if mixing == "permute":
            order = 1 + np.random.default_rng(mixing_seeds[i]).permutation(event_size)
        name = f"autoregressive_{i}"
        own = {"transformer": transformers[i], "input_order": order, "seed": seeds[i], "name": name}
        conditioner = masked_autoregressive_template(hidden_units, event_size=event_size, **own, **shared)
        layer = MaskedAutoregressiveFlow(conditioner, name=name)
        layers.append(tfb.Invert(layer) if inverse else layer)
        layers += normalization_layers(normalization, event_size, dtype, str(i))
        if mixing == "lu" and i < num_layers - 1:
            layers.append(mixing_layer(mixing, event_size, mixing_seeds[i], dtype, f"mixing_{i}"))
    return layers


@recipe(like=autoregressive_layers)
def autoregressive_flow(event_size: int, transformer: Transformer | Sequence[Transformer] | None = None, **options):
    """Build an autoregressive flow with any transformer.

    Args:
      transformer: A `Transformer`, or a list with one per layer, from base to data; `AffineTransformer()` if `None`.

    Example:
      >>> tff.autoregressive_flow(3, tff.SplineTransformer(num_bins=4), num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])
    """
    return autoregressive_layers(event_size, AffineTransformer() if transformer is None else transformer, **options)


@recipe(
    like=autoregressive_layers,
    paper="Papamakarios et al. 2017, Masked Autoregressive Flow for Density Estimation",
    arxiv="1705.07057",
    density="1 pass",
    sampling="1 pass, in D steps",
)
def maf(event_size: int, *, num_layers: int = 5, log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND, **options):
    """Build a masked autoregressive flow (Papamakarios et al. 2017). Each layer shifts and scales each dimension by amounts
    that a network computes from the dimensions before it.

    Example:
      >>> tff.maf(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])
    """
    return autoregressive_layers(event_size, AffineTransformer(log_scale_bound), num_layers=num_layers, **options)


@recipe(
    like=autoregressive_layers,
    paper="Kingma et al. 2016, Improving Variational Inference with Inverse Autoregressive Flow",
    arxiv="1606.04934",
    density="1 pass, in D steps",
    sampling="1 pass",
)
def iaf(
    event_size: int,
    *,
    num_layers: int = 5,
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    inverse: bool = True,
    **options,
):
    """Build an inverse autoregressive flow (Kingma et al. 2016): a MAF whose networks read the latent values in place of the
    data, so that sampling is the fast direction.

    Example:
      >>> tff.iaf(3, num_layers=2).sample(5).shape
      TensorShape([5, 3])
    """
    affine = AffineTransformer(log_scale_bound)
    return autoregressive_layers(event_size, affine, num_layers=num_layers, inverse=inverse, **options)


@recipe(
    like=autoregressive_layers,
    paper="Germain et al. 2015, MADE: Masked Autoencoder for Distribution Estimation",
    arxiv="1502.03509",
    density="1 pass",
    sampling="1 pass, in D steps, with scalar solves if `num_components` > 1",
)
def made(event_size: int, *, num_components: int = 1, num_layers: int = 1, **options):
    """Build a MADE (Germain et al. 2015): one autoregressive density with Gaussian or Gaussian-mixture conditionals.

    Args:
      num_components: Number of Gaussians in the mixture of each conditional.
      num_layers: Number of layers; several layers form a MAF.

    Example:
      >>> tff.made(3, num_components=4).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])
    """
    mixture = GaussianMixtureTransformer(num_components)
    mixture = AffineTransformer() if num_components == 1 else mixture
    return autoregressive_layers(event_size, mixture, num_layers=num_layers, **options)


@recipe(
    like=autoregressive_layers,
    paper="Papamakarios et al. 2017, Masked Autoregressive Flow for Density Estimation",
    arxiv="1705.07057",
    density="1 pass",
    sampling="1 pass, in D steps, with scalar solves",
)
def maf_mog(
    event_size: int,
    *,
    num_layers: int = 5,
    num_components: int = 8,
    log_scale_bound: float | None = DEFAULT_LOG_SCALE_BOUND,
    **options,
):
    """Build a MAF over a MADE with mixtures of Gaussians, "MAF MoG" (Papamakarios et al. 2017, section 3.4).

    The conditionals of the layer next to the base are mixtures of Gaussians; the other layers are affine.

    Args:
      num_layers: Number of affine layers, in addition to the mixture layer.

    Example:
      >>> tff.maf_mog(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])
    """
    affine = [AffineTransformer(log_scale_bound)] * positive_int("num_layers", num_layers)
    transformers = [GaussianMixtureTransformer(num_components), *affine]
    return autoregressive_layers(event_size, transformers, num_layers=num_layers + 1, **options)


@recipe(
    like=autoregressive_layers,
    paper="Durkan et al. 2019, Neural Spline Flows",
    arxiv="1906.04032",
    density="1 pass",
    sampling="1 pass, in D steps",
)
def spline_autoregressive(
    event_size: int, *, num_layers: int = 3, num_bins: int = 8, bound: float = 5.0, mixing: str = "lu", **options
):
    """Build a neural spline flow with autoregressive layers (Durkan et al. 2019): rational-quadratic splines.

    Linear maps between the layers bring values from outside of the splines' interval into it.

    Example:
      >>> tff.spline_autoregressive(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])
    """
    spline = SplineTransformer(num_bins, bound)
    return autoregressive_layers(event_size, spline, num_layers=num_layers, mixing=mixing, **options)


@recipe(
    like=autoregressive_layers,
    paper="Huang et al. 2018, Neural Autoregressive Flows",
    arxiv="1804.00779",
    density="1 pass",
    sampling="1 pass, in D steps, with scalar solves",
)
def neural_autoregressive(
    event_size: int, *, num_layers: int = 3, num_units: int = 8, num_sigmoid_layers: int = 1, **options
):
    """Build a neural autoregressive flow (Huang et al. 2018): deep sigmoidal transformers.

    Args:
      num_units: Number of sigmoids in each layer of a `DeepSigmoidalTransformer`.
      num_sigmoid_layers: Number of its layers.

    Example:
      >>> tff.neural_autoregressive(3, num_layers=2).log_prob(tf.zeros([5, 3])).shape
      TensorShape([5])
    """
    neural = DeepSigmoidalTransformer(num_units, num_sigmoid_layers)
    return autoregressive_layers(event_size, neural, num_layers=num_layers, **options)
