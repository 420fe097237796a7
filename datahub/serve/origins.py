"""Where a cache server gets what its own stores do not have: another store, any fsspec URL, another cache server.

An origin is asked for a full reference and says where it found its record; everything it sends is checked by whoever
takes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from datahub.acquire.policy import RetryPolicy
from datahub.core.digests import sha256_hex
from datahub.core.errors import BadArgument, DatahubError, HttpError
from datahub.core.refs import Ref
from datahub.core.urls import below, misplaced, shown
from datahub.serve.redirects import guarded
from datahub.store import blocks
from datahub.store import record as records
from datahub.store.record import BLOCKS, FILENAME
from datahub.stream.origin import Files, open_files
from datahub.stream.patience import read_range, read_whole
from datahub.wire.messages import DatasetInfo, Datasets
from datahub.wire.paths import DATASETS

if TYPE_CHECKING:
    from datahub.wire.client import ServerClient

POLICY = RetryPolicy(attempts=4, base=0.1, cap=2.0)
"""A client waits for the answer: an origin that is down is reported soon."""


@dataclass(frozen=True, slots=True)
class Found:
    """A variant's record and `blocks.bin`, as an origin sent them, and where its files are."""

    ref: Ref
    files: Files
    data: bytes
    raws: bytes
    origin: str


FOLDER = "file://"
SCHEMES = ("http", "https", "datahub+http", "datahub+https")
OWN = (FOLDER, *(f"{each}://" for each in SCHEMES))
"""How the URLs begin that are read without fsspec."""
LISTED, LISTING = 30.0, 5.0
"""Seconds for which an origin's list is good, and that it may take."""


class Origin:
    """Safe in threads. ``seconds``: what one question may take."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url, self._seconds = normal(url), seconds
        self._lock = threading.Lock()
        self._server: bool | None = None
        self._infos: list[DatasetInfo] = []
        self._told = -LISTED

    def find(self, ref: Ref) -> Found | None:
        """Raises `OriginError`s, `RecordInvalid`, and `TokenRefused`."""
        for place in self._places(ref):
            files = self.files(place)
            try:
                data = read_whole(files, FILENAME, self._seconds, policy=POLICY)
            except HttpError as error:
                if error.status == 404:
                    continue
                raise
            record = records.decode(data, files.name(FILENAME))
            if record.ref != str(ref):
                continue
            size = blocks.size(record.files)
            raws = bytes(read_range(files, BLOCKS, 0, size, self._seconds, policy=POLICY)) if size else b""
            return Found(ref, files, data, raws, self.url)
        return None

    def infos(self) -> list[DatasetInfo]:
        """What it says it has, a moment ago at the latest; nothing where it cannot say, or does not answer."""
        with self._lock:
            if time.monotonic() - self._told < LISTED:
                return self._infos
            self._told = time.monotonic()
        with suppress(DatahubError, msgspec.DecodeError):
            seconds = min(self._seconds, LISTING)
            server = self.server(seconds)
            if server is not None:
                data = server.whole(DATASETS, seconds)
                found = msgspec.json.decode(data, type=Datasets).datasets
                self._infos = [msgspec.structs.replace(each, local=False, default=False) for each in found]
            elif self.url.startswith(FOLDER):
                self._infos = list(_infos_below(Path(unquote(urlsplit(self.url).path))))
        return self._infos

    def files(self, place: str) -> Files:
        """The files at a place that this origin named."""
        return guarded(open_files(place))

    def files_at(self, place: str) -> Files:
        """The same, of a place that was written down without what is secret in the origin's URL."""
        known = shown(self.url)
        return self.files(below(self.url, place[len(known) :].strip("/")) if place.startswith(known) else place)

    def server(self, seconds: float) -> ServerClient | None:
        """The cache server that this origin is, if it is one. Raises `OriginError`s while that cannot be told."""
        from datahub.stream.served import ServedFiles  # imports urllib3, as the next one
        from datahub.wire.client import ServerClient

        if not self.url.startswith(("http://", "https://")):
            return ServedFiles.client_of(self.url)
        client = ServerClient(self.url) if "@" not in self.url else None
        if self._server is None:
            self._server = client is not None and client.is_server(seconds)
        return client if self._server else None

    def _places(self, ref: Ref) -> Iterator[str]:
        if (server := self.server(self._seconds)) is not None:
            from datahub.stream.served import served_url

            yield served_url(server.url, ref)
            return
        path = f"{ref.name}/{ref.version}/{ref.variant}"
        yield from (below(self.url, path), below(self.url, f"datasets/{path}"), self.url)


def _infos_below(folder: Path) -> Iterator[DatasetInfo]:
    """The variants of a store, or of an exported one; what is broken is left out."""
    for pattern in ("*/*/*", "datasets/*/*/*"):
        for path in sorted(folder.glob(f"{pattern}/{FILENAME}")):
            with suppress(DatahubError, OSError):
                data = path.read_bytes()
                record = records.decode(data, str(path))
                ref = Ref.parse(record.ref)
                yield DatasetInfo(
                    name=ref.name,
                    version=str(ref.version),
                    variant=str(ref.variant),
                    bytes=record.bytes(),
                    samples={name: split.samples for name, split in record.splits.items()},
                    etag=sha256_hex(data),
                    local=False,
                    title=record.title,
                )


def normal(url: str) -> str:
    """A folder as a file:// URL; others as they are, without a slash at their end. Raises `BadArgument`."""
    if not url:
        raise BadArgument("origin", url, "is empty", "give a folder or scheme://place")
    scheme, colon, _ = url.partition("://")
    if not colon:
        folder = Path(url).expanduser().absolute()
        if not folder.is_dir():
            raise BadArgument("origin", url, "is no folder that is there", "mount it first, or give scheme://place")
        return folder.as_uri()
    if reason := misplaced(url):
        raise BadArgument("origin", url, reason)
    if scheme not in SCHEMES:
        from datahub.acquire.remote import known  # imports fsspec

        if not known(scheme):
            raise BadArgument("origin", url, f"no file system is known for {scheme!r}", "install its fsspec package")
    return url.rstrip("/")
