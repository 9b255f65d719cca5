"""Destructors: RBIG, greedy stacks, and what they tell about entropy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing
from tfp_flows.bijectors import BoxBijector
from tfp_flows.bijectors.adapting import rows_of
from tfp_flows.destructors import (
    Destructor,
    DestructorStack,
    GaussianDestructor,
    HistogramDestructor,
    MarginalDestructor,
    MixtureDestructor,
    TreeDestructor,
    entropy,
    mutual_information,
    total_correlation,
)
from tfp_flows.destructors.information import _over_folds

tfb, tfd = tfp.bijectors, tfp.distributions
MOONS = tff.data.moons()


def above_floor(flow, seed=99):
    x = MOONS.sample(10_000, seed=seed)
    return float(np.mean(MOONS.log_prob(x)) - np.mean(flow.log_prob(x.astype(flow.dtype.as_numpy_dtype))))


@pytest.fixture(scope="module")
def fitted():
    stack = tff.rbig(2, max_layers=24, seed=1, dtype=tf.float64)
    return stack, stack.fit(MOONS.sample(10_000, seed=1), verbose=0)


@pytest.mark.parametrize("rotation", ["pca", "ica", "random"])
def test_properties_of_rbig(rotation):
    """The shared suite; the splines have flat ends, so weights are not redrawn but those that data gave."""
    x = np.random.default_rng(3).gamma(2.0, size=[500, 3]) @ np.array(
        [[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]
    )
    flow = tff.rbig(3, rotation=rotation, num_bins=6, max_layers=3, patience=3, seed=1, dtype=tf.float64).fit(
        x, verbose=0
    )
    kinds = [type(layer) for layer in flow.bijector.bijectors]
    assert kinds[:2] == [tff.ActNorm, tff.MarginalGaussianization]
    assert tff.Rotation in kinds
    events = tf.constant(x[:5])
    testing.check_moves(flow.bijector, events)
    testing.check_round_trip(flow.bijector, events)
    testing.check_log_det(flow.bijector, events)
    testing.check_gradients(flow.bijector, events)
    testing.check_tracking(flow.bijector, [3])
    testing.check_density(flow)


def test_rbig_takes_moons_apart(fitted):
    stack, flow = fitted
    assert 0.0 < above_floor(flow) < 0.2
    testing.check_normalized(flow, limit=4.0, resolution=250, tolerance=2e-2)
    # The held-out loss of the layers that stayed falls, and gains are its differences.
    gains = np.array(stack.history["gain"])
    losses = np.array(stack.history["val_loss"])
    assert len(gains) <= 24
    kept = gains > 1e-4
    assert np.all(np.diff(losses[kept]) < 0)
    np.testing.assert_allclose(losses[kept][:-1] - losses[kept][1:], gains[kept][1:], atol=1e-9)
    assert sum(isinstance(layer, tff.MarginalGaussianization) for layer in flow.bijector.bijectors) == kept.sum()
    z = flow.bijector.inverse(MOONS.sample(5000, seed=5)).numpy()
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=0.1)


@pytest.mark.slow
def test_rbig_on_moons_and_trained_further():
    x = MOONS.sample(20_000, seed=0)
    flow = tff.rbig(2, seed=0).fit(x, verbose=0)
    assert above_floor(flow) < 0.15
    model = tff.FlowModel(flow)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 20 * 79)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(x, batch_size=256, epochs=20, verbose=0)
    assert above_floor(flow) < 0.08


def test_rbig_is_an_ordinary_flow(tmp_path):
    """Plugs into TFP's own distribution, is saved, loaded, and trained further: every weight moves."""
    x = tff.data.banana().sample(600, seed=1)
    flow = tff.rbig(2, num_bins=5, max_layers=3, seed=1).fit(x, verbose=0)
    y = flow.sample(7, seed=[1, 2])
    plain = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), flow.bijector)
    np.testing.assert_allclose(plain.log_prob(tf.identity(y)), flow.log_prob(y), rtol=1e-5)
    tff.FlowModel(flow).save(tmp_path / "rbig.keras")
    loaded = keras.models.load_model(tmp_path / "rbig.keras")
    np.testing.assert_allclose(loaded.distribution.log_prob(y), flow.log_prob(y), rtol=1e-5)
    before = flow.log_prob(y).numpy()
    testing.check_fit_moves_every_weight(flow, x[:256])
    assert np.any(flow.log_prob(tf.identity(y)) != before)


