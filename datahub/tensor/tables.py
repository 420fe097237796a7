"""Operations on uint8 images that are a table of 256 values an image or a channel: contrast, equalisation and others.

Each gives what torchvision's function of the same name gives (``adjust_brightness`` ... in
``torchvision.transforms.v2.functional``), with a number of its own for each image.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from datahub.tensor.gray import MOST, cut, mean_luminance
from datahub.tensor.pieces import on_cpu


def brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Values times ``factor``, ``(n,)``."""
    return look_up(images, cut(_levels(images) * factor.float()[:, None])[:, None])


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """The image's mean luminance plus ``factor`` times what differs from it."""
    mean = mean_luminance(images)
    ratio = factor.float()[:, None]
    rest = (1 - factor.double()).float()[:, None]
    return look_up(images, cut(_levels(images) * ratio + mean[:, None] * rest)[:, None])


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Values of at least ``threshold`` inverted."""
    levels = _levels(images)
    return look_up(images, torch.where(levels >= threshold[:, None], MOST - levels, levels).to(torch.uint8)[:, None])


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Only the upper ``bits``, 0 to 8, of each value kept."""
    kept = torch.bitwise_left_shift(torch.full_like(bits, MOST, dtype=torch.int64), 8 - bits.long()) & MOST
    return images & kept.to(torch.uint8)[:, None, None, None]


def invert(images: torch.Tensor) -> torch.Tensor:
    return images.bitwise_not()


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Each channel stretched from its least value to its greatest."""
    flat = images.flatten(2)
    least, most = flat.amin(2).float()[..., None], flat.amax(2).float()[..., None]
    plain = most == least
    least = torch.where(plain, 0.0, least)
    scale = torch.where(plain, 1.0, (most - least) * (1.0 / MOST))
    return look_up(images, cut((_levels(images)[:, None] - least) / scale))


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Each channel's values spread so that its histogram is flat, by Pillow's integer rule."""
    counts = _histograms(images)
    total = counts.cumsum(2)
    last = counts.gather(2, total.argmax(2, keepdim=True))  # the greatest value's pixels
    step = (images.shape[2] * images.shape[3] - last) // MOST
    before = total - counts
    spread = ((before + step // 2) // step.clamp(min=1)).clamp(0, MOST)
    same = torch.arange(256, device=images.device).expand_as(spread)
    return look_up(images, torch.where(step > 0, spread, same).to(torch.uint8))


def look_up(images: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """``images`` through ``tables``, uint8 ``(n, 1 or C, 256)``."""
    if not on_cpu(images):
        flat = images.flatten(2) if tables.shape[1] > 1 else images.flatten(1)[:, None]
        return tables.gather(2, flat.long()).view_as(images)
    planes = images.contiguous().view(-1, images[0, 0].numel() * (images.shape[1] // tables.shape[1])).numpy()
    out = np.empty_like(planes)
    for plane, table, found in zip(planes, tables.reshape(-1, 256).contiguous().numpy(), out, strict=True):
        cv2.LUT(plane[None], table, found[None])
    return torch.from_numpy(out).view_as(images)


def _histograms(images: torch.Tensor) -> torch.Tensor:
    """int64 ``(n, C, 256)``."""
    flat = images.flatten(2)
    if not on_cpu(images):
        counts = torch.zeros((*flat.shape[:2], 256), dtype=torch.int64, device=images.device)
        return counts.scatter_add_(2, flat.long(), torch.ones_like(flat, dtype=torch.int64))
    planes = flat.reshape(-1, 1, flat.shape[2]).numpy()
    found = np.stack([cv2.calcHist([plane], [0], None, [256], [0, 256]).reshape(256) for plane in planes])
    return torch.from_numpy(found.astype(np.int64)).view(*flat.shape[:2], 256)


def _levels(images: torch.Tensor) -> torch.Tensor:
    return torch.arange(256, dtype=torch.float32, device=images.device)[None]
