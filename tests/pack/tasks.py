"""Functions for executors to run. At module level, so that every kind of worker can import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from datahub.core.errors import DiskFull


def double(number: int) -> int:
    return 2 * number


def fail(path: str) -> None:
    raise DiskFull(path, 10, 5)


def break_down() -> None:
    raise ZeroDivisionError("seven by nought")


def die_once(mark: str) -> int:
    """The first call kills its own process; a later one gives the number of the process that lived."""
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def sleep(seconds: float) -> None:
    time.sleep(seconds)
