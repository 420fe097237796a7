"""When each block will be read next, as jobs announced it: a file beside the ledger, for every process that evicts.

One process writes it anew every few seconds. What it says holds for a minute: where nobody writes it any more, because
the writer or its jobs are gone, nothing is foreseen.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from datahub.core import atomic
from datahub.core.processes import boot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "foreseen-1.bin"
LASTS = 60.0
"""Seconds for which a file is good."""
WIDTH = 32
"""Bytes of a key."""
_NOTHING: Mapping[str, float] = {}


def _since_boot() -> float:
    """Seconds that no setting of a clock changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Foreseen:
    """``folder/foreseen-1.bin``. A file that cannot be read, or is damaged, foresees nothing."""

    def __init__(self, folder: Path, clock: Callable[[], float] = _since_boot) -> None:
        self._path, self._clock = folder / NAME, clock
        self._read: tuple[tuple[int, int], float, Mapping[str, float]] | None = None
        """What the file looked like, until when it is good, and what it says."""

    def write(self, keys: bytes, due: NDArray[np.float64]) -> None:
        """``due``: seconds until each block is read next, ``inf`` where no job will; ``keys`` end to end, in binary.

        Raises `DiskError`s.
        """
        head = json.dumps({"boot": boot(), "until": self._clock() + LASTS, "blocks": len(due)}).encode()
        atomic.write_bytes(self._path, head + b"\n" + keys + due.astype("<f8").tobytes(), sync=False)

    def forget(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def due(self) -> Mapping[str, float]:
        """Key -> seconds until it is read, counted from a moment that is the same for all of them."""
        try:
            facts = self._path.stat()
        except OSError:
            return _NOTHING
        looks = facts.st_ino, facts.st_mtime_ns
        if self._read is None or self._read[0] != looks:
            self._read = (looks, *self._load())
        return self._read[2] if self._clock() < self._read[1] else _NOTHING

    def _load(self) -> tuple[float, Mapping[str, float]]:
        try:
            head, _, rest = self._path.read_bytes().partition(b"\n")
            facts = json.loads(head)
            count, until, where = int(facts["blocks"]), float(facts["until"]), facts["boot"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, _NOTHING
        if where != boot() or count < 0 or len(rest) != count * (WIDTH + 8):
            return 0.0, _NOTHING
        names = rest[: count * WIDTH].hex()
        due = struct.unpack_from(f"<{count}d", rest, count * WIDTH)
        return until, {names[2 * WIDTH * n : 2 * WIDTH * (n + 1)]: value for n, value in enumerate(due)}
