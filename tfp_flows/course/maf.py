"""The masked autoregressive flow of the course notebooks, and its training loop."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import MaskedAutoregressiveFlow
from tfp_flows.checks import positive_int
from tfp_flows.distribution import FlowDistribution
from tfp_flows.networks import AutoregressiveNetwork

tfb, tfd = tfp.bijectors, tfp.distributions


def get_dataset(data_array: np.ndarray, shuffle_buffer_size: int, batch_size: int) -> tf.data.Dataset:
    """Return shuffled batches of the rows, in float32.

    Example:
      >>> len(tff.course.get_dataset(np.ones([10, 2]), 10, 4))
      3
    """
    rows = tf.data.Dataset.from_tensor_slices(np.asarray(data_array, np.float32))
    return rows.shuffle(shuffle_buffer_size).batch(batch_size)


def base_distribution() -> tfd.Distribution:
    """Return the normal distribution in two dimensions with mean 0 and standard deviation 2.

    Example:
      >>> tff.course.base_distribution().stddev().numpy()
      array([2., 2.], dtype=float32)
    """
    return tfd.MultivariateNormalDiag(loc=tf.zeros(2), scale_diag=tf.fill([2], 2.0))


def gaussian_mixture() -> tfd.Distribution:
    """Return a base of four equally weighted normal distributions on the first axis of the plane, of standard deviation 0.4.

    Example:
      >>> tff.course.gaussian_mixture().components_distribution.mean().numpy()[:, 0]
      array([-3.6, -1.2,  1. ,  3.7], dtype=float32)
    """
    means = [[x, 0.0] for x in (-3.6, -1.2, 1.0, 3.7)]
    components = tfd.MultivariateNormalDiag(loc=means, scale_diag=tf.fill([4, 2], 0.4))
    return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros(4)), components)


def maf_flow(base_dist: tfd.Distribution, num_layers: int, hidden_units: Sequence[int]) -> FlowDistribution:
    """Return a flow of masked autoregressive layers, each followed by a reversal of the dimensions.

    Args:
      base_dist: The base distribution, over vectors.
      num_layers: Number of layers.
      hidden_units: Units of the hidden layers of each network (ReLU).

    Example:
      >>> flow = tff.course.maf_flow(tff.course.base_distribution(), 2, [16])
      >>> flow.log_prob(flow.sample(3)).shape, len(flow.trainable_variables)
      (TensorShape([3]), 8)
    """
    if base_dist.event_shape.rank != 1:
        raise ValueError(f"`base_dist` must be a distribution of vectors, got event shape {base_dist.event_shape}.")
    size = base_dist.event_shape[0]
    layers: list[tfb.Bijector] = []
    for i in range(positive_int("num_layers", num_layers)):
        network = AutoregressiveNetwork(2, event_shape=[size], hidden_units=list(hidden_units), activation="relu")
        layers.append(MaskedAutoregressiveFlow(network, name=f"maf_{i}"))
        layers.append(tfb.Permute(list(range(size))[::-1], name=f"reverse_{i}"))
    return FlowDistribution(base_dist, tfb.Chain(layers[::-1]))


def train_model(
    maf_model: tfd.Distribution,
    opt: keras.optimizers.Optimizer,
    training_dataset: tf.data.Dataset,
    epochs: int,
    loss_metric: keras.metrics.Metric,
) -> list[float]:
    """Train by maximum likelihood with a `tf.GradientTape`. Return the mean NLL of the batches of each epoch, in nats.

    Args:
      maf_model: The flow.
      opt: A Keras optimizer.
      training_dataset: Batches of events.
      epochs: Number of passes through the dataset.
      loss_metric: A metric such as `keras.metrics.Mean()`, which is reset before each epoch.

    Raises:
      ValueError: If the flow has no trainable variables.

    Example:
      >>> flow = tff.course.maf_flow(tff.course.base_distribution(), 2, [16])
      >>> dataset = tff.course.get_dataset(tff.data.moons().sample(64, seed=1), 64, 32)
      >>> len(tff.course.train_model(flow, keras.optimizers.RMSprop(1e-3, rho=0.99), dataset, 2, keras.metrics.Mean()))
      2
    """
    maf_model.log_prob(next(iter(training_dataset)))  # builds the variables of TFP's networks
    variables = maf_model.trainable_variables
    if not variables:
        raise ValueError("`maf_model` has no trainable variables, so there is nothing to train.")
    opt.build(variables)

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(maf_model.log_prob(batch))
        opt.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    losses = []
    for _ in range(epochs):
        loss_metric.reset_state()
        for batch in training_dataset:
            loss_metric.update_state(step(batch))
        losses.append(float(loss_metric.result()))
    return losses


def layer_transformations(maf_model: tfd.TransformedDistribution, base_dist_samples: tf.Tensor) -> list[np.ndarray]:
    """Return samples of the base after each layer of the chain. A permutation counts with the layer before it.

    Example:
      >>> flow = tff.course.maf_flow(tff.course.base_distribution(), 2, [16])
      >>> [z.shape for z in tff.course.layer_transformations(flow, flow.distribution.sample(3))]
      [(3, 2), (3, 2)]
    """
    value, found = tf.convert_to_tensor(base_dist_samples), []
    for bijector in reversed(maf_model.bijector.bijectors):
        value = bijector.forward(value)
        if isinstance(bijector, tfb.Permute) and found:
            found.pop()
        found.append(value.numpy())
    return found
