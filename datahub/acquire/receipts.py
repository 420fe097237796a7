"""Receipts: a file's size, mtime, inode and digests when it was last hashed, so that verifying again is a stat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from datahub.core import atomic
from datahub.core.digests import Digest
from datahub.core.learning import learn
from datahub.core.settings import Settings


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    size: int
    mtime_ns: int
    inode: int
    digests: list[str]
    """``algorithm:hex`` of every digest that was computed."""

    @property
    def sha256(self) -> str:
        return next(each.partition(":")[2] for each in self.digests if each.startswith("sha256:"))


def path_of(settings: Settings, path: Path) -> Path:
    return settings.receipts / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()}.json"


def read(settings: Settings, path: Path) -> Receipt | None:
    """The receipt of ``path`` if the file still has the size, mtime and inode it had then."""
    try:
        receipt = msgspec.json.decode(path_of(settings, path).read_bytes(), type=Receipt)
        now = path.stat()
    except (OSError, msgspec.DecodeError):
        return None
    same = (receipt.size, receipt.mtime_ns, receipt.inode) == (now.st_size, now.st_mtime_ns, now.st_ino)
    return receipt if same and any(each.startswith("sha256:") for each in receipt.digests) else None


def write(settings: Settings, path: Path, digests: Iterable[Digest]) -> None:
    now = path.stat()
    receipt = Receipt(
        path=str(path.absolute()),
        size=now.st_size,
        mtime_ns=now.st_mtime_ns,
        inode=now.st_ino,
        digests=[str(each) for each in digests],
    )
    atomic.write_bytes(path_of(settings, path), msgspec.json.encode(receipt))


learn(Receipt)
