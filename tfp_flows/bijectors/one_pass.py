"""Sequential evaluation of an autoregressive flow at the cost of one pass of its network.

In the direction latent to data, dimension `i` of `y = forward(x)` needs parameters that the network computes from the
previous dimensions, so running the whole network per dimension costs `D` passes. But a hidden unit of degree `d`
(Germain et al. 2015) needs only the first `d` dimensions. With units sorted by degree, step `i` computes only the units
of degree `i`, and the `D` steps together do the work of one pass. The gradient visits the degrees once, in the opposite order.

Both loops are `tf.while_loop`s under XLA, over buffers `[units, N]` that are updated in place. A step computes a window
of rows as wide as the largest degree class. Rows of the next class in it are masked, and computed again later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.networks.autoregressive import AutoregressiveNetwork
from tfp_flows.networks.broadcasting import check_condition, flatten_batch, unflatten
from tfp_flows.transformers import Transformer


class _Plan(NamedTuple):
    """Static arguments of the compiled loops. Layers with equal plans share one compilation."""

    event_size: int
    degrees: tuple[tuple[int, ...], ...]  # degrees of the hidden units of each layer, sorted
    activation: Callable
    transformer: Transformer


def supports(network) -> bool:
    """Return whether a network can be evaluated in one pass: an `AutoregressiveNetwork` without angles among its inputs,
    whose activation has no weights.
    """
    if not isinstance(network, AutoregressiveNetwork) or isinstance(network.activation, keras.Layer):
        return False
    if network.circular_inputs:
        return False
    own = (AutoregressiveNetwork.call, AutoregressiveNetwork.masked_weights)
    return (type(network).call, type(network).masked_weights) == own  # a subclass may override these


def forward_and_log_det(
    network: AutoregressiveNetwork, transformer: Transformer, x: tf.Tensor, conditional_input: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `y` with `y[i] = transformer.forward(x[i], network(y)[i])`, `[..., D]`, and its log-det `[...]`, in nats.

    The network has `transformer.params` parameters per dimension. The leading axes of `conditional_input` `[..., C]`
    broadcast against those of `x`. Gradients flow to `x`, `conditional_input` and every weight. Second ones raise a
    `NotImplementedError`.
    """
    check_condition(conditional_input, network.conditional_size)
    x, conditional_input, batch_shape = flatten_batch(x, conditional_input)
    plan, dims, kernels, offsets = _canonical(network, transformer, conditional_input)
    size, padded = tf.shape(x)[0], _bucket(tf.shape(x)[0])
    inputs = [x if dims is None else tf.gather(x, dims, axis=1), *offsets]
    inputs = [t if t.shape[0] == 1 else tf.pad(t, [[0, padded - size], [0, 0]]) for t in inputs]
    inputs[0] = tf.ensure_shape(inputs[0], [None, plan.event_size])
    y, log_det = _differentiable(plan, *inputs, *kernels)
    y, log_det = y[:size], log_det[:size]
    if dims is not None:
        y = tf.gather(y, np.argsort(dims), axis=1)
    return unflatten(y, batch_shape, [plan.event_size]), unflatten(log_det, batch_shape, [])


