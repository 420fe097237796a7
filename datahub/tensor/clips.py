"""`Clip`: some frames of a video, decoded by TorchCodec (extra ``video``), which frames being a keyed draw."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import BadArgument, MissingExtra, MissingLibrary
from datahub.core.images import PIXEL_CAP
from datahub.store import video
from datahub.tensor.batched import BatchTransform
from datahub.tensor.checks import whole
from datahub.tensor.draws import Draws

WHERE = re.compile(r"^.*\.(?:cpp|h):\d+, ", re.DOTALL)
"""Where in its own source TorchCodec failed, in front of why."""
SHORT = 0.9
"""A file with a smaller share of the frames that its header promises was cut; headers are often off by a few."""


@dataclass(frozen=True)
class Clip:
    """``frames`` frames of a video, every ``stride``-th: uint8 ``(T, 3, H, W)``, T = ``frames``.

    Where a clip begins is drawn for each sample (``start="random"``), or such that it lies in the ``"middle"``. A
    video that is too short for it is shown from its first frame, and its last frame is repeated.

    ``transform``, one of `datahub.transforms`, is done to the frames, with the same draws for all frames of a clip: a
    crop stays where it is, a flip turns all of them or none. ``field`` names the field of type ``video``; it may be
    left out where there is one. Raises `BadArgument`.
    """

    frames: int = 16
    stride: int = 1
    start: Literal["random", "middle"] = "random"
    transform: BatchTransform | None = None
    field: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("frames", self.frames), ("stride", self.stride)):
            whole(name, value, 1)
        field: object = self.field
        if field is not None and not isinstance(field, str):
            raise BadArgument("field", field, "is not the name of a field")
        if not isinstance(self.start, str) or self.start not in ("random", "middle"):
            raise BadArgument("start", self.start, 'use "random" or "middle"')
        transform: object = self.transform
        if transform is not None and not isinstance(transform, BatchTransform):
            name = getattr(transform, "__name__", type(transform).__name__)
            raise BadArgument("transform", name, "is none of datahub.transforms", "do it to the batch instead")

    def indices(self, count: int, draws: Draws) -> NDArray[np.int64]:
        """Which of a video's ``count`` frames one sample (``draws`` of one row) shows, int64 ``(T,)``."""
        span = (self.frames - 1) * self.stride + 1
        free = max(count - span, 0)
        drawn = self.start == "random"
        first = int(draws.integers("Clip", free + 1)[0, 0]) if drawn else free // 2
        return np.minimum(first + np.arange(self.frames, dtype=np.int64) * self.stride, count - 1)

    def decode(self, data: bytes, draws: Draws) -> torch.Tensor:
        """The clip of one sample. Raises ``ValueError`` with what is wrong with the video."""
        video.container(data)
        make = decoder_of()
        with _blamed():
            decoder = make(data, num_ffmpeg_threads=1, seek_mode="exact", dimension_order="NCHW")
        indices = self.indices(_counted(decoder), draws).tolist()
        with _blamed():
            frames: torch.Tensor = decoder.get_frames_at(indices).data
        return self._moved(frames, draws)

    def filler(self, size: tuple[int, int], draws: Draws) -> torch.Tensor:
        """What stands where there is no video: black, of the shape and dtype of a clip of frames of this size."""
        black = torch.zeros((self.frames, 3, *size), dtype=torch.uint8)
        return torch.zeros_like(self._moved(black, draws))

    def _moved(self, frames: torch.Tensor, draws: Draws) -> torch.Tensor:
        if self.transform is None:
            return frames
        found = self.transform(frames, None, draws.take(np.zeros(len(frames), np.int64)))
        return found if isinstance(found, torch.Tensor) else torch.stack(found)


@contextmanager
def _blamed() -> Iterator[None]:
    """What TorchCodec raises as a ``ValueError`` that says why."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"cannot be decoded: {WHERE.sub('', str(error)).strip()}") from error


def _counted(decoder: Any) -> int:
    """A video's frames. Raises ``ValueError`` where there are none, too large ones, or not those it should have."""
    count, promised = len(decoder), decoder.metadata.num_frames_from_header
    if not count:
        raise ValueError("has no frames")
    if promised and count < promised * SHORT:
        raise ValueError(f"ends after {count} of its {promised} frames")
    width, height = decoder.metadata.width or 0, decoder.metadata.height or 0
    if width * height > PIXEL_CAP:
        raise ValueError(f"has frames of {width} x {height} pixels, more than {PIXEL_CAP}")
    return count


def decoder_of() -> Any:
    """TorchCodec's ``VideoDecoder``. Raises `MissingExtra`, and `MissingLibrary` without FFmpeg."""
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise MissingExtra("video", "decoding videos") from error
    except (ImportError, OSError, RuntimeError) as error:
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MissingLibrary("decoding videos", "ffmpeg", f"torchcodec: {cause}") from error
    return VideoDecoder
