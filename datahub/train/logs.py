"""Where a run's rows are written: a CSV file, and TensorBoard's event files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

from datahub.core import atomic
from datahub.core.errors import MissingExtra, from_oserror
from datahub.train.meters import Row


class Log(Protocol):
    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


class CsvLog:
    """``metrics.csv``: a line a row, appended, each on the disk when `write` returns.

    It begins with the rows ``before``: what a killed run wrote after its last checkpoint comes once more.
    """

    def __init__(self, path: Path, before: Sequence[Row] = ()) -> None:
        self._path = path
        head = ",".join(each.name for each in fields(Row))
        atomic.write_bytes(path, "".join([f"{head}\r\n", *map(_line, before)]).encode())

    def write(self, row: Row) -> None:
        try:
            with self._path.open("a", newline="", encoding="utf-8") as handle:
                handle.write(_line(row))
        except OSError as error:
            raise from_oserror(error, self._path, writing=True) from error

    def close(self) -> None:
        """Nothing is held open."""


def _line(row: Row) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(f"{value:.6g}" if isinstance(value, float) else value for value in asdict(row).values())
    return text.getvalue()


class TensorBoardLog:
    """Scalars for TensorBoard, beside the CSV; events after the rows ``before`` are hidden."""

    def __init__(self, folder: Path, before: Sequence[Row] = ()) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "logging to TensorBoard") from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=before[-1].step + 1 if before else 0)

    def write(self, row: Row) -> None:
        for name, value in asdict(row).items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{row.phase}/{name}", value, row.step)

    def close(self) -> None:
        self._writer.close()
