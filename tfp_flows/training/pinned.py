"""The posterior of a pinned joint distribution as a target over one unconstrained vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfb = tfp.bijectors
_Pinned = tfp.experimental.distributions.JointDistributionPinned


class PinnedTarget(tf.Module):
    """The unnormalized log-density of a pinned joint distribution, over one unconstrained vector.

    The vector concatenates the parts, whose shapes may differ. Bijectors map it to their supports, and their log-det is
    added. `event_size` is the size of the vector; `bijector` maps it to the parts, with the model's own names and shapes.

    Args:
      pinned: `joint.experimental_pin(y=y)`.

    Example:
      >>> joint = tfd.JointDistributionNamed({"scale": tfd.LogNormal(0.0, 1.0), "y": lambda scale: tfd.Normal(0.0, scale)})
      >>> target = PinnedTarget(joint.experimental_pin(y=2.0))
      >>> target.event_size, target(tf.zeros([5, 1])).shape
      (1, TensorShape([5]))
    """

    def __init__(self, pinned: _Pinned):
        super().__init__(name="pinned_target")
        self._pinned = pinned
        to_support = pinned.experimental_default_event_space_bijector()
        try:
            shapes = to_support.inverse_event_shape(pinned.event_shape)
        except TypeError as error:  # TFP 0.25's bijector of the simplex on NumPy 2.4
            raise ValueError(
                f"TFP {tfp.__version__} cannot map a part of {pinned} to real numbers with NumPy {np.__version__} ({error}): "
                'install "numpy<2.4", or write the part as a transformation of normal variables.'
            ) from error
        flat = [tf.TensorShape(s) for s in tf.nest.flatten(pinned.event_shape, expand_composites=False)]
        unconstrained = [tf.TensorShape(s) for s in tf.nest.flatten(shapes)]
        if len(flat) != len(unconstrained) or not all(s.is_fully_defined() for s in unconstrained):
            raise ValueError(f"The parts of the pinned distribution must have known shapes, got {pinned.event_shape}.")
        sizes = [int(np.prod(s.as_list())) for s in unconstrained]
        self.event_size = sum(sizes)
        pack = tfb.Restructure(tf.nest.pack_sequence_as(pinned.event_shape, list(range(len(sizes)))))
        parts = tfb.JointMap([tfb.Reshape(s, [n]) for s, n in zip(unconstrained, sizes, strict=True)])
        self.bijector = tfb.Chain([to_support, pack, parts, tfb.Split(sizes)])

    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        z = tf.identity(z)  # bypasses TFP's cache
        log_det = self.bijector.forward_log_det_jacobian(z, event_ndims=1)
        return self._pinned.unnormalized_log_prob(self.bijector.forward(z)) + log_det


def as_target(target: Any) -> Any:
    """Return a `PinnedTarget` for a pinned joint distribution, or for its log-density of several or named parts."""
    if isinstance(target, _Pinned):
        return PinnedTarget(target)
    owner, name = getattr(target, "__self__", None), getattr(target, "__name__", "")
    if not isinstance(owner, _Pinned) or name != "unnormalized_log_prob":
        return target
    named = isinstance(owner.dtype, Mapping) or hasattr(owner.dtype, "_fields")
    return PinnedTarget(owner) if named or len(tf.nest.flatten(owner.dtype)) > 1 else target
