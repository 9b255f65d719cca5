"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(filepath: str | os.PathLike) -> Iterator[str]:
    """A path beside `filepath` to write to. It takes the place of `filepath` at the end, and is removed after an error."""
    path = pathlib.Path(filepath)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name.split('.')[0]}-") as folder:
        part = os.path.join(folder, path.name)
        yield part
        os.replace(part, path)
