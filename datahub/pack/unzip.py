"""Zip archives member by member: the directory is read as a stream, data inflated on demand, nothing extracted.

Format: PKWARE's APPNOTE.TXT 6.3 (stored and deflated members, zip64). The standard library's zipfile first builds an
object for each of however many members the directory lists, so the directory is read here.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from datahub.core.errors import LayoutError
from datahub.pack.inflate import STEP
from datahub.pack.members import Gate, Limits, Member

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
ENCRYPTED, UTF8 = 1 << 0, 1 << 11
STORED, DEFLATED = 0, 8
UNIX = 3
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF


@dataclass(slots=True)
class _Entry:
    """One member as the directory tells it."""

    raw: bytes
    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


def walk(handle: BinaryIO, path: str, limits: Limits) -> Iterator[Member]:
    """The regular members, in directory order; folders are passed over. ``handle`` must seek.

    Raises `UnsafeArchive` and `LayoutError` as `untar.walk` does.
    """
    gate = Gate(path, limits)
    start, end = _directory(handle, path)
    at = start
    while at < end:
        entry, length = _entry(handle, at, end, gate)
        at += length
        folder = entry.name.endswith("/")
        gate.admit(entry.name, 0 if folder else entry.size)
        _check(entry, folder, gate)
        if not folder:
            data = _data(handle, entry, start, path)
            yield Member(entry.name, entry.size, data, path)


def _at(handle: BinaryIO, offset: int, size: int, path: str, what: str) -> bytes:
    handle.seek(offset)
    data = handle.read(size)
    if len(data) < size:
        raise LayoutError(path, "", f"truncated: {what} is cut off")
    return data


def _directory(handle: BinaryIO, path: str) -> tuple[int, int]:
    """Where the directory starts and ends."""
    length = handle.seek(0, 2)
    tail_at = max(0, length - END.size - FULL16)
    tail = _at(handle, tail_at, length - tail_at, path, "its end")
    where = tail.rfind(b"PK\5\6")
    while where >= 0:
        if where + END.size <= len(tail):
            record = END.unpack_from(tail, where)
            if where + END.size + record[7] == len(tail):
                return _span(handle, record, tail_at + where, path)
        where = tail.rfind(b"PK\5\6", 0, where)
    raise LayoutError(path, "", "truncated, or not a zip archive: it has no end record")


def _span(handle: BinaryIO, record: tuple[int, ...], end: int, path: str) -> tuple[int, int]:
    """From the end record at ``end``, or from the zip64 one that a locator before it tells of."""
    _, disk, first, _, _, size, start, _ = record
    before = _at(handle, max(0, end - LOCATOR64.size), LOCATOR64.size, path, "its end record")
    if before.startswith(b"PK\6\7"):
        _, _, at, _ = LOCATOR64.unpack(before)
        if at > end:
            raise LayoutError(path, "", "damaged: its zip64 end record is missing")
        end = at
        wide = END64.unpack(_at(handle, end, END64.size, path, "its zip64 end record"))
        if wide[0] != b"PK\6\6":
            raise LayoutError(path, "", "damaged: its zip64 end record is missing")
        disk, first, size, start = wide[4], wide[5], wide[8], wide[9]
    if disk or first:
        raise LayoutError(path, "", "one part of a zip archive in several; join them first")
    if start + size != end:
        raise LayoutError(path, "", f"damaged: its directory should end at byte {end}, not {start + size}")
    return start, end


def _entry(handle: BinaryIO, at: int, end: int, gate: Gate) -> tuple[_Entry, int]:
    if at + ENTRY.size > end:
        raise LayoutError(gate.path, "", "damaged: its directory is cut off")
    found = ENTRY.unpack(_at(handle, at, ENTRY.size, gate.path, "its directory"))
    magic, version, _, flags, method, _, _, crc, packed, size, named, extra, comment, disk, _, attributes, offset = (
        found
    )
    length = ENTRY.size + named + extra + comment
    if magic != b"PK\1\2" or at + length > end or disk not in (0, FULL16):
        raise LayoutError(gate.path, "", f"damaged: no valid directory entry at byte {at}")
    rest = handle.read(named + extra)
    raw = rest[:named]
    name = gate.text(raw) if flags & UTF8 else raw.decode("cp437")
    size, packed, offset = _wide(rest[named:], (size, packed, offset), gate, name)
    mode = attributes >> 16 if version >> 8 == UNIX else 0
    return _Entry(raw, name, method, flags, crc, packed, size, offset, mode), length


def _wide(extra: bytes, values: tuple[int, int, int], gate: Gate, name: str) -> tuple[int, int, int]:
    """Size, packed size and offset; those that stand as 0xFFFFFFFF are in the zip64 field, in this order."""
    if FULL32 not in values:
        return values
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<2H", extra)
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag == 1 and len(body) >= 8 * values.count(FULL32):
            found = iter(struct.unpack_from(f"<{values.count(FULL32)}Q", body))
            size, packed, offset = (next(found) if value == FULL32 else value for value in values)
            return size, packed, offset
    raise LayoutError(gate.path, name, "damaged: its zip64 sizes are missing")


def _check(entry: _Entry, folder: bool, gate: Gate) -> None:
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        raise gate.refusal(entry.name, "is a symbolic link")
    if kind not in (0, stat.S_IFREG) and not (folder and kind == stat.S_IFDIR):
        raise gate.refusal(entry.name, "is not a regular file")
    if entry.flags & ENCRYPTED:
        raise gate.refusal(entry.name, "is encrypted")
    if folder:
        return
    if entry.method not in (STORED, DEFLATED):
        raise LayoutError(
            gate.path, entry.name, f"compression method {entry.method} is not read: stored and deflate are"
        )
    if entry.method == STORED and entry.packed != entry.size:
        raise LayoutError(gate.path, entry.name, f"damaged: {entry.packed} stored bytes for a size of {entry.size}")
    if entry.size > gate.limits.ratio * entry.packed + STEP:
        raise gate.refusal(entry.name, f"inflates {entry.packed} bytes to {entry.size}: over {gate.limits.ratio} times")


def _data(handle: BinaryIO, entry: _Entry, directory: int, path: str) -> Packed:
    if entry.offset + entry.packed > directory:
        raise LayoutError(path, entry.name, "damaged: its data reach into the directory")
    header = LOCAL.unpack(_at(handle, entry.offset, LOCAL.size, path, f"member {entry.name!r}"))
    named, extra = header[9], header[10]
    if header[0] != b"PK\3\4" or handle.read(named) != entry.raw:
        raise LayoutError(path, entry.name, f"damaged: its header at byte {entry.offset} does not fit the directory")
    start = entry.offset + LOCAL.size + named + extra
    if start + entry.packed > directory:
        raise LayoutError(path, entry.name, "damaged: its data reach into the directory")
    return Packed(handle, entry, start, path)


class Packed:
    """A member's data, inflated as they are read; size and CRC-32 are checked with the last byte."""

    def __init__(self, handle: BinaryIO, entry: _Entry, start: int, path: str) -> None:
        self._handle, self._entry, self._path = handle, entry, path
        self.start, self.packed, self.method, self.crc = start, entry.packed, entry.method, entry.crc
        """Where the member's stored bytes are, how many, how they are compressed, and the CRC-32 of what they hold."""
        self._at, self._left = start, entry.packed
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
        self._crc = 0
        self._given = 0
        if not entry.size:
            self._finish()

    def read(self, size: int, /) -> bytes:
        data = bytearray()
        while len(data) < size and (piece := self._some(size - len(data))):
            data += piece
        self._crc = zlib.crc32(data, self._crc)
        self._given += len(data)
        if data and self._given == self._entry.size:
            self._finish()
        return bytes(data)

    def _some(self, size: int) -> bytes:
        if self._inflate is None:
            return self._raw(size)
        try:
            while not self._inflate.eof:
                packed = self._inflate.unconsumed_tail or self._raw(STEP)
                if piece := self._inflate.decompress(packed, size):
                    return piece
                if not packed:
                    return b""
        except zlib.error as error:
            raise LayoutError(self._path, self._entry.name, f"damaged deflate data: {error}") from error
        return b""

    def _raw(self, size: int) -> bytes:
        self._handle.seek(self._at)  # somebody else may have read from the handle
        piece = self._handle.read(min(size, self._left))
        self._at += len(piece)
        self._left -= len(piece)
        return piece

    def _finish(self) -> None:
        if self._crc != self._entry.crc:
            raise LayoutError(self._path, self._entry.name, "damaged: its CRC-32 is not the one in the directory")
        if self._inflate is not None and (self._some(1) or not self._inflate.eof):
            raise LayoutError(self._path, self._entry.name, f"damaged: it does not end after {self._entry.size} bytes")
