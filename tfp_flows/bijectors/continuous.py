"""Continuous flows: the solution of a differential equation as a map (FFJORD)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import one_of, positive_int
from tfp_flows.networks import DenseNetwork
from tfp_flows.networks.broadcasting import check_condition, flatten_batch, unflatten
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, structure_seed
from tfp_flows.tracking import Mirror

tfb = tfp.bijectors

TRACES = ("auto", "exact", "hutchinson")
_MOST_EXACT = 8  # up to this size `"auto"` is exact


@serializable
class ContinuousFlow(FlowBijector):
    """Flow of `dx/dt = f(t, x)` from `t = 0` (latent) to `t = 1` (data), over TFP's `FFJORD` (Grathwohl et al. 2018).

    `f` is a multilayer perceptron of `x`, `t` and an optional condition. The log-det is the integral of the trace of `df/dx`.
    The trace is exact, with `D` derivatives in each evaluation, or Hutchinson's estimate, with one. The random signs of the
    estimate are derived from the values, so that the same batch always has the same density. The Dormand-Prince method with
    adaptive steps solves for value and log-det together. Gradients solve the adjoint equation backwards, so that memory does
    not grow with the number of steps.

    Cost per direction and event: one pass of the network for each evaluation of the solver (see `num_evaluations`), with `D`
    backward passes or one. Rows of a batch share their steps: each result depends on the other rows, within the tolerances.

    Args:
      event_size: Integer `D`.
      hidden_units, activation: Hidden layer sizes and activation of the network. The activation should be smooth.
      trace: `"exact"`, `"hutchinson"`, or `"auto"`: exact up to `D = 8`.
      rtol, atol: Relative and absolute tolerance of a solver step. The error of a round trip is a few times that.
      max_num_steps: Number of solver steps after which a call fails.
      conditional_size: Size `C` of the `conditional_input` `[..., C]` that every call then needs, or `None`.
      seed: Integer seed of the initial values. If `None`, `keras.utils.set_random_seed` determines them.
      dtype: `tf.float32` or `tf.float64`.
      validate_args: Whether to check arguments at run time, at some cost.
      name: Name of the bijector.

    Attributes:
      num_evaluations: Variable, the number of evaluations of `f` in the last call, in either direction.

    Raises:
      ValueError: For an argument out of range; it names the argument.

    Shapes: `[..., D]` to `[..., D]`; the log-det has shape `[...]` and is in nats.

    Example:
      >>> flow = ContinuousFlow(2, hidden_units=[8], seed=1)
      >>> y = flow.forward(tf.ones([5, 2]))
      >>> y.shape, bool(flow.num_evaluations > 6)
      (TensorShape([5, 2]), True)

    References:
      W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, FFJORD, 2018, arXiv:1810.01367.
      R. T. Q. Chen, Y. Rubanova, J. Bettencourt and D. Duvenaud, Neural Ordinary Differential Equations, 2018,
      arXiv:1806.07366.
    """

    # The length of the loop is not known, so XLA compilation takes more time than it saves.
    gains_by_jit = False

    def __init__(
        self,
        event_size: int,
        *,
        hidden_units: Sequence[int] = (64, 64),
        activation="tanh",
        trace: str = "auto",
        rtol: float = 1e-4,
        atol: float = 1e-4,
        max_num_steps: int = 1000,
        conditional_size: int | None = None,
        seed: int | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        name: str = "continuous_flow",
    ):
        super().__init__(event_size, dtype=dtype, validate_args=validate_args, name=name)
        one_of("trace", trace, TRACES)
        for key, value in (("rtol", rtol), ("atol", atol)):
            if not value > 0:
                raise ValueError(f"`{key}` must be positive, got {value!r}.")
        self.conditional_size = conditional_size
        self._seed = resolve_seed(seed)
        network = DenseNetwork(hidden_units, activation=activation, seed=self._seed, dtype=self.dtype.name)
        if conditional_size is not None:
            positive_int("conditional_size", conditional_size)
        network.build_sizes(event_size, event_size, 1 + (conditional_size or 0))
        self._network = Mirror(network)
        # Floating point, so that Keras can save it.
        self.num_evaluations = tf.Variable(
            tf.zeros([], self.dtype),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="num_evaluations",
        )
        self._is_exact = trace == "exact" or (trace == "auto" and event_size <= _MOST_EXACT)
        self._solver = tfp.math.ode.DormandPrince(
            rtol=rtol, atol=atol, first_step_size=0.05, max_num_steps=positive_int("max_num_steps", max_num_steps)
        )
        # In eager mode the loops of the solver and of the adjoint would take a hundred times longer.
        self._graphs = {
            (direction, kind): tf.function(functools.partial(fn, direction), reduce_retracing=True, autograph=False)
            for direction in ("forward", "inverse")
            for kind, fn in (("solution", self._run), ("gradient", self._run_back))
        }

    def _derivative(self, time, state, conditional_input=None):
        """Return `f(t, x)`. The network reads the time as an additional condition."""
        given = tf.reshape(tf.cast(time, self.dtype), [1])
        if conditional_input is not None:
            shape = tf.concat([tf.shape(conditional_input)[:-1], [1]], axis=0)
            given = tf.concat([conditional_input, tf.broadcast_to(given, shape)], axis=-1)
        return self._network.fn(state, given)

    def _solve(self, **kwargs):
        results = self._solver.solve(**kwargs)
        self.num_evaluations.assign(tf.cast(results.diagnostics.num_ode_fn_evaluations, self.dtype))
        return results

    def _draw_signs(self, value: tf.Tensor) -> tf.Tensor:
        number = tf.bitcast(tf.cast(tf.reduce_sum(value), tf.float32), tf.int32)
        seed = tf.stack([tf.constant(structure_seed(self._seed) % 2**31, tf.int32), number])
        bits = tf.random.stateless_uniform(tf.shape(value), seed, 0, 2, tf.int32)
        return tf.cast(2 * bits - 1, value.dtype)

    def _solved(self, direction: str, value: tf.Tensor, conditional_input) -> tuple[tf.Tensor, tf.Tensor]:
        check_condition(conditional_input, self.conditional_size)
        self.check_events(value)
        value, conditional_input, batch_shape = flatten_batch(value, conditional_input)
        if conditional_input is not None:
            rows = tf.stack([tf.shape(value)[0], self.conditional_size])
            conditional_input = tf.broadcast_to(conditional_input, rows)
        # All rows share the solver's steps, so one non-finite row would spoil all of them. The solver needs at least one row.
        finite = tf.reduce_all(tf.math.is_finite(value), axis=-1)
        if conditional_input is not None:
            finite &= tf.reduce_all(tf.math.is_finite(conditional_input), axis=-1)
            conditional_input = _where_rows(finite, conditional_input, 0.0)
        rows = tf.shape(value)[0]
        value = _where_rows(finite, value, 0.0)
        value, conditional_input = (t if t is None else _at_least_one_row(t) for t in (value, conditional_input))
        run = self._run_eagerly if tf.executing_eagerly() else self._run
        result, log_det = (t[:rows] for t in run(direction, value, conditional_input))
        result, log_det = _where_rows(finite, result, np.nan), tf.where(finite, log_det, tf.cast(np.nan, log_det.dtype))
        return unflatten(result, batch_shape, [self.event_size]), unflatten(log_det, batch_shape, [])

    def _run(self, direction: str, value: tf.Tensor, conditional_input) -> tuple[tf.Tensor, tf.Tensor]:
        # The solver's constants have gradients and are available in the adjoint. (FFJORD also takes a condition as a keyword,
        # but its cache then solves the equation twice.)
        constants = {} if conditional_input is None else {"conditional_input": conditional_input}
        if not self._is_exact:
            constants["signs"] = self._draw_signs(value)
        ffjord = tfb.FFJORD(
            self._derivative,
            ode_solve_fn=functools.partial(self._solve, constants=constants),
            trace_augmentation_fn=_exact_trace if self._is_exact else _estimated_trace,
            dtype=self.dtype,
        )
        value = tf.identity(value)  # a new object, so that the second call finds in the cache what the first has solved
        result = getattr(ffjord, direction)(value)
        return result, getattr(ffjord, f"{direction}_log_det_jacobian")(value, event_ndims=1)

    def _run_back(self, direction: str, value: tf.Tensor, conditional_input, gradients) -> list[tf.Tensor]:
        """Return the gradients with respect to the value, the condition, and the network's variables."""
        sources = [
            value,
            *([] if conditional_input is None else [conditional_input]),
            *self._network.trainable_variables,
        ]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            found = self._run(direction, value, conditional_input)
        return tape.gradient(found, sources, output_gradients=gradients, unconnected_gradients="zero")

    def _run_eagerly(self, direction: str, value: tf.Tensor, conditional_input) -> tuple[tf.Tensor, tf.Tensor]:
        """Like `_run`, but with compiled functions for the value and the gradient.

        TensorFlow's own gradient of a function with TFP's solver is NaN in eager mode if the function was called in a graph
        before (tests/test_continuous.py).
        """
        weights = self._network.trainable_variables
        inputs = [value, *([] if conditional_input is None else [conditional_input])]

        # The weights are arguments, so that they have gradients although no tape watches the solution. (If two tapes watched
        # it, TensorFlow would prepare derivatives of all orders, which never ends for a solver.)
        @tf.custom_gradient
        def solve(*arguments):
            value, condition = arguments[0], arguments[1] if len(inputs) > 1 else None

            def gradient(*upstream, variables=()):
                given = (value, condition, list(upstream))
                found = _first_derivative(self._graphs[direction, "gradient"], given, [*arguments, *upstream])
                # TensorFlow passes the variables that were read during tracing, which are already among the arguments.
                return (found, [None] * len(variables)) if variables else found

            return _unwatched(self._graphs[direction, "solution"], value, condition), gradient

        return solve(*inputs, *map(tf.convert_to_tensor, weights))

    def forward_and_log_det(self, x, conditional_input=None):
        return self._solved("forward", x, conditional_input)

    def inverse_and_log_det(self, y, conditional_input=None):
        return self._solved("inverse", y, conditional_input)


