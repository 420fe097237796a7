"""Luminance of RGB images, and floats made uint8."""

from __future__ import annotations

import torch

from datahub.tensor.pieces import images_a_piece, on_cpu, parts

MOST = 255


def luminance(floats: torch.Tensor) -> torch.Tensor:
    """``(n, H, W)`` of float32 ``(n, 1 or 3, H, W)``: ITU-R BT.601's weights as torchvision rounds them, floored.

    What has one channel is its own luminance.
    """
    if floats.shape[1] == 1:
        return floats[:, 0].clone()
    red, green, blue = floats.unbind(1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def mean_luminance(images: torch.Tensor) -> torch.Tensor:
    """float32 ``(n,)``."""
    if not on_cpu(images):
        return luminance(images.float()).mean(dim=(1, 2))
    found = torch.empty(len(images))
    for part in parts(len(images), images_a_piece(images)):
        found[part] = luminance(images[part].float()).mean(dim=(1, 2))
    return found


def to_uint8(floats: torch.Tensor) -> torch.Tensor:
    """0 to 255, truncated. Over int16, because torch's own way from float32 takes three times as long on a CPU."""
    return floats.to(torch.int16).to(torch.uint8)


def cut(floats: torch.Tensor) -> torch.Tensor:
    """``floats``, which it overwrites, cut to the range of uint8 and truncated, as torchvision does."""
    return to_uint8(floats.clamp_(0, MOST))
