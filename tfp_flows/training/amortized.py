"""Amortized variational inference: the log-density of a joint distribution as a target, and training on observations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.training.distribution_checks import prepare_conditions
from tfp_flows.training.inputs import Inputs
from tfp_flows.training.model_target import ModelTarget, by_name

tfd = tfp.distributions
DEFAULT_SAMPLES = 16  # for each observation


class ObservedTarget(tf.Module):
    """`log p(z, x)` of a joint distribution whose part `observed` is the data, for vectors `z` and flat observations.

    Args:
      joint: A `tfd.JointDistribution`.
      observed: Name of the observed part.

    Raises:
      ValueError: If there is no such part, or the others are refused by `ModelTarget`.
    """

    def __init__(self, joint: tfd.JointDistribution, observed: str):
        super().__init__(name="observed_target")
        if not isinstance(joint, tfd.JointDistribution):
            raise ValueError(f"`model` must be a tfd.JointDistribution, not pinned, with `observed`, got {joint!r}.")
        values = by_name(joint.sample(seed=(1, 2)))
        if observed not in values:
            raise ValueError(f"`observed` must be the name of a part, one of {sorted(values)}, got {observed!r}.")
        self._joint, self._observed = joint, observed
        self.unknown = ModelTarget(joint.experimental_pin(**{observed: values[observed]}))
        self._shape, self._dtype = values[observed].shape, values[observed].dtype
        self.event_size, self.observation_size = self.unknown.event_size, int(np.prod(self._shape.as_list()))
        self.bijector, self.labels, self._batched = self.unknown.bijector, self.unknown.labels, True
        self._batched = self._takes_batches()

    def __call__(self, z: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return `log p(z, x)`, `[n]`, in nats, for vectors `[n, D]` and observations `[n, C]`."""
        if not self._batched:
            return tf.vectorized_map(lambda pair: tf.reshape(self._density(*pair), []), (z, x))
        return self._density(z, x)

    def _density(self, z: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        z = tf.identity(z)  # bypasses TFP's cache
        data = tf.cast(tf.reshape(x, [*tf.unstack(tf.shape(x)[:-1]), *self._shape]), self._dtype)
        parts = {**by_name(self.bijector.forward(z)), self._observed: data}
        return self._joint.log_prob(**parts) + self.bijector.forward_log_det_jacobian(z, event_ndims=1)

    def _takes_batches(self) -> bool:
        z = self.unknown.sample_prior(3, seed=(1, 2))
        x = tf.reshape(tf.stack([by_name(self._joint.sample(seed=(3, i)))[self._observed] for i in range(3)]), [3, -1])
        single = [tf.reshape(self._density(*pair), []) for pair in zip(z, x, strict=True)]
        try:
            several = self._density(z, x)
        except (ValueError, tf.errors.InvalidArgumentError):
            return False
        return several.shape == [3] and np.allclose(several, single, rtol=1e-3, atol=1e-3)


def _takes_two(function: Callable) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # no signature is known
        pass
    return True


class TrainsOnObservations:
    """The part of `VariationalFlow` for conditional flows."""

    def _check_amortized(self) -> None:
        """Raise a `ValueError` for options that need a single posterior."""
        if self.conditional_size is None:
            return
        if self.alpha is None:
            raise ValueError(
                '`objective` must not be "forward_kl" for a conditional flow: NeuralPosterior minimizes it.'
            )
        if not _takes_two(self.target_log_prob_fn):
            raise ValueError(
                "`target_log_prob_fn` must take (z, x) and return log p(z, x) for a conditional flow, whose conditions are the "
                f"observations x, got {self.target_log_prob_fn!r}."
            )
        if self.log_normalizer is not None:
            raise ValueError(
                "`log_normalizer` must be left out for a conditional flow: each observation has another one."
            )
        size = getattr(self.target_log_prob_fn, "observation_size", self.conditional_size)
        if size != self.conditional_size:
            raise ValueError(
                f"`flow` has conditions of size {self.conditional_size}, the observed part has {size} numbers."
            )
        self._inputs = Inputs((self.conditional_size,), tf.as_dtype(self.flow.dtype), None, density=False)

    def _condition(self, batch) -> dict[str, tf.Tensor]:
        """Return the keyword with the observations of a batch, each repeated `sample_size` times, or no keyword."""
        if self.conditional_size is None:
            return {}
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        return {"conditional_input": tf.repeat(x, self.sample_size, axis=0)}

    def _rows(self, x: Any) -> Any:
        """Flatten arrays of observations to `[N, C]`. A dataset must yield flat ones."""
        if x is None:
            raise ValueError("`x` must be given for a conditional flow: observations [N, C].")
        if isinstance(x, tf.data.Dataset) or hasattr(x, "__next__") or hasattr(x, "element_spec"):
            return x
        x = np.asarray(x)
        return x.reshape([len(x), -1]) if x.ndim != 2 else x

    def _fit_observations(self, x, batch_size, callbacks, kwargs: dict):
        for key in ("y", "sample_weight", "class_weight"):
            if kwargs.pop(key, None) is not None:
                raise ValueError(f"`{key}` must be left out: a VariationalFlow trains on observations alone.")
        x = self._rows(x)
        if kwargs.get("validation_data") is not None:
            held_out = kwargs["validation_data"]
            if isinstance(held_out, tuple):
                if not held_out or any(part is not None for part in held_out[1:]):
                    raise ValueError(f"`validation_data` must be observations alone, got a tuple of {len(held_out)}.")
                held_out = held_out[0]
            kwargs["validation_data"] = self._rows(held_out)
        self._inputs.check(x, None)
        glance = self._inputs.glance(x, None)
        data, order, kwargs = self._inputs.for_training(x, None, batch_size, kwargs, self.distribute_strategy, glance)
        prepare_conditions(self.flow, glance.events, None)
        return self._fit(data, callbacks, order, **kwargs)

    def _one(self, x: Any) -> np.ndarray:
        """Return one observation as a condition `[C]`."""
        if x is None:
            raise ValueError("`x` must be given for a conditional flow: one observation.")
        x = np.reshape(np.asarray(x, tf.as_dtype(self.flow.dtype).as_numpy_dtype), [-1])
        if x.shape != (self.conditional_size,):
            raise ValueError(f"`x` must be one observation of {self.conditional_size} numbers, got {x.size}.")
        return x

    def _target_of(self, x: np.ndarray):
        """Return the target for one observation, with labels and parameters if it has them."""
        target = self.target_log_prob_fn

        class Given:
            def __call__(self, z):
                return target(z, tf.broadcast_to(x, [tf.shape(z)[0], len(x)]))

        given = Given()
        if isinstance(target, ObservedTarget):
            given.labels, given.parameters = target.labels, target.unknown.parameters
        return given
