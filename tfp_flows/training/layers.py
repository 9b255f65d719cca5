"""Keras layers and a Keras model that track the variables of distributions and bijectors, which Keras 3 does not."""

from __future__ import annotations

import types
import weakref
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _compat_keras, tracking
from tfp_flows.bijectors.composition import forward_and_log_det, inverse_and_log_det
from tfp_flows.distribution import LOG_PROB_LAYERS, dummy_condition
from tfp_flows.saving import describe, from_description
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.variables import building_calls, search
from tfp_flows.training.weights import KnowsStructure, freeze_weights, frozen_weights

tfb, tfd = tfp.bijectors, tfp.distributions


class _ModuleLayer(KnowsStructure, keras.Layer):
    def __init__(self, module: tf.Module, calls, *, name: str | None):
        super().__init__(name=name, dtype=tf.as_dtype(module.dtype or tf.float32).name)
        self.module = module
        found, variables, _, _ = search(module, calls)
        self._networks = list(found.layers)
        self._adopted = tracking.adopt(found, variables)
        self._legacy_layers = list(found.legacy_layers)
        self.built = True

    def call(self, x, conditional_input=None):
        condition = {} if conditional_input is None else {"conditional_input": conditional_input}
        return self._with_penalties(self._values(tf.identity(x), **condition))

    def _with_penalties(self, values):
        for layer in self._legacy_layers:
            for loss in layer.losses:
                self.add_loss(loss)
        return values

    def get_config(self) -> dict:
        flags = {"trainable": self.trainable, "frozen": frozen_weights(self)}
        return {"name": self.name, "module": describe(self.module), **flags}

    @classmethod
    def from_config(cls, config: dict):
        config = dict(config)
        trainable, frozen = config.pop("trainable", True), config.pop("frozen", [])
        layer = cls(from_description(config.pop("module")), **config)
        if trainable:
            freeze_weights(layer, frozen)
        layer.trainable = trainable
        return layer


def log_prob_layer(distribution: tfd.Distribution) -> LogProb:
    """Return the existing layer of a distribution, or a new one, so that a flow used twice has its weights once."""
    layer = getattr(distribution, "_keras_layer", lambda: None)()
    if layer is None:
        layer = LogProb(distribution)
        object.__setattr__(distribution, "_keras_layer", weakref.ref(layer))  # hides it from TensorFlow's tracking
    return layer


def _check_distribution(distribution: Any) -> None:
    if not isinstance(distribution, tfd.Distribution) or isinstance(distribution.dtype, (list, tuple, dict)):
        raise ValueError(f"`distribution` must be a tfd.Distribution over one tensor, got {distribution!r}.")


@keras.saving.register_keras_serializable(package="tfp_flows")
class LogProb(_ModuleLayer):
    """The log-density of a distribution, in nats, as a Keras layer, also created by `flow.log_prob(keras.Input([D]))`.

    Args:
      distribution: Any `tfd.Distribution` over one tensor.
      name: Name of the layer.

    Call arguments: events `[N, *event_shape]`, and `conditional_input` `[N, C]` of a conditional flow. Returns `[N]`.

    Raises:
      ValueError: If `distribution` is not one. On saving: if it cannot be described, such as a function.

    Example:
      >>> inputs = keras.Input([2])
      >>> outputs = tff.layers.LogProb(tff.maf(2, num_layers=1, seed=1))(inputs)
      >>> model = keras.Model(inputs, outputs)
      >>> model.compile(optimizer="adam", loss=lambda _, log_prob: -log_prob)
      >>> len(model.trainable_weights), model.predict(tf.zeros([5, 2]), verbose=0).shape
      (6, (5,))
    """

    def __init__(self, distribution: tfd.Distribution, *, name: str | None = None):
        _check_distribution(distribution)
        super().__init__(distribution, building_calls(distribution), name=name)

    def _values(self, x, **condition):
        return self.module.log_prob(x, **condition)


@keras.saving.register_keras_serializable(package="tfp_flows")
class Sample(_ModuleLayer):
    """One sample of a distribution for each row of the input, as a Keras layer. Each call draws new samples.

    Args:
      distribution: Any `tfd.Distribution` over one tensor.
      seed: Integer seed.
      name: Name of the layer.

    Call arguments: conditions `[N, C]` of a conditional flow; else any tensor of N rows. Returns `[N, *event_shape]`.

    Example:
      >>> layer = tff.layers.Sample(tff.real_nvp(2, num_layers=2, conditional_size=3, seed=1), seed=1)
      >>> layer(tf.zeros([5, 3])).shape
      TensorShape([5, 2])
    """

    def __init__(self, distribution: tfd.Distribution, *, seed: int | None = None, name: str | None = None):
        _check_distribution(distribution)
        condition = dummy_condition(distribution)
        super().__init__(distribution, [lambda: distribution.sample(1, **condition)], name=name)
        self._seed = resolve_seed(seed)
        self._generator = keras.random.SeedGenerator(self._seed % 2**31)

    def call(self, rows):
        seed = tf.bitcast(tf.cast(self._generator.next(), tf.uint32), tf.int32)
        conditional = getattr(self.module, "conditional_size", None) is not None
        condition = {"conditional_input": rows} if conditional else {}
        samples = self.module.sample(tf.shape(rows)[0], seed=seed, **condition)
        return self._with_penalties(tf.ensure_shape(samples, [rows.shape[0], *self.module.event_shape]))

    def get_config(self) -> dict:
        return {**super().get_config(), "seed": self._seed}


