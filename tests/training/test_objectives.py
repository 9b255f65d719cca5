"""Subclasses of `FlowModel` as docs/adding-an-objective.md describes them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows as tff

X = tff.data.moons().sample(200, seed=1)


@keras.saving.register_keras_serializable(package="test_objectives")
class Noisy(tff.FlowModel):
    def __init__(self, distribution, noise=0.1, *, seed=None, name="noisy"):
        super().__init__(distribution, seed=seed, name=name)
        self.noise = noise

    def loss_terms(self, batch, seed, training):
        events, conditions, weight = self.unpack(batch)
        if training:
            events += self.noise * tf.random.stateless_normal(tf.shape(events), seed, dtype=events.dtype)
        terms = {"loss": -self(events, conditional_input=conditions, training=training)}
        return terms if weight is None else {**terms, "weight": weight}


@keras.saving.register_keras_serializable(package="test_objectives")
class KerasIdiom(Noisy):
    def get_config(self):
        return {**super().get_config(), "noise": self.noise}


@keras.saving.register_keras_serializable(package="test_objectives")
class Forgetful(tff.FlowModel):
    def __init__(self, distribution, power=2, name="forgetful"):
        super().__init__(distribution, name=name)
        self._power = power


def flow():
    return tff.maf(2, num_layers=1, hidden_units=[4], seed=1)


@pytest.mark.parametrize("cls", [Noisy, KerasIdiom])
def test_arguments_are_saved_and_cloned(cls, tmp_path):
    model = cls(flow(), noise=0.3, seed=5)
    model.compile(optimizer="adam")
    model.save(tmp_path / "model.keras")
    for again in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert (type(again), again.noise, again.seed) == (cls, 0.3, 5)


def test_an_argument_that_is_not_kept_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"must keep its argument `power` as the attribute `self.power`"):
        Forgetful(flow()).save(tmp_path / "model.keras")


def losses(seed, batches=None):
    model = Noisy(flow(), noise=1.0, seed=seed)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    data = {"x": X, "batch_size": 50, "shuffle": False} if batches is None else {"x": batches}
    return model.fit(**data, epochs=1, verbose=0).history["loss"][0], model.evaluate(X, verbose=0)


def test_the_noise_follows_the_seed_and_evaluation_has_none():
    first, again, other = losses(1), losses(1), losses(2)
    assert first == again
    assert first[0] != other[0]
    np.testing.assert_allclose(first[1], other[1], rtol=1e-6)
    assert first[0] > first[1] + 0.1


@pytest.mark.parametrize("shape", [(200,), (200, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_of_a_dataset_have_any_form(shape, dtype):
    weight = np.random.default_rng(0).uniform(size=200)
    model = Noisy(flow(), noise=0.0)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    data = tf.data.Dataset.from_tensor_slices((X, X, weight.reshape(shape).astype(dtype))).batch(200)
    expected = -np.mean(weight * model.log_prob(X).numpy())
    np.testing.assert_allclose(model.fit(data, verbose=0).history["loss"][0], expected, rtol=1e-5)
