"""Checkpoints of the reference job: one file, written whole, holding everything that the next step depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from datahub.core import atomic
from datahub.core.errors import BadArgument, LockTimeout, NotReadable
from datahub.core.locks import FileLock

VERSION = 2
FILENAME = "checkpoint.pt"
BEST = "best.pt"
LOCK = "lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The one run that writes into ``folder``; what a killed one left of itself is no hindrance. Raises `BadArgument`
    where another is at it, and `DiskError`s.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except LockTimeout as error:
        reason = f"{error.owner} is training there"
        raise BadArgument("dir", str(folder), reason, "let it finish, or use another") from error
    try:
        yield
    finally:
        lock.release()


def save(path: Path, parts: Mapping[str, Any]) -> None:
    """Write ``parts`` at ``path``; readers see the old file or the new one. Raises `DiskError`s."""
    with atomic.writing(path) as handle:
        target = _Target(handle)
        try:
            torch.save({"version": VERSION, **parts}, cast(BinaryIO, target))
        except RuntimeError as error:
            raise target.failure or error from error


class _Target:
    """What torch.save writes to. Where the disk fails, torch tells of its own archive alone: this knows the cause."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._handle.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._handle.flush()


def read(path: Path) -> Any:
    """What torch.save wrote: tensors and plain values alone, no code of the file's runs.

    Raises `NotReadable`, and ``ValueError`` for a damaged file or one of anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise NotReadable(str(path), "there is no such file") from error
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    except Exception as error:
        # Its reader is a machine in Python, which raises whatever damaged instructions lead it to.
        raise ValueError(str(error)) from error


def load(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint at ``path``. Raises `BadArgument` where it belongs to a run with other ``facts``."""
    try:
        found = read(path)
    except ValueError as error:
        raise BadArgument("dir", str(path), "is damaged, or no checkpoint", "remove it, or use another") from error
    if not isinstance(found, dict) or found.get("version") != VERSION or not isinstance(found.get("facts"), dict):
        raise BadArgument("dir", str(path), "is no checkpoint of this version", "name another --dir")
    before: dict[str, Any] = found["facts"]
    changed = [
        f"{name} was {before.get(name)}, is {value}" for name, value in facts.items() if before.get(name) != value
    ]
    if changed:
        raise BadArgument("dir", str(path), "; ".join(changed), "say what it was begun with, or name another --dir")
    return found
