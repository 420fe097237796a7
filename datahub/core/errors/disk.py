"""Exit code 5: this disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from datahub.core.errors.base import DatahubError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What says something of this process or machine, and nothing of the file."""
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)
"""A file stands where a folder must be."""


class DiskError(DatahubError):
    exit_code = 5
    path: str


class DiskFull(DiskError):
    def __init__(self, path: str, needed: int | None = None, free: int | None = None) -> None:
        facts = f": {needed} bytes needed, {free} free" if needed is not None and free is not None else ""
        super().__init__(
            f"{path}: no space left on the disk{facts}",
            "free some space (`datahub gc`) or set DATAHUB_HOME, then run it again",
        )
        self.path, self.needed, self.free = path, needed, free


class NotWritable(DiskError):
    def __init__(
        self,
        path: str,
        reason: str = "permission denied",
        next_step: str = "check the permissions, or name another place (DATAHUB_HOME for what is stored)",
    ) -> None:
        super().__init__(f"cannot write {path}: {reason}", next_step)
        self.path, self.reason = path, reason


class NotReadable(DiskError):
    def __init__(self, path: str, reason: str, next_step: str = "check the path and its permissions") -> None:
        super().__init__(f"cannot read {path}: {reason}", next_step)
        self.path, self.reason = path, reason


def from_oserror(error: OSError, path: object, *, writing: bool | None = None) -> DiskError:
    """What an ``OSError`` met at ``path`` stands for. ``writing``: what was being done, where the caller knows."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFull(str(path))
    if error.errno in SCARCE and not writing:
        return NotReadable(str(path), reason, "let it have more (`ulimit -n`, memory), or run less at a time")
    if writing is None:
        writing = error.errno in (*_FORBIDDEN, errno.EEXIST)
    if not writing:
        return NotReadable(str(path), reason)
    if error.errno in _IN_THE_WAY and (stands := _no_folder(Path(str(path)))) is not None:
        return NotWritable(str(path), f"{stands} is not a folder", "name another place, or move that file away")
    if error.errno == errno.EISDIR:
        return NotWritable(str(path), "it is a folder", "name a file in it, or another place")
    return NotWritable(str(path), reason)


def _no_folder(path: Path) -> Path | None:
    """The first on the way up from ``path`` that stands, if it is no folder."""
    found = next((each for each in (path, *path.parents) if os.path.lexists(each)), None)
    return None if found is None or found.is_dir() else found