def test_same_seed_same_flow_and_progress_is_shown(capsys):
    x = MOONS.sample(500, seed=1)
    a, b = (tff.rbig(2, max_layers=3, seed=4).fit(x, verbose=v) for v in (0, 2))
    np.testing.assert_array_equal(a.log_prob(x[:5].astype("float32")), b.log_prob(x[:5].astype("float32")))
    shown = capsys.readouterr().out
    assert shown.count("val_loss") == 3
    assert "Layer 3/3" in shown


def test_gaussian_data_need_one_rotation_and_their_information_is_known():
    """Entropy of five correlated normal variables within 0.05 nats, at 20,000 samples, and what else is known of them."""
    rng = np.random.default_rng(5)
    factor = rng.normal(size=[5, 5])
    covariance = factor @ factor.T + 0.3 * np.eye(5)
    x = rng.multivariate_normal(np.zeros(5), covariance, 20_000)
    log_det = lambda c: np.linalg.slogdet(np.atleast_2d(c))[1]  # noqa: E731
    truth = 0.5 * log_det(2 * np.pi * np.e * covariance)
    found = entropy(x, seed=1)
    assert abs(found.value - truth) < 0.05
    assert 0.005 < found.standard_error < 0.02
    x = x[:5000]
    found = total_correlation(x, seed=1, dtype=tf.float32)
    assert abs(found.value - 0.5 * (np.sum(np.log(np.diag(covariance))) - log_det(covariance))) < 0.1
    found = mutual_information(x[:, :2], x[:, 2:], seed=1)
    truth = 0.5 * (log_det(covariance[:2, :2]) + log_det(covariance[2:, 2:]) - log_det(covariance))
    assert truth > 0.5
    assert abs(found.value - truth) < 0.1
    found = mutual_information(x[:, :2], np.roll(x[:, 2:], 7, axis=0), seed=1)
    assert abs(found.value) < 0.02


