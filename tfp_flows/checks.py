"""Checks of arguments, which raise a `ValueError` that names the argument, the expected value and the given one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def positive_int(name: str, value, minimum: int = 1) -> int:
    """Return `value` as an `int` if it is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}, got {value!r}.")
    return int(value)


def hidden_sizes(hidden_units) -> list[int]:
    """Return the sizes of the hidden layers as a list of positive integers; `[]` is a linear conditioner."""
    if isinstance(hidden_units, (str, bytes)) or not isinstance(hidden_units, (Sequence, np.ndarray)):
        raise ValueError(f"`hidden_units` must be a list of integers such as [64, 64], got {hidden_units!r}.")
    return [positive_int(f"hidden_units[{i}]", units) for i, units in enumerate(hidden_units)]


def image_sizes(name: str, shape) -> tuple[int, int, int]:
    """Return the shape of an image as three positive integers."""
    if isinstance(shape, (str, bytes)) or not isinstance(shape, (Sequence, np.ndarray)) or len(shape) != 3:
        raise ValueError(f"`{name}` must be (H, W, C), got {shape!r}.")
    height, width, channels = (positive_int(f"{name}[{i}]", size) for i, size in enumerate(shape))
    return height, width, channels


def one_of(name: str, value, choices: Sequence[str]) -> str:
    """Return `value` if it is among `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value


def keras_3_inputs(layer, **inputs) -> None:
    """Raise a `ValueError` for symbolic tensors of tf_keras, whose models do not track the weights of a Keras 3 layer."""
    for name, value in inputs.items():
        if type(value).__module__.startswith("tf_keras."):  # by name, to avoid importing tf_keras
            raise ValueError(
                f"`{name}` must be a tensor or a symbolic tensor of Keras 3, got a symbolic tensor of tf_keras (Keras 2). "
                f"{type(layer).__name__} is a Keras 3 layer: a tf_keras functional model would not track its weights and "
                "would train nothing. Build the model with `keras.Input` and `keras.Model` of Keras 3, or train a "
                "distribution with `tff.FlowModel`. To stay in tf_keras, use a tf_keras network, such as "
                "`tfb.AutoregressiveNetwork`."
            )
