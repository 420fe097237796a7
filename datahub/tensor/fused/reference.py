"""The fused kernel's function in torch, on any device: what the kernel is held to, and runs where Triton cannot."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from datahub.tensor.fused.regions import Ints, Regions
from datahub.tensor.fused.weights import Axis, axis


def resample(
    images: Sequence[torch.Tensor], regions: Regions, limits: tuple[Ints, Ints], table: torch.Tensor | None,
    out: torch.Tensor,
) -> None:  # fmt: skip
    """As `datahub.tensor.fused.apply.resample`, into ``out``."""
    low, high = limits
    for row, image in enumerate(images):
        left, top, width, height = regions.box[row].tolist()
        tall, wide = regions.scaled[row].tolist()
        down, across = regions.corner[row].tolist()
        rows = axis(top, height, int(low[row, 0]), int(high[row, 0]), tall, down, regions.size[0], flip=False)
        columns = axis(
            left, width, int(low[row, 1]), int(high[row, 1]), wide, across, regions.size[1], bool(regions.flip[row])
        )
        pixels = _weighed(image.transpose(-1, -2), columns).transpose(-1, -2)
        pixels = _weighed(pixels, rows)
        if table is not None:
            channels = torch.arange(len(image), device=image.device)[:, None, None]
            pixels = table[channels, pixels]
        out[row].copy_(pixels)


def _weighed(pixels: torch.Tensor, axis: Axis) -> torch.Tensor:
    """The weighted sums along the last dimension but one, rounded to 0..255: int64 ``(C, shown, W)``."""
    device = pixels.device
    half = 1 << (axis.bits - 1)
    found = torch.full((len(pixels), len(axis.first), pixels.shape[2]), half, dtype=torch.int64, device=device)
    first, last = torch.from_numpy(axis.first).to(device), pixels.shape[1] - 1
    weights = torch.from_numpy(axis.weights).to(device)
    for tap in range(weights.shape[1]):
        taken = pixels.index_select(1, (first + tap).clamp_(max=last)).to(torch.int64)
        found += taken * weights[:, tap, None]
    return (found >> axis.bits).clamp_(0, 255)