def test_the_components_of_a_mixture_depend_on_rows_and_seed_only():
    x = MOONS.sample(200, seed=1).astype("float32")
    first, again, other = (MixtureDestructor(4).adapt(x, seed).bijectors[-1].loc.numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_each_row_is_scored_once_given_the_rows_of_other_folds():
    x = np.arange(61.0)[:, np.newaxis]

    def score(rest, part, seed):
        np.testing.assert_array_equal(np.sort(np.concatenate([rest, part])[:, 0]), x[:, 0])
        return part[:, 0]

    found = _over_folds(x, 3, 1, score)
    assert found.value == pytest.approx(30.0)
    assert found.standard_error == pytest.approx(np.std(x) / np.sqrt(61))


@pytest.mark.parametrize(
    ("destructor", "limit"),
    [
        (GaussianDestructor(), 1.7),
        (MixtureDestructor(32), 0.1),
        (MarginalDestructor(tff.GaussianMixtureTransformer(8)), 1.4),
        (HistogramDestructor(40), 1.4),
        (TreeDestructor(64), 0.6),
    ],
    ids=["gaussian", "mixture", "marginal mixture", "histogram", "tree"],
)
def test_each_destructor_alone(destructor, limit):
    """One layer of each: a normalized density, exact both ways, better the more it can see."""
    stack = DestructorStack(2, destructor, max_layers=1, seed=1, dtype=tf.float64)
    flow = stack.fit(MOONS.sample(4000, seed=1), verbose=0)
    assert 0.0 < above_floor(flow) < limit
    testing.check_normalized(flow, limit=4.0, resolution=250, tolerance=2e-2)  # densities with jumps
    events = tf.constant(MOONS.sample(7, seed=3).astype(np.float64))
    testing.check_round_trip(flow.bijector, events)
    testing.check_log_det(flow.bijector, events)
    testing.check_density(flow)


def test_layers_are_kept_while_held_out_data_gain():
    """A second Gaussian has nothing to do; trees after turns have."""
    x = MOONS.sample(4000, seed=1)
    stack = DestructorStack(2, GaussianDestructor(), patience=3, seed=1)
    flow = stack.fit(x, verbose=0)
    assert len(stack.history["gain"]) == 4
    assert len(flow.bijector.bijectors) == 2
    turn = MarginalDestructor(rotation="random")
    deep = DestructorStack(2, [TreeDestructor(32), turn], max_layers=20, seed=1).fit(x, verbose=0)
    alone = DestructorStack(2, TreeDestructor(32), max_layers=1, seed=1).fit(x, verbose=0)
    assert above_floor(deep) < above_floor(alone) - 0.1


@pytest.mark.parametrize(
    ("column", "standardized"),
    [(lambda z: z, False), (lambda z: 2.0 + z, True), (lambda z: 0.3 * z, True), (lambda z: 4.0 * z, True)],
    ids=["standard", "shifted", "narrow", "wide"],
)
def test_data_are_standardized_where_a_single_column_needs_it(column, standardized):
    x = np.random.default_rng(1).normal(size=[2000, 8]).astype("float32")
    x[:, 5] = column(x[:, 5])
    layers = MarginalDestructor().adapt(x, seed=1).bijectors
    assert [type(layer) for layer in layers] == [*[tff.ActNorm] * standardized, tff.MarginalGaussianization]


def test_uniform_destructors_and_validation_data():
    """The stack turns a bijector to the unit cube into one to normal values, and judges by the given held-out rows."""

    class Box(Destructor):
        latent = "uniform"

        def adapt(self, x, seed):
            return tfb.Chain([tfb.Shift(np.float32([-1.0, 3.0])), tfb.Scale(np.float32([2.0, 4.0]))])

    x = np.random.default_rng(1).uniform([-1.0, 3.0], [1.0, 7.0], size=[3000, 2]).astype("float32")
    stack = DestructorStack(2, Box(), max_layers=1, seed=1)
    flow = stack.fit(x[:2000], validation_data=x[2000:], verbose=0)
    np.testing.assert_allclose(flow.log_prob(x[:9]), -np.log(8.0), rtol=1e-3)
    assert stack.history["val_loss"][0] == pytest.approx(np.log(8.0), rel=1e-4)


def test_boxes_keep_outliers():
    """Far outside, where the normal CDF is 0 or 1 in float32, logarithms of the tails are exact."""
    boxes = BoxBijector(1, 3)
    boxes.set_boxes([[0.0], [0.2], [0.7]], [[0.2], [0.7], [1.0]], [[0.0], [0.5], [0.6]], [[0.5], [0.6], [1.0]])
    y = tf.constant([[-30.0], [-8.0], [0.1], [6.5], [30.0]])
    x = boxes.inverse(y)
    np.testing.assert_allclose(boxes.forward(tf.identity(x)), y, rtol=1e-5)
    twin = BoxBijector(1, 3, dtype=tf.float64)
    twin.boxes.assign(tf.cast(boxes.boxes, tf.float64))
    np.testing.assert_allclose(x, twin.inverse(tf.cast(y, tf.float64)), rtol=1e-5)
    np.testing.assert_allclose(
        boxes.inverse_log_det_jacobian(tf.identity(y), event_ndims=1),
        twin.inverse_log_det_jacobian(tf.cast(y, tf.float64), event_ndims=1),
        atol=1e-4,
    )
    for corners, problem in (
        (([[0.0], [0.2]], [[0.2], [1.0]], [[0.0], [0.5]], [[0.5], [1.0]]), "shape"),
        (([[0.0], [0.2], [0.7]], [[0.2], [0.6], [1.0]], [[0.0], [0.5], [0.6]], [[0.5], [0.6], [1.0]]), "fill"),
        (([[0.0], [0.2], [0.7]], [[0.2], [0.7], [1.0]], [[0.6], [0.0], [0.5]], [[1.0], [0.5], [0.6]]), "faces"),
    ):
        with pytest.raises(ValueError, match=problem):
            boxes.set_boxes(*corners)


def test_rotation_takes_given_axes_and_those_of_data():
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=[5, 5]))[0]
    for count in (4, 7):
        turn = tff.Rotation(5, num_reflections=count, seed=1, dtype=tf.float64)
        turn.set_axes(axes)
        np.testing.assert_allclose(np.abs(turn.matrix().numpy().T @ axes), np.eye(5), atol=1e-12)
    with pytest.raises(ValueError, match="need 4 reflections"):
        tff.Rotation(5, num_reflections=2).set_axes(axes)
    with pytest.raises(ValueError, match="orthogonal"):
        turn.set_axes(2.0 * axes)
    x = np.random.default_rng(1).normal(size=[2000, 3]) @ np.diag([3.0, 1.0, 0.1]) @ axes[:3, :3]
    turn = tff.Rotation(3, start="pca", seed=1, dtype=tf.float64)
    assert not turn.adapted
    turn.adapt(x)
    assert turn.adapted
    covariance = np.cov(turn.inverse(x).numpy().T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-8)
    # Independent components: each is one of the sources, by its correlation with it.
    sources = np.random.default_rng(2).uniform(-np.sqrt(3.0), np.sqrt(3.0), size=[4000, 3])
    q = np.linalg.qr(axes[:3, :3])[0]
    turn = tff.Rotation(3, start="ica", seed=1, dtype=tf.float64)
    turn.adapt(sources @ q)
    correlation = np.abs(np.corrcoef(turn.inverse(sources @ q).numpy().T, sources.T)[:3, 3:])
    assert np.all(np.sort(correlation, axis=1)[:, -1] > 0.98)
    # Normal data have no independent components that differ from others: `Q` stays what it was.
    turn = tff.Rotation(3, start="ica", seed=1, dtype=tf.float64)
    before = turn.matrix().numpy()
    turn.adapt(np.random.default_rng(3).normal(size=[4000, 3]))
    np.testing.assert_array_equal(turn.matrix(), before)
    assert turn.adapted
    turn = tff.Rotation(40, start="ica", seed=1)
    before = turn.matrix().numpy()
    turn.adapt(np.random.default_rng(3).normal(size=[2000, 40]))
    np.testing.assert_array_equal(turn.matrix(), before)


