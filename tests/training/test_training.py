"""Trainings that take minutes: what the issue and the README promise."""

import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions


def coupling_in_a_closure():
    net = keras.Sequential(
        [keras.layers.Dense(64, "gelu"), keras.layers.Dense(64, "gelu"), keras.layers.Dense(2)],
    )

    def shift_and_log_scale(x, output_units):
        del output_units
        shift, log_scale = tf.split(net(x), 2, axis=-1)
        return shift, 3.0 * tf.tanh(log_scale / 3.0)

    return tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=shift_and_log_scale)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_real_nvp_with_plain_sequential_in_a_closure_reaches_the_moons_floor(seed):
    """TFP's bijectors and Keras' layers only; nothing of ours but FlowModel."""
    keras.utils.set_random_seed(seed)
    moons = tff.data.moons()
    x, x_test = ((moons.sample(n, seed=seed + n) - moons.mean) / moons.stddev for n in (16_000, 20_000))
    layers = [bijector for _ in range(8) for bijector in (coupling_in_a_closure(), tfb.Permute([1, 0]))]
    flow = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2)), tfb.Chain(layers))
    model = tff.FlowModel(flow)
    assert len(model.trainable_variables) == 8 * 6
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, 60 * 62)
    model.compile(optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0))
    batches = tf.data.Dataset.from_tensor_slices(x.astype("float32")).shuffle(16_000, seed=seed)
    model.fit(batches.batch(256, drop_remainder=True), epochs=60, verbose=0)
    gap = model.evaluate(x_test, batch_size=2_000, verbose=0) - moons.standardized_entropy()
    print(f"gap {gap:.3f} nats")
    assert -0.02 < gap < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "limit"), [("planar_flow", 0.6), ("nice", 0.2), ("real_nvp", 0.1), ("maf", 0.1), ("iaf", 0.1)]
)
def test_recipes_by_default_on_two_moons(name, limit):
    moons = tff.data.moons()
    x, x_test = ((moons.sample(n, seed=n) - moons.mean) / moons.stddev for n in (16_000, 20_000))
    model = tff.FlowModel(getattr(tff, name)(2, seed=1))
    rate = 5e-3 if name == "planar_flow" else 3e-3
    schedule = keras.optimizers.schedules.CosineDecay(rate, 50 * 62)
    model.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0))
    batches = tf.data.Dataset.from_tensor_slices(x.astype("float32")).shuffle(16_000, seed=1)
    model.fit(batches.batch(256, drop_remainder=True), epochs=50, verbose=0)
    gap = model.evaluate(x_test, batch_size=2_000, verbose=0) - moons.standardized_entropy()
    print(f"{name}: gap {gap:.3f} nats")
    assert -0.02 < gap < limit


def test_legacy_keras_mode():
    """With TF_USE_LEGACY_KERAS=1, where tf.keras is Keras 2, both kinds of model train our flows."""
    code = """
import numpy as np, tensorflow as tf, keras
import tfp_flows as tff
assert tf.keras.Model is not keras.Model
x = tff.data.moons().sample(64, seed=1)
class Old(tf.keras.Model):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow
    def call(self, x):
        return self.flow.log_prob(x)
flow = tff.real_nvp(2, num_layers=2, hidden_units=[4], seed=1)
old = Old(flow)
old(x)
assert len(old.trainable_variables) == 8
old.compile(optimizer="adam", loss=lambda y, log_prob: -log_prob)
losses = old.fit(x, x, epochs=3, verbose=0).history["loss"]
assert losses[-1] < losses[0]
net = tf.keras.Sequential([tf.keras.layers.Dense(4), tf.keras.layers.Dense(2)])
import tensorflow_probability as tfp
bijector = tff.RealNVP(1, shift_and_log_scale_fn=net)
model = tff.FlowModel(tfp.distributions.TransformedDistribution(flow.distribution, bijector))
assert len(model.trainable_variables) == 4
model.compile(optimizer="adam", jit_compile=False)
model.fit(x, verbose=0)
print("both")
"""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "both", done.stderr[-2000:]
