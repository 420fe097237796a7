"""Tar archives as streams: regular members one after the other, in one pass and constant memory, nothing extracted.

Format: POSIX.1-2008 pax (ustar with extended headers) and GNU tar's long names; the tar(5) manual page describes both.
The standard library's tarfile keeps every member, stops silently at a damaged header and reads extended headers of any
size into memory, so the few fields that matter are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from datahub.core.errors import LayoutError
from datahub.pack.inflate import Stream
from datahub.pack.members import Gate, Limits, Member

BLOCK = 512
ZEROS = bytes(BLOCK)
EXTENDED = 1 << 18
"""Most bytes of an extended header: a name, a few times, attributes of some file systems."""
CHAINED = 8
"""Most extended headers before one member."""
PADDING = 16 << 20
"""Most bytes after the end mark: archives are padded to whole records."""

REFUSED = {
    b"1": "is a hard link",
    b"2": "is a symbolic link",
    b"3": "is a character device",
    b"4": "is a block device",
    b"6": "is a FIFO",
    b"S": "is a sparse file",
}
REGULAR = (b"0", b"\0", b"7")
SPARSE = "GNU.sparse."


@dataclass(slots=True)
class _Header:
    name: bytes
    size: int
    kind: bytes


@dataclass(slots=True)
class _Extension:
    """What extended headers say of the member after them."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False
    headers: int = field(default=0)


def walk(stream: Stream, limits: Limits) -> Iterator[Member]:
    """The regular members, in archive order; folders are passed over.

    Raises `UnsafeArchive` at the first link, device, sparse file, name that leaves the folder or breach of ``limits``,
    and `LayoutError` where the archive is truncated or is none.
    """
    gate = Gate(stream.path, limits)
    extension = _Extension()
    offset = 0
    while header := _next(stream, offset):
        offset += BLOCK
        if header.kind in (b"x", b"g", b"L", b"K"):
            data = _extended(stream, header, gate)
            offset += _padded(header.size)
            _extend(extension, header.kind, data, gate)
            continue
        name = gate.text(header.name if extension.name is None else extension.name)
        size = header.size if extension.size is None else extension.size
        folder = _is_folder(header.kind, name, gate, extension.sparse)
        extension = _Extension()
        gate.admit(name, 0 if folder else size)
        if folder:
            continue
        member = Member(name, size, stream, stream.path)
        yield member
        member.drain()
        padding = -size % BLOCK
        if stream.skip(padding) < padding:
            raise LayoutError(stream.path, name, "truncated: the archive ends in its padding")
        offset += _padded(size)
    if stream.skip(PADDING) == PADDING:  # reads to the end, so that a compressed stream's checksum is looked at
        raise stream.fault(f"more than {PADDING} bytes follow the end of the archive")


def _padded(size: int) -> int:
    return size + -size % BLOCK


def _next(stream: Stream, offset: int) -> _Header | None:
    """The header at ``offset``, or None at the end mark. Raises `LayoutError`."""
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        if offset == 0:
            raise stream.fault("not a tar archive: shorter than one header")
        raise stream.fault(f"truncated: the archive ends at byte {offset + len(block)} without an end mark")
    if block == ZEROS:
        return None
    # The checksum counts its own eight bytes as spaces.
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
        what = "not a tar archive" if offset == 0 else "damaged"
        raise stream.fault(f"{what}: no valid header at byte {offset}")
    size = _number(block[124:136])
    if size is None:
        raise stream.fault(f"damaged: the header at byte {offset} has no valid size")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345] and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    return _Header(name, size, block[156:157])


def _number(field: bytes) -> int | None:
    """Octal digits with spaces and NULs around them, or GNU's base 256; None where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        return None
    return int(digits, 8) if digits else 0


def _extended(stream: Stream, header: _Header, gate: Gate) -> bytes:
    if header.size > EXTENDED:
        name = header.name.decode("utf-8", "backslashreplace")
        raise gate.refusal(name, f"has an extended header of {header.size} bytes: at most {EXTENDED} are read")
    data = stream.read(_padded(header.size))
    if len(data) < _padded(header.size):
        raise stream.fault("truncated: the archive ends in an extended header")
    return data[: header.size]


def _extend(extension: _Extension, kind: bytes, data: bytes, gate: Gate) -> None:
    extension.headers += 1
    if extension.headers > CHAINED:
        raise gate.refusal("", f"has more than {CHAINED} extended headers")
    if kind == b"L":
        extension.name = data.split(b"\0", 1)[0]
    elif kind in (b"x", b"g"):
        _pax(extension, data, gate, everywhere=kind == b"g")


def _pax(extension: _Extension, data: bytes, gate: Gate, *, everywhere: bool) -> None:
    """Records are ``<length> <key>=<value>\\n``; only name, size and sparseness matter here."""
    at = 0
    end = len(data.rstrip(b"\0"))
    while at < end:
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > at else b""
        length = int(digits) if digits.isdigit() else 0
        record = data[space + 1 : at + length] if length else b""
        key, equals, value = record.partition(b"=")
        if not equals or at + length > end or not value.endswith(b"\n"):
            raise LayoutError(gate.path, "", "damaged: an extended header is not in pax form")
        at += length
        _keyword(extension, key.decode("utf-8", "replace"), value[:-1], gate, everywhere=everywhere)


def _keyword(extension: _Extension, key: str, value: bytes, gate: Gate, *, everywhere: bool) -> None:
    if everywhere and (key in ("path", "size") or key.startswith(SPARSE)):
        raise gate.refusal("", f"sets {key} for the whole archive")
    if key == "path":
        extension.name = value
    elif key == "size":
        if not value.isdigit() or len(value) > 19:
            raise LayoutError(gate.path, "", "damaged: an extended header gives no valid size")
        extension.size = int(value)
    elif key.startswith(SPARSE):
        extension.sparse = True


def _is_folder(kind: bytes, name: str, gate: Gate, sparse: bool) -> bool:
    """True for a folder, False for a regular file; anything else is refused."""
    if sparse:
        raise gate.refusal(name, REFUSED[b"S"])
    if kind == b"5":
        return True
    if kind not in REGULAR:
        raise gate.refusal(name, REFUSED.get(kind, f"is of the unknown type {kind!r}"))
    return name.endswith("/")  # how archives older than ustar mark folders
