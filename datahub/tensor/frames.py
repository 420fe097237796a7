"""What of each image a batch will show, said before anything is decoded: a box, scaled, cut to a window, mirrored.

A decoder that knows the frame decodes little else; see `datahub.tensor.framed`. Frames are arrays, a row an image.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.draws import Draws
from datahub.tensor.fused.groups import framed_alike
from datahub.tensor.resample import framed_pixels

Ints = NDArray[np.int64]


class Frame(NamedTuple):
    """One image's. ``box`` of the image is scaled to ``scaled``, of which ``window`` is shown, mirrored by ``flip``."""

    source: tuple[int, int]
    """Height and width of the image."""
    box: tuple[int, int, int, int]
    """Left, top, width, height, within the image."""
    scaled: tuple[int, int]
    """Height, width."""
    window: tuple[int, int, int, int]
    """Top, left, height, width in what was scaled; what reaches out of it is black."""
    flip: bool


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A batch's frames, each a row of int64 arrays: ``source`` and ``scaled`` ``(B, 2)``, ``box`` and ``window``
    ``(B, 4)``, ``flip`` bool ``(B,)``; see `Frame`."""

    source: Ints
    box: Ints
    scaled: Ints
    window: Ints
    flip: NDArray[np.bool_]

    @staticmethod
    def whole(source: Ints) -> Frames:
        """Images as they are; ``source`` is their heights and widths, ``(B, 2)``."""
        full = np.concatenate([np.zeros_like(source), source], axis=1)
        return Frames(source, full[:, [0, 1, 3, 2]], source, full, np.zeros(len(source), np.bool_))

    def __len__(self) -> int:
        return len(self.flip)

    def rows(self) -> list[Frame]:
        columns = (self.source, self.box, self.scaled, self.window)
        listed = [[tuple(row) for row in column.tolist()] for column in columns]
        return [Frame(*row) for row in zip(*listed, self.flip.tolist(), strict=True)]


class Framing(BatchTransform):
    """A transform that only frames: it can be asked before decoding, and gives the same pixels when called after."""

    casts = False
    first = False
    """Whether it takes images as they are, and can follow no other framing."""

    @abstractmethod
    def framed(self, frames: Frames, draws: Draws | None) -> Frames:
        """What it makes of ``frames``. Raises `BadArgument` where draws are needed and there are none."""

    @property
    def output(self) -> tuple[int, int] | None:
        """Height and width that every frame has afterwards; None where they hang on the image, or do not change."""
        return None

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        """uint8 images, of one size a tensor, else a list. Raises `BadArgument`."""
        return take(self, images, dtype, draws)


def take(framing: Framing, images: Images, dtype: torch.dtype | None, draws: Draws | None) -> Images:
    """The frames of images already decoded."""
    if dtype not in (None, torch.uint8):
        raise BadArgument("dtype", str(dtype), "framing gives uint8", "add Normalize or Scale after it")
    if any(image.dtype != torch.uint8 for image in images):
        raise BadArgument("images", str(images[0].dtype), "only uint8 images can be framed")
    source = np.array([image.shape[-2:] for image in images], np.int64).reshape(-1, 2)
    frames = framing.framed(Frames.whole(source), draws)
    if len(images) and images[0].device.type != "cpu":
        found = _resampled(images, frames)
    else:
        found = [_taken(image, frame) for image, frame in zip(images, frames.rows(), strict=True)]
    alike = isinstance(images, torch.Tensor) or framing.output is not None
    return torch.stack(found) if alike and found else found


def _taken(image: torch.Tensor, frame: Frame) -> torch.Tensor:
    pixels = image.permute(1, 2, 0).numpy()
    out = np.empty((len(image), *frame.window[2:]), np.uint8)
    x, y, width, height = frame.box
    framed_pixels(pixels[y : y + height, x : x + width], frame.scaled, frame.window, frame.flip, out)
    return torch.from_numpy(out)


def _resampled(images: Images, frames: Frames) -> list[torch.Tensor]:
    """On a device."""
    places = [(float(x), float(y), float(width), float(height)) for x, y, width, height in frames.box.tolist()]
    return framed_alike(list(images), frames.scaled, frames.window, frames.flip, places)
