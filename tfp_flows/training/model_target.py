"""The posterior of a model as a target over one unconstrained vector."""

from __future__ import annotations

import collections
import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._compat_tfp import part_names
from tfp_flows.checks import one_of
from tfp_flows.registry import serializable
from tfp_flows.training.soft_clip import SoftClip

tfb, tfd = tfp.bijectors, tfp.distributions
_Pinned = tfp.experimental.distributions.JointDistributionPinned
_NUM_CHECKS = 100  # prior draws that a fixed map must invert
_SOFTNESS = 0.02  # of "softclip", as a fraction of the interval
_SEEDS = ((1, 2), (3, 4))  # of the two prior draws that show which shapes and bounds depend on other parts


class ModelTarget(tf.Module):
    """The unnormalized posterior of a model, over one unconstrained vector.

    The vector concatenates the unknown parts of the model, whose shapes may differ. Bijectors map it to their supports,
    and their log-det is added.

    Args:
      model: A pinned joint distribution, `joint.experimental_pin(y=y)`, of any `tfd.JointDistribution`; or a pair
        `(prior, log_likelihood)` of a distribution and a callable from its samples to `[...]`, in nats.
      uniform: Map of parts with a uniform prior: `"sigmoid"`, or `"softclip"`, which is nearly linear inside of the bounds.

    Attributes:
      event_size: Size `D` of the vector.
      bijector: Map from `[..., D]` to the unknown parts, with the model's names and shapes.

    Raises:
      ValueError: If a part is discrete, has an improper prior, or a shape that is unknown or depends on other parts; the
        message names the part.

    Example:
      >>> joint = tfd.JointDistributionNamed({"scale": tfd.LogNormal(0.0, 1.0), "y": lambda scale: tfd.Normal(0.0, scale)})
      >>> target = tff.ModelTarget(joint.experimental_pin(y=2.0))
      >>> target.event_size, target.labels, target(tf.zeros([5, 1])).shape
      (1, ['scale'], TensorShape([5]))
    """

    def __init__(self, model: Any, *, uniform: str = "sigmoid"):
        super().__init__(name="model_target")
        one_of("uniform", uniform, ("sigmoid", "softclip"))
        prior, self._log_prob, names, draws = _unpack(model)
        _check_parts(names, draws)
        self.model, self._prior = model, prior
        self._event_shape = tf.nest.map_structure(tf.TensorShape, prior.event_shape)
        self.bijector = _vector_to_parts(prior, names, draws, self._event_shape, uniform == "softclip")
        self.event_size = int(self.bijector.inverse_event_shape(self._event_shape)[-1])
        self.dtype = tf.as_dtype(tf.nest.flatten(prior.dtype)[0])
        # A tuple, since `tf.Module` replaces lists by its own kind.
        self._labels = tuple(f"{name}{index}" for name, shape in self._named_shapes(names) for index in _indices(shape))
        self._batched = True
        self._batched = self._takes_batches()

    def _named_shapes(self, names: list[str]) -> list[tuple[str, list[int]]]:
        parts = _parts(self._event_shape, names)
        return [
            (name if len(flat) == 1 else f"{name}.{i}", shape.as_list())
            for name, part in zip(names, parts, strict=True)
            for flat in [tf.nest.flatten(part)]
            for i, shape in enumerate(flat)
        ]

    @property
    def labels(self) -> list[str]:
        """Name of each number in the unknown parts, such as `"theta[0]"`."""
        return list(self._labels)

    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        """Return the unnormalized log-density `[n]` of vectors `[n, D]`, in nats."""
        if not self._batched:
            return tf.vectorized_map(lambda row: tf.reshape(self._density(row), []), z)
        return self._density(z)

    def _density(self, z: tf.Tensor) -> tf.Tensor:
        z = tf.identity(z)  # bypasses TFP's cache
        log_det = self.bijector.forward_log_det_jacobian(z, event_ndims=1)
        return self._log_prob(self.bijector.forward(z)) + log_det

    def _takes_batches(self) -> bool:
        """Return whether the model broadcasts over draws. A `JointDistribution` that is not auto-batched may not."""
        z = tf.random.stateless_normal([3, self.event_size], _SEEDS[0], dtype=self.dtype)
        try:
            single = [tf.reshape(self._density(row), []) for row in z]
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"The log-density of one draw must be one number, but {self.model} raised: {error}"
            ) from error
        try:
            several = self._density(z)
        except (ValueError, tf.errors.InvalidArgumentError):
            return False
        return several.shape == [3] and np.allclose(several, single, rtol=1e-3, atol=1e-3, equal_nan=True)

    def sample_prior(self, num_samples: int, seed=None) -> tf.Tensor:
        """Return vectors `[n, D]` whose parts are drawn from the prior, with pinned parts held fixed."""
        draw = getattr(self._prior, "sample_unpinned", None) or self._prior.sample
        if self._batched:
            with without_warnings_of_loops():
                return self.bijector.inverse(draw(num_samples, seed=seed))
        seeds = tf.random.experimental.stateless_split(tfp.random.sanitize_seed(seed), num_samples)
        return tf.stack([self.bijector.inverse(draw(seed=each)) for each in tf.unstack(seeds)])

    def typical_prior(self, num_samples: int = 500) -> np.ndarray:
        """Return fixed draws of the prior, `[n, D]`, clipped to their central 98 %: heavy tails have no useful deviation."""
        draws = self.sample_prior(num_samples, seed=(1, 2)).numpy()
        return np.clip(draws, *np.quantile(draws, [0.01, 0.99], axis=0))

    def parameters(self, z: tf.Tensor) -> np.ndarray:
        """Return the unknown parts of vectors `[n, D]` as an array `[n, len(labels)]`."""
        flat = tf.nest.flatten(self.bijector.forward(z))
        return np.concatenate([np.reshape(part, [len(z), -1]) for part in flat], axis=-1)


