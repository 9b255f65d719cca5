"""Atomic writes of files and directories."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import h5py
import keras
import numpy as np


@contextlib.contextmanager
def written_whole(filepath: str | os.PathLike) -> Iterator[str]:
    """Yield a path beside `filepath` to write to. It replaces `filepath` at the end, and is removed after an error."""
    path = pathlib.Path(filepath)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name.split('.')[0]}-") as folder:
        part = os.path.join(folder, path.name)
        yield part
        os.replace(part, path)


def check_weights_file(filepath: str | os.PathLike, weights: Sequence[keras.Variable]) -> None:
    """Raise a `ValueError` if a `.weights.h5` file lacks weights. Older versions of Keras miss layers in nested lists."""
    sizes = []
    with h5py.File(filepath) as file:
        file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    expected = sum(int(np.prod(w.shape)) for w in weights)
    if sum(sizes) < expected:
        raise ValueError(
            f"Keras {keras.__version__} saved {sum(sizes)} of {expected} numbers. It may have missed layers that a layer keeps "
            "in nested lists: keep them in attributes or flat lists."
        )
