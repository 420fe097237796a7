"""Measuring a loader on this machine: its pace over time, its stages, and what sets the pace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from datahub.core.errors import BadArgument
from datahub.core.events import Listener, Progress, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.listening import Stats
from datahub.loader.streaming import StreamingLoader
from datahub.tensor.chart import Chart, draw

POINTS = 40
"""Points of the chart at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is measured; the run ends after ``seconds``, or after ``steps`` where they are given."""

    split: str = "train"
    batch_size: int = 64
    transform: str | None = None
    num_workers: int | None = None
    prefetch: int = 2
    shuffle: bool = True
    seconds: float = 10.0
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """``samples`` received up to ``seconds`` after the loop began."""

    seconds: float
    samples: int


@dataclass(frozen=True, slots=True)
class Report:
    ref: str
    split: str
    shape: str
    """A batch's image, in words."""
    points: list[Point]
    """The first is the first batch, the last the end; between them about evenly in time."""
    steps: int
    first_batch: float
    """Seconds from before the loader was made to its first batch."""
    samples_per_second: float
    """From the first batch to the last."""
    bytes_per_second: float
    """Encoded, by the mean size of what was read."""
    stats: Stats

    def pace(self) -> list[tuple[float, float]]:
        """(seconds, samples/s) between neighbouring points."""
        return [
            ((a.seconds + b.seconds) / 2, (b.samples - a.samples) / (b.seconds - a.seconds))
            for a, b in pairwise(self.points)
            if b.seconds > a.seconds
        ]


def bench(ref: Ref | str, settings: Settings, run: Run, listener: Listener = ignore) -> Report:
    """Loop over a loader, doing nothing with its batches, epoch after epoch. Raises what loaders raise."""
    if run.seconds <= 0:
        raise BadArgument("seconds", run.seconds, "must be positive")
    began = time.perf_counter()
    with StreamingLoader(
        ref,
        run.split,
        batch_size=run.batch_size,
        shuffle=run.shuffle,
        transform=run.transform,
        num_workers=run.num_workers,
        prefetch=run.prefetch,
        settings=settings,
    ) as loader:
        clock = _Clock(run, str(loader.dataset.ref), listener)
        batch = _loop(loader, clock)
        stats, made = loader.stats(), clock.points
        spent = made[-1].seconds - made[0].seconds
        rate = (made[-1].samples - made[0].samples) / spent if spent else 0.0
        return Report(
            ref=str(loader.dataset.ref),
            split=run.split,
            shape=_shape(batch),
            points=_thinned(made),
            steps=clock.steps,
            first_batch=clock.began + made[0].seconds - began,
            samples_per_second=rate,
            bytes_per_second=rate * stats["bytes"] / stats["samples"] if stats["samples"] else 0.0,
            stats=stats,
        )


class _Clock:
    """Counts batches as they are received, and says when it is enough."""

    def __init__(self, run: Run, item: str, listener: Listener) -> None:
        self._run, self._item, self._listener = run, item, listener
        self.began = time.perf_counter()
        self.points: list[Point] = []
        self.steps = self._samples = 0

    def enough(self, samples: int) -> bool:
        """Note a batch of ``samples``."""
        self.steps += 1
        self._samples += samples
        seconds = time.perf_counter() - self.began
        self.points.append(Point(seconds, self._samples))
        if self._run.steps is not None:
            self._listener(Progress("bench", self._item, self.steps, self._run.steps, unit="batches"))
            return self.steps >= self._run.steps
        return seconds >= self._run.seconds


def _loop(loader: StreamingLoader, clock: _Clock) -> Any:
    """Run epochs until the clock has enough; gives the last batch."""
    while True:
        for batch in loader:
            if clock.enough(int(batch["valid"].sum())):
                return batch


def _thinned(points: list[Point]) -> list[Point]:
    """At most `POINTS` of them and the first, about evenly spaced in time."""
    first, last = points[0], points[-1]
    step = (last.seconds - first.seconds) / POINTS
    kept, due = [first], first.seconds + step
    for point in points[1:-1]:
        if point.seconds >= due:
            kept.append(point)
            due = max(due + step, point.seconds + step / 2)
    return kept if last is first else [*kept, last]


def _shape(batch: Any) -> str:
    images = batch["image"]
    if not isinstance(images, torch.Tensor):
        return f"{len(images)} images of their own sizes, {str(images[0].dtype).removeprefix('torch.')}"
    return f"{' x '.join(map(str, images.shape))} {str(images.dtype).removeprefix('torch.')}"


def chart(report: Report) -> torch.Tensor:
    """The pace over time as a picture, uint8 ``(3, H, W)``."""
    pace = report.pace()
    return draw(
        Chart(
            title=f"{report.ref} {report.split}: samples per second",
            x=[seconds for seconds, _ in pace],
            y=[rate for _, rate in pace],
            x_label="seconds since the loop began",
            y_label="samples / s",
            level=(report.samples_per_second, f"mean {report.samples_per_second:,.0f} samples/s"),
            notes=[
                f"batches of {report.shape}, {report.stats['workers']} threads, first batch after "
                f"{report.first_batch:.2f} s",
                f"bottleneck: {report.stats['bottleneck']}: {report.stats['because']}",
            ],
        )
    )
