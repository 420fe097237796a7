"""Files that hold secrets: who else may write or read them.

As ssh has it for keys, but for what containers do: a secret that Docker or Kubernetes mounts is another user's, and can
often be read by all there are in the container.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from datahub.core.errors.usage import BadArgument


def check(path: Path, name: str) -> None:
    """Raises `BadArgument` where everybody may write the file: whoever does chooses the secret."""
    mode = _mode(path)
    if mode & stat.S_IWOTH:
        raise BadArgument(name, str(path), "everybody may write it", f"run `chmod 600 {path}`, and make a new secret")


def exposed(path: Path) -> str:
    """Who may read the file, or write it, beside its owner: "everybody may read it"; "" for nobody who need not.

    A file of another user must be readable by this one's group to be of use.
    """
    mode = _mode(path)
    if mode & stat.S_IROTH:
        return "everybody may read it"
    mine = _owner(path) == os.geteuid()
    if mode & stat.S_IWGRP or (mine and mode & stat.S_IRGRP):
        return f"its group may {'write' if mode & stat.S_IWGRP else 'read'} it"
    return ""


def advice(path: Path) -> str:
    """What to do about it: nothing where the file is another user's, who mounted it so."""
    return f"; run `chmod 600 {path}`" if _owner(path) == os.geteuid() else ""


def _mode(path: Path) -> int:
    """0 for what is no file (a pipe of a shell), or not there: whoever reads it says so."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return 0
    return stat.S_IMODE(mode) if stat.S_ISREG(mode) else 0


def _owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:
        return -1
