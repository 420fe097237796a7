"""JPEGs re-encoded without loss so that a crop can be cut out of their bitstream.

A restart marker every few MCUs makes the entropy-coded segments independent; `datahub.pack.tiletable` says where they
are. Coefficients and metadata stay as they were.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datahub.pack import jpeg
from datahub.pack.jpegtran import CAUTION, WARNED, Outcome, find_jpegtran, transcode
from datahub.pack.tiletable import LENGTH_CAP, MARKER, Tiling, arranged, codes, grid, read_table

__all__ = ["NotTiled", "Tiler", "Tiling", "find_jpegtran", "interval", "read_table"]

BLOCK_CAP = 10
"""Blocks an MCU may hold (T.81 B.2.3)."""
PIXEL_CAP = 1 << 26
"""Pixels above which an image stays as it is: jpegtran holds all coefficients, up to 8 bytes a pixel."""
INTERVALS = 2
"""The number of the rule in `interval`, for the record: 1 took what was nearest 128 pixels."""
PIXEL_BYTES, SEGMENT_BYTES = 0.2, 160
"""What a pixel costs a decoder beside its bytes, and what a segment may cost, both as bytes of entropy-coded data.

The second was set for files of ImageNet to grow by just under 1 %: a segment takes about 5.6 bytes.
"""


class NotTiled(Exception):
    """This image stays as it is. ``reason`` is one of few, to be counted; ``detail`` is jpegtran's own message.

    ``damaged``: the bytes are broken, rather than of a kind that is not tiled.
    """

    def __init__(self, reason: str, damaged: bool = False, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.damaged, self.detail = reason, damaged, detail


def interval(mcus_per_row: int, mcu: tuple[int, int], mcu_bytes: float) -> int:
    """MCUs between restart markers: the divisor of a row that costs least, where an MCU has ``mcu_bytes`` of data.

    A crop decodes about one segment a row more than it shows, so that long ones waste time; short ones take up bytes.
    """
    waste = mcu_bytes + PIXEL_BYTES * mcu[0] * mcu[1]
    divisors = (n for n in range(1, mcus_per_row + 1) if mcus_per_row % n == 0)
    return min(divisors, key=lambda n: n * waste + mcus_per_row // n * SEGMENT_BYTES)


class Tiler:
    """Tiles images, one ``jpegtran`` process each. Threads may share one. Raises `MissingTool` when it is absent."""

    def __init__(self, tool: str | None = None, seconds: float = 60.0) -> None:
        self._tool = tool or find_jpegtran()
        self._seconds = seconds

    def tile(self, data: bytes) -> bytes:
        """The same coefficients and metadata in the tiled layout. Raises `NotTiled`.

        What follows the image's end, such as a second picture, is left out.
        """
        header = _checked(data)
        columns, rows = grid(header)
        every = header.restart  # what is tiled already keeps its segments, or tiling twice would change them
        if read_table(data) is None:
            every = interval(columns, header.mcu, (len(data) - header.entropy) / (columns * rows))
        output = _output(transcode(self._tool, data, every, self._seconds))
        try:
            after = jpeg.read(output)
        except ValueError as error:
            raise NotTiled("refused by jpegtran", detail=str(error)) from error
        if grid(after) != (columns, rows) or after.restart != every or after.frame not in (0, 1):
            raise NotTiled("refused by jpegtran", detail="its output has another layout")
        lengths = _lengths(output, after.entropy, rows * columns // every)
        return arranged(output, after, lengths)


def _checked(data: bytes) -> jpeg.Header:
    """The header of an image that can be tiled; raises `NotTiled`."""
    try:
        header = jpeg.read(data)
        reason = _unfit(header) or _unfinished(data, header)
    except ValueError as error:
        if data[:2] != b"\xff\xd8":
            raise NotTiled("not a JPEG") from error
        raise NotTiled("damaged header", damaged=True, detail=str(error)) from error
    if reason is not None:
        raise NotTiled(reason)
    return header


def _unfit(header: jpeg.Header) -> str | None:
    count = len(header.components)
    findings = {
        f"{header.precision}-bit": header.precision != 8,
        f"SOF{header.frame}": header.frame not in (0, 1, 2, 9, 10),
        "DNL": header.height == 0,
        "CMYK": count == 4,
        f"{count} components": count not in (1, 3, 4),
        f"more than {BLOCK_CAP} blocks an MCU": header.blocks > BLOCK_CAP,
        "too large": header.width * header.height > PIXEL_CAP,
    }
    return next((reason for reason, found in findings.items() if found), None)


def _unfinished(data: bytes, header: jpeg.Header) -> str | None:
    """A progressive image whose scans stop early: decoders smooth those, but not the baseline made of it."""
    if header.frame not in jpeg.PROGRESSIVE:
        return None
    left = {(component.id, k): 1 for component in header.components for k in range(jpeg.BLOCK**2)}
    for scan in jpeg.scans(data, header):
        left.update({(i, k): scan.low for i in scan.components for k in range(scan.first, scan.last + 1)})
    return "unfinished scans" if any(left.values()) else None


def _output(outcome: Outcome) -> bytes:
    code, output, message = outcome
    if code is None:
        raise NotTiled("deadline passed")
    if code < 0:
        raise NotTiled("jpegtran died", detail=f"signal {-code}")
    if code == WARNED or (code == 0 and message and not message.startswith(CAUTION)):
        raise NotTiled("damaged data", damaged=True, detail=message)
    if code != 0:
        raise NotTiled("refused by jpegtran", damaged=True, detail=message)
    return output


def _lengths(output: bytes, start: int, count: int) -> NDArray[np.int64]:
    """Lengths of ``count`` entropy-coded segments from ``start`` to the image's end. Raises `NotTiled`."""
    if output[-MARKER:] != b"\xff\xd9":
        raise NotTiled("refused by jpegtran", detail="its output has no end")
    entropy = np.frombuffer(output, np.uint8, len(output) - start, start)
    prefixes = np.flatnonzero(entropy[:-1] == 0xFF)
    markers = prefixes[entropy[prefixes + 1] != 0]
    if entropy[markers + 1].tobytes() != codes(count):
        raise NotTiled("refused by jpegtran", detail="its restart markers are not where they should be")
    lengths: NDArray[np.int64] = np.diff(markers, prepend=-MARKER) - MARKER
    if int(lengths.max()) > LENGTH_CAP:
        raise NotTiled("segment too long")
    return lengths