def _bucket(n: tf.Tensor) -> tf.Tensor:
    """Round a batch size up, since XLA compiles once per size.

    Sizes are powers of two up to 1024, then four per octave: at most 45 sizes up to a billion rows, with at most a
    quarter more rows than needed beyond 1024.
    """
    small = tf.constant([2**k for k in range(11)])
    large = tf.constant([2**k * q // 4 for k in range(10, 30) for q in (5, 6, 7, 8)])
    sizes = tf.concat([small, large], axis=0)
    return sizes[tf.minimum(tf.searchsorted(sizes, [n])[0], tf.size(sizes) - 1)]


def _canonical(network, transformer, conditional_input):
    """Return plan, order of the dimensions (or `None`), kernels and offsets, with dimensions and units sorted by degree."""
    weights = network.masked_weights(conditional_input)
    order = [np.argsort(d, kind="stable") for d in network.degrees]
    outputs = (order[0][:, None] * network.params + np.arange(network.params)).ravel()
    kernels, offsets = [], []
    for kernel, offset, rows, columns in zip(*weights, order, [*order[1:], outputs], strict=True):
        kernels.append(_reorder(_reorder(kernel, rows, 0), columns, 1))
        offsets.append(_reorder(offset, columns, 1))
    degrees = tuple(tuple(int(v) for v in np.sort(d)) for d in network.degrees[1:])
    dims = None if np.array_equal(order[0], np.arange(len(order[0]))) else order[0]
    return _Plan(network.event_size, degrees, network.activation, transformer), dims, kernels, offsets


def _reorder(tensor, order, axis):
    return tensor if np.array_equal(order, np.arange(len(order))) else tf.gather(tensor, order, axis=axis)


def _differentiable(plan: _Plan, x, *weights):
    """Run the forward loop, with its gradient by the backward loop. `weights` are the offsets, then the kernels."""

    @tf.custom_gradient
    def forward(x, *weights):
        y, log_det = _forward_loop(plan)(*map(tf.stop_gradient, (x, *weights)))
        return (y, log_det), lambda dy, dlog_det: backward(y, dy, dlog_det, *weights)

    # A custom gradient treats `y` as a constant, so a second derivative would be wrong.
    @tf.custom_gradient
    def backward(*inputs):
        return _backward_loop(plan)(*map(tf.stop_gradient, inputs)), refuse

    def refuse(*_):
        raise NotImplementedError(
            "The one-pass evaluation of an autoregressive flow has first derivatives only. For derivatives of higher order "
            "build the bijector with MaskedAutoregressiveFlow(..., unroll_loop=True), which costs D passes."
        )

    return forward(x, *weights)


class _Hidden:
    """Hidden layers of one sweep: weights cut into windows, and buffers of values, `[units + width, N]`."""

    def __init__(self, plan: _Plan, kernels: Sequence[tf.Tensor], visited: Sequence[int], layers: Sequence[int]):
        self.layers = layers
        self.starts, self.blocks, self.heights = [], [], []
        before = 0
        for layer, kernel in zip(layers, kernels, strict=True):
            degrees = np.asarray(plan.degrees[layer])
            starts, width = np.searchsorted(degrees, visited), max(1, *(np.sum(degrees == d) for d in visited))
            rows = np.minimum(starts[:, None] + np.arange(width), len(degrees) - 1)
            blocks = tf.gather(kernel, rows)  # [steps, width, inputs]
            self.blocks.append(tf.pad(blocks, [[0, 0], [0, 0], [0, before]]))
            self.starts.append(tf.constant(starts, tf.int32))
            self.heights.append(len(degrees) + width)
            before = width
        self.padding = before  # rows of the last buffer that belong to no unit

    def buffers(self, n, dtype):
        return [tf.zeros([height, n], dtype) for height in self.heights]

    def advance(self, step, values, buffers, apply):
        """Compute the window of this step in every layer. Return the last buffer, and all of them."""
        buffers = list(buffers)
        for i, (starts, blocks) in enumerate(zip(self.starts, self.blocks, strict=True)):
            start = starts[step]
            block = apply(self.layers[i], start, blocks.shape[1], tf.linalg.matmul(blocks[step], values))
            values = buffers[i] = keras.ops.slice_update(buffers[i], [start, 0], block)
        return values, buffers


def _rows(tensor, start, count):
    return tf.slice(tensor, [start, 0], [count, -1])


def _overhang(tensor, width):
    return tf.pad(tensor, [[0, width], [0, 0]])


@functools.lru_cache(maxsize=256)
def _forward_loop(plan: _Plan):
    d, p, depth = plan.event_size, plan.transformer.params, len(plan.degrees)

    @functools.partial(tf.function, autograph=False, jit_compile=True, reduce_retracing=True)
    def one_pass_forward(x, *weights):
        offsets, kernels = weights[: depth + 1], weights[depth + 1 :]
        n, xt = tf.shape(x)[0], tf.transpose(x)
        hidden = _Hidden(plan, [tf.transpose(k) for k in kernels[:-1]], range(d), range(depth))
        last = tf.reshape(tf.transpose(kernels[-1]), [d, p, -1])
        last = tf.pad(last, [[0, 0], [0, 0], [0, hidden.padding]])
        shifts = [_overhang(tf.transpose(o), b.shape[1]) for o, b in zip(offsets[:-1], hidden.blocks, strict=True)]
        last_shift = tf.reshape(tf.transpose(offsets[-1]), [d, p, -1])

        def apply(layer, start, width, product):
            return plan.activation(product + _rows(shifts[layer], start, width))

        def body(step, y, log_det, *buffers):
            values, buffers = hidden.advance(step, y, buffers, apply)
            params = tf.linalg.matmul(last[step], values) + last_shift[step]
            y_step, slope = plan.transformer.forward(xt[step], tf.transpose(params))
            return step + 1, keras.ops.slice_update(y, [step, 0], y_step[tf.newaxis]), log_det + slope, *buffers

        start = (tf.constant(0), tf.zeros_like(xt), tf.zeros([n], x.dtype), *hidden.buffers(n, x.dtype))
        _, y, log_det, *_ = tf.while_loop(lambda step, *_: step < d, body, start, maximum_iterations=d)
        return tf.transpose(y), log_det

    return one_pass_forward


@functools.lru_cache(maxsize=256)
def _backward_loop(plan: _Plan):
    """Return adjoints of `x` and of the weights, given those of `y` and of the log-det.

    `y` solves `X(y) = x` for the data-to-latent map `X`, one ordinary pass, whose Jacobian `J` is triangular. So
    `dx = J^-T (dy - dlog_det * grad ildj)`, and the adjoints of the weights are those of `-dx . X - dlog_det * ildj`.
    """
    d, p, depth = plan.event_size, plan.transformer.params, len(plan.degrees)

    @functools.partial(tf.function, autograph=False, jit_compile=True, reduce_retracing=True)
    def one_pass_backward(y, dy, dlog_det, *weights):
        offsets, kernels = weights[: depth + 1], weights[depth + 1 :]
        n = tf.shape(y)[0]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([y, *weights])
            h, before, slopes_of = y, [], []
            for i in range(depth):
                h = tf.linalg.matmul(h, kernels[i]) + offsets[i]
                before.append(h)
                h = plan.activation(h)
                slopes_of.append(h)
            params = tf.reshape(tf.linalg.matmul(h, kernels[-1]) + offsets[-1], [n, d, p])
            x, log_slope = plan.transformer.inverse(y, params)
            log_det = tf.reduce_sum(log_slope, axis=-1)
        right = dy - tape.gradient(log_det, y, dlog_det, unconnected_gradients="zero")
        # Elementwise derivatives of `X` by `y` with the parameters held fixed, of `X` by the parameters, and of the
        # activations.
        with tf.GradientTape(persistent=True) as inner:
            inner.watch(params)
            alone, _ = plan.transformer.inverse(y, params)
        by_y = tf.transpose(tf.exp(log_slope))
        by_params = tf.transpose(inner.gradient(alone, params, unconnected_gradients="zero"), [1, 2, 0])
        slopes = [tf.transpose(tape.gradient(a, b)) for a, b in zip(slopes_of, before, strict=True)]

        visited = range(d, 0, -1)
        layers = list(range(depth))[::-1]
        hidden = _Hidden(plan, [kernels[i + 1] for i in layers], visited, layers)
        slopes = {i: _overhang(slopes[i], b.shape[1]) for i, b in zip(layers, hidden.blocks, strict=True)}
        first = tf.pad(kernels[0][::-1], [[0, 0], [0, hidden.padding]])  # [steps, first hidden layer]
        right = tf.transpose(right)

        def apply(layer, start, width, product):
            return product * _rows(slopes[layer], start, width)

        def body(step, dx, dparams, *buffers):
            at = d - 1 - step
            values, buffers = hidden.advance(step, dparams, buffers, apply)
            used = tf.linalg.matmul(first[step][tf.newaxis], values)[0]
            solved = (right[at] - used) / by_y[at]
            dx = keras.ops.slice_update(dx, [at, 0], solved[tf.newaxis])
            dparams = keras.ops.slice_update(dparams, [at * p, 0], solved * by_params[at])
            return step + 1, dx, dparams, *buffers

        start = (tf.constant(0), tf.zeros_like(right), tf.zeros([d * p, n], y.dtype), *hidden.buffers(n, y.dtype))
        _, dx, *_ = tf.while_loop(lambda step, *_: step < d, body, start, maximum_iterations=d)
        dx = tf.transpose(dx)
        adjoints = tape.gradient([x, log_det], weights, [-dx, -dlog_det], unconnected_gradients="zero")
        return dx, *adjoints

    return one_pass_backward
