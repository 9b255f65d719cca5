"""`FlowModel`: maximum likelihood for any TFP distribution, as a Keras 3 model."""

from __future__ import annotations

import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.bijectors import ActNorm, BatchNormalization, Standardize, Support
from tfp_flows.bijectors.adapting import adapt_layers, adapt_layers_by_all, waits_for_data
from tfp_flows.checks import positive_int
from tfp_flows.data.arrays import column_names, to_array
from tfp_flows.data.frames import check_columns, check_names, frame_layout, is_array, is_frame, to_frame
from tfp_flows.data.streams.stream import stream_errors
from tfp_flows.networks.broadcasting import check_condition, check_rows
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.compilation import RecurringSizes, own_graph
from tfp_flows.training.dequantization import UniformDequantization
from tfp_flows.training.distribution_checks import (
    bijector_of,
    check_distribution,
    check_support,
    prepare_conditions,
    warn_of_shared_networks,
)
from tfp_flows.training.first_fit import adapt_base, adapt_support
from tfp_flows.training.inputs import Inputs, first_of_pairs_checked
from tfp_flows.training.resuming import step_seed
from tfp_flows.training.sampling import conditions_of_samples, sample_sizes, stateless_seed
from tfp_flows.training.savable import SavableModel
from tfp_flows.training.validation import farthest_value
from tfp_flows.training.variables import variables_of

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_flows")
class FlowModel(SavableModel):
    """A Keras 3 model that trains a distribution by maximum likelihood.

    `model(x)` is the log-density `[N]`, in nats, of events `[N, *event_shape]`. `fit(x)` minimizes the mean negative
    log-likelihood (NLL), the mean of `-model(x)`. All Keras callbacks and optimizers work, except for the option
    `gradient_accumulation_steps` of an optimizer. It trains all trainable variables of the distribution. These include
    the weights of Keras networks inside bijectors: in attributes, in lists, and inside functions.

    Differences from a bare `keras.Model`:

    - `fit(x)` learns p(x), and `validation_data=x_val` may be a bare array. `predict(x)` returns log-densities.
    - `compile` takes no `loss`, and no metrics that compare predictions with `y`.
    - A conditional flow (`conditional_size=...`) learns p(y | x) by `fit(x, y)`: conditions first, events second.
      `evaluate(x, y)` and `predict(x, y=y)` take the same order. `log_prob` and `sample`, of the flow and of the model,
      take conditions as a keyword: `log_prob(y, conditional_input=x)` and `sample(len(x), conditional_input=x)`.
    - The first `fit` initializes `tff.ActNorm` and `tff.BatchNormalization` with its first batch. If `fit` reads a
      generator, call `adapt` before, with an array or a dataset.
    - `evaluate(x)` and `val_loss` are the mean NLL alone; the training loss adds the networks' regularization losses.
    - After `fit` with a `pandas.DataFrame`, `columns` are its column names. Frames with other columns, or in another
      order, are then errors, and `sample(n)` returns a frame with its labels and dtypes. `fit` with an array forgets them.

    Args:
      distribution: One `tfd.Distribution` (batch shape `[]`) over one tensor of real numbers, such as `tff.maf(2)`. It must
        have trainable variables. `distribution.trainable_variables` may lack them: the model searches for them itself.
      dequantize: For integer data `0 .. n - 1`, such as images of bytes: the number `n`, or a `UniformDequantization` or
        `VariationalDequantization`. With a number, the model adds uniform noise `u` in [0, 1)
        and trains on `(x + u) / n`, events in [0, 1]. On average over the noise, the loss is an upper bound on the NLL of
        the integers, in nats. `history.history` has `bits_per_dim` too (bits per dimension), and `sample` returns
        integers. `VariationalDequantization` learns the noise, which makes the bound tighter.
      seed: Seed of the noise of `dequantize`.
      name: Name of the model.

    Raises:
      ValueError: If `distribution` is a joint distribution of several tensors or a batch of distributions, or has no trainable
        variable.

    Example:
      >>> model = tff.FlowModel(tff.maf(2, num_layers=2, seed=1))
      >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
      >>> history = model.fit(tff.data.moons().sample(512, seed=1), batch_size=128, epochs=2, verbose=0)
      >>> sorted(history.history)
      ['loss']
      >>> model.sample(5, seed=1).shape
      TensorShape([5, 2])
    """

    def __init__(
        self,
        distribution: tfd.Distribution,
        *,
        dequantize: int | UniformDequantization | None = None,
        seed: int | None = None,
        name: str = "flow_model",
    ):
        check_distribution("distribution", distribution)
        super().__init__(name=name, dtype=tf.as_dtype(distribution.dtype).name)
        self.distribution = distribution
        self._event_dtype = tf.as_dtype(distribution.dtype)
        self.conditional_size = getattr(distribution, "conditional_size", None)
        self.columns: list[str] | None = None  # names of the events' columns, if `fit` took a data frame
        self.condition_columns: list[str] | None = None
        self._layout: dict[str, list] | None = None  # labels and dtypes of that data frame
        self.seed = 0 if dequantize is None and seed is None else resolve_seed(seed)
        if dequantize is not None and not isinstance(dequantize, UniformDequantization):
            dequantize = UniformDequantization(positive_int("dequantize", dequantize, 2))
        self.dequantize = dequantize
        if dequantize is not None:
            self._log_means("bits_per_dim")
        event_shape = tuple(distribution.event_shape.as_list())
        levels = None if dequantize is None else dequantize.levels
        scaled = any(
            isinstance(m, (Standardize, Support, ActNorm, BatchNormalization)) for m in distribution.submodules
        )
        dependent = tuple(j for m in distribution.submodules if isinstance(m, Support) for j in m.dependent)
        options = {"scaled": scaled, "dependent": dependent}
        self._inputs = Inputs(event_shape, self._event_dtype, self.conditional_size, levels, **options)
        self._compiled_log_prob = RecurringSizes(distribution.log_prob, self._gains_by_jit)
        self._compiled_sample = own_graph(self._draw)
        self._adopt(*variables_of(distribution))
        warn_of_shared_networks(distribution)
        if dequantize is not None:
            self._adopt(tracking.find(dequantize))
        self._updated_layers = [m for m in distribution.submodules if isinstance(m, BatchNormalization)]
        self.built = True

    def _condition(self, conditional_input) -> dict:
        return {} if self.conditional_size is None else {"conditional_input": conditional_input}

    def __call__(self, x, conditional_input=None, **kwargs):
        several = isinstance(x, (tuple, list))
        if several and len(x) == 2 and self.conditional_size is not None and conditional_input is None:
            conditional_input, x = x
        elif several and any(map(keras.utils.is_keras_tensor, x)):
            raise ValueError(
                f"A {type(self).__name__} takes events, or (conditions, events) if its distribution is conditional, got "
                f"{len(x)} tensors."
            )
        return super().__call__(x, conditional_input=conditional_input, **kwargs)

    def call(self, x, conditional_input=None, training=None):
        del training  # Keras passes it to the networks through its call context
        # A new tensor bypasses TFP's cache, which would be outdated after an update of the weights.
        return self.distribution.log_prob(tf.identity(x), **self._condition(conditional_input))

    def unpack(self, data):
        """Split a batch `(x, y, weights)` of Keras into events, conditions or `None`, and weights `[N]` or `None`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:  # Keras allows weights [N, 1] of any dtype
            sample_weight = tf.reshape(tf.cast(sample_weight, self._event_dtype), [-1])
        if self.conditional_size is not None:
            if y is None:
                raise ValueError("Batches must hold (conditions, events), since the distribution is conditional.")
            return self._shaped(y, self._inputs.event_shape), self._shaped(x, [self.conditional_size]), sample_weight
        # Weights come with an array without columns in place of `y`, and autoencoders are fitted to (x, x).
        if y is not None and y.shape[-1:] != [0] and y.shape != x.shape:
            raise ValueError(
                f"Batches must hold events alone, or (events, events, weights), since the distribution has no conditions, got "
                f"shapes {x.shape} and {y.shape}."
            )
        return self._shaped(x, self._inputs.event_shape), None, sample_weight

    @staticmethod
    def _shaped(batch, event_shape):
        if tf.is_tensor(batch) and not batch.shape[1:].is_fully_defined():
            batch = tf.ensure_shape(batch, [None, *event_shape])
        return batch

    def _score(self, events, conditions, seed: tf.Tensor, training: bool) -> tf.Tensor:
        """Return the log-density of events, or, with `dequantize`, the bound on their log-probability."""
        if self.dequantize is None:
            return self(events, conditional_input=conditions, training=training)
        events, excess = self.dequantize(events, seed, self._event_dtype)
        return self(events, conditional_input=conditions, training=training) - excess

    def loss_terms(self, batch, seed, training):
        events, conditions, weight = self.unpack(batch)
        log_prob = self._score(events, conditions, seed, training)
        terms = {"loss": -log_prob}
        if weight is not None:
            terms["weight"] = weight
        if self.dequantize is not None:
            terms["bits_per_dim"] = -log_prob / (np.log(2.0) * np.prod(self._inputs.event_shape))
        return terms

    def after_step(self):
        for layer in self._updated_layers:
            layer.update()

    def predict_step(self, data):
        events, conditions, _ = self.unpack(data)
        # The sum of a batch is its step number, so equal batches get equal noise.
        step = 0 if self.dequantize is None else tf.reduce_sum(tf.cast(events, tf.int32))
        return self._score(events, conditions, step_seed(self.seed + 2, step), training=False)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """Maximize the mean log-likelihood of `x`, or, for a conditional distribution, of `y` given `x`.

        Args:
          x: Array or data frame of events `[N, *event_shape]`, or of conditions `[N, C]` if the distribution is
            conditional. Also a `tf.data.Dataset` or a `tff.streams.Stream` of batches, `events` or `(conditions, events)`,
            or a generator of tuples, `(events,)` or `(conditions, events)`.
          y: Array of events, for a conditional distribution only.
          batch_size: Rows in a step; 32 if `None`.
          epochs, verbose, callbacks, kwargs: Options of `keras.Model.fit`. `validation_data` is an array, a tuple
            `(x, y)` or a dataset. `class_weight` works only if `x` holds classes: one-hot rows, or integers `[N, 1]`.

        Returns:
          The Keras `History`; the losses in its `history` are in nats.

        Raises:
          ValueError: For data that cannot be trained on; the message names what is wrong and where.
          FloatingPointError: If the loss, its gradient or the updated weights are not finite. The message gives the epoch and
            the step, and the weights keep their values from before that step.
        """
        if x is None:
            raise ValueError("`x` must be given: an array, or a tf.data.Dataset of batches.")
        names = self._check_columns(x, y, kwargs.get("validation_data"))
        self._inputs.check(x, y)
        if isinstance(x, types.GeneratorType) and self.conditional_size is None:
            x = first_of_pairs_checked(x)
        kwargs = self._inputs.with_class_weight(kwargs, x, y)
        glance = self._inputs.glance(x, y)
        validation = kwargs.get("validation_data")
        data, order, kwargs = self._inputs.for_training(x, y, batch_size, kwargs, self.distribute_strategy, glance)
        self._guard.scaled, self._guard.farthest = self._inputs.scaled, None
        if self.dequantize is None:
            self._guard.farthest = farthest_value(glance.events)
            check_support(glance.name, glance.events, self.distribution)
            check_support("validation_data", self._inputs.validation_events(validation), self.distribution)
        if self.conditional_size is not None:  # after all checks, so that a refused fit changes nothing
            prepare_conditions(self.distribution, glance.conditions, None if self.dequantize else glance.events)
        if self._steps_done() == 0 and self.dequantize is None:
            adapt_support(self.distribution, glance.events)
        self._adapt_layers(data)
        if self._steps_done() == 0 and self.dequantize is None:
            adapt_base(self.distribution, glance.events, self._condition(glance.conditions))
        self._remember_columns(names, *((x, None) if self.conditional_size is None else (y, x)))
        return self._fit(data, callbacks, order, epochs=epochs, verbose=verbose, **kwargs)

    def _check_columns(self, x, y=None, validation=None) -> tuple:
        """Check the column names of data frames. Return those of events and conditions, `None` where they are unknown."""
        if self.conditional_size is None:
            return check_columns(self.columns, "", x=x, validation_data=validation), None
        columns = check_columns(self.columns, "[1]", y=y, validation_data=validation)
        return columns, check_columns(self.condition_columns, "[0]", x=x, validation_data=validation)

    def _remember_columns(self, names: tuple, events, conditions=None) -> None:
        """Keep the names and the layout of data frames. Arrays have none, and datasets keep what was known."""
        self.columns, self.condition_columns = (
            None if is_array(rows) else known for rows, known in zip((events, conditions), names, strict=True)
        )
        self._layout = frame_layout(events) if is_frame(events) else self._layout if self.columns else None

    def get_config(self) -> dict:
        return {**super().get_config(), "columns": [self.columns, self.condition_columns, self._layout]}

    @classmethod
    def from_config(cls, config: dict) -> FlowModel:
        model = super().from_config(config)
        columns = [*config.get("columns", (None, None)), None]  # older files have no layout
        model.columns, model.condition_columns, model._layout = columns[:3]
        return model

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs):
        """Return the mean NLL, in nats, of `x`, or of `y` given `x`, weighted by `sample_weight`."""
        self._check_columns(x, y)
        data = self._inputs.dataset(x, y, batch_size, sample_weight)
        return super().evaluate(data, verbose=verbose, **kwargs)

    def predict(self, x, batch_size=None, verbose="auto", *, y=None, **kwargs):
        """Return the log-density, in nats, of each row of `x`, or of `y` given `x`.

        With `dequantize`, return an estimate of a lower bound on the log-probability of the integers.
        """
        self._check_columns(x, y)
        return super().predict(self._inputs.dataset(x, y, batch_size), verbose=verbose, **kwargs)

    def adapt(self, x, y=None, batch_size: int | None = 8192) -> None:
        """Initialize data-dependent layers (`ActNorm`, `BatchNormalization`) with all of `x`, not only with the first
        batch of `fit`.

        Initialized layers stay as they are. Cost: a pass over the data per uninitialized layer.

        Args:
          x: Events, or conditions if the distribution is conditional: an array, a stream, or a `tf.data.Dataset` of batches.
          y: Array of events, for a conditional distribution only.
          batch_size: Rows in a batch.

        Raises:
          ValueError: For data that cannot be trained on, or of fewer than two rows.
        """
        bijector = bijector_of(self.distribution)
        if bijector is None:
            return
        self._check_columns(x, y)
        data = self._inputs.dataset(x, y, batch_size)
        if hasattr(data, "__next__"):
            raise ValueError("`x` must be read once for each layer: an array, a stream or a dataset, and no generator.")
        with stream_errors():
            adapt_layers_by_all(bijector, lambda: map(self._for_bijector, data), len(self._inputs.event_shape))

    def _adapt_layers(self, data) -> None:
        """Initialize data-dependent layers with the first batch, but not from a generator, which would lose it."""
        bijector = bijector_of(self.distribution)
        if bijector is None or self._steps_done() > 0 or not waits_for_data(bijector):
            return
        if isinstance(data, (tf.data.Dataset, tf.distribute.DistributedDataset)):
            first = next(iter(data))
            parts = self.distribute_strategy.experimental_local_results
            first = tf.nest.map_structure(lambda v: tf.concat(parts(v), axis=0), first)
        elif isinstance(data, keras.utils.PyDataset):
            first = data[0]
        else:
            return
        events, kwargs = self._for_bijector(first)
        adapt_layers(bijector, events, len(self._inputs.event_shape), **kwargs)

    def _for_bijector(self, batch) -> tuple[tf.Tensor, dict]:
        """Return the events of a batch, dequantized and cast, and the bijector's keywords for its conditions."""
        events, conditions, _ = self.unpack(batch)
        if self.dequantize is not None:
            events, _ = self.dequantize(events, step_seed(self.seed, 0), self._event_dtype)
        kwargs = {} if self.conditional_size is None else self.distribution.bijector_kwargs(conditions)
        return tf.cast(events, self._event_dtype), kwargs

    def log_prob(self, x, conditional_input=None) -> tf.Tensor:
        """Return the log-density, in nats, of `x` with shape `[..., *event_shape]`. Compiled at the first call.

        `conditional_input` holds the conditions `[..., C]` of a conditional flow. With `dequantize`, `log_prob` expects scaled
        values in [0, 1]. For integers, use `predict`.
        """
        names = column_names(x)
        try:
            x = tf.convert_to_tensor(x if tf.is_tensor(x) else to_array("x", x), dtype=self._event_dtype)
        except (ValueError, TypeError) as error:
            raise ValueError(f"`x` must be an array of {self._event_dtype.name}: {error}") from error
        given = self._checked_condition(conditional_input)
        if names is not None and self.columns is not None:
            check_names("x", names, self.columns)
        event_shape = self.distribution.event_shape
        if event_shape.rank is None:
            return self._compiled_log_prob(x, **self._condition(given))
        split = x.shape.rank - event_shape.rank
        if split < 0 or not x.shape[split:].is_compatible_with(event_shape):
            expected = ", ".join(["...", *map(str, event_shape)])
            raise ValueError(f"`x` must have shape [{expected}], got {x.shape}.")
        batch, sizes = x.shape[:split], x.shape[split:]
        if given is not None:
            check_rows(given, batch)
            batch = tf.broadcast_static_shape(batch, given.shape[:-1])
            x = tf.broadcast_to(x, [*batch, *sizes])
            if given.shape[:-1].num_elements() > 1:
                given = tf.broadcast_to(given, [*batch, given.shape[-1]])
            given = tf.reshape(given, [-1, given.shape[-1]])
        # A single batch axis needs only one trace for all batch shapes.
        log_prob = self._compiled_log_prob(tf.reshape(x, [-1, *sizes]), **self._condition(given))
        return log_prob if len(batch) == 1 else tf.reshape(log_prob, batch)

    def _checked_condition(self, conditional_input) -> tf.Tensor | None:
        check_condition(conditional_input, self.conditional_size)
        if conditional_input is None:
            return None
        if self.condition_columns is not None and (names := column_names(conditional_input)) is not None:
            check_names("conditional_input", names, self.condition_columns)
        return tf.cast(to_array("conditional_input", conditional_input, mixed=True), self._event_dtype)

    def sample(self, sample_shape: int | tuple[int, ...] = (), seed: int | None = None, conditional_input=None) -> Any:
        """Return samples of shape `[*sample_shape, *event_shape]`, the same for the same `seed`. Compiled at the first call.

        After `fit` with a data frame, an integer `sample_shape` gives a data frame with its labels and dtypes. Samples are
        computed in the dtype of the model and then cast. Sample shapes of another rank than 1 give tensors, as do models
        that were last fitted to an array.

        Without a seed, samples depend on TensorFlow's global seed, which `keras.utils.set_random_seed` sets. For one
        sample per condition, with conditions `[N, C]`, pass `sample_shape=N`. For S samples of each, pass `(S, N)`.

        Raises:
          ValueError: If `sample_shape` is not a non-negative integer, or a tuple of them.
        """
        sizes, seed = sample_sizes(sample_shape), stateless_seed(seed)
        given = self._checked_condition(conditional_input)
        if given is not None:
            given = conditions_of_samples(given, sizes)
        samples = self._compiled_sample(tf.constant(int(np.prod(sizes)), tf.int32), seed, **self._condition(given))
        if self.columns is not None and len(sizes) == 1:
            return to_frame(samples.numpy(), self._layout, self.columns)
        return samples if len(sizes) == 1 else tf.reshape(samples, [*sizes, *samples.shape[1:]])

    def _draw(self, n, seed, conditional_input=None) -> tf.Tensor:
        """Return `n` samples from a seed of two integers, for the graphs of `sample` and `export`."""
        samples = self.distribution.sample(n, seed=seed, **self._condition(conditional_input))
        if self.dequantize is not None:
            levels = self.dequantize.levels
            samples = tf.clip_by_value(tf.floor(samples * levels), 0, levels - 1)
            samples = tf.cast(samples, tf.uint8 if levels <= 256 else tf.int32)
        return samples
