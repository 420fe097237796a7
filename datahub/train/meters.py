"""What training and evaluation report: loss, accuracy, speed, and the share of time spent waiting for data."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from datahub.core.errors import MissingExtra, from_oserror
from datahub.train.world import World

T = TypeVar("T")


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
    """Adds up over batches; `row` sums over the ranks. Nothing waits for the device before that."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
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

    def row(self, world: World, *, phase: str, epoch: int, step: int, rate: float = 0.0) -> Row:
        here = self._sums.cpu()
        seconds = max(time.perf_counter() - self._began, 1e-9)
        times = torch.tensor([self._waited / seconds], dtype=torch.float64)
        loss, top1, top5, images, wait = world.summed(torch.cat([here, times])).tolist()
        count = max(images, 1.0)
        return Row(
            phase=phase, epoch=epoch, step=step, images=int(images), loss=loss / count, top1=top1 / count,
            top5=top5 / count, rate=rate, images_s=images / seconds, wait=wait / world.size,
        )  # fmt: skip


class Log(Protocol):
    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


class CsvLog:
    """``metrics.csv``: a line a row, appended, each on the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, row: Row) -> None:
        try:
            new = not self._path.exists() or not self._path.stat().st_size
            with self._path.open("a", newline="", encoding="utf-8") as handle:
                out = csv.DictWriter(handle, [each.name for each in fields(Row)])
                if new:
                    out.writeheader()
                out.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
        except OSError as error:
            raise from_oserror(error, self._path, writing=True) from error

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoardLog:
    """Scalars for TensorBoard, beside the CSV."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "logging to TensorBoard") from error
        self._writer: Any = SummaryWriter(str(folder))

    def write(self, row: Row) -> None:
        for name, value in asdict(row).items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{row.phase}/{name}", value, row.step)

    def close(self) -> None:
        self._writer.close()
