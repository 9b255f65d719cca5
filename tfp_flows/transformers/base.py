"""`Transformer`, the base class of univariate transformers."""

from __future__ import annotations

import abc

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb


class Transformer(abc.ABC):
    """Increasing map of one number, with `params` parameters per number.

    An autoregressive network or a coupling network computes the parameters. `forward` maps latent values to data.
    `transformer(params)` is the map for given parameters as a `tfb.Bijector`, for the `bijector_fn` of TFP's bijectors.

    A new transformer is a frozen dataclass without variables. It MUST define `params`, `forward` and `inverse`. Zero
    parameters SHOULD give the identity. It CAN define `adapt`, or set
    `is_circular`. It must be hashable, since equal instances share compiled code.

    Example:
      >>> affine = tff.AffineTransformer()
      >>> affine.params
      2
      >>> y, log_slope = affine.forward(tf.constant([1.0, 2.0]), tf.constant([[5.0, 0.0], [5.0, 0.0]]))
      >>> print(y.numpy(), log_slope.numpy())
      [6. 7.] [0. 0.]
    """

    is_circular = False  # whether `forward(x + 2 pi) = forward(x) + 2 pi`, so that it maps angles to angles

    @property
    @abc.abstractmethod
    def params(self) -> int:
        """Number of parameters for each number that is transformed."""

    @abc.abstractmethod
    def forward(self, x: tf.Tensor, params: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Map `x` `[...]` with `params` `[..., P]`. Return `y` and `log dy/dx`, of shape `[...]`."""

    @abc.abstractmethod
    def inverse(self, y: tf.Tensor, params: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Invert `forward`. Return `x` and `log dx/dy`, of shape `[...]`."""

    def template_output(self, params: tf.Tensor):
        """Return the output of a TFP template for `params`: a bijector, or shift and log-scale if there are no others."""
        return self(params)

    def adapt(self, data: np.ndarray) -> np.ndarray:
        """Return parameters `[D, P]` that map the columns of `data` `[N, D]` to normal ones, in subclasses that support it."""
        raise NotImplementedError(f"{type(self).__name__} cannot be adapted to data.")

    @property
    def can_adapt(self) -> bool:
        """Whether `adapt` is defined."""
        return type(self).adapt is not Transformer.adapt

    def __call__(self, params: tf.Tensor) -> tfb.Bijector:
        """Return the bijector of scalars for `params` of shape `[..., P]`."""
        return _TransformerBijector(self, params)


class _TransformerBijector(tfb.Bijector):
    def __init__(self, transformer: Transformer, params: tf.Tensor):
        params = tf.convert_to_tensor(params)
        if params.shape[-1] != transformer.params:
            raise ValueError(
                f"`params` must have shape [..., {transformer.params}] for {transformer}, got {params.shape}."
            )
        self.transformer, self.params = transformer, params
        super().__init__(forward_min_event_ndims=0, dtype=params.dtype, name=type(transformer).__name__)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _parts(self, fn, value):
        shape = tf.broadcast_dynamic_shape(tf.shape(value), tf.shape(self.params)[:-1])
        params = tf.broadcast_to(self.params, tf.concat([shape, [self.transformer.params]], axis=0))
        return fn(tf.broadcast_to(value, shape), params)

    def _forward(self, x):
        return self._parts(self.transformer.forward, x)[0]

    def _inverse(self, y):
        return self._parts(self.transformer.inverse, y)[0]

    def _forward_log_det_jacobian(self, x):
        return self._parts(self.transformer.forward, x)[1]

    def _inverse_log_det_jacobian(self, y):
        return self._parts(self.transformer.inverse, y)[1]
