"""Adam's step by one kernel of TensorFlow per weight."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfp_flows._compat_keras import index_of_weight


class FusedAdam:
    """The step of a `keras.optimizers.Adam` by `tf.raw_ops.ResourceApplyAdam`, one operation per weight instead of 25.

    The update equals Keras' up to rounding, and the optimizer keeps its own variables: what Keras saves, restores, or
    changes during training, such as the learning rate, works as before. Each entry of a weight moves by at most about 10
    times the learning rate, so that finite weights remain finite.
    """

    def __init__(self, optimizer: keras.optimizers.Adam):
        self.optimizer = optimizer
        self._momentums = [v for v in optimizer.variables if v.name.endswith("_momentum")]
        self._velocities = [v for v in optimizer.variables if v.name.endswith("_velocity")]

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]) -> FusedAdam | None:
        """Return the fused step of an optimizer, or `None` for what the kernel does not compute."""
        options = ("amsgrad", "weight_decay", "clipnorm", "clipvalue", "use_ema", "loss_scale_factor")
        plain = type(optimizer) is keras.optimizers.Adam and not any(getattr(optimizer, name) for name in options)
        if not plain or any(w.constraint is not None or getattr(w, "overwrite_with_gradient", False) for w in weights):
            return None
        return cls(optimizer)

    def apply(self, gradients: Sequence[tf.Tensor], weights: Sequence[keras.Variable], failed: tf.Tensor) -> None:
        """Apply finite gradients. If the step has `failed`, no weight moves, and the step is not counted."""
        optimizer = self.optimizer
        if optimizer.global_clipnorm:
            gradients, _ = tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)
        settings = {dtype: self._settings(dtype, failed) for dtype in {w.value.dtype for w in weights}}
        for gradient, weight in zip(gradients, weights, strict=True):
            index = index_of_weight(optimizer, weight)
            tf.raw_ops.ResourceApplyAdam(
                var=weight.value.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                grad=gradient,
                **settings[weight.value.dtype],
            )
        optimizer.iterations.assign_add(tf.cast(~failed, optimizer.iterations.dtype))

    def _settings(self, dtype: tf.DType, failed: tf.Tensor) -> dict[str, tf.Tensor]:
        beta_1, beta_2 = tf.constant(self.optimizer.beta_1, dtype), tf.constant(self.optimizer.beta_2, dtype)
        step = tf.cast(self.optimizer.iterations.value + 1, dtype)
        rate = tf.cast(tf.convert_to_tensor(self.optimizer.learning_rate), dtype)
        return {
            "beta1_power": tf.pow(beta_1, step),
            "beta2_power": tf.pow(beta_2, step),
            "lr": tf.where(failed, tf.zeros_like(rate), rate),
            "beta1": beta_1,
            "beta2": beta_2,
            "epsilon": tf.constant(self.optimizer.epsilon, dtype),
        }
