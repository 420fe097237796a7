"""A transform in two: what frames the images, which a decoder can be asked for, and what is left to do afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.compose import Compose, MoveChain
from datahub.tensor.draws import Draws
from datahub.tensor.frames import Frames, Framing, Ints
from datahub.tensor.moves import RandomHorizontalFlip, chained


@dataclass(frozen=True, eq=False)
class Folded(BatchTransform):
    """The first ``count`` parts of a transform are asked before decoding; calling this does the rest to their frames.

    Every part draws what it draws in the transform itself, so that the two ways give the same pixels.
    """

    parts: tuple[BatchTransform, ...]
    whole: BatchTransform
    count: int

    @property
    def output(self) -> tuple[int, int] | None:
        """Height and width of every frame; None where they hang on the image."""
        sizes = [part.output for part in self.parts[: self.count] if isinstance(part, Framing)]
        return next((size for size in reversed(sizes) if size is not None), None)

    def frames(self, source: Ints, draws: Draws) -> Frames:
        """Of images of heights and widths ``source``, ``(B, 2)``."""
        frames = Frames.whole(source)
        for number, part in enumerate(self.parts[: self.count]):
            own = draws.again(number)
            if isinstance(part, Framing):
                frames = part.framed(frames, own)
            elif isinstance(part, MoveChain):
                mirrored = chained(part.steps, len(source), (0, 0), own).mirrored
                frames = replace(frames, flip=mirrored)
        return frames

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        return self.whole.begun(self.count, images, dtype, draws) if isinstance(self.whole, Compose) else images


def fold(transform: BatchTransform) -> Folded | None:
    """None where whole images are needed: the transform does not start with a framing."""
    parts = transform.parts if isinstance(transform, Compose) else (transform,)
    count = 0
    for part in parts:
        if not isinstance(part, Framing) or (part.first and count):
            break
        count += 1
    if not count:
        return None
    mirrors = isinstance(parts[count], MoveChain) and _only_mirrors(parts[count]) if count < len(parts) else False
    return Folded(parts, transform, count + mirrors)


def _only_mirrors(chain: BatchTransform) -> bool:
    return isinstance(chain, MoveChain) and all(isinstance(step, RandomHorizontalFlip) for step in chain.steps)