@contextlib.contextmanager
def without_warnings_of_loops():
    """Silence TFP's warning that stateless sampling of auto-batched models takes a loop, which nobody can change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*stateless sampling", category=UserWarning)
        yield


def by_name(parts: Any) -> dict[str, Any]:
    """Return the parts of a joint distribution by name; none if it has no names."""
    return dict(parts) if isinstance(parts, dict) else dict(zip(getattr(parts, "_fields", ()), parts, strict=False))


def _unpack(model: Any) -> tuple[Any, Callable, list[str], list[list[tuple[tfd.Distribution, Any]]]]:
    """Return prior, log-density of the unknown parts, their names, and their distributions and values in two draws."""
    if isinstance(model, _Pinned):
        names, joint = _names(model), model.distribution
        every = _names(joint)
        draws = []
        for seed in _SEEDS:
            found = joint.sample_distributions(seed=seed, **model.pins)
            flat = [dict(zip(every, _parts(part, every), strict=True)) for part in found]
            draws.append([(flat[0][name], flat[1][name]) for name in names])
        return model, lambda parts: model.unnormalized_log_prob(parts), names, draws
    if not (
        isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], tfd.Distribution) and callable(model[1])
    ):
        raise ValueError(
            "`model` must be a pinned joint distribution, joint.experimental_pin(y=y), or a pair (prior, log_likelihood) of a "
            f"distribution and a callable, got {model!r}."
        )
    prior, log_likelihood = model
    if isinstance(prior, tfd.JointDistribution):
        names = _names(prior)
        draws = []
        for seed in _SEEDS:
            found = [_parts(part, names) for part in prior.sample_distributions(seed=seed)]
            draws.append(list(zip(*found, strict=True)))
    else:
        name = "theta" if prior.name[:1].isupper() else prior.name  # TFP's default names are those of classes
        names, draws = [name], [[(prior, prior.sample(seed=seed))] for seed in _SEEDS]
    return prior, lambda parts: prior.log_prob(parts) + log_likelihood(parts), names, draws


def _names(model: Any) -> list[str]:
    """Return the names of the parts in the order of `tf.nest.flatten`, which sorts the keys of a dictionary."""
    return sorted(part_names(model)) if isinstance(model.dtype, Mapping) else part_names(model)


def _parts(structure: Any, names: list[str]) -> list:
    """Return the parts of a model's structure; a single distribution has one part."""
    if isinstance(structure, Mapping):
        return [structure[name] for name in names]
    is_nested = isinstance(structure, (tuple, list)) and not isinstance(structure, tf.TensorShape)
    return list(structure) if is_nested and len(structure) == len(names) else [structure]