def test_gaussianization_flow_starts_from_data():
    """Layer by layer, from all of the data or from the first batch: below one Gaussian before any step of training."""
    x = MOONS.sample(2000, seed=1).astype("float32")
    flow = tff.gaussianization_flow(2, num_layers=5, seed=1)
    raw = above_floor(flow)
    model = tff.FlowModel(flow)
    model.adapt(x)
    assert all(layer.adapted for layer in flow.bijector.bijectors)
    assert above_floor(flow) < min(0.8, raw - 1.0)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: tff.rbig(0), "event_size"),
        (lambda: tff.rbig(2, rotation="qr"), "rotation"),
        (lambda: tff.rbig(2, num_bins=0), "num_bins"),
        (lambda: tff.rbig(2, patience=0), "patience"),
        (lambda: tff.rbig(2).fit(np.zeros([50, 3], "float32")), r"\[N, 2\]"),
        (lambda: tff.rbig(2).fit(np.ones([50, 2], "float32")), "constant in column 0"),
        (lambda: tff.rbig(2).fit(np.full([50, 2], np.nan, "float32")), "`x`"),
        (lambda: tff.rbig(2).fit(MOONS.sample(5, seed=1)), "10 rows"),
        (lambda: tff.rbig(2).fit(MOONS.sample(50, seed=1), validation_split=1.5), "validation_split"),
        (lambda: DestructorStack(2, 3), "destructors"),
        (lambda: DestructorStack(2, []), "destructors"),
        (lambda: DestructorStack(2, TreeDestructor), r"write TreeDestructor\("),
        (lambda: entropy(MOONS.sample(30, seed=1)), "40 rows"),
        (lambda: mutual_information(np.zeros([50, 1]), np.zeros([51, 1])), "50 rows"),
        (lambda: tff.MarginalGaussianization(2, tff.SplineTransformer()), "adapt"),
        (lambda: tff.Rotation(3, start="svd"), "start"),
        (lambda: tff.MarginalGaussianization(2).adapt(np.zeros([5, 3])), r"\[..., 2\]"),
        (lambda: GaussianDestructor().adapt(np.ones([50, 2]) * np.arange(50.0)[:, None], 1), "subspace"),
    ],
)
def test_bad_input(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_a_destructor_must_return_a_bijector():
    class Nothing(Destructor):
        def adapt(self, x, seed):
            return x

    with pytest.raises(ValueError, match=r"must return a tfb\.Bijector"):
        DestructorStack(2, Nothing()).fit(MOONS.sample(50, seed=1), verbose=0)

    class Inverted(GaussianDestructor):
        def adapt(self, x, seed):
            return tfb.Invert(super().adapt(x, seed))

    with pytest.warns(UserWarning, match="not the inverse"):
        DestructorStack(2, Inverted(), max_layers=1, seed=1).fit(5.0 * MOONS.sample(500, seed=1), verbose=0)


def test_far_rows_ties_and_missing_densities():
    """One outlier does not decide about the rest; equal values are told; held-out rows without a density are an error."""
    x = np.random.default_rng(1).normal(size=[500, 2]).astype("float32")
    x[0] = 1e6
    inner = tff.rbig(2, max_layers=3, seed=1).fit(x, verbose=0).sample(2000, seed=1).numpy()
    np.testing.assert_allclose(np.quantile(inner, [0.1, 0.9]), [-1.28, 1.28], atol=0.2)
    with pytest.warns(UserWarning, match="equal values"):
        tff.rbig(2, max_layers=1, seed=1).fit(np.round(x[1:]), verbose=0)

    class Box(Destructor):
        latent = "uniform"

        def adapt(self, x, seed):
            return tfb.Chain([tfb.Shift(x.min(axis=0)), tfb.Scale(np.ptp(x, axis=0))])

    with pytest.raises(ValueError, match="no density"):
        DestructorStack(2, Box(), seed=1).fit(x[1:], verbose=0)
    rare = np.zeros([500, 2])
    rare[:, 0], rare[np.random.default_rng(1).permutation(500)[0], 1] = x[:, 0], 1.0  # held out, with this seed
    with pytest.raises(ValueError, match="constant in column 1"):
        tff.rbig(2, seed=1).fit(rare)


@pytest.mark.parametrize(
    "destructor",
    [
        MixtureDestructor(8),
        MarginalDestructor(tff.GaussianMixtureTransformer(8)),
        HistogramDestructor(),
        TreeDestructor(),
    ],
    ids=["mixture", "marginal mixture", "histogram", "tree"],
)
def test_one_outlier_does_not_ruin_a_layer(destructor):
    x = np.random.default_rng(1).normal(size=[3000, 2])
    x[17] = 1e6
    flow = DestructorStack(2, destructor, max_layers=1, seed=1).fit(x, verbose=0)
    fresh = np.random.default_rng(2).normal(size=[3000, 2]).astype("float32")
    assert -np.mean(flow.log_prob(fresh)) < np.log(2 * np.pi * np.e) + 0.1


def test_many_rows_are_thinned_evenly():
    """Quantiles of sorted data are those of all rows, in one array as in batches."""
    x = np.sort(np.random.default_rng(1).exponential(size=[300_000, 1]), axis=0)
    expected = np.quantile(x, [0.1, 0.5, 0.9])
    for batch in (x, iter(np.array_split(x, 7))):
        rows = rows_of("x", batch, 1)
        assert 60_000 < len(rows) <= 2**17
        np.testing.assert_allclose(np.quantile(rows, [0.1, 0.5, 0.9]), expected, rtol=1e-2)


def test_an_outlier_does_not_decide_about_columns_of_other_units():
    scale = np.array([1e-3, 1.0, 1e3])
    x = np.random.default_rng(1).normal(size=[4000, 3]) * scale
    x[17] = 1e6
    norm = MarginalDestructor().adapt(x, seed=1).bijectors[0]
    np.testing.assert_allclose(np.exp(norm.log_scale), scale, rtol=0.1)


@pytest.mark.parametrize("parts", [7, 1001])
def test_the_rows_that_stay_do_not_depend_on_the_batches(parts):
    x = np.arange(300_000.0)[:, None]
    np.testing.assert_array_equal(rows_of("x", iter(np.array_split(x, parts)), 1), rows_of("x", x, 1))


def test_fitting_ends_after_so_many_dropped_layers_in_a_row():
    class Scale(Destructor):
        def __init__(self, factor):
            self.factor = np.float32(factor)

        def adapt(self, x, seed):
            return tfb.Scale(self.factor)

    x = 8.0 * np.random.default_rng(1).normal(size=[500, 2]).astype("float32")
    halves, nothing = Scale(2.0), Scale(1.0)
    stack = DestructorStack(2, [halves, nothing] * 3, patience=2, seed=1)
    flow = stack.fit(x, verbose=0)
    np.testing.assert_array_equal(np.array(stack.history["gain"]) > 1e-4, [True, False] * 3 + [False])
    assert len(flow.bijector.bijectors) == 3


@pytest.mark.parametrize(("min_rows", "boxes"), [(20, 2), (21, 1)])
def test_a_tree_divides_where_both_boxes_hold_the_least_number_of_rows(min_rows, boxes):
    x = np.concatenate([-1.0 + 1e-3 * np.arange(20.0), 1.0 + 1e-3 * np.arange(20.0)])[:, None]
    assert TreeDestructor(max_leaves=2, min_rows=min_rows).adapt(x, seed=1).bijectors[-1].num_boxes == boxes


def test_correlations_within_their_sampling_error_are_no_reason_to_turn():
    rows = np.random.default_rng(1).normal(size=[60, 6])
    correlation = np.corrcoef(rows.T) - np.eye(6)
    assert 0.25 < np.max(np.abs(correlation)) < 0.6
    turn = tff.Rotation(6, start="pca", seed=1, dtype=tf.float64)
    before = turn.matrix().numpy()
    turn.adapt(rows)
    np.testing.assert_array_equal(turn.matrix(), before)
    turn.adapt(np.tile(rows, [40, 1]))  # the same correlations in many rows
    assert np.max(np.abs(turn.matrix() - before)) > 0.1