def _unwatched(function: Callable, *args):
    """Call a `tf.function` in eager mode without any tape watching."""
    concrete = function.get_concrete_function(*args)  # traced first, since tapes inside of it must still watch
    with tf.init_scope():
        return concrete(*args)


def _first_derivative(function: Callable, args: tuple, sources: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return gradients computed by a `tf.function`. Differentiating them again raises a `NotImplementedError`."""

    def refuse(*_, variables=()):
        del variables
        raise NotImplementedError(
            "A continuous flow has first derivatives only: its gradient is the solution of another differential equation."
        )

    @tf.custom_gradient
    def first(*_):
        return _unwatched(function, *args), refuse

    return first(*sources)


def _where_rows(mask: tf.Tensor, rows: tf.Tensor, other: float) -> tf.Tensor:
    """Replace the rows of `[N, D]` where `mask` is false by a constant."""
    return tf.where(mask[:, tf.newaxis], rows, tf.cast(other, rows.dtype))


def _at_least_one_row(rows: tf.Tensor) -> tf.Tensor:
    """Return rows `[N, D]`, or one row of zeros if there are none."""
    if rows.shape[0]:
        return rows
    return tf.pad(rows, [[0, tf.cast(tf.equal(tf.shape(rows)[0], 0), tf.int32)], [0, 0]])


def _exact_trace(ode_fn, shape, dtype):
    """Return the derivative of each component with respect to itself."""
    del shape, dtype

    def augmented(time, state_and_trace, **kwargs):
        state, _ = state_and_trace
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(state)
            derivative = ode_fn(time, state, **kwargs)
            components = tf.unstack(derivative, axis=-1)
        own = [tape.gradient(part, state)[..., i] for i, part in enumerate(components)]
        return derivative, tf.stack(own, axis=-1)

    return augmented


def _estimated_trace(ode_fn, shape, dtype):
    """Estimate the trace (Hutchinson) with one vector of random signs for each row, the same at all times."""
    del shape, dtype

    def augmented(time, state_and_trace, signs, **kwargs):
        state, _ = state_and_trace
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state)
            derivative = ode_fn(time, state, **kwargs)
        return derivative, signs * tape.gradient(derivative, state, signs)

    return augmented