def _check_parts(names: list[str], draws: list[list[tuple[tfd.Distribution, Any]]]) -> None:
    for name, (part, value), (_, other) in zip(names, *draws, strict=True):
        what = f"The part `{name}` of the model, {type(part).__name__},"
        shapes = [[v.shape.as_list() for v in tf.nest.flatten(values)] for values in (value, other)]
        if shapes[0] != shapes[1] or not all(s.is_fully_defined() for s in tf.nest.flatten(part.event_shape)):
            raise ValueError(
                f"{what} must have the same known shape in each draw, got shapes {shapes[0]} and {shapes[1]}."
            )
        if not all(v.dtype.is_floating for v in tf.nest.flatten(value)) or _support(part) is None:
            raise ValueError(f"{what} must be continuous: sum it out of the model, or pin it.")
        finite = [tf.reduce_all(tf.math.is_finite(v)) for v in (*tf.nest.flatten(value), part.log_prob(value))]
        if not all(finite):
            raise ValueError(f"{what} must have a proper prior: a draw or its density is not finite.")


def _support(part: tfd.Distribution, softly: bool = False) -> tfb.Bijector | None:
    """Return the bijector onto the support, `None` for a discrete distribution. Elementwise if possible, for descriptions."""
    if softly and isinstance(part, tfd.Uniform):
        return SoftClip(part.low, part.high, _SOFTNESS * (part.high - part.low))
    inner = getattr(part, "distribution", None) if isinstance(part, (tfd.Sample, tfd.Independent)) else None
    if inner is not None and (isinstance(part, tfd.Independent) or inner.batch_shape.rank == 0):
        elementwise = _support(inner, softly)
        if elementwise is None or elementwise.forward_min_event_ndims == 0:
            return elementwise
    try:
        return part.experimental_default_event_space_bijector()
    except (NotImplementedError, AttributeError):  # TFP raises AttributeError for a joint part with a discrete one
        return None
    except TypeError as error:  # TFP 0.25's bijector of the simplex on NumPy 2.4
        raise ValueError(
            f"TFP {tfp.__version__} cannot map {part} to real numbers with NumPy {np.__version__} ({error}): install "
            '"numpy<2.4", or write the part as a transformation of normal variables.'
        ) from error


def _vector_to_parts(prior: Any, names: list[str], draws: list, event_shape: Any, softly: bool) -> tfb.Bijector:
    """Return the map from one vector to the unknown parts, without running the model if no support depends on other parts."""
    supports = [[_support(part, softly) for part, _ in draw] for draw in draws]
    parts = _parts(event_shape, names)
    if all(isinstance(part, tf.TensorShape) for part in parts) and all(map(_same_map, *supports, parts)):
        shapes = [s.inverse_event_shape(part).as_list() for s, part in zip(supports[0], parts, strict=True)]
        made = unknown_parts(shapes, supports[0], names, _kind(event_shape))
        if _inverts_prior(made, prior):
            return made
    to_support = prior.experimental_default_event_space_bijector()
    shapes = [tf.TensorShape(s).as_list() for s in tf.nest.flatten(to_support.inverse_event_shape(event_shape))]
    pack = tfb.Restructure(tf.nest.pack_sequence_as(event_shape, list(range(len(shapes)))))
    return tfb.Chain([to_support, pack, *_pieces(shapes)])