class _BijectorLayer(_ModuleLayer):
    _direction: str  # of the bijector

    def __init__(
        self, bijector: tfb.Bijector, *, log_det: bool = False, event_size: int | None = None, name: str | None = None
    ):
        if not isinstance(bijector, tfb.Bijector):
            raise ValueError(f"`bijector` must be a tfb.Bijector, got {bijector!r}.")
        self._log_det, self._event_size = bool(log_det), event_size
        dtype = bijector.dtype or tf.float32
        calls = [] if event_size is None else [lambda: self._values(tf.zeros([1, event_size], dtype))]
        super().__init__(bijector, calls, name=name)

    def _values(self, x, **condition):
        both = forward_and_log_det if self._direction == "forward" else inverse_and_log_det
        event_ndims = max(getattr(self.module, f"{self._direction}_min_event_ndims"), x.shape.rank - 1)
        values, log_det = both(self.module, x, event_ndims, **condition)
        log_det += tf.zeros(tf.shape(values)[:1], values.dtype)  # one for each row
        return (values, log_det) if self._log_det else values

    def get_config(self) -> dict:
        return {**super().get_config(), "log_det": self._log_det, "event_size": self._event_size}


@keras.saving.register_keras_serializable(package="tfp_flows")
class Forward(_BijectorLayer):
    """The forward map of a bijector, from latent values to data, as a Keras layer.

    Args:
      bijector: Any bijector.
      log_det: Whether to return the log-det `[N]`, in nats, after the events.
      event_size: Size of the events, for bijectors that build their networks at the first call.
      name: Name of the layer.

    Call arguments: events `[N, *event_shape]`, and `conditional_input` of a conditional layer.

    Example:
      >>> layer = tff.layers.Forward(tff.PlanarFlow(2, seed=1), log_det=True)
      >>> y, log_det = layer(tf.zeros([5, 2]))
      >>> y.shape, log_det.shape, len(layer.trainable_weights)
      (TensorShape([5, 2]), TensorShape([5]), 3)
    """

    _direction = "forward"


@keras.saving.register_keras_serializable(package="tfp_flows")
class Inverse(_BijectorLayer):
    """The inverse map of a bijector, from data to latent values, as a Keras layer.

    Args:
      bijector: Any bijector.
      log_det: Whether to return the log-det `[N]`, in nats, after the latent values.
      event_size: Size of the events, for bijectors that build their networks at the first call.
      name: Name of the layer.

    Call arguments: events `[N, *event_shape]`, and `conditional_input` of a conditional layer.

    Example:
      >>> tff.layers.Inverse(tff.PlanarFlow(2, seed=1))(tf.zeros([5, 2])).shape
      TensorShape([5, 2])
    """

    _direction = "inverse"


class Model(KnowsStructure, keras.Model):
    """A `keras.Model` that tracks distributions, bijectors and templates in its attributes, also in lists and dictionaries.

    Use it as the base class of your own models. It keeps constraints, penalties and trainable flags.

    Example:
      >>> class Mine(tff.layers.Model):
      ...     def __init__(self):
      ...         super().__init__()
      ...         self.flows = [tff.real_nvp(2, num_layers=2, seed=1), tff.maf(2, num_layers=1, seed=1)]
      ...     def call(self, x):
      ...         return self.flows[0].log_prob(x) + self.flows[1].log_prob(x)
      >>> len(Mine().trainable_weights)
      18
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._held: tuple[str, ...] = ()
        self._networks: list[keras.Layer] = []
        self._adopted: list[keras.Variable] = []
        self._legacy_layers: list[tf.Module] = []

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if "_held" not in self.__dict__ or name in ("_held", "_networks", "_adopted", "_legacy_layers"):
            return
        method = isinstance(value, types.MethodType) and isinstance(value.__self__, tf.Module)
        if not isinstance(value, keras.Layer) and (method or isinstance(value, (tf.Module, list, tuple, dict))):
            self.__dict__["_held"] = (*self._held, name)
            self._look()

    def _look(self) -> None:
        """Track new weights: lists may have grown, and networks may have been built in a call."""
        found = tracking.find(*(getattr(self, name, None) for name in self._held))
        known = {id(w.value) for w in self.variables}
        new = [layer for layer in found.layers if any(id(w.value) not in known for w in layer.variables)]
        variables = [v for v in found.variables if id(v) not in known]
        with _compat_keras.open_to_new_weights(self):
            if new:
                self._networks = [*self._networks, *new]
            if variables:
                self._adopted = [*self._adopted, *tracking.adopt(found, variables)]
        self.__dict__["_legacy_layers"] = list(found.legacy_layers)

    def __call__(self, *args, **kwargs):
        self._look()
        result = super().__call__(*args, **kwargs)
        self._look()
        return result

    def compile(self, *args, **kwargs) -> None:
        self._look()
        super().compile(*args, **kwargs)

    def _modules(self) -> list[tf.Module]:
        held = [value for name in self._held for value in tf.nest.flatten(getattr(self, name, None))]
        return [value for value in held if isinstance(value, tf.Module)]

    @property
    def losses(self):
        return [*super().losses, *(loss for layer in self._legacy_layers for loss in layer.losses)]


LOG_PROB_LAYERS.append(log_prob_layer)
