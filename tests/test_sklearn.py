"""The scikit-learn estimator passes scikit-learn's own checks, and works in its tools."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfp_flows as tff

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

FlowDensity = tff.sklearn.FlowDensity
TINY = {"recipe": "maf", "num_layers": 1, "hidden_units": (4,), "epochs": 1, "random_state": 1}


@pytest.fixture
def eager():
    """A fit of one epoch takes less time than its graph."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def x():
    return tff.data.moons().sample(300, seed=1)


@pytest.fixture(scope="module")
def fitted(x):
    return FlowDensity("spline_coupling", num_layers=2, epochs=20, random_state=1).fit(x)


@pytest.mark.filterwarnings("ignore:Even though the")
@parametrize_with_checks([FlowDensity(**TINY)])
def test_sklearn_checks(estimator, check, eager):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([FlowDensity(epochs=2)])
def test_sklearn_checks_of_the_default(estimator, check):
    check(estimator)


def test_scores_are_those_of_the_flow_in_any_batch(fitted, x):
    scores = fitted.score_samples(x)
    assert scores.shape == (300,)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, fitted.model_.log_prob(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fitted.score_samples(x[7:8]), scores[7:8])
    many = np.tile(x, [5, 1])  # more than one block
    np.testing.assert_array_equal(fitted.score_samples(many)[1200:], scores)
    assert fitted.score(x) == pytest.approx(scores.mean())
    assert fitted.history_["loss"][-1] < fitted.history_["loss"][0]
    assert fitted.score(x) > -1.9  # the Gaussian of the same moments


def test_samples_are_seeded_and_from_the_flow(fitted, x):
    samples = fitted.sample(2000, random_state=3)
    np.testing.assert_array_equal(samples, fitted.sample(2000, random_state=np.random.RandomState(3)))
    assert fitted.sample().shape == (1, 2)
    np.testing.assert_allclose(samples.mean(axis=0), x.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(samples.std(axis=0), x.std(axis=0), rtol=0.2)
    with pytest.raises(ValueError, match="`n_samples` must be an integer"):
        fitted.sample(0)


def test_pickles_are_exact_and_clones_are_not_fitted(fitted, x):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(x), fitted.score_samples(x))
    np.testing.assert_array_equal(again.sample(5, random_state=1), fitted.sample(5, random_state=1))
    with pytest.raises(NotFittedError):
        clone(fitted).score_samples(x)


def test_fits_are_repeatable(x):
    first, second = (FlowDensity(**TINY).fit(x).score_samples(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = FlowDensity(**{**TINY, "random_state": 2}).fit(x).score_samples(x)
    assert np.max(np.abs(first - other)) > 1e-4


def test_works_in_search_cross_validation_and_pipeline(x, eager):
    search = GridSearchCV(FlowDensity(**TINY), {"num_layers": [1, 2], "options": [{"activation": "tanh"}]}, cv=2)
    search.fit(x)
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
    assert search.best_estimator_.sample(3).shape == (3, 2)
    assert cross_val_score(FlowDensity(**TINY), x, cv=2).shape == (2,)
    pipeline = make_pipeline(StandardScaler(), FlowDensity(**TINY)).fit(x)
    shift = np.log(x.std(axis=0)).sum()
    assert pipeline.score(x) == pytest.approx(FlowDensity(**TINY).fit(x).score(x) + shift, abs=1e-3)


def test_options_reach_recipe_and_support(eager):
    calls = []

    def build(event_size, **options):
        calls.append(options)
        return tff.maf(event_size, **options)

    positive = np.random.default_rng(0).lognormal(size=[40, 2])
    estimator = FlowDensity(**{**TINY, "recipe": build}, support="positive", options={"activation": "tanh"})
    assert np.all(estimator.fit(positive).sample(50) > 0)
    assert {"num_layers", "hidden_units", "support", "preprocess", "seed", "activation"} == set(calls[0])
    with pytest.raises(ValueError, match="`X` has -"):
        estimator.fit(-positive)


def test_wrong_parameters_are_named(x):
    with pytest.raises(ValueError, match=r"`recipe` must be one of 'table', 'maf', .*got 'mafia'"):
        FlowDensity("mafia").fit(x)
    with pytest.raises(ValueError, match="`recipe` must be one of"):
        FlowDensity("glow").fit(x)
    with pytest.raises(ValueError, match="`num_layers`, `hidden_units` and `options` are for a recipe"):
        FlowDensity(num_layers=2).fit(x)
    with pytest.raises(ValueError, match="minimum of 10"):
        FlowDensity().fit(x[:9])


def test_the_package_works_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None  # as if it were not installed\n"
        "import tfp_flows as tff; assert 'FlowDensity' in dir(tff.sklearn)\n"
        "try: tff.sklearn.FlowDensity\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "tfp_flows[sklearn]"' in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        tff.sklearn.Nothing  # noqa: B018


def test_supports_by_name_and_options_that_are_arguments(x):
    frame = pd.DataFrame(np.abs(x) + 0.1, columns=["a", "b"])
    for recipe in ("table", "maf"):
        with pytest.raises(
            ValueError, match=r"`X` has -.* in row 0, column 'b', on or outside of the bounds \(0, inf\)"
        ):
            FlowDensity(recipe, support={"b": "positive"}).fit(frame.assign(b=-1.0))
        with pytest.raises(ValueError, match="`support` has a column 'c', expected 'a', 'b'"):
            FlowDensity(recipe, support={"c": "real"}).fit(frame)
    with pytest.raises(ValueError, match=r"`X` has .*, column 1, on or outside"):
        FlowDensity("maf", support={"x2": "positive"}).fit(-frame.to_numpy())
    assert np.all(FlowDensity(**TINY, support={"b": "positive"}).fit(frame).sample(50)[:, 1] > 0)
    for name, own in (("seed", "random_state"), ("support", "support")):
        with pytest.raises(ValueError, match=f"`options` must not hold '{name}', .*give the argument `{own}`"):
            FlowDensity("maf", options={name: 1}).fit(frame)
