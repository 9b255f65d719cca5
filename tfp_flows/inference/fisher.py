"""Training of a flow by draws and gradients of a target, for Markov chains in its coordinates."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.bases import log_prob_of
from tfp_flows.bijectors.composition import forward_and_log_det, inverse_and_log_det
from tfp_flows.training.base import TrainedModel

_OUTLIER = 10.0  # times the 98 % quantile of the losses


class FisherModel(TrainedModel):
    """A model that trains a flow by points and gradients of a log-density, without evaluating the density.

    The loss is the Fisher divergence in the flow's coordinates: the squared norm of the difference between the gradient of
    the target's log-density there and that of the flow's base (Seyboldt et al. 2026, arXiv:2603.18845). It does
    not depend on the scales of the target. The mean of `log(1 + loss)` is minimized, which far points cannot dominate.
    """

    def __init__(self, flow: tfp.distributions.Distribution, *, seed: int = 0, name: str = "fisher_model"):
        super().__init__(name=name, dtype=tf.as_dtype(flow.dtype).name)
        self.flow, self.seed = flow, seed
        self._adopt(tracking.find(flow))
        self.built = True
        self._row_losses = tf.function(lambda z, g: self.loss_terms((z, g), None, False)["loss"], reduce_retracing=True)

    def loss_terms(self, batch, seed, training):
        del seed, training
        z, gradient = batch
        x, _ = inverse_and_log_det(self.flow.bijector, z, 1)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            y, log_det = forward_and_log_det(self.flow.bijector, x, 1)
            pulled_back = tf.reduce_sum(y * gradient, axis=-1) + log_det
        slope = tfp.math.value_and_gradient(lambda v: log_prob_of(self.flow.distribution, v), x)[1]
        residual = tape.gradient(pulled_back, x) - slope
        return {"loss": tf.reduce_mean(tf.square(residual), axis=-1)}

    def total_loss(self, terms, training):
        del training
        return tf.reduce_mean(tf.math.log1p(terms["loss"]))

    def fit(self, z: np.ndarray, gradients: np.ndarray, *, steps: int, batch_size: int = 256) -> float:
        """Train on points `[N, D]` and the gradients there, without outliers. Return the last loss.

        Outliers come from trajectories that the first, poor coordinates have thrown far away. Training ends early if a
        loss is not finite: the next, better coordinates go on.
        """
        chunks = [self._row_losses(z[i : i + 4096], gradients[i : i + 4096]).numpy() for i in range(0, len(z), 4096)]
        losses = np.concatenate(chunks)
        finite = np.isfinite(losses)
        if np.any(finite):
            keep = finite & (losses <= _OUTLIER * np.quantile(losses[finite], 0.98))
            z, gradients = z[keep], gradients[keep]
        batch_size = min(batch_size, len(z))
        # The order depends on the seed alone, and not on TensorFlow's global one.
        rng = np.random.default_rng([self.seed, int(self.optimizer.iterations.numpy())])
        passes = -(-steps * batch_size // len(z))
        rows = np.concatenate([rng.permutation(len(z)) for _ in range(passes)])[: steps * batch_size]
        data = tf.data.Dataset.from_tensor_slices(rows.reshape(steps, batch_size))
        data = data.map(lambda chosen: (tf.gather(z, chosen), tf.gather(gradients, chosen)))
        try:
            return self._fit(data, None, epochs=1, verbose=0, shuffle=False).history["loss"][-1]
        except FloatingPointError:
            self.optimizer.learning_rate = 0.5 * float(self.optimizer.learning_rate)
            return np.nan
