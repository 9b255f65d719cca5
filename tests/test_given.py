"""Conditional flows with a fixed condition."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfd = tfp.distributions
CONDITION = np.array([0.5, -1.0, 2.0], "float32")
FLOWS = {
    "maf": lambda: tff.maf(2, num_layers=2, hidden_units=[8], conditional_size=3, seed=1),
    "nice": lambda: tff.nice(3, num_layers=2, hidden_units=[8], conditional_size=3, base="trainable", seed=1),
    "encoded": lambda: tff.EncodedFlow(
        tff.maf(2, num_layers=1, conditional_size=4, seed=1), keras.layers.Dense(4), [3]
    ),
    "standardized": lambda: tff.spline_coupling(
        2,
        num_layers=2,
        hidden_units=[8],
        conditional_size=3,
        preprocess_condition=tff.standardize(np.eye(3) + CONDITION),
        seed=1,
    ),
}


def random_weights(flow):
    for i, variable in enumerate(flow.trainable_variables):
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, (i, 1)))
    return flow


@pytest.mark.parametrize("name", FLOWS)
def test_it_is_the_flow_at_the_condition(name):
    flow = random_weights(FLOWS[name]())
    given = flow.given(CONDITION)
    y = flow.sample(20, seed=(1, 2), conditional_input=CONDITION)
    np.testing.assert_allclose(given.sample(20, seed=(1, 2)), y, atol=1e-5)
    expected = flow.log_prob(tf.identity(y), conditional_input=CONDITION)
    np.testing.assert_allclose(given.log_prob(tf.identity(y)), expected, atol=1e-4)
    other = flow.log_prob(tf.identity(y), conditional_input=CONDITION + 1.0)
    assert np.max(np.abs(other - expected)) > 1e-2
    assert {id(v) for v in given.trainable_variables} == {id(v) for v in flow.trainable_variables}
    x = given.bijector.inverse(tf.identity(y))
    log_det = given.bijector.inverse_log_det_jacobian(tf.identity(y), event_ndims=1)
    np.testing.assert_allclose(flow.distribution.log_prob(x) + log_det, expected, atol=1e-4)
    for made in (pickle.loads(pickle.dumps(given)), copy.deepcopy(given)) if name != "encoded" else ():
        np.testing.assert_allclose(made.log_prob(tf.identity(y)), expected, atol=1e-4)
    random_weights(flow)  # the weights are shared
    changed = flow.log_prob(tf.identity(y), conditional_input=CONDITION)
    np.testing.assert_allclose(given.log_prob(tf.identity(y)), changed, atol=1e-4)
    assert np.max(np.abs(changed - expected)) > 1e-2


def test_it_goes_on_into_mcmc_and_variational_inference():
    given = random_weights(FLOWS["maf"]()).given(CONDITION)
    kernel = tfp.mcmc.TransformedTransitionKernel(
        tfp.mcmc.HamiltonianMonteCarlo(given.log_prob, step_size=0.5, num_leapfrog_steps=3), bijector=given.bijector
    )
    chain = tf.function(
        lambda: tfp.mcmc.sample_chain(
            200, tf.zeros([8, 2]), kernel=kernel, num_burnin_steps=50, seed=(1, 2), trace_fn=None
        )
    )()
    exact = given.sample(20_000, seed=1)
    np.testing.assert_allclose(
        np.mean(chain, axis=(0, 1)), np.mean(exact, axis=0), atol=0.2 * np.max(np.std(exact, axis=0))
    )
    model = tff.VariationalFlow(given, tfd.MultivariateNormalDiag([1.0, 2.0]).log_prob, sample_size=16, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = model.fit(steps_per_epoch=20, epochs=2, verbose=0).history["elbo"]
    assert history[-1] > history[0]


def test_moments_of_affine_flows_only():
    flow = tff.nice(2, num_layers=2, conditional_size=1, seed=1)
    with pytest.raises(NotImplementedError, match="`mean` is not implemented"):
        flow.given([1.0]).mean()


def test_wrong_conditions_are_refused():
    flow = FLOWS["maf"]()
    for wrong in (CONDITION[:2], np.zeros([1, 3]), 1.0):
        with pytest.raises(ValueError, match=r"`conditional_input` must be one condition of shape \[3\]"):
            flow.given(wrong)
    with pytest.raises(ValueError, match="`flow` must be a conditional flow"):
        tff.maf(2).given(CONDITION)
