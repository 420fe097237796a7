"""Contact sheets: labelled thumbnails in one PNG, through ``torchvision.utils.make_grid``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torchvision.transforms.v2 import functional as F
from torchvision.utils import make_grid

from datahub.core import atomic

CAPTION = 14
"""Pixels of a line of text under each thumbnail."""


def contact_sheet(
    images: Sequence[torch.Tensor], captions: Sequence[str], *, size: int = 96, columns: int = 8
) -> torch.Tensor:
    """A uint8 ``(3, H, W)`` grid of uint8 CHW images, each fitted into ``size`` x ``size`` over its caption.

    A caption may have several lines; what is longer than the thumbnail is wide is cut off.
    """
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    tiles = [_tile(image, caption, size, lines * CAPTION) for image, caption in zip(images, captions, strict=True)]
    grid: torch.Tensor = make_grid(torch.stack(tiles), nrow=columns, padding=4, pad_value=255)
    return grid


def save_png(image: torch.Tensor, path: Path) -> None:
    """Write a uint8 CHW image; the file appears whole."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "png")
    atomic.write_bytes(path, buffer.getvalue(), sync=False)


def _tile(image: torch.Tensor, caption: str, size: int, strip: int) -> torch.Tensor:
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    height, width = rgb.shape[-2:]
    scale = size / max(height, width)
    fitted = F.resize(rgb, [max(1, round(height * scale)), max(1, round(width * scale))], antialias=True)
    tile = torch.full((3, size + strip, size), 255, dtype=torch.uint8)
    top, left = (size - fitted.shape[1]) // 2, (size - fitted.shape[2]) // 2
    tile[:, top : top + fitted.shape[1], left : left + fitted.shape[2]] = fitted
    tile[:, size:] = _caption(caption, size, strip)
    return tile


def _caption(text: str, width: int, height: int) -> torch.Tensor:
    strip = Image.new("RGB", (width, height), "white")
    for number, line in enumerate(text.split("\n")):
        ImageDraw.Draw(strip).text((2, 1 + number * CAPTION), line, fill="black")
    pixels: torch.Tensor = F.pil_to_tensor(strip)
    return pixels
