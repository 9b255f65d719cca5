"""Greedy composition of destructors, controlled by held-out data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _compat_tfp
from tfp_flows.bijectors.composition import inverse_and_log_det
from tfp_flows.checks import positive_int
from tfp_flows.destructors.destructor import Destructor
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import real_dtype
from tfp_flows.seeds import resolve_seed, split_seed
from tfp_flows.training.validation import check_events

tfb = tfp.bijectors

_CHUNK = 65536
_LEAST_GAIN = 1e-4  # smallest gain, in nats, that keeps a layer


class DestructorStack:
    """Flow that is fitted greedily from destructors (Inouye and Ravikumar, Deep Density Destructors, ICML 2018).

    A layer is kept if it raises the mean log-likelihood of held-out data; the first is always kept. The gain of a layer
    is the decrease of the divergence from a standard normal distribution; for marginal Gaussianization, it is the
    decrease of the total correlation. After `fit`, the lists `history["val_loss"]` and `history["gain"]` hold the
    held-out NLL of each tried layer and its gain, in nats.

    Args:
      event_size: Size `D` of the events.
      destructors: A `Destructor`, or any object with its `adapt`; or a list for the first layers, whose last serves all
        further ones.
      max_layers: Maximal number of layers to try.
      patience: Number of consecutive dropped layers after which fitting ends.
      seed: Integer seed of random rotations and of the choice of held-out rows.
      dtype: `tf.float32` or `tf.float64`.
      name: Name of the distribution.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> tree, turn = tff.destructors.TreeDestructor(max_leaves=16), tff.destructors.MarginalDestructor(rotation="pca")
      >>> stack = tff.destructors.DestructorStack(2, [turn, tree], max_layers=4, seed=1)
      >>> flow = stack.fit(tff.data.moons().sample(2000, seed=1), verbose=0)
      >>> flow.sample(3, seed=1).shape, type(flow.bijector) is type(tfb.Chain([tff.PlanarFlow(2)]))
      (TensorShape([3, 2]), True)
    """

    def __init__(
        self,
        event_size: int,
        destructors: Destructor | Sequence[Destructor],
        *,
        max_layers: int = 100,
        patience: int = 10,
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        name: str = "destructors",
    ):
        self.event_size = positive_int("event_size", event_size)
        self.destructors = list(destructors) if isinstance(destructors, (list, tuple)) else [destructors]
        for part in self.destructors:
            if isinstance(part, type):
                raise ValueError(
                    f"`destructors` must be objects, got the class {part.__name__}: write {part.__name__}(...)."
                )
            if not callable(getattr(part, "adapt", None)) or _latent(part) not in ("normal", "uniform"):
                raise ValueError(
                    f"`destructors` must have a method adapt(x, seed) that returns a bijector, got {part!r}."
                )
        if not self.destructors:
            raise ValueError("`destructors` must hold at least one.")
        self.max_layers = positive_int("max_layers", max_layers)
        self.patience = positive_int("patience", patience)
        self.seed, self.dtype, self.name = resolve_seed(seed), real_dtype(dtype), name
        self.history: dict[str, list[float]] = {}

    def fit(self, x, *, validation_data=None, validation_split: float = 0.1, verbose="auto") -> FlowDistribution:
        """Fit the layers to `x`.

        Args:
          x: Array of events `[N, D]`.
          validation_data: Held-out events `[M, D]`.
          validation_split: Fraction of the rows of `x` to hold out at random, without `validation_data`.
          verbose: 1 (or `"auto"`) for a progress bar, 2 for a line per layer, 0 for silence.

        Returns:
          A `FlowDistribution` over a standard `MultivariateNormalDiag`, whose `bijector` is a `tfb.Chain` of all
            layers. `FlowModel(flow).fit(...)` trains it further.

        Raises:
          ValueError: If no density can be fitted to the data, or a destructor's bijector does not fit them.
        """
        train, held_out = self._split(x, validation_data, validation_split)
        zeros = tf.zeros([self.event_size], self.dtype)
        base = tfp.distributions.MultivariateNormalDiag(zeros, tf.ones_like(zeros))
        verbose = 1 if verbose == "auto" else int(verbose)
        bar = keras.utils.Progbar(self.max_layers, unit_name="layer", stateful_metrics=["val_loss", "gain"])
        self.history = {"val_loss": [], "gain": []}
        # NLL of the rows before any layer; not finite for distant rows.
        loss = -float(tf.reduce_mean(base.log_prob(held_out)))
        log_det, layers, failures = np.zeros(len(held_out)), [], 0
        for i, seed in enumerate(split_seed(self.seed, self.max_layers)):
            place = min(i, len(self.destructors) - 1)
            layer = self._fit_layer(self.destructors[place], train, seed)
            value, more = _apply(layer, held_out)
            after = -float(np.mean(np.asarray(base.log_prob(value), np.float64) + log_det + more))
            gain = loss - after
            self.history["val_loss"].append(after)
            self.history["gain"].append(gain)
            if not layers:
                self._check_first(after, gain)
            if not layers or gain > _LEAST_GAIN:
                train, held_out, log_det, loss, failures = _apply(layer, train)[0], value, log_det + more, after, 0
                layers += list(layer.bijectors)
                if not np.all(np.isfinite(train)):
                    raise ValueError(f"`destructors[{place}]` makes values that are not finite.")
            else:
                failures += 1
            last = i + 1 == self.max_layers or failures == self.patience
            if verbose == 2:
                print(f"Layer {i + 1}/{self.max_layers} - val_loss: {loss:.4f} - gain: {gain:.4f}")
            elif verbose == 1:
                bar.update(i + 1, [("val_loss", loss), ("gain", gain)], finalize=last)
            if last:
                break
        return FlowDistribution(base, tfb.Chain(layers), name=self.name)

    def _check_first(self, loss: float, gain: float) -> None:
        if not np.isfinite(loss):
            raise ValueError(
                f"`destructors[0]` gives held-out rows no density (their mean NLL is {loss}): the fitted density must be "
                "positive everywhere. Does `adapt` return the map from latent values to data?"
            )
        if gain < -0.5 * self.event_size:  # far more than overfitting can cause
            warnings.warn(
                f"`destructors[0]` makes held-out rows less likely, by {-gain:.3g} nats, than a standard normal "
                "distribution does. Has it enough rows, and does it return the map from latent values to data, and not "
                "the inverse?",
                stacklevel=3,
            )

    def _split(self, x: Any, validation_data: Any, share: float) -> tuple[np.ndarray, np.ndarray]:
        x = check_events("x", x, (self.event_size,), self.dtype)
        if validation_data is None:
            if not 0.0 < share < 1.0:
                raise ValueError(f"`validation_split` must be between 0 and 1, got {share!r}.")
            rows = np.random.default_rng(self.seed).permutation(len(x))
            held = int(np.ceil(share * len(x)))
            x, held_out = x[rows[held:]], x[rows[:held]]
        else:
            held_out = check_events("validation_data", validation_data, (self.event_size,), self.dtype)
        if len(x) < 10:
            raise ValueError(f"`x` must have at least 10 rows besides those held out, got {len(x)}.")
        constant = np.flatnonzero(x.min(axis=0) == x.max(axis=0))
        if len(constant):
            raise ValueError(
                f"`x` is constant in column {constant[0]} (of the rows to fit), which has no density there."
            )
        for j, column in enumerate(x.T):
            most = np.max(np.unique(column, return_counts=True)[1])
            if most > max(2, 0.05 * len(x)):
                warnings.warn(
                    f"`x` has {most} equal values among {len(x)} in column {j}: the density of a single value has no bound. "
                    "Add noise of the size of a step to levels, and leave such columns out otherwise.",
                    stacklevel=3,
                )
        return x, held_out

    def _fit_layer(self, destructor: Any, x: np.ndarray, seed: int) -> tfb.Chain:
        layer = destructor.adapt(x, seed)
        if not isinstance(layer, tfb.Bijector):
            raise ValueError(f"`adapt` of {destructor!r} must return a tfb.Bijector, got {layer!r}.")
        parts = list(layer.bijectors) if isinstance(layer, _compat_tfp.Chain) else [layer]
        if _latent(destructor) == "uniform":
            parts.append(tfb.NormalCDF())
        return tfb.Chain(parts)


def _latent(destructor: Any) -> str:
    return getattr(destructor, "latent", "normal")


def _apply(layer: tfb.Bijector, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return latent values and log-dets, the latter in float64 for summation, chunk by chunk to limit memory."""
    values, log_dets = [], []
    for i in range(0, len(x), _CHUNK):
        part = tf.constant(x[i : i + _CHUNK])
        value, log_det = inverse_and_log_det(layer, part, 1)
        values.append(value.numpy())
        log_dets.append(np.broadcast_to(np.asarray(log_det, np.float64), [len(part)]))
    return np.concatenate(values), np.concatenate(log_dets)
