"""The ``shapes`` layout: a generated, learnable set of JPEG images for demos and benchmarks; it reads no files.

Sample i of a split is a pure function of (seed, split, i), so any number of samples can be had, by any number of
workers, in any order. Pixels rest on OpenCV's drawing and bytes on libjpeg-turbo: their versions are among the facts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import msgspec
import numpy as np
import simplejpeg

from datahub.core.errors import BadArgument
from datahub.pack.layouts import drawing
from datahub.pack.layouts import options as opt
from datahub.pack.layouts.drawing import Draws
from datahub.pack.source import Chunk
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    from datahub.acquire import Verified

GENERATOR = 1
"""Raised when the same options would draw other pictures."""
QUALITY = 90
IMAGENET_SIDE = 375
"""The commonest shorter side in ImageNet."""
SIZES = {
    (500, 375): 38,
    (500, 333): 20,
    (375, 500): 12,
    (333, 500): 8,
    (500, 500): 4,
    (400, 300): 4,
    (600, 450): 4,
    (640, 480): 4,
    (800, 600): 1,
}
"""Widths and heights in ImageNet, with their shares in 100; what is left over is of any size."""
SUMS = list(itertools.accumulate(SIZES.values()))


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    seed: int = 0
    short_side: int = 120
    """Shorter side of the commonest size; 375 gives ImageNet's sizes, about 0.2 megapixels in the mean."""
    clutter: float = 1.0
    """How much lies around and on the shapes: 0 is none, 2 much."""


class ShapesSource:
    """Pictures drawn as they are asked for."""

    random_access = True

    def __init__(self, options: Options, splits: Mapping[str, int], classes: Sequence[str]) -> None:
        self._options, self._splits, self._classes = options, dict(splits), list(classes)

    def splits(self) -> Mapping[str, int]:
        return self._splits

    def classes(self) -> list[str] | None:
        return list(self._classes)

    def fields(self) -> Mapping[str, FieldSpec]:
        return {
            "image": FieldSpec(type="image", extension="jpg"),
            "label": FieldSpec(type="label", extension="cls"),
        }

    def estimate(self, split: str) -> int:  # noqa: ARG002 - all splits are alike
        """Measured with short sides of 64 to 375 at the default clutter: within 20 %."""
        pixels = 4 / 3 * self._options.short_side**2
        return int(2000 + 0.24 * pixels)

    def read(self, split: str, indices: np.ndarray) -> Chunk:
        images: list[bytes] = []
        labels: list[int] = []
        sizes: list[tuple[int, int]] = []
        sources: list[str] = []
        for index in np.asarray(indices).tolist():
            label = self.label(split, index)
            pixels = self.pixels(split, index)
            images.append(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorspace="RGB", colorsubsampling="420"))
            labels.append(label)
            sizes.append((pixels.shape[1], pixels.shape[0]))
            sources.append(f"{split}/{self._classes[label]}/{index:09d}.jpg")
        return Chunk(images, np.array(labels, np.int64), sources, sizes=np.array(sizes, np.int64).reshape(-1, 2))

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "shapes",
            "options": msgspec.to_builtins(self._options),
            "classes": self._classes,
            "generator": GENERATOR,
            "opencv": cv2.__version__,
            "simplejpeg": simplejpeg.__version__,
        }

    def label(self, split: str, index: int) -> int:
        """Every run of as many samples as there are classes, from a multiple of it on, holds each class once."""
        count = len(self._classes)
        draws = Draws("label", self._options.seed, split, index // count)
        return sorted(range(count), key=[draws.between(0, 1) for _ in range(count)].__getitem__)[index % count]

    def pixels(self, split: str, index: int) -> np.ndarray:
        """The picture before it is encoded: uint8 (height, width, 3), RGB."""
        draws = Draws("picture", self._options.seed, split, index)
        width, height = self._size(draws)
        return drawing.picture(self._classes[self.label(split, index)], width, height, draws, self._options.clutter)

    def _size(self, draws: Draws) -> tuple[int, int]:
        share = draws.below(100)
        found = next((size for size, top in zip(SIZES, SUMS, strict=True) if share < top), None)
        wide, high = found or (200 + draws.below(450), 200 + draws.below(350))
        scale = self._options.short_side / IMAGENET_SIDE
        return max(8, round(wide * scale)), max(8, round(high * scale))


def open_source(
    options: Mapping[str, Any],
    files: Mapping[str, Verified],  # noqa: ARG001 - a generator reads none
    *,
    splits: Mapping[str, int],
    classes: Sequence[str],
) -> ShapesSource:
    """Raises `BadArgument` for options out of range and classes that are not drawn."""
    read = opt.read(options, Options)
    if not 16 <= read.short_side <= 4096:
        raise BadArgument(f"{opt.PLACE}.short_side", read.short_side, "must be from 16 to 4096")
    if not 0 <= read.clutter <= 10:
        raise BadArgument(f"{opt.PLACE}.clutter", read.clutter, "must be from 0 to 10")
    names = list(classes) or list(drawing.NAMES)
    for name in names:
        if name not in drawing.NAMES:
            raise BadArgument("classes", name, "is not a shape", f"known: {', '.join(drawing.NAMES)}")
    return ShapesSource(read, splits, names)