def _inverts_prior(bijector: tfb.Bijector, prior: Any) -> bool:
    """Return whether draws of the prior are inside of a map's range. Two draws may agree on a bound that a third moves."""
    draw = getattr(prior, "sample_unpinned", None) or prior.sample
    with without_warnings_of_loops():
        vectors = [bijector.inverse(draw(seed=(5, i))) for i in range(_NUM_CHECKS)]
    return bool(np.all(np.isfinite(vectors)))


def _pieces(shapes: list[list[int]]) -> list[tfb.Bijector]:
    """Return the bijectors that cut a vector into tensors of the given shapes."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    return [tfb.JointMap([tfb.Reshape(s, [n]) for s, n in zip(shapes, sizes, strict=True)]), tfb.Split(sizes)]


@serializable
def unknown_parts(shapes, supports, names, kind: str, name: str = "unknown_parts") -> tfb.Bijector:
    """Return the map from a vector to parts of the given unconstrained shapes, each through its own support bijector.

    Args:
      shapes: Shapes of the parts before their support bijectors.
      supports: The support bijectors, with the same order.
      names: Names of the parts.
      kind: Structure of the result: `"tensor"`, `"list"`, `"tuple"`, `"dict"` or `"namedtuple"`.
      name: Name of the bijector.

    Example:
      >>> unknown_parts([[2], []], [tfb.Identity(), tfb.Exp()], ["loc", "scale"], "dict").forward(tf.zeros([3]))["scale"].shape
      TensorShape([])
    """
    if kind == "tensor":
        return tfb.Chain([supports[0], tfb.Reshape(shapes[0], [int(np.prod(shapes[0]))])], name=name)
    order = list(range(len(shapes)))
    makers = {"list": list, "tuple": tuple, "dict": lambda x: dict(zip(names, x, strict=True))}
    if kind == "namedtuple":
        structure = collections.namedtuple("StructTuple", names)
        makers[kind] = lambda x: structure(*x)
    pack = makers[kind]
    return tfb.Chain([tfb.JointMap(pack(supports)), tfb.Restructure(pack(order)), *_pieces(shapes)], name=name)


def _kind(structure: Any) -> str:
    if isinstance(structure, tf.TensorShape):
        return "tensor"
    if hasattr(structure, "_fields"):
        return "namedtuple"
    return "dict" if isinstance(structure, Mapping) else "list" if isinstance(structure, list) else "tuple"


def _same_map(first: tfb.Bijector, second: tfb.Bijector, shape: tf.TensorShape) -> bool:
    """Return whether two support bijectors agree, so that the support does not depend on the values of other parts."""
    inner = first.inverse_event_shape(shape)
    if type(first) is not type(second) or second.inverse_event_shape(shape) != inner:
        return False
    z = tf.random.stateless_normal(inner, _SEEDS[0], dtype=first.dtype or tf.float32)
    return bool(np.allclose(first.forward(z), second.forward(tf.identity(z)), rtol=1e-6, equal_nan=True))


def _indices(shape: list[int]) -> list[str]:
    return [str(list(index)) if index else "" for index in np.ndindex(*shape)]


def is_model(model: Any) -> bool:
    """Return whether `ModelTarget` may take the argument: a pinned distribution or a pair."""
    return isinstance(model, (_Pinned, tuple))


def as_target(target: Any) -> Any:
    """Return a `ModelTarget` for a model, or for the log-density of several or named parts of a pinned distribution."""
    if is_model(target):
        return ModelTarget(target)
    owner, name = getattr(target, "__self__", None), getattr(target, "__name__", "")
    if not isinstance(owner, _Pinned) or name != "unnormalized_log_prob":
        return target
    named = isinstance(owner.dtype, Mapping) or hasattr(owner.dtype, "_fields")
    return ModelTarget(owner) if named or len(tf.nest.flatten(owner.dtype)) > 1 else target
