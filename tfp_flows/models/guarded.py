"""What all models here share: compilation by XLA where it works, and training that stops at a loss that is not finite."""

from __future__ import annotations

import contextlib
import functools
import math
import pathlib
import warnings
import zlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import tracking
from tfp_flows.models.files import check_weights_file, written_whole
from tfp_flows.models.graphs import traced
from tfp_flows.models.guard import NonFiniteGuard, StopAtNonFinite
from tfp_flows.models.order import Order
from tfp_flows.models.progress import Progress, Resume
from tfp_flows.models.workers import workers
from tfp_flows.streams.stream import stream_errors

# Steps that one call from Python may run: what Keras does around a step takes about as long as a step of a small flow.
MOST_STEPS_PER_EXECUTION = 16
# Steps from which on compiling pays, which takes seconds, and memory that XLA keeps until the process ends.
LEAST_STEPS_TO_COMPILE = 1000
_BATCH_HOOKS = tuple(f"on_{kind}batch_{end}" for kind in ("", "train_", "test_") for end in ("begin", "end"))


def _looks_at_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback is called at every batch, so that each must be a call of its own."""
    kind = type(callback)
    saves = kind in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore) or getattr(
        kind, "only_saves", False
    )
    if saves and callback.save_freq == "epoch":
        return False  # nothing to do at a batch
    return any(
        name in vars(callback) or getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)
        for name in _BATCH_HOOKS
    )


def mean_of_rows(values: tf.Tensor) -> tf.Tensor:
    """The mean, or zero of no rows: a replica may get nothing of a last batch."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype))


def _refuse_class_weight(options: dict) -> None:
    """Keras would take the events for labels."""
    if options.pop("class_weight", None) is not None:
        raise ValueError(
            "`class_weight` must be left out, since events are no classes: use `sample_weight`, one for each row."
        )


class _Step:
    """A step that is traced once, whatever `steps_per_execution` is, and compiled by XLA for full batches only.

    XLA compiles anew for each shape, and the size of an epoch's last batch changes with the number of rows: a batch that is
    smaller than the largest so far goes through the same graph without XLA.

    The graph is traced outside of XLA's context. Inside, `tf.vectorized_map` (of TFP's `...AutoBatched` distributions) is
    a function of its own, and its gradient another, which takes shapes from the first. XLA does not look into a function
    for where an output comes from: it would take all inputs of the first one, and so every weight, for constants, and
    compile anew at each step.
    """

    def __init__(self, step: Callable):
        self._traced = tf.function(functools.partial(step), reduce_retracing=True, autograph=False)
        self._compiled: dict[int, tuple] = {}
        self.largest = tf.Variable(0, trainable=False, dtype=tf.int32)

    def __call__(self, data, jit_compile: bool):
        """The logs of a step, from inside of the function that Keras makes."""
        as_it_is = traced(self._traced, data)
        flat = [t for t in tf.nest.flatten(data) if t is not None]
        if not jit_compile:
            return as_it_is(*flat)
        if id(as_it_is) not in self._compiled:
            compiled = tf.function(lambda *tensors: as_it_is(*tensors), jit_compile=True, autograph=False)
            self._compiled[id(as_it_is)] = (compiled, as_it_is)
        compiled, _ = self._compiled[id(as_it_is)]
        rows = tf.shape(flat[0])[0]
        full = rows >= self.largest
        self.largest.assign(tf.maximum(self.largest, rows))
        return tf.cond(full, lambda: compiled(*flat), lambda: as_it_is(*flat))


