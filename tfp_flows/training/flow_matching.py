"""`FlowMatchingModel`: a continuous flow trained by regression on its velocity."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import ContinuousFlow
from tfp_flows.bijectors.composition import inverse_and_log_det, members_of
from tfp_flows.checks import one_of
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.flow_model import FlowModel

PAIRINGS = ("independent", "optimal_transport")


@keras.saving.register_keras_serializable(package="tfp_flows")
class FlowMatchingModel(FlowModel):
    """A `FlowModel` that trains a continuous flow by conditional flow matching (Lipman et al. 2022, arXiv:2210.02747).

    The loss is `|f(t, (1 - t) x_0 + t x_1) - (x_1 - x_0)|^2` for a base sample `x_0`, an event `x_1` in the space of the
    differential equation, and `t` uniform in [0, 1]. A step costs one pass of the network and no solution of the
    equation. The trained flow is the same distribution, and a `FlowModel` of it continues with maximum likelihood.

    `fit`, `evaluate` and `val_loss` use this loss, which is not in nats and not zero for the best flow. For the NLL, take
    the mean of `-model.log_prob(x)`. A trainable base and trainable layers on the data side keep their values.

    Args:
      distribution: The flow of `continuous_flow` with one layer, or of `image_continuous_flow`.
      pairing: `"independent"`, or `"optimal_transport"`, which pairs base samples and events of a batch at the smallest
        total distance (Tong et al. 2023, arXiv:2302.00482), for straighter paths. It needs SciPy, takes `O(N^3)` per
        batch, and is biased for conditional flows, so it is refused for these.
      seed: Integer seed of times and base samples.
      name: Name of the model.

    Raises:
      ValueError: If the flow has another layer than one `ContinuousFlow` next to its base, or an argument is out of range.

    Example:
      >>> model = tff.FlowMatchingModel(tff.continuous_flow(2, hidden_units=[16], seed=1), seed=1)
      >>> model.compile(optimizer=keras.optimizers.Adam(1e-2))
      >>> history = model.fit(tff.data.moons().sample(512, seed=1), batch_size=128, epochs=2, verbose=0)
      >>> model.log_prob(tf.zeros([3, 2])).shape, model.sample(5, seed=1).shape
      (TensorShape([3]), TensorShape([5, 2]))
    """

    def __init__(
        self, distribution, *, pairing: str = "independent", seed: int | None = None, name="flow_matching_model"
    ):
        layers = split_layers(distribution)
        super().__init__(distribution, seed=resolve_seed(seed), name=name)
        self._data_side, self._equation = layers
        self.pairing = one_of("pairing", pairing, PAIRINGS)
        if pairing == "optimal_transport" and self.conditional_size is not None:
            raise ValueError(
                '`pairing` must be "independent" for a conditional flow: optimal transport would be biased.'
            )

    def loss_terms(self, batch, seed, training):
        end, conditions, weight = self.unpack(batch)
        end, _ = inverse_and_log_det(self._data_side, end, self.distribution.event_shape.rank)
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        start = self.distribution.distribution.sample(tf.shape(end)[0], seed=seeds[0])
        start, end = tf.stop_gradient(start), tf.stop_gradient(end)
        if self.pairing == "optimal_transport":
            start = tf.ensure_shape(tf.numpy_function(pair, [start, end], start.dtype), start.shape)
        time = tf.random.stateless_uniform(tf.shape(end)[:1], seeds[1], dtype=end.dtype)
        if conditions is not None:
            conditions = self.distribution.condition_before_encoder(tf.cast(conditions, end.dtype))
        state = start + time[:, tf.newaxis] * (end - start)
        error = self._equation.velocity(time, state, conditions) - (end - start)
        terms = {"loss": tf.reduce_sum(tf.square(error), axis=-1)}
        return terms if weight is None else {**terms, "weight": weight}


def split_layers(distribution: tfp.distributions.Distribution) -> tuple[tfp.bijectors.Bijector, ContinuousFlow]:
    """Return the layers on the data side of the one `ContinuousFlow`, and that layer."""
    layers = members_of(distribution.bijector) if hasattr(distribution, "bijector") else None
    kinds = [type(layer) for layer in layers or []]
    if kinds[-1:] != [ContinuousFlow] or kinds.count(ContinuousFlow) > 1:
        raise ValueError(
            f"`distribution` must be a flow of one ContinuousFlow next to its base, such as tff.continuous_flow(2), got "
            f"{distribution}."
        )
    return tfp.bijectors.Chain(layers[:-1]), layers[-1]


def pair(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rows of `start` in the order that minimizes the sum of squared distances to the rows of `end`."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("Optimal transport needs SciPy: pip install 'tfp_flows[matching]'") from error
    # The squares of both norms do not depend on the pairing.
    rows, columns = linear_sum_assignment(-(end.astype(np.float64) @ start.T.astype(np.float64)))
    return start[columns[np.argsort(rows)]]
