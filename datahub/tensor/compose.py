"""Transforms one after the other: `Compose`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from datahub.core.errors import BadArgument
from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.decoding import Decode
from datahub.tensor.draws import Draws
from datahub.tensor.mixing import Mixing
from datahub.tensor.moves import Move, chained, check_dtype, move
from datahub.tensor.windows import Ints, Pixels


class Compose(BatchTransform):
    """Batched transforms in turn; crops and flips that stand together move the pixels once.

    Every part draws from a stream of its own. A ``dtype`` goes to the last that makes one. Raises `BadArgument`.
    """

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        if not isinstance(transforms, Sequence) or not all(isinstance(each, BatchTransform) for each in transforms):
            hint = "use those of datahub.transforms; give other callables as transform= themselves"
            if isinstance(transforms, Sequence) and any(isinstance(each, Decode) for each in transforms):
                hint = "give Decode as transform=, and the others as its then="
            if isinstance(transforms, Sequence) and any(isinstance(each, Mixing) for each in transforms):
                hint = "give mixings as batch_transform="
            raise BadArgument("transforms", transforms, "is not a list of batched transforms", hint)
        self.transforms = tuple(_flat(transforms))
        if not self.transforms:
            raise BadArgument("transforms", transforms, "is empty", "leave the transform out")
        self._parts = tuple(_parts(self.transforms))
        self.casts = any(part.casts for part in self._parts)

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        return self.begun(0, images, dtype, draws)

    def of_rows(self, pixels: Pixels, rows: Ints, dtype: torch.dtype | None, draws: Draws | None) -> Images:
        first = self._parts[0].of_rows(pixels, rows, self._dtype(0, dtype), draws)
        return self.begun(1, first, dtype, draws)

    @property
    def parts(self) -> tuple[BatchTransform, ...]:
        """What it does in turn; part ``k`` draws from ``draws.again(k)``."""
        return self._parts

    def begun(self, begin: int, images: Images, dtype: torch.dtype | None, draws: Draws | None) -> Images:
        """What is left to do to images that the first ``begin`` parts have made."""
        for number in range(begin, len(self._parts)):
            own = None if draws is None else draws.again(number)
            images = self._parts[number](images, self._dtype(number, dtype), own)
        return images

    def _dtype(self, number: int, dtype: torch.dtype | None) -> torch.dtype | None:
        """What of ``dtype`` is that part's business."""
        if dtype is not None and not self.casts:
            raise BadArgument("dtype", str(dtype), "nothing here makes it", "add Normalize or Scale")
        last = max((i for i, part in enumerate(self._parts) if part.casts), default=-1)
        return dtype if number == last else None


class MoveChain(BatchTransform):
    """Moves with one crop among them at most, worked out together."""

    casts = False

    def __init__(self, steps: Sequence[Move]) -> None:
        self.steps = tuple(steps)

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        check_dtype(dtype)
        return move(self.steps, images, draws)

    def of_rows(self, pixels: Pixels, rows: Ints, dtype: torch.dtype | None, draws: Draws | None) -> Images:
        check_dtype(dtype)
        return torch.from_numpy(chained(self.steps, len(rows), pixels.shape[2:], draws).apply(pixels, rows))


def _flat(transforms: Sequence[BatchTransform]) -> Iterator[BatchTransform]:
    for each in transforms:
        yield from each.transforms if isinstance(each, Compose) else (each,)


def _parts(transforms: Sequence[BatchTransform]) -> Iterator[BatchTransform]:
    for moves, group in groupby(transforms, lambda each: isinstance(each, Move)):
        if not moves:
            yield from group
            continue
        steps: list[Move] = []
        for step in group:
            assert isinstance(step, Move)
            if step.crops and any(each.crops for each in steps):
                yield MoveChain(steps)
                steps = []
            steps.append(step)
        yield MoveChain(steps)
