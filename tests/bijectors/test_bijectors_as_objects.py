"""Every bijector of the registry as an object: compiled, trained, copied, in float32; and the registry is complete."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import BIJECTORS, RECIPES

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.recipes import recipe

by_name = pytest.mark.parametrize("case", BIJECTORS, ids=lambda case: case.name)


# Three passes through a mixture's solver, in both directions, take XLA a minute, and one through the deep sigmoid's a
# quarter; test_one_pass.py compiles one of each, and test_recipes.py trains them.
SLOW_TO_COMPILE = ("maf_gaussian_mixture", "marginal_mixture", "continuous", "maf_deep_sigmoidal", "maf_bernstein")
# The same code as a case that is quick, with other masks, orders, sizes or networks: once is enough to be compiled.
ALIKE = (
    "planar_1d",
    "sylvester_triangular",
    "real_nvp_last",
    "real_nvp_sequential",
    "tfp_real_nvp",
    "maf_right_to_left",
    "tfp_maf",
    "maf_affine",
    "maf_shift",
    "maf_quantile_spline",
    "maf_no_hidden",
    "rotation_deep",
)
# Of an optimizer's work, masks and bounds see even less of how they are read.
TRAINED_ALIKE = (
    *ALIKE,
    "real_nvp_bijector_fn",
    "iaf",
    "coupling_spline",
    "maf_unrolled",
    "nice",
    "maf_circular_spline",
)


def by_name_but_slow(names):
    cases = [pytest.param(c, marks=pytest.mark.slow) if c.name in names else c for c in BIJECTORS]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@by_name_but_slow((*SLOW_TO_COMPILE, *ALIKE))
def test_compilation(case):
    testing.check_compilation(case.build(), testing.draw_events([case.event_size]), case.tolerance)


@by_name_but_slow((*SLOW_TO_COMPILE, *TRAINED_ALIKE))
def test_trained_it_is_still_exact(case):
    """Masks, constraints and bounds hold where an optimizer has moved the weights, and not only where a test has."""
    bijector, x = case.make(tf.float64), testing.draw_events([case.event_size], [15])
    if not bijector.trainable_variables:
        return
    base = tfp.distributions.MultivariateNormalDiag(tf.zeros([case.event_size], tf.float64))
    testing.train(tfp.distributions.TransformedDistribution(base, bijector), steps=20, learning_rate=3e-2)
    testing.check_moves(bijector, x)
    testing.check_round_trip(bijector, x, case.tolerance)
    testing.check_log_det(bijector, x[:5], case.tolerance)
    if case.zeros is not None:
        j = testing.jacobian(bijector.inverse, tf.identity(x), 1)
        assert not np.any(j[:, ~case.zeros])


@by_name_but_slow(("continuous",))
def test_instances_are_distinct(case):
    testing.check_instances_are_distinct(case.build, [case.event_size])


# A conditioner that is a function is held by no file, and TFP's own classes cannot be pickled alone.
BY_A_FUNCTION = ("real_nvp_bijector_fn", "tfp_real_nvp", "tfp_maf")


@pytest.mark.parametrize("case", [c for c in BIJECTORS if c.name not in BY_A_FUNCTION], ids=lambda case: case.name)
def test_copies_and_descriptions(case):
    testing.check_saving(case.build, [case.event_size])


@by_name_but_slow(("continuous",))  # which test_heavy_tails.py compares in both
def test_float32(case):
    testing.check_float32(case.build, [case.event_size])


def test_completeness():
    public = {name: getattr(tff, name) for name in tff.__all__}
    bijectors = {n for n, v in public.items() if isinstance(v, type) and issubclass(v, tfp.bijectors.Bijector)}
    # Those of images are in test_images.py.
    elsewhere = {"AffineCouplingLayer", "BoxBijector", "FlowBijector", "MixtureBijector", "MultiScale", "Squeeze"}
    assert bijectors <= {case.covers for case in BIJECTORS} | elsewhere
    assert set(recipe.RECIPES) - {"image_real_nvp", "glow"} == set(RECIPES)
    assert set(recipe.RECIPES) <= set(public)
    templates = {
        n
        for n in public
        if n.endswith("_template") and n not in ("as_template", "conv_resnet_template", "glow_template")
    }
    assert templates <= {case.covers for case in BIJECTORS}


def test_every_dtype_is_float32_by_default():
    """The default of TFP and Keras. `None` stands for the setting of Keras, which is float32."""
    public = {name: getattr(tff, name) for name in tff.__all__}
    public |= {name: getattr(tff.destructors, name) for name in tff.destructors.__all__}
    defaults = {}
    for name, value in public.items():
        parameters = inspect.signature(value).parameters if callable(value) else {}
        if "dtype" in parameters and parameters["dtype"].default is not inspect.Parameter.empty:
            defaults[name] = parameters["dtype"].default
    assert {"LULinear", "rbig", "get_preprocess_bijector", "maf", "standardize"} <= set(defaults)
    assert {name for name, dtype in defaults.items() if dtype is not None and dtype != tf.float32} == set()
    x = tf.constant([[0.2, 0.4, 0.6]])
    for bijector in (tff.LULinear(3), tff.get_preprocess_bijector(0.05), tff.standardize(np.eye(3))):
        assert bijector.forward(x).dtype == tf.float32
    rows = np.random.default_rng(0).normal(size=[1000, 2])
    assert tff.rbig(2, max_layers=1, seed=1).fit(rows, verbose=0).sample(3).dtype == tf.float32


def test_every_bijector_has_a_fresh_start_near_the_identity():
    for make in (
        lambda: tff.PlanarFlow(3, seed=1),
        lambda: tff.RealNVP(1, shift_and_log_scale_fn=tff.real_nvp_template([8])),
        lambda: tff.MaskedAutoregressiveFlow(tff.masked_autoregressive_template([8], event_size=3)),
    ):
        x = tf.constant([[0.5, -1.0, 2.0]])
        np.testing.assert_allclose(make().forward(x), x, atol=0.1)
