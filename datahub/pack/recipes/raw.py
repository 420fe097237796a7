"""The recipe `raw`: pixels as they are, in binary PNM files (netpbm's pgm(5) and ppm(5)), for small fixed-size sets.

A reader takes the bytes behind a constant header; webdataset, wids, Hugging Face and Energon know the extension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.pack import images
from datahub.pack.recipes import Made


@dataclass(frozen=True, slots=True)
class Raw:
    name: str = "raw"

    def facts(self) -> dict[str, Any]:
        return {}

    def encode(self, pixels: NDArray[np.uint8]) -> list[bytes]:
        head = _head(pixels[0])
        flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
        return [head + each.tobytes() for each in flat]

    def transform(self, files: Sequence[bytes]) -> list[Made]:
        return [_one(data) for data in files]


def _one(data: bytes) -> Made:
    try:
        look = images.look(data)
        if look.format == "ppm":
            return Made(data)
        pixels, why = images.plain(data)
    except ValueError as error:
        return Made(data, damage=str(error))
    if pixels is None:
        return Made(data, kept=why)
    return Made(_head(pixels) + np.ascontiguousarray(pixels).tobytes())


def _head(pixels: NDArray[np.uint8]) -> bytes:
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    return b"%s\n%d %d\n255\n" % (b"P6" if colour else b"P5", pixels.shape[1], pixels.shape[0])
