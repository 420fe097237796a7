"""The markers of a JPEG up to its first scan, as ITU-T T.81 Annex B lays them out. No pixel is decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass
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

_AFTER_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Component(NamedTuple):
    """One component of the frame: identifier, horizontal and vertical sampling factor, quantisation table."""

    id: int
    h: int
    v: int
    tq: int


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


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the first entropy-coded byte, which is at ``entropy``.

    ``frame`` is the number of the SOF marker, ``sof`` its offset; ``segments`` end before SOS, which is at ``sos``;
    ``restart`` is DRI's interval in MCUs (0: none); ``adobe`` is APP14's transform (0 RGB or CMYK, 1 YCbCr, 2 YCCK),
    None without that segment.
    """

    frame: int
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]
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
    def mcu(self) -> tuple[int, int]:
        """Width and height in pixels of an MCU of a scan with all components.

        An MCU of a lone component is one block, whatever its sampling factors (T.81 A.2.2).
        """
        if len(self.components) == 1:
            return BLOCK, BLOCK
        return BLOCK * max(c.h for c in self.components), BLOCK * max(c.v for c in self.components)

    @property
    def subsampled(self) -> tuple[bool, bool]:
        """Whether any component has fewer columns, and fewer rows, than the image."""
        return len({c.h for c in self.components}) > 1, len({c.v for c in self.components}) > 1

    @property
    def blocks(self) -> int:
        """Blocks in an MCU of a scan with all components."""
        return 1 if len(self.components) == 1 else sum(c.h * c.v for c in self.components)


def read(data: Encoded) -> Header:
    """Parse the head of ``data``. Raises ``ValueError`` with the reason when it is none, or cut short."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG")
    segments: list[Segment] = []
    frame: Segment | None = None
    restart, adobe, at = 0, None, 2
    while True:
        marker, start, end = segment = _segment(data, at)
        if marker == SOS:
            break
        if marker in FRAMES:
            if frame is not None:
                raise ValueError("two frame headers")
            frame = segment
        elif marker == DRI:
            restart = _restart(data, segment)
        elif marker == APP14 and end - start >= 16 and data[start + 4 : start + 9] == b"Adobe":
            adobe = data[start + 15]
        segments.append(segment)
        at = end
    if frame is None:
        raise ValueError("a scan without a frame header")
    precision, height, width, components = _frame(data, frame)
    return Header(
        frame.marker - 0xC0,
        precision,
        width,
        height,
        components,
        tuple(segments),
        frame.start,
        start,
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
        segment = _segment(data, hit.start())
        if segment.marker == SOS:
            found.append(_scan(data, segment))
        at = segment.end
    return found


def _segment(data: Encoded, at: int) -> Segment:
    """The segment whose marker is at ``at``, fill bytes and markers without a length skipped."""
    size = len(data)
    while at + 4 <= size:
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in BARE:
            at += 2
        elif marker in (0, SOI, EOI):
            raise ValueError(f"marker 0x{marker:02X} at byte {at}, before the first scan")
        else:
            length = data[at + 2] << 8 | data[at + 3]
            if length < 2 or at + 2 + length > size:
                raise ValueError(f"the segment at byte {at} is cut short")
            return Segment(marker, at, at + 2 + length)
    raise ValueError("cut short before the first scan")


def _frame(data: Encoded, segment: Segment) -> tuple[int, int, int, tuple[Component, ...]]:
    """Precision, height, width and components."""
    start, end = segment.start, segment.end
    count = data[start + 9] if end - start >= 10 else 0
    if not count or end - start != 10 + 3 * count:
        raise ValueError("a frame header of a wrong length")
    components = []
    for at in range(start + 10, end, 3):
        sampling = data[at + 1]
        component = Component(data[at], sampling >> 4, sampling & 15, data[at + 2])
        if not (1 <= component.h <= 4 and 1 <= component.v <= 4):
            raise ValueError(f"sampling factors {component.h} x {component.v}")
        components.append(component)
    height = data[start + 5] << 8 | data[start + 6]
    width = data[start + 7] << 8 | data[start + 8]
    precision = data[start + 4]
    if not width:
        raise ValueError("an image without columns")
    if not 2 <= precision <= 16:
        raise ValueError(f"{precision} bits a sample")
    return precision, height, width, tuple(components)


def _restart(data: Encoded, segment: Segment) -> int:
    if segment.end - segment.start != 6:
        raise ValueError("a restart interval of a wrong length")
    return data[segment.start + 4] << 8 | data[segment.start + 5]


def _scan(data: bytes, segment: Segment) -> Scan:
    start, end = segment.start, segment.end
    count = data[start + 4] if end - start >= 5 else 0
    if not 1 <= count <= 4 or end - start != 8 + 2 * count:
        raise ValueError("a scan header of a wrong length")
    first, last, planes = data[end - 3], data[end - 2], data[end - 1]
    return Scan(tuple(data[start + 5 : end - 3 : 2]), first, last, planes >> 4, planes & 15)
