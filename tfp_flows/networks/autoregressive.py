"""MADE, the masked network of autoregressive flows, with TFP's constructor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.checks import hidden_sizes, keras_3_inputs, one_of, positive_int
from tfp_flows.networks.angles import angle_inputs, read_angles, with_sines
from tfp_flows.networks.broadcasting import check_condition, flatten_batch, unflatten
from tfp_flows.networks.dense import activation_of, seeded_initializers
from tfp_flows.registry import serializable
from tfp_flows.seeds import resolve_seed, split_seed, structure_seed


def made_degrees(
    event_size: int,
    hidden_units: Sequence[int],
    input_order: str | Sequence[int] = "left-to-right",
    hidden_degrees: str | Sequence[Sequence[int]] = "equal",
    seed: int | None = None,
) -> list[np.ndarray]:
    """Return the degrees of the inputs and of the units of each hidden layer (arXiv:1502.03509, section 4).

    A hidden unit of degree `d` sees the inputs of degree up to `d`; an output sees the hidden units below its degree.
    "equal" hidden degrees cover `1 .. event_size - 1` evenly, as in `tfb.AutoregressiveNetwork`.
    """
    rngs = [np.random.default_rng(s) for s in split_seed(resolve_seed(seed), 1 + len(hidden_units))]
    forwards = np.arange(1, event_size + 1)
    if isinstance(input_order, str):
        one_of("input_order", input_order, ("left-to-right", "right-to-left", "random"))
        orders = {"left-to-right": forwards, "right-to-left": forwards[::-1], "random": rngs[0].permutation(forwards)}
        degrees = [orders[input_order]]
    else:
        order = np.asarray(input_order)
        if order.shape != (event_size,) or not np.array_equal(np.sort(order), forwards):
            raise ValueError(f"`input_order` must be a permutation of 1 .. {event_size}, got {order.tolist()}.")
        degrees = [order]
    if not isinstance(hidden_degrees, str):
        given = [np.asarray(d) for d in hidden_degrees]
        fits = [d.shape == (n,) for d, n in zip(given, hidden_units, strict=False)]
        if len(given) != len(hidden_units) or not all(fits):
            raise ValueError(
                f"`hidden_degrees` must hold one degree for each of {list(hidden_units)} hidden units, got {hidden_degrees!r}."
            )
        if any(np.any((d < 0) | (d > event_size)) for d in given):
            raise ValueError(f"`hidden_degrees` must lie in 0 .. {event_size}, got {hidden_degrees!r}.")
        return degrees + [d.astype(int) for d in given]
    one_of("hidden_degrees", hidden_degrees, ("equal", "random"))
    for units, rng in zip(hidden_units, rngs[1:], strict=True):
        lowest = min(int(degrees[-1].min()), event_size - 1)
        if hidden_degrees == "random":
            degrees.append(rng.integers(lowest, max(event_size, lowest + 1), size=units))
        else:
            spread = np.ceil(np.arange(1, units + 1) * (event_size - 1) / (units + 1)).astype(int)
            degrees.append(np.maximum(lowest, spread))
    return degrees


def made_masks(degrees: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the boolean masks `[inputs, outputs]` of each layer of a MADE; the last one is strict."""
    hidden = [a[:, None] <= b for a, b in itertools.pairwise(degrees)]
    return [*hidden, degrees[-1][:, None] < degrees[0]]


def _size(name: str, shape: Any) -> int:
    sizes = list(shape) if np.ndim(shape) else [shape]
    if len(sizes) != 1:
        raise ValueError(f"Parameter `{name}` must describe a rank-1 shape, an integer or [size], got {shape!r}.")
    return positive_int(name, sizes[0])


LARGEST_CONSTANT_MASK = 2**14  # entries of a mask that a graph holds as a constant


class MaskedWeights(NamedTuple):
    """Kernels after masking, and offsets to add to the output of each layer."""

    kernels: list[tf.Tensor]  # [inputs, outputs]
    offsets: list[tf.Tensor]  # [1 or N, outputs]


