"""Bytes of a raw file or archive member, decompressed on the way; every fault of theirs is a `LayoutError`.

The compression (gzip, xz, bzip2, or none) is told by the first bytes, never by the name. A read never inflates more
than it was asked for, so whoever knows how much must come is safe from decompression bombs.
"""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from datahub.core.errors import LayoutError, NotReadable

STEP = 1 << 20
FEED = 1 << 16
"""Compressed bytes read at a time."""
XZ_MEMORY = 256 << 20
"""Most bytes an xz dictionary may take; `xz -9` asks for 65 MB."""
MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}


class Reader(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; fewer only at the end."""
        ...


class Window:
    """The bytes ``start .. end`` of an open file, passed over without being read."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor, self._at, self._end = descriptor, start, end

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._descriptor, min(size, self._end - self._at), self._at)
        self._at += len(data)
        return data

    def skip(self, size: int) -> int:
        """Pass over at most ``size`` bytes; how many there were."""
        before, self._at = self._at, min(self._at + size, self._end)
        return self._at - before


class Stream:
    """The decompressed bytes of ``raw``. ``path`` and ``place`` name them in errors."""

    def __init__(self, raw: Reader, path: str, place: str = "") -> None:
        self.path, self.place = path, place
        self.kind = ""
        self.at = 0
        """Decompressed bytes passed."""
        head = self._guarded(raw, 6)
        self.kind = kind_of(head)
        whole = _Rewound(head, raw)
        self._source: Reader = _Inflated(MACHINES[self.kind], whole) if self.kind else whole

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, ``b""`` at the end. Raises `LayoutError` or `NotReadable`."""
        data = self._guarded(self._source, size)
        self.at += len(data)
        return data

    def upto(self, size: int) -> bytearray:
        """At most ``size`` bytes; memory grows with what comes, not with what was asked for."""
        data = bytearray()
        while len(data) < size and (piece := self.read(min(STEP, size - len(data)))):
            data += piece
        return data

    def skip(self, size: int) -> int:
        """Pass over at most ``size`` bytes; how many there were."""
        if isinstance(self._source, _Rewound):
            passed = self._source.skip(size)
            self.at += passed
            if passed == size:
                return size
        else:
            passed = 0
        left = size - passed
        while left and (piece := self.read(min(STEP, left))):
            left -= len(piece)
        return size - left

    def _guarded(self, source: Reader, size: int) -> bytes:
        try:
            return source.read(size)
        except EOFError as error:
            raise self.fault(f"truncated: its {self.kind} data end too early") from error
        except (zlib.error, lzma.LZMAError) as error:
            raise self.fault(f"damaged {self.kind} data: {error}") from error
        except OSError as error:
            if error.errno is None:  # bz2 has no exception of its own
                raise self.fault(f"damaged {self.kind} data: {error}") from error
            raise NotReadable(self.path, error.strerror or str(error)) from error
        except MemoryError as error:
            raise self.fault(f"its {self.kind} data ask for more memory than there is") from error

    def fault(self, reason: str) -> LayoutError:
        return LayoutError(self.path, self.place, reason)


def kind_of(head: bytes) -> str:
    """The compression that the first six bytes tell, "" for none."""
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")


class _Rewound:
    """A reader with its first bytes put back."""

    def __init__(self, head: bytes, rest: Reader) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = STEP, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        piece, self._head = self._head[:size], self._head[size:]
        return piece + self._rest.read(size - len(piece)) if len(piece) < size else piece

    def skip(self, size: int) -> int:
        """Pass over what can be passed over without reading it; how many bytes."""
        piece, self._head = self._head[:size], self._head[size:]
        if not isinstance(self._rest, Window):
            return len(piece)
        return len(piece) + self._rest.skip(size - len(piece))


class _Machine(Protocol):
    """The part of the standard library's decompressors that bz2 and lzma share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """A gzip member's decompressor in their form; checks its CRC-32 and length."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        piece = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.needs_input = not self._inflate.unconsumed_tail and len(piece) < max_length
        return piece


def _xz() -> _Machine:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


MACHINES: dict[str, Callable[[], _Machine]] = {"gzip": _Gzip, "xz": _xz, "bzip2": bz2.BZ2Decompressor}


class _Inflated:
    """The bytes of one compressed stream, or of several end to end; anything else after one is an error of its kind.

    The standard library's file objects overlook what follows xz and bzip2 data, and cap no memory.
    """

    def __init__(self, fresh: Callable[[], _Machine], raw: Reader) -> None:
        self._fresh, self._raw = fresh, raw
        self._machine = fresh()
        self._head = b""

    def read(self, size: int, /) -> bytes:
        data = bytearray()
        while len(data) < size:
            if self._machine.eof and not self._another():
                break
            fed = self._feed() if self._machine.needs_input else b""
            if self._machine.needs_input and not fed:
                raise EOFError
            data += self._machine.decompress(fed, size - len(data))
        return bytes(data)

    def _another(self) -> bool:
        """Begin the next stream, past zeros that pad to one; False at the end."""
        rest = self._machine.unused_data.lstrip(b"\0")
        while not rest:
            fed = self._raw.read(FEED)
            if not fed:
                return False
            rest = fed.lstrip(b"\0")
        self._machine, self._head = self._fresh(), rest
        return True

    def _feed(self) -> bytes:
        head, self._head = self._head, b""
        return head or self._raw.read(FEED)


@contextmanager
def opened(path: Path) -> Iterator[Stream]:
    """A file's decompressed bytes. Raises `NotReadable`."""
    try:
        handle = path.open("rb")
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    with handle:
        yield Stream(handle, str(path))
