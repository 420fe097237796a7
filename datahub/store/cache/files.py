"""A cache's block files: ``blocks/<first two digits>/<key>`` whole, ``filling/<key>.<token>`` until then.

A file appears under its key by rename, so it is there whole or not at all. While one is read it carries a shared
`flock`, and nothing that carries one is evicted; the kernel takes the lock back when a reader dies. On a disk without
flock a block may be unlinked under its reader, who reads on from the open file.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

KEY = re.compile(r"[0-9a-f]{64}")
NETWORKED = re.compile(r"nfs|cifs|smb|lustre|ceph|gpfs|beegfs|glusterfs|9p|afs|pvfs|orangefs|wekafs|fuse\.")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file looked like when its bytes were verified; any write changes it."""

    inode: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Opened:
    descriptor: int
    size: int
    seen: Seen

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self.descriptor, end - start, start)


class BlockFiles:
    """The files of one cache folder. Touches nothing whose name it did not give."""

    def __init__(self, folder: Path) -> None:
        self._blocks, self._filling = folder / "blocks", folder / "filling"

    def path(self, key: str) -> Path:
        return self._blocks / key[:2] / key

    @contextmanager
    def reading(self, key: str) -> Iterator[Opened | None]:
        """The block's file, kept from eviction until the block ends; None where there is none."""
        try:
            descriptor = os.open(self._place(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            facts = os.fstat(descriptor)
            # One that was unlinked between the two calls is off the books already.
            found = Opened(descriptor, facts.st_size, Seen(facts.st_ino, facts.st_mtime_ns))
            yield found if facts.st_nlink else None
        finally:
            os.close(descriptor)

    def write(self, key: str, token: str, data: bytes | memoryview) -> Seen:
        """Write a block that nobody sees yet. Raises ``OSError``, leaving nothing."""
        path = self._draft(key, token)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                facts = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise
        return Seen(facts.st_ino, facts.st_mtime_ns)

    def publish(self, key: str, token: str) -> None:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._draft(key, token).rename(target)

    def discard(self, key: str, token: str) -> None:
        """Remove what a filler left, if it left anything."""
        with suppress(OSError):
            self._draft(key, token).unlink()

    def remove(self, key: str, *, though_read: bool = False) -> bool:
        """Unlink a block that nobody is reading; False where somebody is. Gone already counts as removed."""
        path = self.path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            if not though_read and not _alone(descriptor):
                return False
            path.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def size(self, key: str) -> int | None:
        try:
            return Path(self._place(key)).stat().st_size
        except OSError:
            return None

    def there(self, key: str) -> bool:
        return os.access(self._place(key), os.F_OK)

    def all(self) -> Iterator[tuple[str, int]]:
        """(key, bytes) of every block file there is."""
        for path in self._blocks.glob("[0-9a-f][0-9a-f]/*"):
            if KEY.fullmatch(path.name) and path.name.startswith(path.parent.name):
                size = self.size(path.name)
                if size is not None:
                    yield path.name, size

    def drafts(self) -> Iterator[tuple[str, str]]:
        """(key, token) of every fill that has begun to write."""
        for path in self._filling.glob("*.*"):
            key, _, token = path.name.partition(".")
            if KEY.fullmatch(key):
                yield key, token

    def _place(self, key: str) -> str:
        """`path`, which costs more than what it is asked for."""
        return f"{self._blocks}/{key[:2]}/{key}"

    def _draft(self, key: str, token: str) -> Path:
        return self._filling / f"{key}.{token}"


def _alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no flock here
        return True
    return True


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that ``folder`` (which need not be there yet) is on; "" where that is not known."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    here = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        where = Path(left.split()[4].replace("\\040", " "))
        if (where == here or where in here.parents) and len(where.parts) >= best:
            best, kind = len(where.parts), right.split()[0]
    return kind


def networked(folder: Path) -> bool:
    return bool(NETWORKED.match(file_system(folder)))
