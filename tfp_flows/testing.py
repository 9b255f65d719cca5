"""Checks that every bijector of this package satisfies, for the tests of your own.

Each `check_*` function raises an `AssertionError` that describes the failure. First redraw the weights with
`redraw_weights`, since an identity passes most checks. The checks bypass TFP's cache with `tf.identity`, and verify
log-dets by automatic differentiation. Use float64.

Example:
  >>> def make():
  ...     bijector = tff.PlanarFlow(3, dtype=tf.float64, seed=1)
  ...     redraw_weights(bijector, seed=2)
  ...     return bijector
  >>> check_bijector(make, event_shape=(3,))
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.saving import describe, from_description
from tfp_flows.training import FlowModel

tfb, tfd = tfp.bijectors, tfp.distributions


def redraw_weights(module: tf.Module, seed: int = 0, scale: float = 0.3) -> None:
    """Redraw every trainable variable from a normal distribution."""
    rng = np.random.default_rng(seed)
    for variable in module.trainable_variables:
        variable.assign(scale * rng.normal(size=variable.shape))


def draw_events(event_shape: Sequence[int], batch_shape: Sequence[int] = (5,), seed: int = 0, scale: float = 1.5):
    """Return random float64 events, as a tensor."""
    rng = np.random.default_rng(seed)
    return tf.constant(scale * rng.normal(size=[*batch_shape, *event_shape]))


def jacobian(fn: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, event_ndims: int) -> np.ndarray:
    """Return the Jacobian of `fn` at each of the events `x` (one batch axis), `[N, D, D]`, by automatic differentiation.

    It takes one gradient of as many copies of `x` as there are components, so `fn` must accept two batch axes.
    """
    size = int(np.prod(x.shape[-event_ndims:]))
    copies = tf.repeat(x[tf.newaxis], size, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        components = tf.reshape(fn(copies), [size, x.shape[0], size])
        one_of_each = tf.einsum("knk->", components)
    rows = tape.gradient(one_of_each, copies, unconnected_gradients="zero")
    return np.transpose(np.reshape(rows, [size, x.shape[0], size]), [1, 0, 2])


def _close(actual, expected, tolerance, what: str) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=what)


def _event_ndims(bijector: tfb.Bijector) -> int:
    return max(bijector.forward_min_event_ndims, 1)


def _directions(bijector: tfb.Bijector, event_ndims: int) -> Iterator[tuple[str, Callable, Callable]]:
    """Yield name, map and log-det of both directions."""
    for name in ("forward", "inverse"):
        log_det = getattr(bijector, f"{name}_log_det_jacobian")
        yield name, getattr(bijector, name), functools.partial(log_det, event_ndims=event_ndims)


def check_moves(bijector: tfb.Bijector, x: tf.Tensor) -> None:
    """Check that the map is finite and not the identity, which would pass most other checks."""
    y = bijector.forward(tf.identity(x)).numpy()
    assert np.all(np.isfinite(y)), "forward is not finite"
    if y.shape == tuple(x.shape):
        assert np.max(np.abs(y - x)) > 1e-2, "the map is the identity: were its weights redrawn?"


def check_round_trip(bijector: tfb.Bijector, x: tf.Tensor, tolerance: float = 1e-9) -> None:
    """Check that `inverse(forward(x)) = x` and `forward(inverse(y)) = y`."""
    y = bijector.forward(tf.identity(x))
    _close(bijector.inverse(tf.identity(y)), x, tolerance, "inverse(forward(x)) is not x")
    z = bijector.inverse(tf.identity(x))
    _close(bijector.forward(tf.identity(z)), x, tolerance, "forward(inverse(y)) is not y")


def check_log_det(bijector: tfb.Bijector, x: tf.Tensor, tolerance: float = 1e-8) -> None:
    """Check that both log-dets equal those of automatic differentiation, and cancel each other."""
    ndims = _event_ndims(bijector)
    for name, fn, log_det in _directions(bijector, ndims):
        sign, expected = np.linalg.slogdet(jacobian(fn, tf.identity(x), ndims))
        assert np.all(sign != 0), f"the {name} map has a singular Jacobian"
        actual = tf.broadcast_to(log_det(tf.identity(x)), expected.shape)
        _close(actual, expected, tolerance, f"{name}_log_det_jacobian is not that of the Jacobian")
    y = bijector.forward(tf.identity(x))
    there = bijector.forward_log_det_jacobian(tf.identity(x), event_ndims=ndims)
    back = bijector.inverse_log_det_jacobian(tf.identity(y), event_ndims=ndims)
    _close(back, -there, tolerance, "the two log-dets do not cancel")


def check_batch_shapes(bijector: tfb.Bijector, event_shape: Sequence[int], tolerance: float = 1e-9) -> None:
    """Check that batch shapes `[]`, `[5]` and `[2, 3]` agree with a loop over single events."""
    for batch_shape in ((), (5,), (2, 3)):
        x = draw_events(event_shape, batch_shape, seed=3)
        singles = tf.reshape(x, [-1, 1, *event_shape])
        for _, fn, log_det in _directions(bijector, len(event_shape)):
            expected = tf.reshape(tf.concat([fn(tf.identity(s)) for s in singles], 0), x.shape)
            actual = fn(tf.identity(x))
            assert actual.shape == x.shape, f"batch shape {batch_shape}: got {actual.shape}, expected {x.shape}"
            _close(actual, expected, tolerance, f"batch shape {batch_shape} differs from single events")
            expected = np.reshape([np.reshape(log_det(tf.identity(s)), [-1])[0] for s in singles], batch_shape)
            actual = tf.broadcast_to(log_det(tf.identity(x)), batch_shape)  # a constant may stay a scalar
            _close(actual, expected, tolerance, f"log-det for batch shape {batch_shape} differs")


def check_compilation(bijector: tfb.Bijector, x: tf.Tensor, tolerance: float = 1e-9) -> None:
    """Check that eager mode, `tf.function` and `jit_compile` agree, in both directions and log-dets."""

    def all_four(x):
        results = []
        for _, fn, log_det in _directions(bijector, _event_ndims(bijector)):
            results += [fn(tf.identity(x)), log_det(tf.identity(x))]
        return results

    eager = all_four(x)
    for jit in (False, True):
        for actual, expected in zip(tf.function(all_four, jit_compile=jit)(x), eager, strict=True):
            _close(actual, expected, tolerance, f"tf.function(jit_compile={jit}) differs from eager mode")


def check_gradients(bijector: tfb.Bijector, x: tf.Tensor) -> None:
    """Check that all trainable variables and the argument get finite gradients, not all zero, in both directions."""
    variables = bijector.trainable_variables
    for name, fn, log_det in _directions(bijector, _event_ndims(bijector)):
        x = tf.identity(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(fn(x))) + tf.reduce_sum(log_det(x))
        for variable, gradient in zip([x, *variables], tape.gradient(loss, [x, *variables]), strict=True):
            label = getattr(variable, "name", "x") if variable is not x else "the argument"
            assert gradient is not None, f"{name}: no gradient reaches {label}"
            gradient = tf.convert_to_tensor(gradient).numpy()
            assert np.all(np.isfinite(gradient)), f"{name}: the gradient of {label} is not finite"
            assert np.any(gradient != 0), f"{name}: the gradient of {label} is zero"


def check_jacobian_zeros(bijector: tfb.Bijector, x: tf.Tensor, allowed: np.ndarray) -> None:
    """Check that the Jacobian of the inverse is nonzero exactly where `allowed`, of shape `[D, D]` (output, input), is true."""
    j = jacobian(bijector.inverse, tf.identity(x), _event_ndims(bijector))
    depends = np.any(j != 0, axis=0)
    leaks, missing = np.argwhere(depends & ~allowed), np.argwhere(~depends & allowed)
    assert len(leaks) == 0, f"output {leaks[0][0]} depends on input {leaks[0][1]}"
    assert len(missing) == 0, f"output {missing[0][0]} ignores input {missing[0][1]}"


def check_tracking(bijector: tfb.Bijector, event_shape: Sequence[int]) -> None:
    """Check that `trainable_variables` lists exactly what the maps read, also inside other modules and in Keras."""
    x = draw_events(event_shape, seed=4)
    read = tracking.touched_variables(lambda: (bijector.forward(x), bijector.inverse(tf.identity(x))))
    expected = {id(v) for v in read}
    assert {id(v) for v in bijector.trainable_variables} == expected, "trainable_variables is not what the maps read"
    base = tfd.Sample(tfd.Normal(tf.zeros([], x.dtype), 1.0), list(event_shape))
    flow = tfd.TransformedDistribution(base, tfb.Chain([tfb.Invert(bijector)]))
    found = {id(v) for v in flow.trainable_variables}
    assert found == expected, "Chain, Invert or TransformedDistribution hides variables"
    if expected:
        kept = {id(v.value) for v in FlowModel(flow).trainable_variables}
        assert kept == expected, "FlowModel does not find all variables"


def check_instances_are_distinct(make: Callable[[], tfb.Bijector], event_shape: Sequence[int]) -> None:
    """Check that TFP does not confuse two bijectors with equal arguments and different weights.

    TFP compares bijectors by their `parameters`, and equal ones share a cache. A bijector that draws its own weights
    must not pass its arguments on as `parameters`.
    """
    first, second = make(), make()
    if not first.trainable_variables:
        return
    redraw_weights(second, seed=77, scale=0.6)
    assert first != second, "two instances with variables of their own are equal for TFP, and share its cache"
    x = draw_events(event_shape, seed=6)
    y = tfb.Chain([first, tfb.Invert(second)]).inverse(tf.identity(x))
    _close(y, second.forward(tf.identity(first.inverse(tf.identity(x)))), 1e-9, "Chain mixes two instances up")


def check_float32(make: Callable[..., tfb.Bijector], event_shape: Sequence[int], tolerance: float = 2e-3) -> None:
    """Check that results in float32 have that dtype and agree with float64. `make` takes the dtype."""
    double, single = make(tf.float64), make(tf.float32)
    for a, b in zip(single.variables, double.variables, strict=True):
        a.assign(tf.cast(b, a.dtype))
    x = draw_events(event_shape, seed=5)
    for name in ("forward", "inverse"):
        actual = getattr(single, name)(tf.cast(x, tf.float32))
        assert actual.dtype == tf.float32, f"{name} of float32 gives {actual.dtype}"
        _close(actual, getattr(double, name)(x), tolerance, f"{name} in float32 differs")


def check_bijector(
    make: Callable[[], tfb.Bijector], event_shape: Sequence[int], *, tolerance: float = 1e-8, jit: bool = True
) -> None:
    """Run all checks for a bijector that preserves the shape of events.

    Args:
      make: Function that returns the bijector, in float64, with redrawn weights.
      event_shape: Shape of an event.
      tolerance: Relative and absolute tolerance of round trips and log-dets.
      jit: Whether to compile by `tf.function` and XLA too.
    """
    bijector = make()
    x = draw_events(event_shape)
    check_moves(bijector, x)
    check_round_trip(bijector, x, tolerance)
    check_log_det(bijector, x, tolerance)
    check_batch_shapes(bijector, event_shape, tolerance)
    check_gradients(bijector, x)
    check_tracking(bijector, event_shape)
    check_instances_are_distinct(make, event_shape)
    if jit:
        check_compilation(bijector, x, tolerance)


def check_saving(make: Callable[[], tfb.Bijector], event_shape: Sequence[int]) -> None:
    """Check that a description with the same weights, a pickle and a deep copy are the same map, and share no variable.

    They need the decorator `tff.serializable`, as `model.save` does.
    """
    bijector = make()
    x = tf.cast(draw_events(event_shape, seed=7), bijector.dtype or tf.float64)
    twin = from_description(describe(bijector))
    for v, w in zip(twin.variables, bijector.variables, strict=True):
        v.assign(w)
    for other in (twin, pickle.loads(pickle.dumps(bijector)), copy.deepcopy(bijector)):
        _close(other.forward(tf.identity(x)), bijector.forward(tf.identity(x)), 1e-9, "a copy is another map")
        assert not {id(v) for v in other.variables} & {id(v) for v in bijector.variables}, "a copy shares variables"


def check_normalized(distribution, limit: float = 12.0, resolution: int = 500, tolerance: float = 5e-3) -> None:
    """Check that the density of a two-dimensional distribution integrates to 1 over `[-limit, limit]^2`."""
    step = 2.0 * limit / resolution
    axis = -limit + step * (np.arange(resolution) + 0.5)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_prob = tf.function(distribution.log_prob)(tf.constant(grid, distribution.dtype))
    total = float(np.sum(np.exp(np.asarray(log_prob, np.float64))) * step**2)
    assert abs(total - 1.0) < tolerance, f"the density integrates to {total}"


def check_above_entropy(distribution, x: np.ndarray, entropy: float, errors: float = 4.0) -> None:
    """Check that the mean NLL of `x` is not below the entropy, in nats, of the density that `x` was drawn from."""
    nll = -np.asarray(distribution.log_prob(tf.constant(x, distribution.dtype)), np.float64)
    lowest = entropy - errors * np.std(nll) / np.sqrt(len(nll))
    assert np.all(np.isfinite(nll)), "log_prob is not finite"
    assert np.mean(nll) > lowest, f"the NLL {np.mean(nll)} is below the entropy {entropy}"


def correlated_normal(event_size: int) -> tuple[Callable[[int, int], np.ndarray], float]:
    """Return `draw(n, seed)` of a normal distribution whose neighbors have correlation 0.8, and its entropy in nats."""
    mix = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(event_size), np.arange(event_size))))
    entropy = 0.5 * event_size * np.log(2.0 * np.pi * np.e) + np.sum(np.log(np.diag(mix)))
    return lambda n, seed: np.random.default_rng(seed).normal(size=[n, event_size]) @ mix.T, float(entropy)


def train(distribution: tfd.Distribution, steps: int = 60, learning_rate: float = 1e-2) -> FlowModel:
    """Train a distribution on a correlated normal one with large steps, and return the model."""
    draw, _ = correlated_normal(distribution.event_shape[0])
    model = FlowModel(distribution)
    model.compile(optimizer=keras.optimizers.Adam(learning_rate, global_clipnorm=10.0), jit_compile=False)
    model.fit(draw(100 * steps, 1), batch_size=100, verbose=0)
    return model


def check_trained(distribution: tfd.Distribution, tolerance: float = 1e-3) -> None:
    """Train a two-dimensional density, and check that it integrates to one and its NLL is not below the entropy of the data."""
    train(distribution)
    draw, entropy = correlated_normal(2)
    check_normalized(distribution, resolution=600, tolerance=tolerance)
    check_above_entropy(distribution, draw(20_000, 2), entropy)


def check_density(distribution: tfd.Distribution, n: int = 5, tolerance: float = 1e-8) -> None:
    """Check that `log_prob` of samples equals base density minus log-det."""
    x, log_prob = distribution.experimental_sample_and_log_prob(n, seed=[1, 2])
    _close(distribution.log_prob(tf.identity(x)), log_prob, tolerance, "log_prob differs from the forward route")


def check_fit_moves_every_weight(distribution: tfd.Distribution, x: np.ndarray, jit_compile="auto") -> None:
    """Check that a few steps of `FlowModel.fit` change every trainable weight and lower the NLL."""
    model = FlowModel(distribution)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=jit_compile)
    before = [w.numpy().copy() for w in model.trainable_variables]
    start = model.evaluate(x, batch_size=len(x), verbose=0)
    model.fit(x, batch_size=len(x) // 4, epochs=2, verbose=0)
    for old, weight in zip(before, model.trainable_variables, strict=True):
        assert np.any(weight.numpy() != old), f"{weight.path} did not move"
    end = model.evaluate(x, batch_size=len(x), verbose=0)
    assert end < start, f"the NLL did not fall: {start} to {end}"
