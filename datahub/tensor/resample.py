"""One image's frame in pixels: antialiased scaling, a window of it, mirrored, as planes or interleaved.

Scaling is torch's own antialiased bilinear kernel, which torchvision's ``resize(antialias=True)`` runs too: the same
pixels, bit for bit. It is at its fastest on interleaved pixels, into memory that is interleaved as well.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from datahub.tensor.scratch import CAP, scratch

Pixels = NDArray[np.uint8]

# What torch.nn.functional.interpolate calls; through torch.ops the same kernel costs 12 us more of the interpreter.
_scale: Any = torch._C._nn._upsample_bilinear2d_aa

_thread = threading.local()


def framed_pixels(
    region: Pixels, scaled: tuple[int, int], window: tuple[int, int, int, int], flip: bool, out: Pixels
) -> None:
    """``region``, uint8 ``(h, w, C)``, scaled to ``scaled``, its ``window`` mirrored by ``flip``, into ``out``.

    ``out`` is uint8 ``(C, H, W)`` with planes or with interleaved pixels underneath.
    """
    pixels = windowed(_resized(region, scaled), window)
    if flip:
        mirrored: Any = cv2.flip(pixels, 1, scratch("mirrored", pixels.shape))
        pixels = mirrored.reshape(pixels.shape)  # OpenCV drops a lone channel
    split(pixels, out)


def _resized(region: Pixels, scaled: tuple[int, int]) -> Pixels:
    """uint8 ``(h, w, C)`` to ``(*scaled, C)``, antialiased bilinear, in this thread's scratch or ``region`` itself."""
    if region.shape[:2] == scaled:
        return region
    if not region.flags.carray:  # torch's kernel, too, would copy it; and it warns of memory that is read-only
        whole = scratch("region", region.shape)
        whole[...] = region
        region = whole
    out, planes = _canvas((*scaled, region.shape[2]))
    _scale(_planes(region), scaled, False, out=planes)
    return out


def _canvas(shape: tuple[int, int, int]) -> tuple[Pixels, torch.Tensor]:
    """This thread's memory for what is scaled, and torch's view of it, which is kept while images scale alike."""
    kept: tuple[Pixels, torch.Tensor] | None = getattr(_thread, "canvas", None)
    if kept is not None and kept[0].shape == shape:
        return kept
    out = scratch("scaled", shape)
    made = out, _planes(out)
    _thread.canvas = made if out.nbytes <= CAP else None
    return made


def _planes(pixels: Pixels) -> torch.Tensor:
    """A view of ``(h, w, C)`` as torch wants it, ``(1, C, h, w)``."""
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None])


def windowed(pixels: Pixels, window: tuple[int, int, int, int]) -> Pixels:
    """Top, left, height and width of ``(h, w, C)``; black where that reaches out."""
    top, left, height, width = window
    if top >= 0 and left >= 0 and top + height <= pixels.shape[0] and left + width <= pixels.shape[1]:
        return pixels[top : top + height, left : left + width]
    out = np.zeros((height, width, pixels.shape[2]), np.uint8)
    part = pixels[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def split(image: Any, out: Pixels) -> None:
    """Interleaved ``(H, W, C)`` or ``(H, W)`` into ``(C, H, W)``.

    cv2.split into planes is an order of magnitude faster than a strided copy; what lies interleaved is copied.
    """
    if image.ndim == 2 or image.shape[2] == 1:
        out[0] = image.reshape(out.shape[1:])
    elif out.strides[0] == 1:
        out.transpose(1, 2, 0)[...] = image
    else:
        cv2.split(image, list(out))
