"""Pixel values scaled and shifted: `Normalize` and `Scale`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from datahub.core.errors import BadArgument
from datahub.tensor.batched import DTYPES, BatchTransform, Images
from datahub.tensor.checks import numbers
from datahub.tensor.draws import Draws
from datahub.tensor.fused.lines import Lookup, line_of
from datahub.tensor.fused.moving import moved
from datahub.tensor.lookup import Table

_BITS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.float32), 8: (torch.int64, np.float64)}
"""Bytes an element -> torch's integer of that size, and the numpy type whose tables OpenCV looks up."""


class Normalize(BatchTransform):
    """Scale to [0, 1], subtract ``mean`` and divide by ``std``, a channel: float32 unless told otherwise.

    Bit for bit what torchvision's ``v2.ToDtype(torch.float32, scale=True)`` and ``v2.Normalize`` give; other dtypes
    are that, rounded. One value stands for every channel. Raises `BadArgument`.
    """

    still = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = numbers("mean", mean), numbers("std", std)
        if len(self.mean) != len(self.std):
            raise BadArgument("mean", mean, f"has {len(self.mean)} values, std has {len(self.std)}")
        if not all(value > 0 for value in self.std):
            raise BadArgument("std", std, "must be positive")
        self._tables: dict[torch.dtype, list[Table]] = {}

    def __repr__(self) -> str:
        return f"Normalize(mean={list(self.mean)}, std={list(self.std)})"

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:  # noqa: ARG002 - nothing is random
        dtype = dtype or torch.float32
        if isinstance(images, list):
            return [self._apply(image[None], dtype)[0] for image in images]
        return self._apply(images, dtype)

    def table(self, dtype: torch.dtype) -> torch.Tensor:
        """``(channels, 256)``: what becomes of every pixel value."""
        values = torch.arange(256, dtype=torch.float32).mul_(1 / 255)
        mean, std = torch.tensor(self.mean)[:, None], torch.tensor(self.std)[:, None]
        return ((values[None] - mean) / std).to(dtype)

    def looked_up(self, dtype: torch.dtype | None, channels: int) -> torch.Tensor:
        """The table of images of so many channels, ``(channels, 256)``; ``dtype`` None is float32.

        Raises `BadArgument` for a dtype that is not made, or means for another number of channels.
        """
        dtype = dtype or torch.float32
        self._lookup(dtype)
        self._check(channels)
        return self.table(dtype).expand(channels, 256).contiguous()

    def lookup(self, dtype: torch.dtype | None, channels: int) -> Lookup:
        """The same with its line, where it has one, on the host. Raises as `looked_up`."""
        table = self.looked_up(dtype, channels)
        mean, std = np.array(self.mean), np.array(self.std)
        slope, start = (np.broadcast_to(each, channels).tolist() for each in (1 / (255 * std), -mean / std))
        return Lookup(table, line_of(table, slope, start))

    def _check(self, channels: int) -> None:
        if len(self.mean) not in (1, channels):
            reason = f"has {len(self.mean)} values, the images {channels} channels"
            raise BadArgument("mean", list(self.mean), reason, "use a transform that has one, or one a channel")

    def _apply(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Look every pixel up. OpenCV's LUT is one pass and needs none of torch's own threads."""
        if images.dtype != torch.uint8:
            raise BadArgument("images", str(images.dtype), "only uint8 images can be normalised")
        batch, channels, height, width = images.shape
        self._check(channels)
        if images.device.type != "cpu":
            found = self.looked_up(dtype, channels).to(images.device, non_blocking=True)
            return moved(images.contiguous(), None, None, table=found)
        tables = self._lookup(dtype)
        out = torch.empty(images.shape, dtype=dtype)
        bits = out.view(_BITS[dtype.itemsize][0]).numpy().view(tables[0].entries.dtype)
        pixels = images.contiguous().numpy()
        if len(tables) == 1:
            tables[0](pixels, bits)
            return out
        for channel, table in enumerate(tables):
            flat = (batch, height * width)
            cv2.LUT(pixels[:, channel].reshape(flat), table.entries, bits[:, channel].reshape(flat))
        return out

    def _lookup(self, dtype: torch.dtype) -> list[Table]:
        if dtype not in DTYPES:
            raise BadArgument("dtype", str(dtype), f"use one of {', '.join(map(str, DTYPES))}")
        if dtype not in self._tables:
            integer, kind = _BITS[dtype.itemsize]
            bits = self.table(dtype).view(integer).numpy()
            self._tables[dtype] = [Table(np.ascontiguousarray(row).view(kind)) for row in bits]
        return self._tables[dtype]


class Scale(Normalize):
    """Scale to [0, 1], as torchvision's ``v2.ToDtype(torch.float32, scale=True)``."""

    def __init__(self) -> None:
        super().__init__((0.0,), (1.0,))

    def __repr__(self) -> str:
        return "Scale()"
