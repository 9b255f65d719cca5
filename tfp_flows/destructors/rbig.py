"""Rotation-based iterative Gaussianization."""

from __future__ import annotations

import tensorflow as tf

from tfp_flows.checks import one_of
from tfp_flows.destructors.destructor import MarginalDestructor
from tfp_flows.destructors.stack import DestructorStack
from tfp_flows.transformers import QuantileSplineTransformer

ROTATIONS = ("pca", "ica", "random")


def rbig(
    event_size: int,
    *,
    rotation: str = "pca",
    num_bins: int = 30,
    max_layers: int = 100,
    patience: int = 10,
    seed: int | None = None,
    dtype: tf.DType = tf.float32,
    name: str = "rbig",
) -> DestructorStack:
    """Rotation-based iterative Gaussianization (Laparra et al. 2011): a flow that is fitted without gradients, in seconds.

    `rbig(D).fit(x)` makes every dimension of `x` normal, rotates, makes every dimension normal again, and so on, until the
    total correlation stops falling on held-out rows. The marginal maps are monotone splines through quantiles of the data, with
    normal tails. The result is an ordinary flow: `FlowModel(flow).fit(x)` trains it further by gradients.

    Args:
      event_size: Size `D` of the events.
      rotation: `"random"`, `"pca"` for principal axes, or `"ica"` for independent components by scikit-learn (`pip install
        tfp_flows[ica]`). The last two use a random rotation if the data show no axes.
      num_bins: Number of bins of each spline. More bins follow the data more closely, and need more data.
      max_layers: Maximum number of layers to try.
      patience: Number of dropped layers in a row after which fitting stops.
      seed: Integer seed of the random rotations and of the choice of held-out rows.
      dtype: `tf.float32` or `tf.float64`.
      name: Name of the distribution.

    Returns:
      A `DestructorStack`; its method `fit(x)` returns the flow. Cost for each event and layer, in both directions: `O(D^2 + D
      num_bins)`, without a network. Fitting costs a pass over the data, and sorting them, for each layer.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Example:
      >>> flow = tff.rbig(2, max_layers=20, seed=1).fit(tff.data.moons().sample(2000, seed=1), verbose=0)
      >>> flow.log_prob(flow.sample(3, seed=1)).shape
      TensorShape([3])

    References:
      V. Laparra, G. Camps-Valls and J. Malo, Iterative Gaussianization: from ICA to Random Rotations, 2011, arXiv:1602.00229.
    """
    one_of("rotation", rotation, ROTATIONS)
    spline = QuantileSplineTransformer(num_bins)
    layers = [MarginalDestructor(spline), MarginalDestructor(spline, rotation)]
    return DestructorStack(
        event_size, layers, max_layers=max_layers, patience=patience, seed=seed, dtype=dtype, name=name
    )
