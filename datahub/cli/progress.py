"""Progress for people: bars by rich on a terminal, a plain line when an item ends otherwise. Always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from datahub.core.events import Event, Listener, Note, Progress
from datahub.core.sizes import format_bytes

EVERY = 10.0
"""Seconds between plain lines of one long item."""


@contextmanager
def showing(verbose: bool = False) -> Iterator[Listener]:
    if sys.stderr.isatty():
        with _bars() as listen:
            yield listen
    else:
        yield _Lines(verbose)


class _Lines:
    """One line as an item ends, and one every `EVERY` seconds while it goes on."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._began: dict[tuple[str, str], float] = {}
        self._said: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Note):
                if event.warning or self._verbose:
                    click.echo(f"{event.stage}: {event.message}", err=True)
                return
            self._progress(event)

    def _progress(self, event: Progress) -> None:
        key, now = (event.stage, event.item), time.monotonic()
        began = self._began.setdefault(key, now)
        ended = event.total is not None and event.done >= event.total
        if not ended and now - self._said.setdefault(key, now) < EVERY:
            return
        if ended and self._said.get(key) == float("inf"):
            return
        self._said[key] = float("inf") if ended else now
        seconds = now - began
        amount = _amount(event.done, event.unit)
        whole = f" of {_amount(event.total, event.unit)}" if not ended and event.total else ""
        click.echo(f"{event.stage} {event.item}: {amount}{whole} in {seconds:.1f} s", err=True)


def _amount(count: int | None, unit: str) -> str:
    return format_bytes(count or 0) if unit == "bytes" else f"{count or 0:,} {unit}"


@contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[stage]:>8}"),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]:>10}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=False) as bars:
        tasks: dict[tuple[str, str], object] = {}
        lock = threading.Lock()

        def listen(event: Event) -> None:
            if isinstance(event, Note):
                bars.console.print(
                    f"{event.stage}: {event.message}", style="yellow" if event.warning else "dim", highlight=False
                )
                return
            amount = _amount(event.done, event.unit)
            with lock:
                key = (event.stage, event.item)
                if key not in tasks:
                    tasks[key] = bars.add_task(event.item, total=event.total, stage=event.stage, amount=amount)
            bars.update(tasks[key], completed=event.done, total=event.total, amount=amount)  # type: ignore[arg-type]

        yield listen
