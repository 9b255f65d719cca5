"""`NeuralPosterior`: the posterior of a simulator, amortized over observations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import standardize
from tfp_flows.checks import positive_int
from tfp_flows.data.arrays import to_array
from tfp_flows.distribution import FlowDistribution
from tfp_flows.dynamics import EncodedFlow
from tfp_flows.inference.calibration import Uniformity, sbc_ranks
from tfp_flows.recipes import spline_autoregressive
from tfp_flows.seeds import resolve_seed, split_seed
from tfp_flows.training.callbacks import EarlyStopping
from tfp_flows.training.flow_model import FlowModel
from tfp_flows.training.model_target import ModelTarget, by_name, without_warnings_of_loops

tfd = tfp.distributions

_HELD_OUT = 0.1
_CHUNK = 1000  # simulations per call of the simulator


class NeuralPosterior:
    """The posterior p(theta | x) of a simulator, learned from simulations (neural posterior estimation).

    A conditional flow is trained by maximum likelihood on pairs of parameters from the prior and simulated data (Greenberg
    et al. 2019, arXiv:1905.07488; Lueckmann et al. 2021, arXiv:2101.04653). It then answers for any observation without
    further training. The flow works on unconstrained parameters, so that draws are inside of the support of the prior.

    Args:
      prior: Distribution of the parameters, of one tensor or a `tfd.JointDistribution`. With `observed`, a joint
        distribution of parameters and data, which is prior and simulator in one.
      simulator: Callable `(theta)`, or `(theta, seed)`, from `n` parameters, in the structure of the prior's samples, to data
        `[n, *x_shape]`. It may return NumPy arrays. `None` if you have pairs, and with `observed`.
      observed: Name of the observed part of a joint distribution.
      recipe: Recipe of the flow; its options are the remaining keywords.
      encoder: Keras layer or model from data `[N, *x_shape]` to features `[N, F]`, for data that are no vectors. `"set"` makes
        one for `n` exchangeable observations `[N, n, D]`, which does not depend on their order.
      uniform: Map of parameters with a uniform prior (see `ModelTarget`). `"softclip"` is nearly linear, so it keeps the
        width of narrow posteriors inside of the bounds. `"sigmoid"` is smoother at the bounds.
      seed: Integer seed of simulations, initial weights and held-out rows. The order of batches follows
        `keras.utils.set_random_seed`.
      options: Options of the recipe, such as `num_layers`.

    Attributes:
      flow: The conditional flow over unconstrained parameters; available after `fit`.
      model: The `FlowModel` that trains it.
      target: The `ModelTarget` that maps unconstrained vectors to the parameters, with their `labels`.

    Raises:
      ValueError: If a part of the prior is discrete, improper or of unknown shape, or for an argument out of range.

    Example:
      >>> prior = tfd.JointDistributionNamed({"loc": tfd.Normal(0.0, 1.0), "scale": tfd.Uniform(0.5, 2.0)})
      >>> def simulator(theta, seed):
      ...     noise = tf.random.stateless_normal([len(theta["loc"]), 10], seed)
      ...     return theta["loc"][:, None] + theta["scale"][:, None] * noise
      >>> posterior = tff.NeuralPosterior(prior, simulator, num_layers=1, hidden_units=[16], seed=1)
      >>> history = posterior.fit(num_simulations=300, epochs=2, verbose=0)
      >>> draws = posterior.sample(100, tf.zeros([10]))
      >>> sorted(draws), bool(tf.reduce_all((draws["scale"] > 0.5) & (draws["scale"] < 2.0)))
      (['loc', 'scale'], True)
    """

    def __init__(
        self,
        prior: tfd.Distribution,
        simulator: Callable | None = None,
        *,
        observed: str | None = None,
        recipe: Callable[..., FlowDistribution] = spline_autoregressive,
        encoder: Any = None,
        uniform: str = "softclip",
        seed: int | None = None,
        **options,
    ):
        if not isinstance(prior, tfd.Distribution):
            raise ValueError(f"`prior` must be a tfd.Distribution, got {prior!r}.")
        if observed is not None and (simulator is not None or not isinstance(prior, tfd.JointDistribution)):
            raise ValueError("`observed` needs a tfd.JointDistribution as `prior`, and no `simulator`.")
        if simulator is not None and not callable(simulator):
            raise ValueError(f"`simulator` must be callable, got {simulator!r}.")
        if encoder is not None and encoder != "set" and not callable(encoder):
            raise ValueError(f'`encoder` must be a Keras layer, "set" or None, got {encoder!r}.')
        self._seeds = split_seed(resolve_seed(seed), 4)  # simulations, weights, training, calibration
        self._prior, self._simulator, self._observed = prior, simulator, observed
        self._recipe, self._encoder, self._options = recipe, encoder, options
        model = (prior, lambda theta: 0.0)
        if observed is not None:
            example = prior.sample(seed=_pair(self._seeds[0]))
            values = by_name(example)
            if observed not in values:
                raise ValueError(f"`observed` must be the name of a part, one of {sorted(values)}, got {observed!r}.")
            model = prior.experimental_pin(**{observed: values[observed]})
        self.target = ModelTarget(model, uniform=uniform)
        self.flow: FlowDistribution | None = None
        self.model: FlowModel | None = None

    def simulate(self, num_simulations: int, *, seed: int | None = None) -> tuple[Any, np.ndarray]:
        """Return parameters from the prior, in its structure, and simulated data `[n, *x_shape]`.

        Raises:
          ValueError: If there is no simulator, or it returns another number of rows.
        """
        count = positive_int("num_simulations", num_simulations)
        if self._simulator is None and self._observed is None:
            raise ValueError("This posterior has no `simulator`: give `theta` and `x`.")
        seed = self._seeds[0] if seed is None else resolve_seed(seed)
        parts, data = [], []
        every = split_seed(seed, 2 * -(-count // _CHUNK))
        for i in range(0, count, _CHUNK):
            n, seeds = min(_CHUNK, count - i), every[2 * (i // _CHUNK) :]
            if self._observed is None:
                theta = self._prior.sample(n, seed=_pair(seeds[0]))
                x = _call(self._simulator, theta, _pair(seeds[1]))
            else:
                with without_warnings_of_loops():
                    theta = self._prior.sample(n, seed=_pair(seeds[0]))
                theta = by_name(theta)
                x = theta.pop(self._observed)
                theta = tf.nest.pack_sequence_as(self._structure(), [theta[name] for name in self._names()])
            x = np.asarray(x)
            if x.ndim == 0 or len(x) != n:
                raise ValueError(f"`simulator` must return {n} rows for {n} parameters, got shape {list(x.shape)}.")
            parts.append([np.asarray(part) for part in tf.nest.flatten(theta)])
            data.append(x[:, np.newaxis] if x.ndim == 1 else x)
        flat = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return tf.nest.pack_sequence_as(self._structure(), flat), np.concatenate(data)

    def _structure(self) -> Any:
        return self.target.bijector.forward_dtype(self.target.dtype)

    def _names(self) -> list[str]:
        structure = self._structure()
        return sorted(structure) if isinstance(structure, dict) else list(structure._fields)

    def _unconstrained(self, theta: Any) -> tf.Tensor:
        like = self._structure()
        theta = tf.nest.map_structure(lambda dtype, part: tf.convert_to_tensor(part, dtype), like, theta)
        return self.target.bijector.inverse(theta)

    def fit(
        self,
        theta: Any = None,
        x: Any = None,
        *,
        num_simulations: int = 10_000,
        epochs: int = 200,
        batch_size: int = 100,
        patience: int = 20,
        optimizer: keras.optimizers.Optimizer | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Train on pairs, which are simulated if none are given. Return the Keras `History`, whose losses are in nats.

        A tenth of the pairs is held out, and training stops when their loss has not improved for `patience` epochs. The
        weights of the best epoch are kept. The losses are those of the unconstrained parameters.

        Args:
          theta: Parameters `[N, ...]`, in the structure of the prior; or a `tf.data.Dataset` of batches `(theta, x)`, read
            anew in each epoch, for data larger than memory.
          x: Data `[N, *x_shape]` that belong to the parameters.
          num_simulations: Number of simulations if no pairs are given.
          epochs, batch_size, patience: Most epochs, rows in a step, and epochs without improvement.
          optimizer: Adam with a learning rate of 1e-3, a cosine decay and clipped gradients if `None`.
          callbacks, verbose: Options of `keras.Model.fit`.

        Raises:
          ValueError: If parameters and data do not fit, are not finite, or are outside of the prior's support.
        """
        if isinstance(theta, tf.data.Dataset):
            held, data, rows = self._from_dataset(theta)  # here the number of batches
        else:
            theta, x = self.simulate(num_simulations) if theta is None else (theta, x)
            z, x = self._checked_pairs(theta, x)
            order = np.random.default_rng(self._seeds[2]).permutation(len(z))
            count = max(1, round(_HELD_OUT * len(z)))
            z, x = z[order], x[order]
            held, data, rows = (x[:count], z[:count]), (x[count:], z[count:]), len(z) - count
        self._build(*(held if isinstance(data, tf.data.Dataset) else data))
        steps = rows if isinstance(data, tf.data.Dataset) else -(-rows // batch_size)
        if optimizer is None:
            rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * steps)
            optimizer = keras.optimizers.Adam(rate, global_clipnorm=5.0)
        self.model.compile(optimizer=optimizer)
        flat = self._flat_pairs(*held)
        stop = EarlyStopping(flat, patience=patience)
        options = {"epochs": epochs, "validation_data": flat, "callbacks": [*callbacks, stop], "verbose": verbose}
        if isinstance(data, tf.data.Dataset):
            return self.model.fit(data, **options)
        return self.model.fit(*self._flat_pairs(*data), batch_size=batch_size, **options)

    def _checked_pairs(self, theta: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
        if x is None:
            raise ValueError("`x` must be given with `theta`.")
        z = self._unconstrained(theta).numpy()
        x = to_array("x", x).astype(self.target.dtype.as_numpy_dtype)
        x = x[:, np.newaxis] if x.ndim == 1 else x
        if z.ndim != 2 or len(z) != len(x) or len(z) < 20:
            raise ValueError(
                f"`theta` and `x` must have the same number of rows, at least 20, got {len(z)} and {len(x)}."
            )
        bad = np.flatnonzero(~np.all(np.isfinite(z), axis=1))
        if len(bad):
            raise ValueError(f"`theta` must be inside of the prior's support and finite; row {bad[0]} is not.")
        bad = np.flatnonzero(~np.all(np.isfinite(x.reshape(len(x), -1)), axis=1))
        if len(bad):
            raise ValueError(f"`x` must be finite; row {bad[0]} is not. Leave out simulations that fail.")
        return z, x

    def _from_dataset(self, pairs: tf.data.Dataset):
        """Return held-out arrays of pairs, the other batches, and their number."""

        def prepared(theta, x):
            x = tf.cast(x, self.target.dtype)
            return tf.reshape(x, [tf.shape(x)[0], -1]), self._unconstrained(theta)

        shape = pairs.element_spec[1].shape[1:].as_list() or [1]
        mapped = pairs.map(prepared)
        sizes = [len(z) for _, z in mapped.as_numpy_iterator()]
        wanted, found = max(1, round(_HELD_OUT * sum(sizes))), 0
        first = []
        for x, z in mapped.as_numpy_iterator():
            first.append((x, z))
            found += len(z)
            if found >= wanted:
                break
        if len(first) == len(sizes):
            raise ValueError("A dataset must have at least two batches: the first ones are held out.")
        if not np.array_equal(next(mapped.as_numpy_iterator())[1], first[0][1]):
            raise ValueError(
                "A dataset must have the same order in each pass, since its first batches are held out: "
                "shuffle(..., reshuffle_each_iteration=False)."
            )
        x, z = (np.concatenate(column) for column in zip(*first, strict=True))
        return (x.reshape([len(x), *shape]), z), mapped.skip(len(first)), len(sizes) - len(first)

    def _build(self, x: np.ndarray, z: np.ndarray) -> None:
        """Create the flow for the shapes and scales of training data, unless an earlier `fit` did."""
        shape = list(x.shape[1:])
        if self.flow is not None:
            if shape != self._x_shape:
                raise ValueError(f"`x` must have rows of shape {self._x_shape}, as in the first `fit`, got {shape}.")
            return
        self._x_shape = shape
        size, encoder, dtype = int(np.prod(shape)), self._encoder, self.target.dtype
        if encoder is None and len(shape) != 1:
            raise ValueError(f"`encoder` must be given for data of shape {shape}, which are no vectors.")
        scale = (
            standardize(x.reshape(-1, shape[-1]), dtype=dtype, name="standardize_x") if encoder is not None else None
        )
        if encoder == "set":
            encoder = _set_encoder(self._seeds[1])
        features = size if encoder is None else int(encoder(tf.zeros([1, *shape], dtype)).shape[-1])
        options = {
            "num_layers": 4,
            "hidden_units": [64, 64],
            "preprocess": standardize(z, dtype=dtype),
            **self._options,
        }
        if encoder is not None:
            options.setdefault("preprocess_condition", None)
        flow = self._recipe(
            self.target.event_size, conditional_size=features, seed=self._seeds[1], dtype=dtype, **options
        )
        self.flow = flow if encoder is None else EncodedFlow(flow, encoder, shape, preprocess=scale)
        self.model = FlowModel(self.flow, name="neural_posterior")

    def _flat_pairs(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x.reshape(len(x), -1), z

    def _conditions(self, x: Any) -> tf.Tensor:
        """Return observations as conditions `[C]` or `[M, C]`."""
        if self.flow is None:
            raise ValueError("Call `fit` first.")
        x = tf.convert_to_tensor(np.asarray(x, self.target.dtype.as_numpy_dtype))
        rank = len(self._x_shape)
        if x.shape.rank not in (rank, rank + 1) or x.shape[x.shape.rank - rank :].as_list() != self._x_shape:
            raise ValueError(f"`x` must have shape {self._x_shape} or {['M', *self._x_shape]}, got {x.shape}.")
        return tf.reshape(x, [*x.shape[: x.shape.rank - rank], -1])

    def sample(self, num_samples: int, x, *, seed: int | None = None) -> Any:
        """Return draws from the posterior, in the structure of the prior and inside of its support.

        Args:
          num_samples: Number of draws `n` for each observation.
          x: One observation, of shape `x_shape`, for draws `[n, ...]`; or several, `[M, *x_shape]`, for draws `[n, M, ...]`.
          seed: Integer seed.

        Raises:
          ValueError: If `x` has another shape, or before `fit`.
        """
        condition = self._conditions(x)
        shape = [positive_int("num_samples", num_samples), *condition.shape[:-1]]
        z = self.model.sample(tuple(shape), conditional_input=condition, seed=seed)
        return self.target.bijector.forward(z)

    def log_prob(self, theta: Any, x) -> tf.Tensor:
        """Return the log-density, in nats, of parameters given observations; minus infinity outside of the prior's support.

        Args:
          theta: Parameters in the structure of the prior, `[n, ...]`, or `[n, M, ...]` for several observations.
          x: One observation, of shape `x_shape`, or several, `[M, *x_shape]`.

        Raises:
          ValueError: If `x` has another shape, or before `fit`.
        """
        condition = self._conditions(x)
        z = self._unconstrained(theta)
        inside = tf.reduce_all(tf.math.is_finite(z), axis=-1)
        z = tf.where(inside[..., tf.newaxis], z, tf.zeros_like(z))
        log_det = self.target.bijector.forward_log_det_jacobian(z, event_ndims=1)
        log_prob = self.model.log_prob(tf.identity(z), conditional_input=condition) - log_det
        return tf.where(inside, log_prob, tf.cast(-np.inf, log_prob.dtype))

    def given(self, x) -> tfd.Distribution:
        """Return the posterior of one observation as a `tfd.Distribution` of the prior's structure.

        Raises:
          ValueError: If `x` has another shape, or before `fit`.
        """
        return tfd.TransformedDistribution(self.flow.given(self._conditions(x)), self.target.bijector, name="posterior")

    def calibrate(self, num_simulations: int = 500, *, num_samples: int = 100, seed: int | None = None) -> Uniformity:
        """Return the ranks of new parameters among draws for their simulated data (see `tff.calibration.sbc_ranks`)."""
        seed = self._seeds[3] if seed is None else resolve_seed(seed)
        theta, x = self.simulate(num_simulations, seed=seed)
        z = self._unconstrained(theta)
        draws = self.model.sample((num_samples, len(x)), conditional_input=self._conditions(x), seed=seed)
        flat = tf.reshape(draws, [-1, draws.shape[-1]])
        draws = self.target.parameters(flat).reshape([num_samples, len(x), -1])
        return sbc_ranks(self.target.parameters(z), draws, labels=self.target.labels, seed=seed)


def _set_encoder(seed: int) -> keras.Sequential:
    """Return a network of sets `[N, n, D]` that averages the features of their members."""
    layers = [
        keras.layers.Dense(units, activation, kernel_initializer=keras.initializers.GlorotUniform(each % 2**31))
        for units, activation, each in zip((64, 64, 64, 32), ("relu",) * 3 + (None,), split_seed(seed, 4), strict=True)
    ]
    return keras.Sequential([*layers[:2], keras.layers.GlobalAveragePooling1D(), *layers[2:]])


def _pair(seed: int) -> tuple[int, int]:
    return seed % 2**31, seed // 2**31 % 2**31


def _call(simulator: Callable, theta: Any, seed: tuple[int, int]) -> Any:
    """Call a simulator with a seed if it takes one."""
    try:
        takes_seed = "seed" in inspect.signature(simulator).parameters
    except (TypeError, ValueError):
        takes_seed = False
    return simulator(theta, seed=seed) if takes_seed else simulator(theta)
