"""Operations on the colours and the sharpness of uint8 images, with a number of its own for each image.

Each gives what torchvision's function of that purpose gives (``adjust_saturation``, ``adjust_hue``,
``adjust_sharpness``, ``rgb_to_grayscale``, ``gaussian_blur``), at most one level away where float32 rounds otherwise.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from datahub.tensor.gray import MOST, cut, luminance, to_uint8


def saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Luminance plus ``factor``, ``(n,)``, times what differs from it."""
    if images.shape[1] == 1:
        return images
    ratio, rest = factor.float()[:, None, None, None], (1 - factor.double()).float()[:, None, None]
    floats = images.float()
    gray = luminance(floats).mul_(rest)
    return cut(floats.mul_(ratio).add_(gray[:, None]))


def grayscale(images: torch.Tensor) -> torch.Tensor:
    """Luminance in every channel, all of which are one in memory."""
    return to_uint8(luminance(images.float()))[:, None].expand_as(images)


def hue(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Hue turned by ``shift``, -0.5 to 0.5 of the circle; lightness and saturation of HSV stay.

    In HSV, with value v and chroma c, a channel is ``v - c * w``, its weight w falling and rising along the hue's six
    sectors: nothing has to be looked up by sector.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.float().unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    by_red, by_green = value == red, value == green
    sector = torch.where(by_red, green - blue, torch.where(by_green, blue - red, red - green))
    sector.div_(chroma.clamp(min=1)).add_(torch.where(by_red, 0.0, torch.where(by_green, 2.0, 4.0)))
    sector.add_((shift.double() * 6).float()[:, None, None])
    sector.sub_(sector.mul(1 / 6).floor_().mul_(6))
    weights = (
        (sector - 3).abs_().neg_().add_(2),
        (sector - 2).abs_().sub_(1),
        (sector - 4).abs_().sub_(1),
    )
    # torchvision scales to [0, 1] and back by 256 - 1/1000, so that all of its range is hit alike.
    scale = (MOST + 1.0 - 1e-3) / MOST
    found = [value - weight.clamp_(0, 1).mul_(chroma) for weight in weights]
    return torch.stack([to_uint8(each.mul_(scale)) for each in found], 1)


def sharpness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """A blurred image plus ``factor`` times what differs from it; the outermost pixels stay.

    The blur weighs a pixel by 5/13 and each of its eight neighbours by 1/13.
    """
    if min(images.shape[2:]) <= 2:
        return images
    wide = images.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    inner = wide[:, :, 1:-1, 1:-1]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + inner * 4
    blurred = (total / 13).round_()  # thirteenths are never halfway between two values
    centre = inner.float()
    rest = (1 - factor.double()).float()[:, None, None, None]
    out = images.clone()
    out[:, :, 1:-1, 1:-1] = cut(centre.add_(blurred.sub_(centre).mul_(rest)))
    return out


def blur(images: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """Images weighed by ``down`` and ``across``, float32 ``(n, k)`` with k odd, and mirrored at their edges."""
    height, width = images.shape[2:]
    top, left = down.shape[1] // 2, across.shape[1] // 2
    wide = functional.pad(images.float(), [left, left, top, top], mode="reflect")
    lines = wide[:, :, :height] * down[:, 0, None, None, None]
    for step in range(1, down.shape[1]):
        lines.addcmul_(wide[:, :, step : step + height], down[:, step, None, None, None])
    out = lines[..., :width] * across[:, 0, None, None, None]
    for step in range(1, across.shape[1]):
        out.addcmul_(lines[..., step : step + width], across[:, step, None, None, None])
    return to_uint8(out.round_())