class GuardedModel(keras.Model):
    """A Keras model with a loss of its own, whose weights are never updated from a loss that is not finite.

    Subclasses find their variables with `_adopt`, define `_training_step` with `_update`, and
    `_evaluation_step`, and train by `_fit`.
    """

    def __init__(self, *, name: str, dtype: str):
        super().__init__(name=name, dtype=dtype)
        self._networks: list[keras.Layer] = []
        self._legacy_layers: list[tf.Module] = []
        self._frozen_by_layers: frozenset[int] = frozenset()  # ids of the variables that their own layers had frozen
        self._adopted: list[keras.Variable] = []
        self._guard = NonFiniteGuard()
        self._jit_is_optional = False
        self._chooses_steps_per_execution = False
        self._functions: dict[int, tuple] = {}
        self._steps: dict[str, _Step] = {}
        self._compiling_pays = True
        self._progress: Progress | None = None
        self._refused: ValueError | None = None  # by `load_own_variables`, since Keras may only warn of it

    def _adopt(self, found: tracking.Found, variables: list[tf.Variable] | None = None) -> None:
        """Makes networks and variables that were found those of this model."""
        self._networks = [*self._networks, *found.layers]
        self._legacy_layers = [*self._legacy_layers, *found.legacy_layers]
        self._adopted = [*self._adopted, *tracking.adopt(found, variables)]
        self._frozen_by_layers |= found.frozen

    def _follow_legacy_layers(self) -> None:
        """Freezes what the user has frozen in a Keras 2 layer since, and the reverse; Keras 3 layers are followed by Keras."""
        frozen = tracking.find(*self._legacy_layers).frozen
        legacy = {id(w) for layer in self._legacy_layers for w in layer.weights}
        for weight in self._adopted:
            key = id(weight.value)
            if key in legacy and (key in frozen) != (key in self._frozen_by_layers):
                weight.trainable = weight.value.trainable and key not in frozen
        self._frozen_by_layers = (self._frozen_by_layers - legacy) | frozen

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        *,
        jit_compile="auto",
        run_eagerly=False,
        steps_per_execution: int | str = "auto",
        **kwargs,
    ):
        """As `keras.Model.compile`, without a loss: the model has its own.

        Args:
          optimizer: Any Keras optimizer, or its name.
          loss: Must be left out.
          jit_compile: `"auto"` compiles the training step by XLA, on CPUs too, and goes on without it, with a warning, for
            a model that XLA cannot compile. What takes long to compile and gains little goes without: convolutions on a CPU,
            and layers that say so (`gains_by_jit = False`); and so do fits of few steps.
            `True` insists; `False` does without (a shorter first step).
          steps_per_execution: Training steps in one call from Python, which about halves the time of a small flow's. `"auto"`:
            up to 16, and one where a callback looks at batches.
          run_eagerly, kwargs: As in `keras.Model.compile`.
        """
        for key, value in (("loss", loss), ("loss_weights", kwargs.pop("loss_weights", None))):
            if value is not None:
                raise ValueError(
                    f"`{key}` must be left out, since a {type(self).__name__} has its own loss: write "
                    'model.compile(optimizer="adam") and then model.fit(x).'
                )
        for key in ("metrics", "weighted_metrics"):
            for metric in tf.nest.flatten(kwargs.get(key) or []):
                if not isinstance(metric, keras.metrics.Metric):
                    raise ValueError(
                        f"`{key}` must hold keras.metrics.Metric objects, got {metric!r}: those that Keras makes from names "
                        "compare labels with predictions, and a density has no labels."
                    )
        self._follow_legacy_layers()
        self._jit_is_optional = jit_compile == "auto"
        if jit_compile == "auto":
            jit_compile = (
                not run_eagerly
                and all(layer.supports_jit for layer in self._networks)
                and self._gains_by_jit()
                and self.distribute_strategy.num_replicas_in_sync
                == 1  # XLA cannot compile what replicas tell each other
            )
        self._chooses_steps_per_execution = steps_per_execution == "auto"
        self._functions, self._steps = {}, {}
        optimizer = self._checked_optimizer(optimizer)
        if getattr(optimizer, "gradient_accumulation_steps", None):
            raise ValueError(
                "`optimizer` accumulates gradients (gradient_accumulation_steps), which is not supported: take a larger "
                "batch_size."
            )
        half = any(layer.dtype_policy.name == "mixed_float16" for layer in self._networks)
        if half and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # As Keras does for a model of that policy: small gradients would be zero in half precision.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(
            optimizer=optimizer,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=1 if steps_per_execution == "auto" else steps_per_execution,
            **kwargs,
        )

    @staticmethod
    def _checked_optimizer(optimizer) -> keras.optimizers.Optimizer:
        if type(optimizer).__module__.split(".")[0] == "tf_keras" or hasattr(optimizer, "get_slot_names"):
            raise ValueError(
                f"`optimizer` is an optimizer of Keras 2, {type(optimizer).__name__} of {type(optimizer).__module__}: take "
                f"keras.optimizers.{type(optimizer).__name__}, of Keras 3."
            )
        return keras.optimizers.get(optimizer)

    def _gains_by_jit(self) -> bool:
        """Not where layers say so, nor for convolutions on a CPU: their kernels are the only weights of rank 4 and more."""
        on_cpu = all(device.device_type == "CPU" for device in tf.config.get_visible_devices())
        convolves = on_cpu and any(len(w.shape) >= 4 for w in self.trainable_weights)
        return not convolves and all(
            getattr(m, "gains_by_jit", True) for root in self._modules() for m in root.submodules
        )

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self._jit_is_optional:
            config["jit_compile"] = "auto"
        if config and self._chooses_steps_per_execution:
            config["steps_per_execution"] = "auto"
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        return self._as_logs(self._run("training", self._training_step, data))

    def test_step(self, data):
        return self._as_logs(self._run("evaluation", self._evaluation_step, data))

    def _has_own_steps(self) -> bool:
        """Not under a strategy, whose replicas cannot speak to each other from a function inside of a step."""
        distributed = tf.distribute.has_strategy() or self.distribute_strategy is not tf.distribute.get_strategy()
        return not self.run_eagerly and not distributed

    def _run(self, kind: str, step: Callable, data) -> dict:
        """A step by its own function, which stays when Keras makes its functions anew."""

        def after_data(data):
            # Where data have come to their end, what does not wait for them would be done once more: the count of steps.
            with tf.control_dependencies([t for t in tf.nest.flatten(data) if tf.is_tensor(t)]):
                return step(data)

        if not self._has_own_steps() or tf.executing_eagerly():
            return after_data(data)
        if kind not in self._steps:
            with tf.init_scope():
                self._steps[kind] = _Step(after_data)
        return self._steps[kind](data, self.jit_compile and self._compiling_pays)

    def make_train_function(self, force=False):
        if force:
            self._steps.pop("training", None)
        with self._keras_compiles_nothing():
            return super().make_train_function(force)

    def make_test_function(self, force=False):
        if force:
            self._steps.pop("evaluation", None)
        with self._keras_compiles_nothing():
            return super().make_test_function(force)

    @contextlib.contextmanager
    def _keras_compiles_nothing(self):
        """Keras would compile a step anew for each setting of `steps_per_execution` and each size of the last batch."""
        before = self.jit_compile
        self.jit_compile = before and not self._has_own_steps()
        try:
            yield
        finally:
            self.jit_compile = before

    def _as_logs(self, logs: dict) -> dict:
        """As Keras can reduce them: over several workers it sums along an axis, which a scalar has not."""
        if not workers(self.distribute_strategy):
            return logs
        return {key: tf.reshape(value, [1]) for key, value in logs.items()}

    def _penalty(self, dtype: tf.DType) -> tf.Tensor:
        """The networks' own losses, such as regularization: those of Keras 3, which this model tracks, and of Keras 2."""
        losses = [*self.losses, *(loss for layer in self._legacy_layers for loss in layer.losses)]
        return sum((tf.cast(loss, dtype) for loss in losses), tf.zeros([], dtype))

    def _update(self, tape: tf.GradientTape, loss: tf.Tensor, rows: tf.Tensor | None = None) -> None:
        """One step of the optimizer, or none if the loss or its gradient is not finite.

        `rows` is how many rows of a batch `loss` is the mean of; replicas may have different numbers.
        """
        weights = self.trainable_weights
        # Replicas add their gradients up, so each gives its share.
        share = tf.ones_like(loss)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1 and rows is not None:
            rows = tf.cast(rows, loss.dtype)
            share = rows / tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, rows)
        elif replicas > 1:
            share /= replicas
        scale = self.optimizer.scale_loss(share)
        self._guard.apply(self.optimizer, tape.gradient(loss, weights, output_gradients=scale), weights, loss)

    def _snapshot(self) -> list[tuple]:
        """The weights that are not trained, such as moving statistics, as they are at the beginning of a step."""
        return [(w, tf.identity(w.value)) for w in self.non_trainable_weights]

    def _restore(self, before: list[tuple]) -> None:
        """Takes them back after a step whose loss was not finite, and after those that follow it."""
        for weight, old in before:
            weight.assign(tf.where(self._guard.failed, old, weight.value))

    def _fit(self, data, callbacks, order: Order | None = None, **options) -> keras.callbacks.History:
        """`keras.Model.fit` with the guard, XLA if it works, and several steps in one call where nobody looks."""
        _refuse_class_weight(options)
        if not self.trainable_weights:
            raise ValueError(
                f"Nothing of {self.name} is trainable: every layer, or the model, has trainable=False. Set it to True, and call "
                "`compile` again."
            )
        self._progress = Progress(self, order)
        last = [Resume(self._progress), StopAtNonFinite(self._guard)]
        self._forget_sizes()
        if isinstance(callbacks, keras.callbacks.CallbackList):
            given = list(callbacks.callbacks)
            callbacks.callbacks[:] = [self._progress, *given, *last]
        else:
            given = [] if callbacks is None else list(tf.nest.flatten(callbacks))
            callbacks = [self._progress, *given, *last]
        limits = [options.get(key) for key in ("steps_per_epoch", "validation_steps")]
        steps = self._steps_per_execution_for(data, given, limits)
        self._build_optimizer()
        self._decide_to_compile(data, options)
        try:
            with stream_errors(), self._executing(steps), warnings.catch_warnings():
                try:
                    return super().fit(data, callbacks=callbacks, **options)
                except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError) as error:
                    # Not a step was made, so the compiler is the likely cause.
                    if not (self.jit_compile and self._jit_is_optional and int(self._guard.steps.numpy()) == 0):
                        raise
                    warnings.warn(
                        f"XLA cannot compile this model, so it trains without: {str(error)[:300]}", stacklevel=3
                    )
                    self.jit_compile = False
                    self._functions = {}
                    self.train_function = self.test_function = self.predict_function = None  # Keras makes them anew
                    return super().fit(data, callbacks=callbacks, **options)
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            if not workers(self.distribute_strategy):
                raise
            raise RuntimeError(
                "Another worker died, or cannot be reached, so this one stopped too. Its weights are those of its last step. "
                "Start all workers again; with tff.callbacks.BackupAndRestore they go on at the last backup. "
                f"TensorFlow said: {str(error)[:300]}"
            ) from error
        finally:
            self._progress = None
            self._initial_epoch = None  # Keras would begin its next `fit` there too

    def _decide_to_compile(self, data, options: dict) -> None:
        """Without XLA while this model's steps, with those asked for now, are too few for it to pay."""
        batches = int(data.cardinality()) if isinstance(data, tf.data.Dataset) else 0
        asked = (options.get("steps_per_epoch") or batches) * options.get("epochs", 1)
        few = 0 < asked and self._steps_done() + asked < LEAST_STEPS_TO_COMPILE
        before, self._compiling_pays = self._compiling_pays, not (self._jit_is_optional and few)
        if self._compiling_pays != before:  # Keras makes its functions anew; the steps stay as they were traced
            self._functions = {}
            self.train_function = self.test_function = self.predict_function = None

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Nothing: the model is built. Under a strategy Keras adds the replicas' parts of a batch, of sizes that may differ."""

    def _build_optimizer(self) -> None:
        """Makes the optimizer's variables: inside of the training step they would have it traced twice."""
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)

    def _steps_per_execution_for(self, data, callbacks, limits: list[int | None]) -> int:
        distributed = tf.distribute.has_strategy() or self.distribute_strategy is not tf.distribute.get_strategy()
        looked_at = any(map(_looks_at_batches, callbacks))
        if not isinstance(data, tf.data.Dataset) or self.run_eagerly or distributed or looked_at:
            return 1
        # Keras would run over the end of an epoch that is not a multiple.
        limit = math.gcd(*[n for n in limits if n])  # 0 if there is none
        if limit:
            return max(n for n in range(1, MOST_STEPS_PER_EXECUTION + 1) if limit % n == 0)
        batches = int(data.cardinality())
        if batches < 1:  # unknown
            return MOST_STEPS_PER_EXECUTION
        # The data's end ends the last call as well, but the progress bar counts it in full.
        most = min(MOST_STEPS_PER_EXECUTION, batches)
        return min(range(most, most // 2, -1), key=lambda n: -batches % n)

    @contextlib.contextmanager
    def _executing(self, steps: int):
        """A setting of `steps_per_execution` for a while, with the functions that Keras traces for it.

        Outside of `fit` it is 1: `predict` would unroll its steps, and `evaluate(steps=...)` run over.
        """
        if not self._chooses_steps_per_execution:
            yield
            return
        before = self.steps_per_execution
        self._switch(steps)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, steps: int) -> None:
        if steps == self.steps_per_execution:
            return
        self._functions[self.steps_per_execution] = (self.train_function, self.test_function, self.predict_function)
        self.steps_per_execution = steps
        found = self._functions.get(steps, (None, None, None))
        self.train_function, self.test_function, self.predict_function = found

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`."""
        if kwargs.get("_use_cached_eval_dataset"):  # the validation in `fit`, whose batches are counted by its setting
            return super().evaluate(*args, **kwargs)
        self._forget_sizes()
        with stream_errors(), self._executing(1):
            return super().evaluate(*args, **kwargs)

    def _forget_sizes(self) -> None:
        """Other data may come in smaller batches, which are full as well."""
        for step in self._steps.values():
            step.largest.assign(0)

    def predict(self, *args, **kwargs):
        """As `keras.Model.predict`."""
        with stream_errors(), self._executing(1):
            return super().predict(*args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        """As `keras.Model.train_on_batch`; a loss that is not finite raises a `FloatingPointError` here as well."""
        _refuse_class_weight({"class_weight": class_weight})
        self._guard.reset()
        self._build_optimizer()
        logs = super().train_on_batch(x, y, sample_weight, **kwargs)
        if self._guard.failed.numpy():
            raise FloatingPointError(f"The loss or its gradient was not finite (loss {self._guard.loss.numpy()}).")
        return logs

    def save(self, filepath, overwrite: bool = True, **kwargs) -> None:
        """As `keras.Model.save`. The file appears whole or not at all; an old one stays until the new one is whole."""
        path = pathlib.Path(filepath)
        if path.suffix != ".keras":
            raise ValueError(f"`filepath` must end in .keras, got {str(filepath)!r}.")
        if path.exists() and not overwrite:
            raise ValueError(f"`filepath` exists: {path}. Pass overwrite=True to replace it.")
        self.get_config()
        self._build_optimizer()  # the file has its variables, and who loads it makes them
        with written_whole(path) as part:
            super().save(part, **kwargs)
            self._check_file(part)

    def _check_file(self, path: str) -> None:
        """Raises a `ValueError` unless the file at `path` gives this model back; for models that can be saved."""

    def save_weights(self, filepath, overwrite: bool = True, max_shard_size=None) -> None:
        """As `keras.Model.save_weights`. A file appears whole or not at all, unless there are several."""
        if max_shard_size is not None or not overwrite or not str(filepath).endswith(".weights.h5"):
            super().save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
        else:
            with written_whole(filepath) as part:
                super().save_weights(part)
                check_weights_file(part, self.weights)

    def load_weights(self, filepath, skip_mismatch: bool = False, **kwargs) -> None:
        """Like `keras.Model.load_weights`. Where the file does not fit, all weights stay as they are.

        Raises:
          ValueError: If the file does not fit, or belongs to a flow with other permutations or orders.
        """
        optimizer = getattr(self, "optimizer", None)
        before = [(w, w.numpy()) for w in (*self.weights, *(() if optimizer is None else optimizer.variables))]
        self._refused = None
        try:
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
            if self._refused is not None:  # Keras collects errors, and may only warn of them
                raise self._refused
        except Exception:
            for weight, value in before:
                weight.assign(value)
            if self._refused is not None:
                raise self._refused from None
            raise

    def save_own_variables(self, store) -> None:
        """The variables, a number for the structure that they belong to, and in `fit` the training progress."""
        super().save_own_variables(store)
        store["drawn"] = np.int64(self._drawn())
        if self._progress is not None:
            store["progress"] = self._progress.state
            for i, state in enumerate(self.generators):
                store[f"generator_{i}"] = state

    def load_own_variables(self, store) -> None:
        """The variables; in `fit`, the training progress of the model that wrote the file as well.

        Raises:
          ValueError: If the file belongs to a flow with other permutations or orders. No weight has been changed by then.
        """
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118 (a group of a file is no mapping)
        state, drawn = own.pop("progress", None), own.pop("drawn", None)
        if drawn is not None and int(np.asarray(drawn)) != self._drawn():
            self._refused = ValueError(
                "The weights belong to a flow whose permutations or orders of variables differ from those of this one, so they "
                "would mean something else here. Make both flows with the same `seed`."
            )
            raise self._refused
        generators = {key: own.pop(key) for key in list(own) if key.startswith("generator_")}
        super().load_own_variables(own)
        if state is not None and self._progress is not None:
            self._progress.note(state)
            for i, generator in enumerate(self.generators):
                generator.assign(generators[f"generator_{i}"])

    def _drawn(self) -> int:
        """A number for what was drawn when the flow was made, and is no weight: permutations, and orders of networks."""
        modules = [m for root in self._modules() for m in (root, *root.submodules)]
        number = 0
        for part in [*modules, *self._networks]:
            for key in ("_permutation", "permutation", "degrees"):
                for value in tf.nest.flatten(getattr(part, key, None)):
                    if value is not None:
                        number = zlib.crc32(np.asarray(value, np.int64).tobytes(), number)
        return number

    def _modules(self) -> list[tf.Module]:
        """What the model is made of, besides Keras layers."""
        return [root for root in vars(self).values() if isinstance(root, tf.Module)]

    @property
    def generators(self) -> list[keras.Variable]:
        """The states of the random generators of layers such as `Dropout`, which Keras keeps in no file."""
        weights = {id(w) for w in self.weights}
        return [v for v in self.variables if id(v) not in weights and v.name == "seed_generator_state"]

    def _loss_metric(self) -> keras.metrics.Mean:
        """Keras' own tracker of the loss."""
        return next(metric for metric in self.metrics if metric.name == "loss")

    def _steps_done(self) -> int:
        optimizer = getattr(self, "optimizer", None)
        return -1 if optimizer is None else int(optimizer.iterations.numpy())
