"""Calibration of posteriors and of densities: tests that return numbers with their errors, and plots."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import inverse_and_log_det
from tfp_flows.distribution import FlowDistribution
from tfp_flows.evaluation.plots.drawing import pyplot
from tfp_flows.seeds import resolve_seed

tfd = tfp.distributions

__all__ = [
    "CalibrationCurve",
    "TwoSampleTest",
    "Uniformity",
    "c2st",
    "expected_coverage",
    "pit",
    "sbc_ranks",
    "tarp",
]

_ORDER = 4  # of the polynomials in the test of uniformity: location, width, skewness, tails


@dataclasses.dataclass(frozen=True)
class Uniformity:
    """Values that are uniform on (0, 1) if a posterior or a density is calibrated, and a test of it.

    The test is Neyman's smooth test (1937): it sums the squared means of Legendre polynomials up to order 4, and has a
    chi-squared distribution for uniform values. Order 1 is a shift, order 2 a wrong width.

    Attributes:
      values: `[M, P]`.
      labels: Names of the columns.
      p_values: p-value of each column, `[P]`.
      shift, width: Mean of the first two normalized polynomials, `[P]`. Both have mean zero and standard error `error` if the
        values are uniform. `shift` is positive if the truth is larger than the draws; `width` is positive if the
        posterior is too narrow, and negative if it is too wide.
      error: Standard error of `shift` and `width`, `1 / sqrt(M)`.
    """

    values: np.ndarray
    labels: list[str]
    p_values: np.ndarray
    shift: np.ndarray
    width: np.ndarray
    error: float

    @property
    def p_value(self) -> float:
        """The p-value of all columns together: the smallest one, times their number (Bonferroni)."""
        return float(min(1.0, np.min(self.p_values) * len(self.p_values)))

    def __str__(self) -> str:
        size = max(9, *map(len, self.labels))
        lines = [f"{'':{size}} {'p-value':>8} {'shift':>8} {'width':>8}   (standard error {self.error:.3f})"]
        for label, p, shift, width in zip(self.labels, self.p_values, self.shift, self.width, strict=True):
            faults = []
            if p < 0.05 / len(self.p_values):
                faults += ["too narrow" if width > 0 else "too wide"] if abs(width) > 3 * self.error else []
                faults += ["too low" if shift > 0 else "too high"] if abs(shift) > 3 * self.error else []
                faults = faults or ["another shape"]
            lines.append(f"{label:{size}} {p:8.3g} {shift:8.3f} {width:8.3f}   {', '.join(faults)}")
        return "\n".join(lines)

    def plot(self, axes=None):
        """Plot a histogram of each column, with the range of 99 % of uniform values. Return the axes."""
        count, columns = self.values.shape
        if axes is None:
            axes = pyplot().subplots(1, columns, figsize=(3.2 * columns, 2.8), constrained_layout=True, squeeze=False)[
                1
            ][0]
        bins = int(np.clip(count // 25, 5, 20))
        spread = 2.576 * math.sqrt(count * (1 / bins) * (1 - 1 / bins))
        for ax, column, label in zip(np.ravel(axes), self.values.T, self.labels, strict=True):
            ax.axhspan(count / bins - spread, count / bins + spread, color="tab:gray", alpha=0.3, linewidth=0)
            ax.hist(column, bins=bins, range=(0, 1), color="tab:blue")
            ax.set(title=label.replace("$", r"\$"), xlabel="rank", xlim=(0, 1))
        np.ravel(axes)[0].set_ylabel("count")
        return axes


def _uniformity(values: np.ndarray, labels: list[str] | None) -> Uniformity:
    if not np.all(np.isfinite(values)):
        raise ValueError("The values must be finite: a value is NaN, or outside of the support of the density.")
    count, columns = values.shape
    x = 2.0 * values - 1.0
    means = []
    for order in range(1, _ORDER + 1):
        polynomial = np.polynomial.legendre.Legendre.basis(order)(x) * math.sqrt(2 * order + 1)
        means.append(np.mean(polynomial, axis=0))
    statistic = count * np.sum(np.square(means), axis=0)
    p_values = tfd.Chi2(tf.constant(_ORDER, tf.float64)).survival_function(statistic).numpy()
    labels = [f"theta[{i}]" for i in range(columns)] if labels is None else list(labels)
    if len(labels) != columns:
        raise ValueError(f"`labels` must have {columns} names, got {len(labels)}.")
    return Uniformity(values, labels, p_values, means[0], means[1], 1.0 / math.sqrt(count))


def _pairs(theta: Any, draws: Any) -> tuple[np.ndarray, np.ndarray]:
    theta, draws = np.asarray(theta, np.float64), np.asarray(draws, np.float64)
    if theta.ndim != 2 or draws.ndim != 3 or draws.shape[1:] != theta.shape or len(theta) < 20 or len(draws) < 2:
        raise ValueError(
            "`theta` must have shape [M, P] with at least 20 rows, and `draws` shape [L, M, P] with at least 2 draws for each, "
            f"got {list(theta.shape)} and {list(draws.shape)}."
        )
    if not (np.all(np.isfinite(theta)) and np.all(np.isfinite(draws))):
        raise ValueError("`theta` and `draws` must be finite.")
    return theta, draws


def sbc_ranks(theta, draws, *, labels: list[str] | None = None, seed: int | None = None) -> Uniformity:
    """Return the ranks of simulation-based calibration (Talts et al. 2018, arXiv:1804.06788), scaled to (0, 1).

    If the draws are from the posterior of a model, the rank of the true parameter among them is uniform. A cup shape
    indicates a posterior that is too narrow, a cap shape one that is too wide, and a slope one that is shifted.

    Args:
      theta: Parameters drawn from the prior, `[M, P]`, one row for each simulated data set.
      draws: Draws from the posterior of each data set, `[L, M, P]`, for instance `flow.sample((L, M), conditional_input=x)`.
        They must be independent: thin Markov chains.
      labels: Names of the parameters.
      seed: Integer seed of the random position within a rank and among ties.

    Raises:
      ValueError: If the shapes do not fit, or a value is not finite.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> theta = rng.normal(size=[300, 1])
      >>> x = theta + rng.normal(size=theta.shape)
      >>> draws = x / 2 + math.sqrt(0.5) * rng.normal(size=[100, 300, 1])  # the exact posterior
      >>> tff.calibration.sbc_ranks(theta, draws, seed=1).p_value > 0.05
      True
      >>> narrow = x / 2 + 0.7 * (draws - x / 2)
      >>> tff.calibration.sbc_ranks(theta, narrow, seed=1).p_value < 0.001
      True
    """
    theta, draws = _pairs(theta, draws)
    below, equal = np.sum(draws < theta, axis=0), np.sum(draws == theta, axis=0)
    within = np.random.default_rng(resolve_seed(seed)).uniform(size=theta.shape)
    return _uniformity((below + within * (equal + 1)) / (len(draws) + 1), labels)


def pit(flow: FlowDistribution, y, *, conditional_input=None, labels: list[str] | None = None) -> Uniformity:
    """Return the probability integral transform of held-out events: uniform columns if the density is calibrated.

    The latent values of a flow with a standard normal base are standard normal for events from its own density. Their
    normal CDF is uniform. This is the test of Rosenblatt (1952) for autoregressive flows, and its like for others.

    Args:
      flow: A flow with vectors as events and a normal base with independent dimensions.
      y: Events that were not used in training, `[M, D]`, at least 20.
      conditional_input: Conditions `[M, C]` of a conditional flow.
      labels: Names of the latent dimensions.

    Raises:
      ValueError: If the base is no `tfd.MultivariateNormalDiag`, or the shapes do not fit.

    Example:
      >>> flow = tff.maf(2, num_layers=2, seed=1)
      >>> tff.calibration.pit(flow, flow.sample(500, seed=1)).p_value > 0.01
      True
    """
    base = getattr(flow, "distribution", None)
    if not isinstance(flow, FlowDistribution) or not isinstance(base, tfd.MultivariateNormalDiag):
        raise ValueError(f"`flow` must have a tfd.MultivariateNormalDiag as its base, got {flow!r}.")
    y = tf.convert_to_tensor(y, flow.dtype)
    if y.shape.rank != 2 or y.shape[0] < 20:
        raise ValueError(f"`y` must have shape [M, {flow.event_shape[0]}] with at least 20 rows, got {y.shape}.")
    kwargs = {} if conditional_input is None else flow.bijector_kwargs(conditional_input)
    latent, _ = inverse_and_log_det(flow.bijector, y, 1, **kwargs)
    standardized = (latent - base.mean()) / base.stddev()
    names = [f"z[{i}]" for i in range(standardized.shape[1])] if labels is None else labels
    return _uniformity(tfd.Normal(tf.zeros([], tf.float64), 1.0).cdf(tf.cast(standardized, tf.float64)).numpy(), names)


@dataclasses.dataclass(frozen=True)
class CalibrationCurve:
    """Coverage of credible regions at each level, which equals the level if a posterior is calibrated.

    Attributes:
      levels: Credible levels, `[K]`.
      coverage: Fraction of the true parameters inside of the regions, `[K]`.
      error: Standard error of `coverage`, `[K]`.
      p_value: p-value of a calibrated posterior, by the smooth test of `Uniformity`.
      bias: Mean of coverage minus level: negative if the posterior is too narrow (overconfident) or shifted, and positive if
        it is too wide.
      bias_error: Standard error of `bias`.
    """

    levels: np.ndarray
    coverage: np.ndarray
    error: np.ndarray
    p_value: float
    bias: float
    bias_error: float

    def __str__(self) -> str:
        verdict = "calibrated"
        if self.p_value < 0.05:
            verdict = "too narrow or shifted" if self.bias < 0 else "too wide"
        return f"p-value {self.p_value:.3g}   mean coverage error {self.bias:+.3f} ± {self.bias_error:.3f}   {verdict}"

    def plot(self, ax=None):
        """Plot coverage against level, with two standard errors. Return the axes."""
        ax = ax if ax is not None else pyplot().subplots(figsize=(3.6, 3.4), constrained_layout=True)[1]
        ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
        low, high = self.coverage - 2 * self.error, self.coverage + 2 * self.error
        ax.fill_between(self.levels, low, high, color="tab:blue", alpha=0.3, linewidth=0)
        ax.plot(self.levels, self.coverage, color="tab:blue")
        ax.set(xlabel="credible level", ylabel="coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        return ax


def _curve(values: np.ndarray) -> CalibrationCurve:
    """Return the curve of levels `[M]` at which the regions first contain the truth; uniform if calibrated."""
    levels = np.linspace(0.0, 1.0, 41)
    coverage = np.mean(values[:, np.newaxis] <= levels, axis=0)
    error = np.sqrt(levels * (1 - levels) / len(values))
    uniform = _uniformity(values[:, np.newaxis], None)
    bias = 0.5 - float(np.mean(values))
    return CalibrationCurve(levels, coverage, error, uniform.p_value, bias, 1.0 / math.sqrt(12 * len(values)))


def expected_coverage(log_prob_theta, log_prob_draws, *, seed: int | None = None) -> CalibrationCurve:
    """Return the expected coverage of highest-density regions (Hermans et al. 2021, arXiv:2110.06581).

    The level of the region with the true parameter on its border is the fraction of draws whose density is higher.

    Args:
      log_prob_theta: Log-density of the true parameters under the posterior, `[M]`, at least 20.
      log_prob_draws: Log-density of posterior draws, `[L, M]`.
      seed: Integer seed of the random position among the draws.

    Raises:
      ValueError: If the shapes do not fit, or a value is NaN.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> exact, draws = rng.normal(size=[400]), rng.normal(size=[100, 400])
      >>> tff.calibration.expected_coverage(-(exact**2), -(draws**2), seed=1).p_value > 0.05
      True
    """
    truth, draws = np.asarray(log_prob_theta, np.float64), np.asarray(log_prob_draws, np.float64)
    if truth.ndim != 1 or len(truth) < 20 or draws.ndim != 2 or draws.shape[1:] != truth.shape:
        raise ValueError(
            "`log_prob_theta` must have shape [M] with at least 20 values, and `log_prob_draws` shape [L, M], got "
            f"{list(truth.shape)} and {list(draws.shape)}."
        )
    if np.any(np.isnan(truth)) or np.any(np.isnan(draws)):
        raise ValueError("`log_prob_theta` and `log_prob_draws` must not contain NaN.")
    above, equal = np.sum(draws > truth, axis=0), np.sum(draws == truth, axis=0)
    within = np.random.default_rng(resolve_seed(seed)).uniform(size=truth.shape)
    return _curve((above + within * (equal + 1)) / (len(draws) + 1))


def tarp(theta, draws, *, seed: int | None = None) -> CalibrationCurve:
    """Return the coverage of balls around random reference points (TARP; Lemos et al. 2023, arXiv:2302.03026).

    Needs draws only, and no densities. The reference points are uniform in the range of the true parameters, in units of
    their standard deviation. Each parameter counts, unlike in marginal ranks, and so do dependences. The prior passes
    too, so that a high p-value does not show that a posterior makes use of its data.

    Args:
      theta: True parameters, `[M, P]`, at least 20 rows.
      draws: Draws from the posterior of each data set, `[L, M, P]`.
      seed: Integer seed of the reference points.

    Raises:
      ValueError: If the shapes do not fit, or a value is not finite.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> theta, draws = rng.normal(size=[400, 2]), rng.normal(size=[100, 400, 2])
      >>> tff.calibration.tarp(theta, draws, seed=1).p_value > 0.05
      True
    """
    theta, draws = _pairs(theta, draws)
    rng = np.random.default_rng(resolve_seed(seed))
    scale = np.std(theta, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    references = rng.uniform(theta.min(axis=0), theta.max(axis=0), size=theta.shape)
    truth = np.linalg.norm((theta - references) / scale, axis=-1)
    distance = np.linalg.norm((draws - references) / scale, axis=-1)
    nearer = np.sum(distance < truth, axis=0)
    return _curve((nearer + rng.uniform(size=len(theta))) / (len(draws) + 1))


@dataclasses.dataclass(frozen=True)
class TwoSampleTest:
    """Accuracy of a classifier that tells two samples apart, with its standard error; 0.5 for equal distributions."""

    accuracy: float
    error: float


def c2st(x, y, *, folds: int = 5, seed: int | None = None) -> TwoSampleTest:
    """Return the accuracy of a classifier two-sample test (Lopez-Paz and Oquab 2016, arXiv:1610.06545).

    A network with two hidden layers of `10 D` units is trained on standardized rows, and its accuracy is that of
    cross-validation, as in the benchmark of Lueckmann et al. (2021, arXiv:2101.04653).

    Args:
      x, y: Two samples, `[N, D]` each, with the same number of rows.
      folds: Number of folds.
      seed: Integer seed of the folds and of the network.

    Raises:
      ValueError: If the shapes differ, a value is not finite, or there are fewer than `10 folds` rows.
      ImportError: If scikit-learn is not installed (`pip install "tfp_flows[calibration]"`).

    Example:
      >>> rng = np.random.default_rng(0)
      >>> found = tff.calibration.c2st(rng.normal(size=[200, 1]), rng.normal(3.0, 1.0, size=[200, 1]), seed=1)
      >>> 0.85 < found.accuracy < 1.0
      True
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or x.shape != y.shape or len(x) < 10 * folds:
        raise ValueError(
            f"`x` and `y` must have the same shape [N, D] with at least {10 * folds} rows, got {list(x.shape)} and "
            f"{list(y.shape)}."
        )
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise ValueError("`x` and `y` must be finite.")
    try:
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise ImportError('c2st needs scikit-learn: pip install "tfp_flows[calibration]"') from error
    seed = resolve_seed(seed) % 2**31
    scale = np.std(x, axis=0)
    rows = (np.concatenate([x, y]) - np.mean(x, axis=0)) / np.where(scale > 0, scale, 1.0)
    labels = np.repeat([0, 1], len(x))
    units = 10 * x.shape[1]
    network = MLPClassifier((units, units), max_iter=1000, random_state=seed)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    accuracy = float(np.mean(cross_val_score(network, rows, labels, cv=splits)))
    return TwoSampleTest(accuracy, math.sqrt(accuracy * (1 - accuracy) / len(rows)))
