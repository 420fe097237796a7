"""The markers of a JPEG up to its first scan, as ITU-T T.81 Annex B lays them out. No pixel is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

Encoded = bytes | memoryview

SOI, EOI, SOS, DQT, DHT, DRI, COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xFE
APP0, APP9, APP14, APP15 = 0xE0, 0xE9, 0xEE, 0xEF
FRAMES = frozenset(range(0xC0, 0xD0)) - {DHT, 0xC8, 0xCC}
"""SOF0..SOF15; 0xC8 is reserved and 0xCC defines arithmetic conditioning."""
PROGRESSIVE = (2, 6, 10, 14)
BARE = frozenset(range(0xD0, 0xD8)) | {0x01}
"""Markers without a length: RST0..RST7 and TEM."""
BLOCK = 8

_TELLING = FRAMES | {DRI, APP14}
"""Markers whose segments `read` looks into."""
_NO_SEGMENT = BARE | {0, 0xFF, SOI, EOI}
_MARKER = struct.Struct(">BBH")
"""0xFF, the marker and its segment's length."""
_SIZE = struct.Struct(">BHH")
"""Bits a sample, height and width in a frame header."""
_AFTER_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Component(NamedTuple):
    """One component of the frame: identifier, horizontal and vertical sampling factor, quantisation table."""

    id: int
    h: int
    v: int
    tq: int


class Sampling(NamedTuple):
    """A frame's components, and what follows from their factors; see `Header`."""

    components: tuple[Component, ...]
    mcu: tuple[int, int]
    subsampled: tuple[bool, bool]


class Segment(NamedTuple):
    """``data[start:end]`` is the marker, its length and its content."""

    marker: int
    start: int
    end: int


class Scan(NamedTuple):
    """One scan's header: component identifiers, first and last coefficient, bit planes before and after."""

    components: tuple[int, ...]
    first: int
    last: int
    high: int
    low: int


class Header(NamedTuple):
    """What stands before the first entropy-coded byte, which is at ``entropy``.

    ``frame`` is the number of the SOF marker, ``sof`` its offset; ``mcu`` is the width and height in pixels of an MCU
    of a scan with all components, ``subsampled`` whether any of them has fewer columns, and fewer rows, than the image;
    ``segments`` end before SOS, which is at ``sos``;
    ``restart`` is DRI's interval in MCUs (0: none); ``adobe`` is APP14's transform (0 RGB or CMYK, 1 YCbCr, 2 YCCK),
    None without that segment.
    """

    frame: int
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]
    mcu: tuple[int, int]
    subsampled: tuple[bool, bool]
    segments: tuple[Segment, ...]
    sof: int
    sos: int
    entropy: int
    restart: int
    adobe: int | None

    @property
    def four_colours(self) -> str | None:
        """``"CMYK"`` or ``"YCCK"`` where the frame has four components."""
        if len(self.components) != 4:
            return None
        return "YCCK" if self.adobe == 2 else "CMYK"

    @property
    def blocks(self) -> int:
        """Blocks in an MCU of a scan with all components."""
        return 1 if len(self.components) == 1 else sum(c.h * c.v for c in self.components)


