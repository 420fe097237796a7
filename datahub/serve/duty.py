"""Work that one of a server's processes does for all: whoever holds the lock, which goes with its process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def taken(folder: Path, name: str) -> int | None:
    """The descriptor that holds the lock ``name``; None where another process has it, or the folder is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
