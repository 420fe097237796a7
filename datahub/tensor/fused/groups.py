"""Frames of differing sizes through a kernel that makes one size at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.tensor.fused.apply import Upload, resample
from datahub.tensor.fused.regions import Ints, Regions


def framed_alike(
    images: Sequence[torch.Tensor],
    scaled: Ints,
    window: Ints,
    flip: NDArray[np.bool_],
    places: Sequence[tuple[float, float, float, float]],
    upload: Upload | None = None,
) -> list[torch.Tensor]:
    """Each image's frame, uint8 ``(C, h, w)``; ``scaled``, ``window`` and ``flip`` are those of `Frames`, ``places``
    the boxes in what was decoded. ``upload`` is asked once a size, for no more rows than there are."""
    found: dict[int, torch.Tensor] = {}
    sizes = [(height, width) for _, _, height, width in window.tolist()]
    for size in sorted(set(sizes)):
        rows = np.array([row for row, each in enumerate(sizes) if each == size])
        regions = Regions.of(scaled[rows], window[rows], flip[rows], size, [places[row] for row in rows])
        made = resample([images[row] for row in rows], regions, upload=upload)
        found.update(zip(rows.tolist(), made.unbind(), strict=True))
    return [found[row] for row in range(len(images))]
