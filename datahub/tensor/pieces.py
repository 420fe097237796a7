"""Working through a batch in pieces that a processor's cache holds.

Batched arithmetic on floats is four times the images' bytes, again and again: whole batches of it run at the speed of
memory, a few images at the speed of the cache. Elsewhere than on a CPU, a piece is all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Kernel = Callable[..., torch.Tensor]
"""Images ``(n, C, H, W)`` and tensors of n rows each, to images; torch alone, and nothing of a row in another."""

PIECE = 1 << 18
"""Values worked on at a time: 1 MiB of float32."""


def in_pieces(
    kernel: Kernel, images: torch.Tensor, numbers: Sequence[torch.Tensor], *, whole: bool = False
) -> torch.Tensor:
    """``kernel`` of all images, whose shape and type it keeps; ``whole``: at once, for it makes no floats of them."""
    if whole or not on_cpu(images):
        return kernel(images, *(moved(each, images) for each in numbers))
    out = torch.empty_like(images)
    for part in parts(len(images), images_a_piece(images)):
        out[part] = kernel(images[part], *(each[part] for each in numbers))
    return out


def on_rows(kernel: Kernel, images: torch.Tensor, rows: Ints, numbers: Sequence[torch.Tensor], *, whole: bool) -> None:
    """Some ``rows`` of the images become ``kernel`` of themselves, in place.

    ``rows`` and ``numbers``, of all images, are on the host, so that no device is waited for.
    """
    size = len(images) if whole else images_a_piece(images)
    if size == 1 and on_cpu(images):  # large images are spared two copies
        for row in rows.tolist():
            one = slice(row, row + 1)
            images[one] = kernel(images[one], *(each[one] for each in numbers))
        return
    for part in parts(len(rows), size):
        some = torch.from_numpy(rows[part])
        there = moved(some, images)
        found = kernel(images.index_select(0, there), *(moved(each[some], images) for each in numbers))
        images.index_copy_(0, there, found)


def parts(count: int, size: int) -> Iterator[slice]:
    """``range(count)`` in slices of ``size``."""
    return (slice(first, first + size) for first in range(0, count, size))


def images_a_piece(images: torch.Tensor) -> int:
    if not on_cpu(images):
        return max(1, len(images))
    return max(1, PIECE // max(1, images[:1].numel()))


def on_cpu(images: torch.Tensor) -> bool:
    """Whether numpy and OpenCV may work on the images' own memory."""
    return images.device.type == "cpu" and not torch.compiler.is_compiling()


def moved(tensor: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """``tensor`` where the images are."""
    return tensor.to(images.device, non_blocking=True)
