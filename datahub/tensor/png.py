"""Decoding many PNGs of one shape at once (PNG specification, ISO/IEC 15948).

For the plain files that packers write: 8-bit gray or RGB, not interlaced, one IDAT chunk, no other chunk. Each zlib
stream is inflated (its Adler-32 guards the pixels), then the row filters None, Sub and Up are undone in numpy for the
whole batch. Average and Paeth run along each row pixel by pixel: those images are left to a decoder written in C.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import DamagedImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR = {1: 0, 3: 2}
"""Channels -> colour type of the files read here."""
HEAD = 33
"""Bytes of signature and IHDR; the one IDAT chunk follows, its data from byte 41."""
TAIL = 16
"""Bytes of IDAT's CRC and the IEND chunk."""
IDAT = zlib.crc32(b"IDAT")
SUB, UP = 1, 2
PROBE = 4
"""Images looked at before the others are inflated: one dataset's images are mostly filtered alike."""

Pixels = NDArray[np.uint8]


def decode_alike(images: Sequence[bytes | memoryview], out: Pixels) -> list[int]:
    """Decode what it can of ``images`` into the rows of ``out``, uint8 ``(n, C, H, W)``.

    Returns the rows left over, for a general decoder. Raises `DamagedImage` with the position.
    """
    plain, parts = _inflated(images, out.shape)
    if not parts:
        return list(range(len(images)))
    _, channels, height, width = out.shape
    raw = np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), height, 1 + width * channels)
    filters = raw[:, :, 0]
    if not filters.any():
        _place(raw[:, :, 1:], np.array(plain), out)
        return _others(plain, len(images))
    simple = np.flatnonzero((filters <= UP).all(axis=1))
    rows = np.array(plain)[simple]
    _place(_unfiltered(raw[simple], channels), rows, out)
    return _others(rows.tolist(), len(images))


def _inflated(images: Sequence[bytes | memoryview], shape: tuple[int, ...]) -> tuple[list[int], list[bytes]]:
    """The rows that hold plain PNGs of ``shape``, and their inflated scanlines; none if they are not worth it."""
    _, channels, height, width = shape
    if channels not in COLOUR:
        return [], []
    head, size, stride = _head(channels, height, width), height * (1 + width * channels), 1 + width * channels
    inflate, crc32 = zlib.decompress, zlib.crc32
    plain: list[int] = []
    parts: list[bytes] = []
    for row, data in enumerate(images):
        if data[:HEAD] != head or data[37:41] != b"IDAT" or int.from_bytes(data[33:37], "big") != len(data) - 41 - TAIL:
            continue
        body = data[41:-TAIL]
        if crc32(body, IDAT).to_bytes(4, "big") != data[-TAIL:-12]:
            continue  # whoever is asked next says so
        try:
            part = inflate(body)
        except zlib.error as error:
            raise DamagedImage(f"PNG data do not inflate: {error}", row) from error
        if len(part) != size:
            raise DamagedImage(f"PNG data inflate to {len(part)} bytes, not {size}", row)
        plain.append(row)
        parts.append(part)
        if len(parts) == PROBE and sum(max(each[::stride]) > UP for each in parts) * 2 > PROBE:
            return [], []
    return plain, parts


def _head(channels: int, height: int, width: int) -> bytes:
    facts = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, COLOUR[channels], 0, 0, 0)
    return SIGNATURE + struct.pack(">I", 13) + facts + struct.pack(">I", zlib.crc32(facts))


def _unfiltered(raw: Pixels, channels: int) -> Pixels:
    """Undo Sub and Up in scanlines ``(k, H, 1 + W * C)``; gives ``(k, H, W * C)``."""
    filters, lines = raw[:, :, 0], raw[:, :, 1:].copy()
    _, height, length = lines.shape
    image, row = np.nonzero(filters == SUB)
    if len(image):
        steps = lines[image, row].reshape(len(image), length // channels, channels)
        lines[image, row] = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(len(image), length)
    for line in range(1, height):
        image = np.flatnonzero(filters[:, line] == UP)
        if len(image):
            lines[image, line] += lines[image, line - 1]
    return lines


def _place(lines: Pixels, rows: NDArray[Any], out: Pixels) -> None:
    """Put scanlines ``(k, H, W * C)`` of interleaved pixels into rows of ``out``."""
    _, channels, height, width = out.shape
    pixels = lines.reshape(len(lines), height, width, channels).transpose(0, 3, 1, 2)
    if len(rows) == len(out):
        out[...] = pixels
    else:
        out[rows] = pixels


def _others(rows: list[int], count: int) -> list[int]:
    if len(rows) == count:
        return []
    done = set(rows)
    return [row for row in range(count) if row not in done]
