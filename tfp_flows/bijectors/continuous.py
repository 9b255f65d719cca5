"""Continuous flows: the solution of a differential equation as a bijector (FFJORD)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import fixed_steps
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.checks import one_of, positive_int
from tfp_flows.networks import DenseNetwork, FourierNetwork
from tfp_flows.networks.broadcasting import check_condition, flatten_batch, unflatten
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, structure_seed
from tfp_flows.tracking import Mirror

TRACES = ("auto", "exact", "hutchinson")
ADAPTIVE = "dormand_prince"
_MOST_EXACT = 8  # up to this size `"auto"` is exact


@serializable
class ContinuousFlow(FlowBijector):
    """Flow of `dx/dt = f(t, x)` from `t = 0` (latent) to `t = 1` (data) (FFJORD, Grathwohl et al. 2018, arXiv:1810.01367).

    `f` is a multilayer perceptron of `x`, `t` and an optional condition. The log-det is the integral of the trace of
    `df/dx`. It is exact, or Hutchinson's estimate, whose random signs derive from the values, so that a batch always
    has the same density. The default solver is the Dormand-Prince method with adaptive steps. Its gradients come from the
    adjoint equation (Chen et al. 2018, arXiv:1806.07366), so that memory does not grow with the number of steps.

    The other solvers make `num_steps` equal steps. Both directions and the log-det then approximate the differential
    equation with an error of order `num_steps ** -p` (`p` is 1, 2, 2 and 4 for `"euler"`, `"midpoint"`, `"heun"` and
    `"rk4"`): a round trip is not exact, and `log_prob` is close to the density of the samples, not equal. Use them for
    fast samples, and an adaptive solver for densities (`with_solver`). Gradients go through all steps.

    Cost per direction and event: one pass of the network per evaluation, each with `D` backward passes (exact trace) or
    one (estimate) for the log-det. The variable `num_evaluations` holds their number in the last call. For a fixed-step
    solver it is always `num_steps` times 1, 2, 2 or 4, the number for samples, which need no trace. A value with its log-det
    takes twice as many. The rows of a batch
    share the adaptive steps, so they affect each other within the tolerances. Shapes: `[..., D]` to `[..., D]`; log-det
    `[...]`, in nats.

    Args:
      event_size: Integer `D`.
      hidden_units, activation: Hidden layers of the network and their activation, which should be smooth.
      num_frequencies: Number of Fourier features of each dimension and of the time (Tancik et al. 2020, arXiv:2006.10739),
        for fine structure in standardized data. Flow matching gains from 3; 0 for none.
      trace: `"exact"`, `"hutchinson"`, or `"auto"`, which is exact up to `D = 8`.
      rtol, atol: Relative and absolute tolerance of a solver step. The round trip errs by a few of them.
      max_num_steps: Number of solver steps after which a call fails.
      solver: `"dormand_prince"` (adaptive steps), or `"euler"`, `"midpoint"`, `"heun"` or `"rk4"` (fixed steps).
      num_steps: Number of steps of a fixed-step solver, which needs it; `None` for adaptive steps.
      network: Keras layer in place of the perceptron: `network(x, given)` returns velocities `[N, D]` for `x` `[N, D]` and
        `given`, the condition and then the time, `[N, C + 1]` or `[1, C + 1]`. `hidden_units`, `activation`
        and `num_frequencies` are then ignored. The layer must be built, and registered with Keras to be saved.
      conditional_size: Size `C` of the `conditional_input`, `[..., C]`, which every call then needs.
      seed: Integer seed of the initial weights; `keras.utils.set_random_seed` decides if `None`.
      dtype, validate_args, name: `tf.float32` or `tf.float64`; whether to check values at run time; name of the bijector.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> flow = tff.ContinuousFlow(2, hidden_units=[8], seed=1)
      >>> y = flow.forward(tf.ones([5, 2]))
      >>> y.shape, bool(flow.num_evaluations > 6)
      (TensorShape([5, 2]), True)
    """

    # XLA takes longer to compile the solver's loop, whose length is not known, than it saves.
    gains_by_jit = False

    def __init__(
        self,
        event_size: int,
        *,
        hidden_units: Sequence[int] = (64, 64),
        activation="tanh",
        num_frequencies: int = 0,
        trace: str = "auto",
        rtol: float = 1e-4,
        atol: float = 1e-4,
        max_num_steps: int = 1000,
        solver: str = ADAPTIVE,
        num_steps: int | None = None,
        network: keras.layers.Layer | None = None,
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
        if conditional_size is not None:
            positive_int("conditional_size", conditional_size)
        if network is None:
            sizes = {"input_units": event_size, "conditional_size": 1 + (conditional_size or 0)}
            options = {"activation": activation, "seed": self._seed, "dtype": self.dtype.name}
            if positive_int("num_frequencies", num_frequencies, 0):
                network = FourierNetwork(hidden_units, event_size, num_frequencies=num_frequencies, **sizes, **options)
            else:
                network = DenseNetwork(hidden_units, event_size, **sizes, **options)
        self._network = Mirror(network)
        # A float variable, so that Keras can save it.
        options = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self.num_evaluations = tf.Variable(tf.zeros([], self.dtype), name="num_evaluations", **options)
        self._is_exact = trace == "exact" or (trace == "auto" and event_size <= _MOST_EXACT)
        self.solver, self.num_steps = one_of("solver", solver, (ADAPTIVE, *fixed_steps.TABLEAUS)), num_steps
        if solver != ADAPTIVE:
            positive_int("num_steps", num_steps)
            self.num_evaluations.assign(tf.cast(num_steps * fixed_steps.num_stages(solver), self.dtype))
        elif num_steps is not None:
            raise ValueError(f'`num_steps` must be None for the adaptive solver "{ADAPTIVE}", got {num_steps!r}.')
        self._max_num_steps = positive_int("max_num_steps", max_num_steps)
        self._tolerances = {"rtol": rtol, "atol": atol}
        options = {"first_step_size": 0.05, "max_num_steps": max_num_steps}
        self._solver = tfp.math.ode.DormandPrince(**self._tolerances, **options)
        # In eager mode, the loops of the solver and of the adjoint would be a hundred times slower.
        self._graphs = {
            (direction, kind): tf.function(functools.partial(fn, direction), reduce_retracing=True, autograph=False)
            for direction in ("forward", "inverse")
            for kind, fn in (("solution", self._run), ("gradient", self._run_back), ("steps", self._run_steps))
        }

    def with_solver(self, solver: str, num_steps: int | None = None, *, rtol=None, atol=None) -> ContinuousFlow:
        """Return a layer with another solver that shares the network, so that training one changes both.

        Args:
          solver, num_steps: Arguments of the constructor.
          rtol, atol: Tolerances of the adaptive solver; those of this layer if `None`.

        Raises:
          ValueError: If an argument is out of range.
        """
        options = {"trace": "exact" if self._is_exact else "hutchinson", "seed": self._seed, "dtype": self.dtype}
        options |= {"conditional_size": self.conditional_size, "validate_args": self.validate_args, "name": self.name}
        given = {key: value for key, value in (("rtol", rtol), ("atol", atol)) if value is not None}
        options |= {"max_num_steps": self._max_num_steps, **self._tolerances, **given}
        return ContinuousFlow(self.event_size, solver=solver, num_steps=num_steps, network=self._network.fn, **options)

    def velocity(self, time, x, conditional_input=None) -> tf.Tensor:
        """Return `f(t, x)`, in units of `x` per unit of time.

        Args:
          time: Times from 0 (latent) to 1 (data), which broadcast to the batch shape of `x`.
          x: Points `[..., D]` on the way from latent values to data.
          conditional_input: Conditions `[..., C]` of a conditional flow.

        Returns:
          Velocities `[..., D]`.
        """
        check_condition(conditional_input, self.conditional_size)
        x = tf.convert_to_tensor(x, self.dtype)
        self.check_events(x)
        time = tf.broadcast_to(tf.cast(time, self.dtype), tf.shape(x)[:-1])[..., tf.newaxis]
        rows, conditional_input, batch_shape = flatten_batch(tf.concat([x, time], axis=-1), conditional_input)
        result = self._derivative(rows[:, -1], rows[:, :-1], conditional_input)
        return unflatten(result, batch_shape, [self.event_size])

    def _derivative(self, time, state, conditional_input=None):
        given = tf.reshape(tf.cast(time, self.dtype), [-1, 1])  # one time, or one for each row
        if conditional_input is not None:
            batch = tf.broadcast_dynamic_shape(tf.shape(conditional_input)[:-1], tf.shape(given)[:-1])
            parts = (tf.cast(conditional_input, self.dtype), given)
            given = tf.concat(
                [tf.broadcast_to(t, tf.concat([batch, tf.shape(t)[-1:]], axis=0)) for t in parts], axis=-1
            )
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
        rows = tf.shape(value)[0]
        # All rows share the solver's steps, so one non-finite row would end the solution for all. The solver also needs a row.
        finite = tf.reduce_all(tf.math.is_finite(value), axis=-1)
        if conditional_input is not None:
            conditional_input = tf.broadcast_to(conditional_input, tf.stack([rows, self.conditional_size]))
            finite &= tf.reduce_all(tf.math.is_finite(conditional_input), axis=-1)
            conditional_input = _where_rows(finite, conditional_input, 0.0)
        value = _where_rows(finite, value, 0.0)
        value, conditional_input = (t if t is None else _at_least_one_row(t) for t in (value, conditional_input))
        result, log_det = (t[:rows] for t in self._choose(direction)(value, conditional_input))
        result, log_det = _where_rows(finite, result, np.nan), tf.where(finite, log_det, tf.cast(np.nan, log_det.dtype))
        return unflatten(result, batch_shape, [self.event_size]), unflatten(log_det, batch_shape, [])

    def _choose(self, direction: str) -> Callable:
        """Return the function that solves the equation in the current mode."""
        eager = tf.executing_eagerly()
        if self.solver != ADAPTIVE:
            return self._graphs[direction, "steps"] if eager else functools.partial(self._run_steps, direction)
        return functools.partial(self._run_eagerly if eager else self._run, direction)

    def _run_steps(self, direction: str, value: tf.Tensor, conditional_input) -> tuple[tf.Tensor, tf.Tensor]:
        """Solve by fixed steps."""
        given = {} if conditional_input is None else {"conditional_input": conditional_input}
        augment = _exact_trace if self._is_exact else _estimated_trace
        signs = {} if self._is_exact else {"signs": self._draw_signs(value)}
        augmented = augment(self._derivative, None, None)

        def trace(time, state):
            return tf.reduce_sum(augmented(time, (state, None), **given, **signs)[1], axis=-1)

        options = {"num_steps": self.num_steps, "backwards": direction == "inverse"}
        derivative = functools.partial(self._derivative, **given)
        end, points = fixed_steps.solve(self.solver, derivative, value, **options)
        return end, fixed_steps.integrate(self.solver, trace, points, **options)

    def _run(self, direction: str, value: tf.Tensor, conditional_input) -> tuple[tf.Tensor, tf.Tensor]:
        # Constants of the solver get gradients from the adjoint. As a keyword of `FFJORD`, a condition may make its
        # cache miss, and the equation is then solved twice.
        constants = {} if conditional_input is None else {"conditional_input": conditional_input}
        if not self._is_exact:
            constants["signs"] = self._draw_signs(value)
        ffjord = tfp.bijectors.FFJORD(
            self._derivative,
            ode_solve_fn=functools.partial(self._solve, constants=constants),
            trace_augmentation_fn=_exact_trace if self._is_exact else _estimated_trace,
            dtype=self.dtype,
        )
        value = tf.identity(value)  # a new object, so that only the second call hits TFP's cache
        result = getattr(ffjord, direction)(value)
        return result, getattr(ffjord, f"{direction}_log_det_jacobian")(value, event_ndims=1)

    def _run_back(self, direction: str, value: tf.Tensor, conditional_input, gradients) -> list[tf.Tensor]:
        inputs = [value] if conditional_input is None else [value, conditional_input]
        sources = [*inputs, *self._network.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            found = self._run(direction, value, conditional_input)
        return tape.gradient(found, sources, output_gradients=gradients, unconnected_gradients="zero")

    def _run_eagerly(self, direction: str, value: tf.Tensor, conditional_input) -> tuple[tf.Tensor, tf.Tensor]:
        """Like `_run`, but compiled, with one compiled gradient.

        In eager mode, TensorFlow's own gradient of a function that contains TFP's solver is NaN if the function was
        called in a graph before (tests/bijectors/test_continuous.py).
        """
        weights = self._network.trainable_variables
        inputs = [value] if conditional_input is None else [value, conditional_input]

        # The weights are arguments, so that they get gradients although no tape records the solution. If two tapes
        # recorded it, TensorFlow would prepare derivatives of all orders, which never ends for a solver.
        @tf.custom_gradient
        def solve(*arguments):
            value, condition = arguments[0], arguments[1] if len(inputs) > 1 else None

            def gradient(*upstream, variables=()):
                given = (value, condition, list(upstream))
                found = _first_derivative(self._graphs[direction, "gradient"], given, [*arguments, *upstream])
                # TensorFlow lists the variables that were read while tracing. They are arguments already.
                return (found, [None] * len(variables)) if variables else found

            return _unwatched(self._graphs[direction, "solution"], value, condition), gradient

        return solve(*inputs, *map(tf.convert_to_tensor, weights))

    def forward_and_log_det(self, x, conditional_input=None):
        return self._solved("forward", x, conditional_input)

    def inverse_and_log_det(self, y, conditional_input=None):
        return self._solved("inverse", y, conditional_input)


def _unwatched(function: Callable, *args):
    """Call a `tf.function` in eager mode without recording it on any tape."""
    concrete = function.get_concrete_function(*args)  # outside of `init_scope`, so that its tapes record
    with tf.init_scope():
        return concrete(*args)


def _first_derivative(function: Callable, args: tuple, sources: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return gradients from a `tf.function`, which raise an error when differentiated again."""

    def refuse(*_, variables=()):
        raise NotImplementedError(
            "A continuous flow has first derivatives only: its gradient is the solution of another differential equation."
        )

    @tf.custom_gradient
    def first(*_):
        return _unwatched(function, *args), refuse

    return first(*sources)


def _where_rows(mask: tf.Tensor, rows: tf.Tensor, other: float) -> tf.Tensor:
    return tf.where(mask[:, tf.newaxis], rows, tf.cast(other, rows.dtype))


def _at_least_one_row(rows: tf.Tensor) -> tf.Tensor:
    if rows.shape[0]:
        return rows
    return tf.pad(rows, [[0, tf.cast(tf.equal(tf.shape(rows)[0], 0), tf.int32)], [0, 0]])


def _exact_trace(ode_fn, shape, dtype):
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
    """Return Hutchinson's estimator, with one vector of random signs per row for all times."""

    def augmented(time, state_and_trace, signs, **kwargs):
        state, _ = state_and_trace
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state)
            derivative = ode_fn(time, state, **kwargs)
        return derivative, signs * tape.gradient(derivative, state, signs)

    return augmented
