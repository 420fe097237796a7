"""`Verified`: a published file on this machine whose size and digests were checked. Only this room makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datahub.acquire import receipts
from datahub.core import digests
from datahub.core.digests import Digest
from datahub.core.errors import SizeMismatch, from_oserror
from datahub.core.events import Listener, Note, Progress
from datahub.core.settings import Settings
from datahub.registry.schema import File


@dataclass(frozen=True, slots=True)
class Verified:
    """``path`` holds ``file`` as published; ``sha256`` is its hex digest."""

    file: File
    path: Path
    sha256: str


def vouched(file: File, path: Path, settings: Settings) -> Verified | None:
    """The file by its receipt alone: a stat, no byte read. None where there is none, or it no longer fits."""
    receipt = receipts.read(settings, path)
    if receipt is None:
        return None
    found = [Digest(*each.split(":", 1)) for each in receipt.digests if ":" in each]
    if not all(any(want.fits(each) for each in found) for want in file.digests()):
        return None
    if file.bytes is not None and receipt.size != file.bytes:
        return None
    return Verified(file, path, receipt.sha256)


def verify(file: File, path: Path, settings: Settings, listener: Listener) -> Verified:
    """Hash ``path``, unless a receipt vouches for it. Raises `SizeMismatch`, `DigestMismatch` or a `DiskError`."""
    if known := vouched(file, path, settings):
        return known
    try:
        size = path.stat().st_size
        if file.bytes is not None and size != file.bytes:
            raise SizeMismatch(str(path), file.bytes, size)
        hashes = digests.of_file(path, algorithms(file))
    except OSError as error:
        raise from_oserror(error, path, writing=False) from error
    hashes.check(str(path), file.digests())
    listener(Progress("verify", file.filename, size, size))
    return accept(file, path, hashes.digests(), settings, listener)


def accept(file: File, path: Path, found: tuple[Digest, ...], settings: Settings, listener: Listener) -> Verified:
    """Write the receipt of a file whose digests were just checked."""
    sha256 = next(each.hex for each in found if each.algorithm == "sha256")
    if not file.digests():
        text = f"{file.filename}: no digest is published; sha256:{sha256} is taken on trust from now on"
        listener(Note("verify", text, warning=True))
    receipts.write(settings, path, found)
    return Verified(file, path, sha256)


def algorithms(file: File) -> list[str]:
    """Every published algorithm, and SHA-256 always."""
    return ["sha256", *(["md5"] if file.md5 else [])]
