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
    """Build a flow by rotation-based iterative Gaussianization, without gradients (Laparra et al. 2011, arXiv:1602.00229).

    `rbig(D).fit(x)` alternates between mapping every dimension of `x` to a normal distribution and rotating, until the
    total correlation stops falling on held-out rows. The marginal maps are monotone splines through quantiles of the
    data, with normal tails. The result is an ordinary flow, which `FlowModel(flow).fit(x)` trains further by gradients.
    Cost per event, layer and direction: `O(D^2 + D num_bins)`, without a network.

    Args:
      event_size: Size `D` of the events.
      rotation: `"random"`; `"pca"` for principal axes; or `"ica"` for independent components by scikit-learn
        (`pip install tfp_flows[ica]`). If none are found, the rotation is random.
      num_bins: Number of bins of each spline. More bins fit the data more closely, and need more data.
      max_layers: Maximal number of layers to try.
      patience: Number of consecutive layers without gain after which fitting ends.
      seed: Integer seed of the random rotations and of the choice of held-out rows.
      dtype: `tf.float32` or `tf.float64`.
      name: Name of the distribution.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> flow = tff.rbig(2, max_layers=20, seed=1).fit(tff.data.moons().sample(2000, seed=1), verbose=0)
      >>> flow.log_prob(flow.sample(3, seed=1)).shape
      TensorShape([3])
    """
    one_of("rotation", rotation, ROTATIONS)
    spline = QuantileSplineTransformer(num_bins)
    layers = [MarginalDestructor(spline), MarginalDestructor(spline, rotation)]
    return DestructorStack(
        event_size, layers, max_layers=max_layers, patience=patience, seed=seed, dtype=dtype, name=name
    )