def read(data: Encoded) -> Header:
    """Parse the head of ``data``. Raises ``ValueError`` with the reason when it is none, or cut short."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG")
    segments: list[Segment] = []
    frame: tuple[int, int, int] | None = None
    restart, adobe, at, end = 0, None, 0, 0
    for marker, at, end in walk(data, 2):
        if marker == SOS:
            break
        segments.append(Segment(marker, at, end))
        if marker not in _TELLING:
            continue
        if marker == DRI:
            restart = interval_of(data, at, end)
        elif marker != APP14:
            if frame is not None:
                raise ValueError("two frame headers")
            frame = marker, at, end
        elif end - at >= 16 and data[at + 4 : at + 9] == b"Adobe":
            adobe = data[at + 15]
    if frame is None:
        raise ValueError("a scan without a frame header")
    precision, height, width, sampling = frame_of(data, *frame[1:])
    return Header(
        frame[0] - 0xC0,
        precision,
        width,
        height,
        *sampling,
        tuple(segments),
        frame[1],
        at,
        end,
        restart,
        adobe,
    )


def scans(data: bytes, header: Header) -> list[Scan]:
    """Every scan's header, to the end of the image or of the data. Raises ``ValueError`` as `read` does."""
    found = [_scan(data, Segment(SOS, header.sos, header.entropy))]
    at = header.entropy
    while (hit := _AFTER_ENTROPY.search(data, at)) is not None:
        if data[hit.start() + 1] == EOI:
            break
        marker, start, at = next(walk(data, hit.start()))
        if marker == SOS:
            found.append(_scan(data, Segment(marker, start, at)))
    return found


def walk(data: Encoded, at: int) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment from ``at`` to the next SOS, which is the last.

    Fill bytes and markers without a length are passed over. Raises ``ValueError`` where the next one is none.
    """
    size, unpack = len(data), _MARKER.unpack_from
    while at + 4 <= size:
        lead, marker, length = unpack(data, at)
        if lead != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        if marker in _NO_SEGMENT:
            if marker in (0, SOI, EOI):
                raise ValueError(f"marker 0x{marker:02X} at byte {at}, before the first scan")
            at += 1 if marker == 0xFF else 2
            continue
        start, at = at, at + 2 + length
        if length < 2 or at > size:
            raise ValueError(f"the segment at byte {start} is cut short")
        yield marker, start, at
        if marker == SOS:
            return
    raise ValueError("cut short before the first scan")


def frame_of(data: Encoded, start: int, end: int) -> tuple[int, int, int, Sampling]:
    """Precision, height, width and components that a frame header says. Raises ``ValueError``."""
    count = data[start + 9] if end - start >= 10 else 0
    if not count or end - start != 10 + 3 * count:
        raise ValueError("a frame header of a wrong length")
    sampling = _sampling(bytes(data[start + 10 : end]))
    precision, height, width = _SIZE.unpack_from(data, start + 4)
    if not width:
        raise ValueError("an image without columns")
    if not 2 <= precision <= 16:
        raise ValueError(f"{precision} bits a sample")
    return precision, height, width, sampling


@lru_cache(maxsize=64)
def _sampling(spec: bytes) -> Sampling:
    """What the components' three bytes each say; the same few in nearly all images."""
    components = tuple(Component(id, hv >> 4, hv & 15, tq) for id, hv, tq in zip(*[iter(spec)] * 3, strict=True))
    across, down = {c.h for c in components}, {c.v for c in components}
    wrong = next((c for c in components if not (1 <= c.h <= 4 and 1 <= c.v <= 4)), None)
    if wrong is not None:
        raise ValueError(f"sampling factors {wrong.h} x {wrong.v}")
    # An MCU of a lone component is one block, whatever its sampling factors (T.81 A.2.2).
    mcu = (BLOCK * max(across), BLOCK * max(down)) if len(components) > 1 else (BLOCK, BLOCK)
    return Sampling(components, mcu, (len(across) > 1, len(down) > 1))


def interval_of(data: Encoded, start: int, end: int) -> int:
    """The restart interval that a DRI segment says, in MCUs. Raises ``ValueError``."""
    if end - start != 6:
        raise ValueError("a restart interval of a wrong length")
    return data[start + 4] << 8 | data[start + 5]


def _scan(data: bytes, segment: Segment) -> Scan:
    start, end = segment.start, segment.end
    count = data[start + 4] if end - start >= 5 else 0
    if not 1 <= count <= 4 or end - start != 8 + 2 * count:
        raise ValueError("a scan header of a wrong length")
    first, last, planes = data[end - 3], data[end - 2], data[end - 1]
    return Scan(tuple(data[start + 5 : end - 3 : 2]), first, last, planes >> 4, planes & 15)
