"""The segment table of a tiled JPEG: where each entropy-coded segment is, told inside the JPEG itself.

The table travels in APP9 segments, which decoders skip. The layout of a tiled file:

    SOI | EXIF, ICC, comments, other APPn | APP9 table | JFIF, APP14, DQT, SOF, DHT, DRI, SOS | entropy data | EOI
                                                       |<------------- the head ------------>|

An APP9's content is `MAGIC`, its number, how many there are, and a part of the table. The table is `_FIXED`, then a
big-endian u16 for each entropy-coded segment, its length without the marker after it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datahub.pack import jpeg
from datahub.pack.jpeg import Encoded

MAGIC = b"DHTILES\0"
VERSION = 1
LENGTH_CAP = (1 << 16) - 1
"""Bytes that a length of two bytes can say: of an entropy-coded segment, and of an APP9 with its length."""
MARKER = 2
_BASELINE, _BITS = (0xC0, 0xC1), 8
"""Frames that can be cut, and their bits a sample."""

_PART = struct.Struct(">8sBB")
_FIXED = struct.Struct(">BBBxHHHIII")
"""Version; MCU width and height in pixels; restart interval, MCUs a row, MCU rows; offset and length of the head;
number of entropy-coded segments."""
_CONTENT_CAP = LENGTH_CAP - 2 - _PART.size
_OURS = b"\xff\xe9"
_EOI = bytes([jpeg.EOI])
CYCLE = bytes(range(0xD0, 0xD8))
"""Second bytes of RST0..RST7."""


class Tiling(NamedTuple):
    """Where the entropy-coded segments of a tiled JPEG are; what `read_table` returns fits the data it was read from.

    Offsets are from the start of the file. Segment ``i``, with the two bytes of the marker after it, is
    ``data[bounds[i]:bounds[i + 1]]``; ``sizes`` are the same segments' bytes as int64 ``(mcu_rows, per_row)``.
    ``subsampled`` is of columns and rows; ``sof`` is the offset of the frame header.
    """

    width: int
    height: int
    mcu_width: int
    mcu_height: int
    interval: int
    mcus_per_row: int
    mcu_rows: int
    head_offset: int
    head_length: int
    sof: int
    subsampled: tuple[bool, bool]
    sizes: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @property
    def per_row(self) -> int:
        """Segments in a row of MCUs."""
        return self.mcus_per_row // self.interval


def grid(header: jpeg.Header) -> tuple[int, int]:
    """MCUs in a row, and rows of them."""
    width, height = header.mcu
    return -(-header.width // width), -(-header.height // height)


def codes(count: int) -> bytes:
    """Second bytes of the markers that follow ``count`` segments: RST0..RST7 in turn, then EOI."""
    return (CYCLE * (count // len(CYCLE) + 1))[: count - 1] + _EOI


def arranged(output: bytes, header: jpeg.Header, lengths: NDArray[np.int64]) -> bytes:
    """The tiled file: what decoding does not need first, then the table, the head and the entropy data."""
    first: list[bytes] = [b"\xff\xd8"]
    head: list[bytes] = []
    for segment in header.segments:
        content = output[segment.start : segment.end]
        if _is_table(content):
            continue
        (head if _decides(content) else first).append(content)
    head.append(output[header.sos : header.entropy])
    columns, rows = grid(header)
    size = _FIXED.size + 2 * len(lengths)
    parts = -(-size // _CONTENT_CAP)
    offset = sum(map(len, first)) + size + parts * (4 + _PART.size)
    length = sum(map(len, head))
    fixed = (VERSION, *header.mcu, header.restart, columns, rows, offset, length, len(lengths))
    table = _FIXED.pack(*fixed) + lengths.astype(">u2").tobytes()
    for part in range(parts):
        content = table[part * _CONTENT_CAP : (part + 1) * _CONTENT_CAP]
        size_field = (2 + _PART.size + len(content)).to_bytes(2, "big")
        first.append(_OURS + size_field + _PART.pack(MAGIC, part, parts) + content)
    return b"".join((*first, *head, memoryview(output)[header.entropy :]))


def _is_table(segment: bytes) -> bool:
    return segment[1] == jpeg.APP9 and segment[4 : 4 + len(MAGIC)] == MAGIC


def _decides(segment: bytes) -> bool:
    """Whether decoded pixels depend on it: comments and application data do not matter, but for JFIF and Adobe."""
    marker = segment[1]
    if marker == jpeg.COM or jpeg.APP0 <= marker <= jpeg.APP15:
        return (marker, segment[4:9]) in ((jpeg.APP0, b"JFIF\0"), (jpeg.APP14, b"Adobe"))
    return True


def read_table(data: Encoded) -> Tiling | None:
    """The tiling that ``data`` carries; None without a table, or with one that the data do not bear out.

    A loader asks this of every image: what is not tiled shows by one of its first segments.
    """
    if data[:2] != b"\xff\xd8":
        return None
    try:
        segments = jpeg.walk(data, 2)
        table = _table(data, segments)
        head = None if table is None else _head(data, segments)
    except ValueError:
        return None
    return None if table is None or head is None else _borne_out(data, table, head)


def _table(data: Encoded, segments: Iterator[tuple[int, int, int]]) -> Encoded | None:
    """The table put together from its APP9 segments, the last of which was taken from ``segments``.

    None where one is missing or out of order, or where something that decoding needs stands before them.
    """
    contents: list[Encoded] = []
    for marker, start, end in segments:
        if marker == jpeg.APP9 and data[start + 4 : start + 4 + len(MAGIC)] == MAGIC and end - start >= 4 + _PART.size:
            _, number, total = _PART.unpack_from(data, start + 4)
            if number != len(contents) or number >= total:
                return None
            contents.append(data[start + 4 + _PART.size : end])
            if len(contents) == total:
                return contents[0] if total == 1 else b"".join(contents)
        elif _decides(bytes(data[start : start + 9])):
            return None
    return None


class _Head(NamedTuple):
    """Where the head and its frame header start and where it ends, and what it says."""

    start: int
    sof: int
    end: int
    restart: int
    width: int
    height: int
    sampling: jpeg.Sampling


def _head(data: Encoded, segments: Iterator[tuple[int, int, int]]) -> _Head | None:
    """What is left of ``segments``; None where that is no head of baseline. Raises ``ValueError``."""
    first = sof = sof_end = restart = end = 0
    for marker, start, end in segments:
        first = first or start
        if marker == jpeg.DRI:
            restart = jpeg.interval_of(data, start, end)
        elif marker in jpeg.FRAMES:
            if sof or marker not in _BASELINE:
                return None
            sof, sof_end = start, end
    if not sof:
        return None
    precision, height, width, sampling = jpeg.frame_of(data, sof, sof_end)
    return _Head(first, sof, end, restart, width, height, sampling) if precision == _BITS else None


def _borne_out(data: Encoded, table: Encoded, head: _Head) -> Tiling | None:
    """What a table says, where head and data say the same."""
    if len(table) < _FIXED.size:
        return None
    _, width, height, every, columns, rows, _, length, count = fixed = _FIXED.unpack_from(table)
    _, mcu, subsampled = head.sampling
    mcus = -(-head.width // mcu[0]), -(-head.height // mcu[1])
    if fixed[:-1] != (VERSION, *mcu, head.restart, *mcus, head.start, head.end - head.start):
        return None
    if not every or columns % every or not count or count != rows * (columns // every):
        return None
    if len(table) != _FIXED.size + 2 * count:
        return None
    bounds = np.empty(count + 1, np.int64)
    bounds[0] = head.end
    sizes = np.add(np.frombuffer(table, ">u2", count, _FIXED.size), MARKER, out=bounds[1:]).copy()
    np.add.accumulate(bounds, out=bounds)
    if bounds[-1] != len(data) or not _marked(data, bounds[1:]):
        return None
    sizes = sizes.reshape(rows, columns // every)
    size = head.width, head.height
    return Tiling(*size, width, height, every, columns, rows, head.start, length, head.sof, subsampled, sizes, bounds)


def _marked(data: Encoded, ends: NDArray[np.int64]) -> bool:
    """Whether RST0..RST7 in turn, and EOI last, stand before ``ends``."""
    entropy = np.frombuffer(data, np.uint8)
    return entropy[ends - 2].tobytes().count(0xFF) == len(ends) and entropy[ends - 1].tobytes() == codes(len(ends))
