"""Bytes of a raw file or archive member, decompressed on the way; every fault of theirs is a `LayoutError`.

The compression (gzip, xz, bzip2, or none) is told by the first bytes, never by the name. A read never inflates more
than it was asked for, so whoever knows how much must come is safe from decompression bombs.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Protocol, cast

from datahub.core.errors import LayoutError, NotReadable

STEP = 1 << 20
MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}


class Reader(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; fewer only at the end."""
        ...


class Stream:
    """The decompressed bytes of ``raw``. ``path`` and ``place`` name them in errors."""

    def __init__(self, raw: Reader, path: str, place: str = "") -> None:
        self.path, self.place = path, place
        self.kind = ""
        head = self._guarded(raw, 6)
        self.kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
        self._source: Reader = _opened(self.kind, _Rewound(head, raw))

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, ``b""`` at the end. Raises `LayoutError` or `NotReadable`."""
        return self._guarded(self._source, size)

    def upto(self, size: int) -> bytearray:
        """At most ``size`` bytes; memory grows with what comes, not with what was asked for."""
        data = bytearray()
        while len(data) < size and (piece := self.read(min(STEP, size - len(data)))):
            data += piece
        return data

    def skip(self, size: int) -> int:
        """Pass over at most ``size`` bytes; how many there were."""
        left = size
        while left and (piece := self.read(min(STEP, left))):
            left -= len(piece)
        return size - left

    def _guarded(self, source: Reader, size: int) -> bytes:
        try:
            return source.read(size)
        except EOFError as error:
            raise self.fault(f"truncated: its {self.kind} data end too early") from error
        except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise self.fault(f"damaged {self.kind} data: {error}") from error
        except OSError as error:
            if error.errno is None:  # bz2 has no exception of its own
                raise self.fault(f"damaged {self.kind} data: {error}") from error
            raise NotReadable(self.path, error.strerror or str(error)) from error
        except MemoryError as error:
            raise self.fault(f"its {self.kind} data ask for more memory than there is") from error

    def fault(self, reason: str) -> LayoutError:
        return LayoutError(self.path, self.place, reason)


class _Rewound:
    """A reader with its first bytes put back."""

    def __init__(self, head: bytes, rest: Reader) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = STEP, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        piece, self._head = self._head[:size], self._head[size:]
        return piece + self._rest.read(size - len(piece)) if len(piece) < size else piece


def _opened(kind: str, raw: _Rewound) -> Reader:
    fileobj = cast(BufferedReader, raw)  # the three call nothing but read
    if kind == "gzip":
        return gzip.GzipFile(fileobj=fileobj, mode="rb")
    if kind == "xz":
        return lzma.LZMAFile(fileobj)
    return bz2.BZ2File(fileobj) if kind == "bzip2" else raw


@contextmanager
def opened(path: Path) -> Iterator[Stream]:
    """A file's decompressed bytes. Raises `NotReadable`."""
    try:
        handle = path.open("rb")
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    with handle:
        yield Stream(handle, str(path))
