"""GIF files from Matplotlib figures. This module imports Matplotlib, so import it where it is used."""

from __future__ import annotations

import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence

from matplotlib.animation import AbstractMovieWriter
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

_COLORS = 64  # a file of 256 colors would be twice as large
_LAST = 1.5  # seconds that the last frame stays, before the animation starts again


def picture(figure: Figure, dpi: float) -> Image.Image:
    """Return a figure as an image with few colors."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return Image.open(buffer).convert("RGB").quantize(_COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def write_whole(path: pathlib.Path, write: Callable[[str], None]) -> None:
    """Call `write` with the path of a temporary file, which then replaces `path`. Creates the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        part = os.path.join(folder, path.name)
        write(part)
        os.replace(part, path)


def write_gif(path: pathlib.Path, frames: Sequence[Image.Image], fps: float, comment: bytes = b"") -> None:
    """Write frames to a GIF that repeats forever, with a comment inside of the file."""
    durations = [round(1000 / fps)] * (len(frames) - 1) + [round(1000 * _LAST)]
    options = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0, "comment": comment}
    write_whole(path, lambda part: frames[0].save(part, format="GIF", optimize=False, **options))


def read_gif(path: pathlib.Path) -> tuple[list[Image.Image], bytes]:
    """Return the frames and the comment of a GIF."""
    with Image.open(path) as file:
        comment = file.info.get("comment", b"")
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(file)]
    return [f.quantize(_COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE) for f in frames], comment


class GifWriter(AbstractMovieWriter):
    """Writer for `matplotlib.animation.Animation.save`, whose files have few colors and are replaced as a whole."""

    def setup(self, fig, outfile, dpi=None):
        super().setup(fig, outfile, dpi)
        self._frames: list[Image.Image] = []

    def grab_frame(self, **savefig_kwargs):
        self._frames.append(picture(self.fig, self.dpi))

    def finish(self):
        write_gif(pathlib.Path(self.outfile), self._frames, self.fps)
