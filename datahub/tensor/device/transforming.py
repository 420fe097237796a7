"""A transform on a device: what moves pixels and looks them up at its beginning is one pass, the rest comes after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.compose import Compose, MoveChain
from datahub.tensor.draws import Draws
from datahub.tensor.folding import Folded
from datahub.tensor.fused.apply import Upload
from datahub.tensor.fused.moving import moved
from datahub.tensor.moves import Move, chained
from datahub.tensor.normalize import Normalize
from datahub.tensor.windows import Ints


@dataclass(frozen=True, eq=False)
class OnePass:
    """``steps`` are moves; ``last`` is a lookup with which the transform ends. ``rest`` does what is left to do."""

    steps: tuple[Move, ...]
    last: Normalize | None
    rest: Callable[[Images, torch.dtype | None, Draws | None], Images] | None

    @staticmethod
    def of(transform: BatchTransform | None) -> OnePass:
        """Of a transform of whole images of one size."""
        parts = transform.parts if isinstance(transform, Compose) else () if transform is None else (transform,)
        steps: tuple[Move, ...] = ()
        done = 0
        if parts and isinstance(parts[0], MoveChain | Move):
            steps, done = parts[0].steps if isinstance(parts[0], MoveChain) else (parts[0],), 1
        last = lookup(parts[done:])
        done += last is not None
        if done == len(parts):
            return OnePass(steps, last, None)
        if not done:
            return OnePass((), None, transform)
        assert isinstance(transform, Compose)
        return OnePass(steps, None, Rest(transform, done))

    def __call__(
        self,
        pixels: torch.Tensor,
        rows: Ints | None,
        dtype: torch.dtype | None,
        draws: Draws | None,
        *,
        table: torch.Tensor | None,
        channels_last: bool,
        upload: Upload | None = None,
    ) -> Images:
        """``rows`` (None: all) of uint8 ``(N, C, H, W)`` on the device. ``table``: what ``last`` looks up, there."""
        if self.rest is not None and not self.steps:
            taken = pixels if rows is None else moved(pixels, rows, None, upload=upload)
            return self.rest(taken, dtype, draws)
        count = len(pixels) if rows is None else len(rows)
        moves = chained(self.steps, count, pixels.shape[2:], draws) if self.steps else None
        if moves is None and table is None and rows is None:
            return pixels
        finished = channels_last and self.rest is None
        found = moved(pixels, rows, moves, table=table, channels_last=finished, upload=upload)
        return found if self.rest is None else self.rest(found, dtype, draws)


@dataclass(frozen=True, eq=False)
class Rest:
    """What a `Compose` does after its first ``done`` parts."""

    transform: Compose
    done: int

    def __call__(self, images: Images, dtype: torch.dtype | None, draws: Draws | None) -> Images:
        return self.transform.begun(self.done, images, dtype, draws)


def lookup(parts: tuple[BatchTransform, ...]) -> Normalize | None:
    """The lookup that is all there is to do; None where there is more, or nothing."""
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Normalize) else None


def lookup_after(fold: Folded) -> Normalize | None:
    """The lookup that is all there is to do to a folded transform's frames."""
    return lookup(fold.parts[fold.count :])
