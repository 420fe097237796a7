"""USTAR members, byte for byte the same on every machine (POSIX.1-1988; `pax(1)`, ustar interchange format)."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two zero blocks end an archive."""
NAME_MAX = 99
_LIMIT = 8**11

_FIXED = b"".join(
    (
        b"0000644\0",  # mode
        b"0000000\0",  # uid
        b"0000000\0",  # gid
    )
)
_AFTER_SIZE = b"00000000000\0"  # mtime
_TAIL = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")  # no owner names, no device
_FIXED_SUM = sum(_FIXED) + sum(_AFTER_SIZE) + sum(_TAIL) + 8 * ord(" ")


def header(name: bytes, size: int) -> bytes:
    """The header of a regular member; mtime 0, owner 0 and nameless, mode 0644."""
    if len(name) > NAME_MAX or size >= _LIMIT:
        raise ValueError(f"{name!r} of {size} bytes does not fit a USTAR header")
    digits = b"%011o\0" % size
    checksum = b"%06o\0 " % (_FIXED_SUM + sum(name) + sum(digits))
    return b"".join((name.ljust(100, b"\0"), _FIXED, digits, _AFTER_SIZE, checksum, _TAIL))


def padding(size: int) -> bytes:
    """Zeros up to the next block."""
    return bytes(-size % BLOCK)


def member_bytes(size: int) -> int:
    """What a member of ``size`` bytes takes in the archive."""
    return BLOCK + size + (-size % BLOCK)
