"""What training and evaluation report: loss, accuracy, speed, and the share of time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from datahub.train.world import World

T = TypeVar("T")
COUNTS = 4
"""Loss, right at first, right among five, images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the log. Accuracies are shares of 1, ``wait`` is the share of the time spent waiting for data."""

    phase: str
    epoch: int
    step: int
    images: int
    loss: float
    top1: float
    top5: float
    rate: float
    """Learning rate at the end; 0 where nothing was learnt."""
    images_s: float
    """Of the whole job."""
    wait: float


class Meter:
    """Adds up over batches; `totals` sums over the ranks. Nothing waits for the device before that.

    ``before``: the totals of what was seen of an epoch before it was left, to go on from.
    """

    def __init__(self, device: torch.device, before: Sequence[float] = ()) -> None:
        self._before = torch.tensor(list(before) or [0.0] * (COUNTS + 2), dtype=torch.float64)
        self._sums = torch.zeros(COUNTS, dtype=torch.float64, device=device)
        self._began = time.perf_counter()
        self._waited = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, the time that each was waited for counted."""
        coming = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(coming)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - began
            yield batch

    @torch.no_grad()
    def add(self, loss: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> None:
        """``loss``: the sum over the valid rows; ``scores`` ``(B, classes)`` and ``labels`` ``(B,)`` of those rows."""
        best = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
        counts = [loss.double(), best[:, 0].sum().double(), best.sum().double(), loss.new_tensor(len(labels)).double()]
        self._sums += torch.stack(counts)

    def totals(self, world: World) -> list[float]:
        """The four counts of the job, and the mean over its ranks of the seconds waited and passed."""
        times = torch.tensor([self._waited, time.perf_counter() - self._began], dtype=torch.float64)
        here = torch.cat([self._sums.cpu(), times / world.size])
        found: list[float] = (self._before + world.summed(here)).tolist()
        return found

    def row(self, world: World, *, phase: str, epoch: int, step: int, rate: float = 0.0) -> Row:
        loss, top1, top5, images, waited, seconds = self.totals(world)
        count, seconds = max(images, 1.0), max(seconds, 1e-9)
        return Row(
            phase=phase, epoch=epoch, step=step, images=int(images), loss=loss / count, top1=top1 / count,
            top5=top5 / count, rate=rate, images_s=images / seconds, wait=waited / seconds,
        )  # fmt: skip