@serializable
@keras.saving.register_keras_serializable(package="tfp_flows")
class AutoregressiveNetwork(keras.layers.Layer):
    """Masked network (MADE, arXiv:1502.03509): parameters of dimension `i` depend only on the dimensions before `i`.

    A Keras 3 layer with the arguments, outputs and weights of `tfb.AutoregressiveNetwork`: with the same arguments,
    `network.set_weights(theirs.get_weights())` gives the same function. Masks multiply the weights in every call, so
    that no optimizer, initializer or loaded weight can break the autoregressive property. `MaskedAutoregressiveFlow`
    evaluates it sequentially at the cost of one pass.

    Args:
      params: Number of parameters for each dimension.
      event_shape: Size of the last axis, as an integer or `[D]`; weights are created at the first call if `None`.
      conditional: Whether calls take a `conditional_input`.
      conditional_event_shape: Size of `conditional_input`, as an integer or `[C]`.
      conditional_input_layers: `"all_layers"` or `"first_layer"`: where a linear map of the condition is added.
      hidden_units: Sizes of the hidden layers; `None` for none.
      input_order: `"left-to-right"`, `"right-to-left"`, `"random"`, or the degree `1 .. D` of each dimension.
      hidden_degrees: `"equal"`, `"random"`, or one sequence of degrees per hidden layer.
      activation: Activation of the hidden layers.
      use_bias: Whether layers have biases.
      kernel_initializer, bias_initializer: Keras initializers of the weights.
      kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: Keras regularizers and constraints.
      validate_args: Accepted for compatibility; arguments are always checked.
      output_initializer: Initializer of kernel and bias of the last layer, if it differs.
      circular_inputs: Indices of the inputs that are angles. The network reads their cosines and sines, so it is periodic.
      seed: Integer seed of the initial weights, and of random degrees.

    Call arguments: `x` of shape `[..., D]`, and `conditional_input` of shape `[..., C]`, whose leading axes broadcast
    against those of `x`. Returns shape `[..., D, params]`. Cost per event: `O(weights)`.

    Raises:
      ValueError: If an argument is out of range, or for a symbolic tensor of tf_keras (Keras 2).

    Example:
      >>> network = tff.AutoregressiveNetwork(2, event_shape=3, hidden_units=[16, 16], activation="relu")
      >>> network(tf.zeros([5, 3])).shape
      TensorShape([5, 3, 2])
    """

    def __init__(
        self,
        params: int,
        event_shape: int | Sequence[int] | None = None,
        conditional: bool = False,
        conditional_event_shape: int | Sequence[int] | None = None,
        conditional_input_layers: str = "all_layers",
        hidden_units: Sequence[int] | None = None,
        input_order: str | Sequence[int] = "left-to-right",
        hidden_degrees: str | Sequence[Sequence[int]] = "equal",
        activation=None,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        validate_args: bool = False,
        *,
        output_initializer=None,
        circular_inputs: Sequence[int] = (),
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.params = positive_int("params", params)
        self.hidden_units = hidden_sizes(() if hidden_units is None else hidden_units)
        self.activation = activation_of(activation)
        self.use_bias = use_bias
        one_of("conditional_input_layers", conditional_input_layers, ("all_layers", "first_layer"))
        self.conditional_input_layers = conditional_input_layers
        if conditional:
            for argument, shape in (("event_shape", event_shape), ("conditional_event_shape", conditional_event_shape)):
                if shape is None:
                    raise ValueError(f"`{argument}` must be provided when `conditional` is True, got None.")
        elif conditional_event_shape is not None:
            raise ValueError(
                f"`conditional_event_shape` passed but `conditional` is set to False: got {conditional_event_shape!r}. "
                "Set `conditional=True`, or leave `conditional_event_shape` out."
            )
        self.conditional_size = _size("conditional_event_shape", conditional_event_shape) if conditional else None
        self._orders = (input_order, hidden_degrees)
        self._starts = (kernel_initializer, bias_initializer, output_initializer)
        self._regularizers = [keras.regularizers.get(r) for r in (kernel_regularizer, bias_regularizer)]
        self._constraints = [keras.constraints.get(c) for c in (kernel_constraint, bias_constraint)]
        self.circular_inputs = list(circular_inputs)
        self._seed = resolve_seed(seed)
        self.event_size: int | None = None
        if event_shape is not None:
            self.build((None, _size("event_shape", event_shape)))

    @property
    def event_shape(self) -> list[int] | None:
        return None if self.event_size is None else [self.event_size]

    @property
    def conditional(self) -> bool:
        return self.conditional_size is not None

    def build(self, x_shape, conditional_input_shape=None):
        del conditional_input_shape
        if self.built:
            return
        self.event_size = positive_int("event_shape", x_shape[-1])
        degree_seed, *seeds = split_seed(structure_seed(self._seed), 1) + split_seed(self._seed, 4)[1:]
        self.degrees = made_degrees(self.event_size, self.hidden_units, *self._orders, seed=degree_seed)
        self.circular_inputs = angle_inputs(self.circular_inputs, self.event_size)
        masks = made_masks(self.degrees)
        masks[0] = with_sines(masks[0], self.circular_inputs)
        masks[-1] = np.repeat(masks[-1], self.params, axis=1)
        self._masks = masks
        self._input_order = self.degrees[0]  # TFP's name, read by code written for its layer
        self._levels = [np.asarray(d, np.int32) for d in self.degrees]
        self._levels.append(np.repeat(self._levels[0] - 1, self.params))  # the last mask is strict
        self._levels[0] = with_sines(self._levels[0], self.circular_inputs)

        kernel_start, bias_start, output_start = self._starts
        kernel_starts = seeded_initializers(kernel_start, seeds[0], len(masks))
        bias_starts = seeded_initializers(bias_start, seeds[1], len(masks))
        condition_starts = seeded_initializers(kernel_start, seeds[2], len(masks))
        if output_start is not None:
            for starts in (kernel_starts, bias_starts, *([condition_starts] if self.hidden_units else [])):
                starts[-1] = keras.initializers.get(output_start)
        self.kernels, self._biases, self._conditional_kernels = [], [], []
        # TFP's order: kernel, bias and conditional kernel of the first layer, then of the next.
        for i, mask in enumerate(masks):
            self.kernels.append(self._weight(f"kernel_{i}", mask.shape, kernel_starts[i], 0))
            if self.use_bias:
                self._biases.append(self._weight(f"bias_{i}", mask.shape[1:], bias_starts[i], 1))
            if self.conditional and (i == 0 or self.conditional_input_layers == "all_layers"):
                shape = (self.conditional_size, mask.shape[1])
                weight = self._weight(f"conditional_kernel_{i}", shape, condition_starts[i], 0)
                self._conditional_kernels.append(weight)
        self.built = True

    def _weight(self, name, shape, initializer, kind: int):
        options = {"regularizer": self._regularizers[kind], "constraint": self._constraints[kind]}
        return self.add_weight(name=name, shape=shape, initializer=initializer, **options)

    def _masked_kernel(self, i: int) -> tf.Tensor:
        kernel, mask = tf.cast(self.kernels[i].value, self.compute_dtype), self._masks[i]
        if mask.size <= LARGEST_CONSTANT_MASK:
            return tf.where(tf.constant(mask), kernel, tf.zeros(mask.shape, self.compute_dtype))
        if not tf.executing_eagerly():
            # Graphs compare levels, since a million constant booleans take a second.
            mask = tf.constant(self._levels[i][:, np.newaxis]) <= tf.constant(self._levels[i + 1])
        # Selecting by booleans reads a quarter of the memory of a product with floats.
        return tf.where(mask, kernel, tf.zeros([], self.compute_dtype))

    def masked_weights(self, conditional_input: tf.Tensor | None = None) -> MaskedWeights:
        """Return masked kernels and offsets as tensors; `conditional_input` has shape `[1 or N, C]`."""
        dtype = self.compute_dtype
        kernels = [self._masked_kernel(i) for i in range(len(self.kernels))]
        offsets = []
        for i, kernel in enumerate(kernels):
            offset = tf.cast(self._biases[i].value, dtype)[tf.newaxis] if self.use_bias else None
            if i < len(self._conditional_kernels):
                moved = self._moved_by(conditional_input, i)
                offset = moved if offset is None else moved + offset
            offsets.append(tf.zeros([1, kernel.shape[1]], dtype) if offset is None else offset)
        return MaskedWeights(kernels, offsets)

    def _moved_by(self, conditional_input: tf.Tensor, i: int) -> tf.Tensor:
        weight = tf.cast(self._conditional_kernels[i].value, self.compute_dtype)
        return tf.linalg.matmul(tf.cast(conditional_input, self.compute_dtype), weight)

    def call(self, x, conditional_input=None):
        keras_3_inputs(self, x=x, conditional_input=conditional_input)
        x = tf.cast(tf.convert_to_tensor(x), self.compute_dtype)
        if x.shape[-1] not in (None, self.event_size):
            raise ValueError(f"`x` must have shape [..., {self.event_size}], got {x.shape}.")
        check_condition(conditional_input, self.conditional_size)
        x, conditional_input, batch_shape = flatten_batch(x, conditional_input)
        h = read_angles(x, self.circular_inputs)
        for i in range(len(self.kernels)):
            h = tf.linalg.matmul(h if i == 0 else self.activation(h), self._masked_kernel(i))
            if self.use_bias:
                h = tf.nn.bias_add(h, tf.cast(self._biases[i].value, self.compute_dtype))
            if i < len(self._conditional_kernels):
                h += self._moved_by(conditional_input, i)
        return unflatten(h, batch_shape, [self.event_size, self.params])

    def compute_output_shape(self, x_shape, conditional_input_shape=None):
        batch_shape = tf.TensorShape(x_shape[:-1])
        if conditional_input_shape is not None:
            batch_shape = tf.broadcast_static_shape(batch_shape, tf.TensorShape(conditional_input_shape[:-1]))
        return (*batch_shape, x_shape[-1], self.params)
