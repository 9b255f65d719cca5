"""Protection of the weights from losses and gradients that are not finite."""

from __future__ import annotations

import math
import warnings

import keras
import tensorflow as tf

from tfp_flows.training.fused_adam import FusedAdam

# Larger gradients (sums of absolute values) are scaled down. Beyond 1e19, their squares would overflow Adam's moments.
LARGEST_GRADIENT = 1e12
LARGEST_RATE = 1e30  # a learning rate from which on one step of Adam can overflow weights


class NonFiniteGuard:
    """Applies gradients until the loss or a gradient is not finite, and none after that."""

    def __init__(self):
        # Plain variables, because the state of a run is not a weight of the model.
        self.failed = _state(False, tf.bool)
        self.loss = _state(0.0, tf.float64)
        self.largest = _state(0.0, tf.float64)
        self.steps = _state(0, tf.int64)
        self.scaled = False  # whether the data are standardized
        self.farthest: tuple[int, int, float] | None = None  # row, column and deviations of the farthest value

    def reset(self) -> None:
        self.failed.assign(False)
        self.largest.assign(0.0)
        self.steps.assign(0)

    def apply(self, optimizer, gradients, weights, loss) -> None:
        """Make one optimizer step, and undo it if it is not finite. Works inside XLA and replicas, so it has no conditional."""
        pairs = [(tf.convert_to_tensor(g), w) for g, w in zip(gradients, weights, strict=True) if g is not None]
        gradients, weights = [g for g, _ in pairs], [w for _, w in pairs]
        finite, factor = tf.math.is_finite(loss), tf.ones([], loss.dtype)
        if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):  # loss scaling lets gradients overflow
            size = _size(gradients)
            finite &= tf.math.is_finite(size)
            factor = LARGEST_GRADIENT / tf.maximum(size, tf.cast(LARGEST_GRADIENT, size.dtype))
            self.largest.assign(tf.maximum(self.largest, tf.cast(size, tf.float64)))
        else:
            # The optimizer skips gradients that overflow, and halves the scale. At such a small scale, none will ever fit.
            finite &= tf.convert_to_tensor(optimizer.dynamic_scale) > 1e-6
        replicated = tf.distribute.has_strategy()
        if replicated:
            replicas = tf.distribute.get_replica_context()
            finite = tf.equal(replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~finite, tf.float32)), 0.0)
        fused = None if replicated else FusedAdam.of(optimizer, weights)
        if fused is not None:
            finite &= tf.convert_to_tensor(optimizer.learning_rate) < LARGEST_RATE
        failed = self.failed | ~finite
        self.loss.assign(tf.where(self.failed, self.loss, tf.cast(loss, tf.float64)))
        factor = tf.where(failed, tf.zeros_like(factor), factor)
        factors = {dtype: tf.cast(factor, dtype) for dtype in {g.dtype for g in gradients}}
        gradients = [tf.math.multiply_no_nan(g, factors[g.dtype]) for g in gradients]
        if fused is None:
            failed = self._apply_and_undo(optimizer, gradients, weights, failed)
        else:
            fused.apply(gradients, weights, failed)
        self.failed.assign(failed)
        self.steps.assign_add(tf.cast(~failed, tf.int64))

    @staticmethod
    def _apply_and_undo(optimizer, gradients, weights, failed) -> tf.Tensor:
        """Apply gradients, restore the weights of a failed step, and return whether it has failed."""
        # Restoring the optimizer's moments would cost a tenth of a step. They only decay by one step.
        state = [*weights, optimizer.iterations]
        before = [tf.identity(v.value) for v in state]
        optimizer.apply_gradients(list(zip(gradients, weights, strict=True)))
        # A finite gradient can still overflow the weights.
        failed |= ~tf.math.is_finite(_size([w.value for w in weights]))
        for old, v in zip(before, state, strict=True):
            v.assign(tf.where(failed, old, v.value))
        return failed


def _state(value, dtype: tf.DType) -> tf.Variable:
    return tf.Variable(value, trainable=False, dtype=dtype, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def _size(tensors) -> tf.Tensor:
    """Return the sum of all absolute values. Small tensors are concatenated first, because each operation adds compile time."""
    wide = tf.float64 if any(t.dtype == tf.float64 for t in tensors) else tf.float32
    flat = [tf.reshape(tf.cast(t, wide), [-1]) for t in tensors]
    small = [t for t in flat if (t.shape[0] or 0) < 2**16]
    large = [t for t in flat if (t.shape[0] or 0) >= 2**16]
    total = tf.zeros([], wide)
    for values in ([tf.concat(small, axis=0)] if small else []) + large:
        total += tf.reduce_sum(tf.abs(values))
    return total


class StopAtNonFinite(keras.callbacks.Callback):
    """Raises a `FloatingPointError` after the first batch since `guard.reset()` whose loss or gradient is not finite."""

    def __init__(self, guard: NonFiniteGuard):
        super().__init__()
        self.guard = guard
        self.epoch = self.steps_before = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.steps_before = int(self.guard.steps.numpy())

    def on_train_end(self, logs=None):
        largest = float(self.guard.largest.numpy())
        if largest > LARGEST_GRADIENT:
            warnings.warn(
                f"A gradient of {largest:.3g} was scaled down. Adam's moments need thousands of steps to recover from it. "
                f"{self._advice()}",
                stacklevel=2,
            )

    def _advice(self) -> str:
        clips = any(getattr(self.model.optimizer, key, None) for key in ("global_clipnorm", "clipnorm", "clipvalue"))
        steps = [] if self.guard.scaled else ["standardize the data"]
        steps += [] if clips else ["set global_clipnorm=1 in the optimizer"]
        if self.guard.farthest is not None:
            row, column, deviations = self.guard.farthest
            steps.append(f"look at row {row}, which is {deviations:.3g} standard deviations away in column {column}")
        advice = "; ".join(steps) or "try a lower learning rate"
        return f"{advice[0].upper()}{advice[1:]}."

    def on_train_batch_end(self, batch, logs=None):
        if self.guard.failed.numpy():
            loss, step = float(self.guard.loss.numpy()), int(self.guard.steps.numpy()) - self.steps_before + 1
            what = f"The loss was {loss}"
            if math.isfinite(loss):
                what = f"The loss was {loss:.6g}, but its gradient, or the updated weights, were not finite"
            raise FloatingPointError(
                f"{what} in epoch {self.epoch + 1}, step {step}: training was stopped. The weights are those "
                "before that step. Look for outliers in the data (standardize them), then try a lower learning rate "
                "or global_clipnorm=1 in the optimizer."
            )
