"""Files and folders that appear whole or not at all: write beside the target, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from datahub.core.errors import from_oserror


def fsync_dir(folder: Path) -> None:
    """Make renames and creations in ``folder`` durable; file systems that cannot are left as they are."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems refuse fsync on folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_dir(folder: Path) -> Path:
    """``mkdir -p`` with datahub's errors."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_oserror(error, folder, writing=True) from error
    return folder


@contextmanager
def writing(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Write ``path`` through a temporary file beside it; on an exception nothing is left behind.

    Raises `DiskFull` or `NotWritable`.
    """
    make_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            if sync:
                os.fsync(handle.fileno())
        temporary.replace(path)
        if sync:
            fsync_dir(path.parent)
    except OSError as error:
        raise from_oserror(error, path, writing=True) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    with writing(path, sync=sync) as handle:
        handle.write(data)


def publish_dir(built: Path, target: Path, trash: Path) -> None:
    """Move the finished folder ``built`` to ``target``; what stood there goes to ``trash`` first.

    Rename cannot replace a non-empty folder, so between the two renames a reader sees no folder, never half of one.
    """
    try:
        make_dir(target.parent)
        fsync_dir(built)
        if target.exists():
            discard(target, trash)
        built.rename(target)
        fsync_dir(target.parent)
    except OSError as error:
        raise from_oserror(error, target, writing=True) from error


def discard(path: Path, trash: Path) -> None:
    """Remove a file or folder by renaming it into ``trash`` first, so it vanishes at once."""
    make_dir(trash)
    gone = trash / f"{path.name}.{secrets.token_hex(4)}"
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_oserror(error, path, writing=True) from error
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        with suppress(OSError):
            gone.unlink()
