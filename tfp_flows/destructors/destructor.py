"""Destructors: simple densities fitted to data, as bijectors."""

from __future__ import annotations

import abc

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import ActNorm, MarginalGaussianization, MixtureBijector, Rotation
from tfp_flows.bijectors.adapting import without_far_values
from tfp_flows.checks import positive_int
from tfp_flows.seeds import split_seed
from tfp_flows.transformers import QuantileSplineTransformer, Transformer

tfb = tfp.bijectors


class Destructor(abc.ABC):
    """Base class of simple densities, which `adapt` fits to data as a bijector from latent values to the data.

    A `DestructorStack` composes destructors, or any objects with `adapt` (Inouye and Ravikumar, Deep Density
    Destructors, ICML 2018). The attribute `latent` names the distribution of the latent values: `"normal"` (standard
    normal) or `"uniform"` (on the unit cube).

    Example:
      >>> class Triangular(tff.destructors.Destructor):
      ...     latent = "uniform"
      ...     def adapt(self, x, seed):
      ...         low, high = x.min(axis=0) - 0.5, x.max(axis=0) + 0.5
      ...         return tfb.Chain([tfb.Shift(low), tfb.Scale(high - low), tfb.Invert(tfb.KumaraswamyCDF(2.0, 2.0))])
      >>> x = np.random.default_rng(1).uniform(size=[500, 2]).astype("float32")
      >>> tff.destructors.DestructorStack(2, Triangular(), max_layers=1, seed=1).fit(x, verbose=0).event_shape
      TensorShape([2])
    """

    latent: str = "normal"

    @abc.abstractmethod
    def adapt(self, x: np.ndarray, seed: int) -> tfb.Bijector:
        """Return the bijector from latent values to data, fitted to `x` of shape `[N, D]` and the flow's dtype."""


class GaussianDestructor(Destructor):
    """Gaussian with full covariance.

    Example:
      >>> x = np.random.default_rng(1).normal(size=[500, 2]) * [1.0, 5.0]
      >>> np.round(np.std(tff.destructors.GaussianDestructor().adapt(x, seed=1).inverse(x), axis=0), 2)
      array([1., 1.])
    """

    def adapt(self, x, seed):
        dtype = tf.as_dtype(x.dtype)
        covariance = np.atleast_2d(np.cov(x.T.astype(np.float64)))
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError as error:
            raise ValueError("`x` lies in a subspace: its covariance is singular, and no Gaussian fits.") from error
        positive = tfb.FillScaleTriL(diag_bijector=tfb.Exp(), diag_shift=None)  # its default shift is float32
        scale = tfp.util.TransformedVariable(tf.constant(factor, dtype), positive, name="scale_tril")
        return tfb.Chain([tfb.Shift(tf.Variable(x.mean(axis=0), dtype=dtype, name="mean")), tfb.ScaleMatvecTriL(scale)])


class _RotatedDestructor(Destructor):
    rotation: str | None

    @abc.abstractmethod
    def _density(self, size: int, seed: int, dtype: tf.DType) -> tfb.Bijector:
        """Return the layer of the density, to be adapted."""

    def adapt(self, x, seed):
        size, dtype = x.shape[1], tf.as_dtype(x.dtype)
        axes, more_axes, places = split_seed(seed, 3)
        layers: list[tfb.Bijector] = []
        if self.rotation == "ica":
            layers += [Rotation(size, start="pca", seed=axes, dtype=dtype), ActNorm(size, dtype=dtype)]
            layers += [Rotation(size, start="ica", seed=more_axes, dtype=dtype)]
        else:
            # The output of an earlier layer is usually standardized well enough.
            low, mean, high = np.quantile(x, [0.16, 0.5, 0.84], axis=0)
            if np.any(np.abs(mean) > 0.5) or np.any(high - low < 1.0) or np.any(high - low > 4.0):
                layers += [ActNorm(size, dtype=dtype)]
            if self.rotation is not None:
                layers += [Rotation(size, start=self.rotation, seed=axes, dtype=dtype)]
        layers += [self._density(size, places, dtype)]
        for layer in layers:
            layer.adapt(without_far_values(x) if isinstance(layer, ActNorm) else x)
            x = layer.inverse(x).numpy()
        return tfb.Chain(layers)


class MarginalDestructor(_RotatedDestructor):
    """Marginal distributions after a rotation: one step of Gaussianization, with standardization if needed.

    Args:
      transformer: Transformer of each dimension: `QuantileSplineTransformer()` if `None`, or `GaussianMixtureTransformer()`.
      rotation: `None`, `"random"`, `"pca"` (principal axes) or `"ica"` (independent components, after whitening).

    Example:
      >>> x = 10.0 * tff.data.moons().sample(500, seed=1).astype("float32")
      >>> step = tff.destructors.MarginalDestructor(rotation="random").adapt(x, seed=1)
      >>> [type(layer).__name__ for layer in step.bijectors]
      ['ActNorm', 'Rotation', 'MarginalGaussianization']
    """

    def __init__(self, transformer: Transformer | None = None, rotation: str | None = None):
        self.transformer = QuantileSplineTransformer() if transformer is None else transformer
        self.rotation = rotation

    def _density(self, size, seed, dtype):
        return MarginalGaussianization(size, self.transformer, dtype=dtype)


class MixtureDestructor(_RotatedDestructor):
    """Mixture of Gaussians with diagonal covariances, fitted by expectation maximization, after a rotation.

    Args:
      num_components: Number of components.
      rotation: `None`, `"random"`, `"pca"` (principal axes) or `"ica"` (independent components, after whitening).

    Example:
      >>> x = tff.data.eight_gaussians().sample(2000, seed=1).astype("float32")
      >>> z = tff.destructors.MixtureDestructor(num_components=8).adapt(x, seed=1).inverse(x)
      >>> print(abs(np.mean(z)) < 0.05, np.round(np.std(z), 1))
      True 1.0
    """

    def __init__(self, num_components: int = 32, rotation: str | None = None):
        self.num_components = positive_int("num_components", num_components)
        self.rotation = rotation

    def _density(self, size, seed, dtype):
        return MixtureBijector(size, self.num_components, seed=seed, dtype=dtype)
