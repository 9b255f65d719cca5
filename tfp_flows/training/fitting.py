"""Compilation and training of models under Keras."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable

import keras
import tensorflow as tf

from tfp_flows import _compat_keras
from tfp_flows.data.streams.stream import stream_errors
from tfp_flows.training.batch_order import Order
from tfp_flows.training.compilation import Step, steps_per_execution
from tfp_flows.training.nonfinite import NonFiniteGuard, StopAtNonFinite
from tfp_flows.training.resuming import Progress
from tfp_flows.training.weights import KeepsWeights
from tfp_flows.training.workers import workers

# Compiling pays from about 2000 steps for planar and spline flows, and always from here on. XLA keeps the memory of what it
# compiles, up to 300 MB for 32 layers, until the process ends.
LEAST_STEPS_TO_COMPILE = 5000


def _refuse_class_weight(options: dict) -> None:
    """Raise a `ValueError` for `class_weight`, because Keras would use the events as labels."""
    if options.pop("class_weight", None) is not None:
        raise ValueError(
            "`class_weight` must be left out, since events are no classes: use `sample_weight`, one for each row."
        )


class FitsUnderKeras(_compat_keras.NoSymbolicBuild, KeepsWeights):
    """Base class that runs the methods `_training_step(data)` and `_evaluation_step(data)` of a model under Keras."""

    def __init__(self, *, name: str, dtype: str):
        super().__init__(name=name, dtype=dtype)
        self._guard = NonFiniteGuard()
        self._jit_is_optional = False
        self._chooses_steps_per_execution = False
        self._functions: dict[int, tuple] = {}
        self._steps: dict[str, Step] = {}
        self._compiling_pays = False
        self._metrics_of_labels: list[tuple] = []

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
        """Configure the model for training, without a loss: the model has its own.

        Args:
          optimizer: Any Keras optimizer, or its name.
          loss: Must be left out.
          jit_compile: `True` compiles the training step by XLA; `False` does not (a shorter first step). `"auto"`
            compiles, on CPUs too, except for fits under 5000 steps, several replicas, convolutions on a CPU, and
            bijectors with `gains_by_jit = False`. If XLA cannot compile the model, `"auto"` warns and trains without it.
          steps_per_execution: Training steps in one call from Python. More than one roughly halves the time per step of a
            small flow. `"auto"` takes up to 16, or 1 if a callback needs each batch.
          run_eagerly: Whether to run without graphs, for debugging.
          kwargs: Other options of `keras.Model.compile`.

        Raises:
          ValueError: For a loss, `loss_weights`, metrics that compare predictions with labels, a Keras 2 optimizer, or an
            optimizer that accumulates gradients.
        """
        for key, value in (("loss", loss), ("loss_weights", kwargs.pop("loss_weights", None))):
            if value is not None:
                raise ValueError(
                    f"`{key}` must be left out, since a {type(self).__name__} has its own loss: write "
                    'model.compile(optimizer="adam") and then model.fit(x).'
                )
        self._metrics_of_labels = [
            (key, metric)
            for key in ("metrics", "weighted_metrics")
            for metric in tf.nest.flatten(kwargs.get(key) or [])
            if not isinstance(metric, keras.metrics.Metric) or type(metric).__module__.split(".")[0] == "keras"
        ]
        self._before_compile()
        self._jit_is_optional = jit_compile == "auto"
        self._compiling_pays = not self._jit_is_optional  # `fit` decides by its number of steps
        if self._jit_is_optional:
            jit_compile = not run_eagerly and self._gains_by_jit()
        self._chooses_steps_per_execution = steps_per_execution == "auto"
        self._functions, self._steps = {}, {}
        super().compile(
            optimizer=self._checked_optimizer(optimizer),
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=1 if steps_per_execution == "auto" else steps_per_execution,
            **kwargs,
        )

    def _before_compile(self) -> None:
        """Prepare `compile`, for subclasses."""

    def _checked_optimizer(self, optimizer) -> keras.optimizers.Optimizer:
        if type(optimizer).__module__.split(".")[0] == "tf_keras" or hasattr(optimizer, "get_slot_names"):
            raise ValueError(
                f"`optimizer` is an optimizer of Keras 2, {type(optimizer).__name__} of {type(optimizer).__module__}: take "
                f"keras.optimizers.{type(optimizer).__name__}, of Keras 3."
            )
        optimizer = keras.optimizers.get(optimizer)
        if getattr(optimizer, "gradient_accumulation_steps", None):
            raise ValueError(
                "`optimizer` accumulates gradients (gradient_accumulation_steps), which is not supported: take a larger "
                "batch_size."
            )
        half = any(layer.dtype_policy.name == "mixed_float16" for layer in self._networks)
        if half and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # Small gradients would underflow in half precision. Keras does the same for models of this policy.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        return optimizer

    def _check_metrics(self) -> None:
        for key, metric in self._metrics_of_labels:
            raise ValueError(
                f"`{key}` must hold keras.metrics.Metric objects, got {metric!r}: those that Keras makes from names compare "
                "predictions with labels, and metrics have no `y` here."
            )

    def _gains_by_jit(self) -> bool:
        """Return whether XLA can compile the model, and speeds it up."""
        on_cpu = all(device.device_type == "CPU" for device in tf.config.get_visible_devices())
        parts = [part for root in self._modules() for part in root.submodules]
        return (
            self.distribute_strategy.num_replicas_in_sync == 1  # XLA cannot compile communication between replicas
            and all(layer.supports_jit for layer in self._networks)
            and all(getattr(part, "gains_by_jit", True) for part in parts)
            and not (on_cpu and any(len(w.shape) >= 4 for w in self.trainable_weights))  # convolutions
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
        return self._run("training", self._training_step, data)

    def test_step(self, data):
        return self._run("evaluation", self._evaluation_step, data)

    def _has_own_steps(self) -> bool:
        """Return `False` under a strategy, because replicas cannot communicate inside a function in a step."""
        distributed = tf.distribute.has_strategy() or self.distribute_strategy is not tf.distribute.get_strategy()
        return not self.run_eagerly and not distributed

    def _run(self, kind: str, step: Callable, data) -> dict:
        """Run a step by its own function, which is kept when Keras makes new functions."""

        def after_data(data):
            # Without this dependency, the step counter would increase once more after the end of the data.
            with tf.control_dependencies([t for t in tf.nest.flatten(data) if tf.is_tensor(t)]):
                return step(data)

        if workers(self.distribute_strategy):  # Keras reduces their logs along axis 0
            return {key: tf.reshape(value, [1]) for key, value in after_data(data).items()}
        if not self._has_own_steps() or tf.executing_eagerly():
            return after_data(data)
        if kind not in self._steps:
            with tf.init_scope():
                self._steps[kind] = Step(after_data)
        return self._steps[kind](data, self.jit_compile and self._compiling_pays)

    def make_train_function(self, force=False):
        return self._without_xla(super().make_train_function, "training", force)

    def make_test_function(self, force=False):
        return self._without_xla(super().make_test_function, "evaluation", force)

    def _without_xla(self, make: Callable, kind: str, force: bool) -> Callable:
        """Make a function of Keras without XLA, which would compile each `steps_per_execution` and size of the last batch."""
        if force:
            self._steps.pop(kind, None)
        before = self.jit_compile
        self.jit_compile = before and not self._has_own_steps()
        try:
            return make(force)
        finally:
            self.jit_compile = before

    def _fit(self, data, callbacks, order: Order | None = None, **options) -> keras.callbacks.History:
        _refuse_class_weight(options)
        self._check_metrics()
        if not self.trainable_weights:
            raise ValueError(
                f"{self.name} has no trainable weight: set `trainable = True` on the model or a layer, and compile again."
            )
        self._progress = Progress(self, order)
        # Resumes after callbacks that read a backup.
        last = [keras.callbacks.LambdaCallback(on_train_begin=self._progress.resume), StopAtNonFinite(self._guard)]
        self._forget_sizes()
        if isinstance(callbacks, keras.callbacks.CallbackList):
            given = list(callbacks.callbacks)
            callbacks.callbacks[:] = [self._progress, *given, *last]
        else:
            given = [] if callbacks is None else tf.nest.flatten(callbacks)
            callbacks = [self._progress, *given, *last]
        limits = [options.get(key) for key in ("steps_per_epoch", "validation_steps")]
        steps = steps_per_execution(data, given, limits) if self._has_own_steps() else 1
        self._build_optimizer()
        self._decide_to_compile(data, options)
        try:
            with stream_errors(), self._executing(steps), warnings.catch_warnings():
                try:
                    return super().fit(data, callbacks=callbacks, **options)
                except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError) as error:
                    # An error before the first step is probably the compiler's.
                    if not (self.jit_compile and self._jit_is_optional and int(self._guard.steps.numpy()) == 0):
                        raise
                    message = f"XLA cannot compile this model, so it trains without: {str(error)[:300]}"
                    warnings.warn(message, stacklevel=3)
                    self.jit_compile = False
                    self._forget_functions()
                    return super().fit(data, callbacks=callbacks, **options)
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            if not workers(self.distribute_strategy):
                raise
            raise RuntimeError(
                "Another worker died or is unreachable, so this worker stopped with the weights of its last step. Restart all "
                "workers; with tff.callbacks.BackupAndRestore they resume at the last backup. "
                f"TensorFlow said: {str(error)[:300]}"
            ) from error
        finally:
            self._progress = None
            _compat_keras.start_at_epoch(self, None)

    def _decide_to_compile(self, data, options: dict) -> None:
        """Use XLA only if the steps so far and those of this fit are enough for it to pay."""
        batches = int(data.cardinality()) if isinstance(data, tf.data.Dataset) else 0
        asked = (options.get("steps_per_epoch") or batches) * options.get("epochs", 1)
        few = asked > 0 and self._steps_done() + asked < LEAST_STEPS_TO_COMPILE
        before, self._compiling_pays = self._compiling_pays, not (self._jit_is_optional and few)
        if self._compiling_pays != before:
            self._forget_functions()

    def _forget_functions(self) -> None:
        """Make Keras build new functions. The traced steps are kept."""
        self._functions = {}
        _compat_keras.forget_functions(self)

    def _build_optimizer(self) -> None:
        """Create the optimizer's variables. Inside the training step, this would cause a second trace."""
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)

    @contextlib.contextmanager
    def _executing(self, steps: int):
        """Set `steps_per_execution` temporarily. Outside `fit`, several steps would unroll `predict` and overrun `evaluate`."""
        before = self.steps_per_execution
        self._switch(steps)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, steps: int) -> None:
        if not self._chooses_steps_per_execution or steps == self.steps_per_execution:
            return
        self._functions[self.steps_per_execution] = (self.train_function, self.test_function, self.predict_function)
        self.steps_per_execution = steps
        functions = self._functions.get(steps, (None, None, None))
        self.train_function, self.test_function, self.predict_function = functions

    def evaluate(self, *args, **kwargs):
        if _compat_keras.is_validation_in_fit(kwargs):  # keeps the setting of `fit`
            return super().evaluate(*args, **kwargs)
        self._forget_sizes()
        with stream_errors(), self._executing(1):
            return super().evaluate(*args, **kwargs)

    def _forget_sizes(self) -> None:
        for step in self._steps.values():
            step.largest.assign(0)  # other data may have smaller full batches

    def predict(self, *args, **kwargs):
        with stream_errors(), self._executing(1):
            return super().predict(*args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        """Train on one batch, like `keras.Model.train_on_batch`. Raise a `FloatingPointError` if the loss is not finite."""
        _refuse_class_weight({"class_weight": class_weight})
        self._check_metrics()
        self._guard.reset()
        self._build_optimizer()
        logs = super().train_on_batch(x, y, sample_weight, **kwargs)
        if self._guard.failed.numpy():
            raise FloatingPointError(f"The loss or its gradient was not finite (loss {self._guard.loss.numpy()}).")
        return logs

    def _steps_done(self) -> int:
        optimizer = getattr(self, "optimizer", None)
        return -1 if optimizer is None else int(optimizer.iterations.numpy())
