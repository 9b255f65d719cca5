"""The distribution that the recipes return."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

# `tfd.TransformedDistribution(...)` itself returns an instance of this base class wherever the bijector is not a
# `CompositeTensor`, as no bijector with a network is. A subclass of the public name would be a `CompositeTensor`, whose
# components are its tensor arguments: a tf.Module that holds one would lose the variables of the bijector.
_TransformedDistribution = tfd.TransformedDistribution.__bases__[0]


class FlowDistribution(_TransformedDistribution):
    """A `tfd.TransformedDistribution` whose `log_prob` is right after every weight update, and that knows its recipe.

    In eager mode TFP's bijectors cache results by the identity of the tensor, so that a plain `TransformedDistribution`
    mixes values from before and after a training step when `log_prob` is called twice on the same tensor object. This
    one never asks the cache about its argument. (`sample` and `experimental_sample_and_log_prob` are as in TFP.)

    Attributes:
      recipe: JSON text that names the recipe and its arguments, or `None` if an argument cannot be written as JSON.
    """

    recipe: str | None = None

    def _log_prob(self, y, **kwargs):
        return super()._log_prob(tf.identity(y), **kwargs)
