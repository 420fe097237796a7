"""What is refused of an encoded image before a decoder sees it, alike wherever one is decoded."""

from __future__ import annotations

import zlib
from collections.abc import Callable

PIXEL_CAP = 178_956_970
"""Pixels above which an image is refused before memory is taken: where Pillow, too, sees a decompression bomb."""
BITS = 8
"""Bits a sample of the JPEGs that are decoded."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
_KNOWN = (b"IHDR", b"PLTE", b"IDAT")
_PALETTE = b"\3"
"""The colour type of a PNG whose pixels are numbers of a palette."""
_WITHOUT_FRAME = (0xC4, 0xC8, 0xCC)
_ALONE = (0x01, *range(0xD0, 0xD9))
"""JPEG markers without a length."""
_SOS = 0xDA

Encoded = bytes | memoryview


def checked(data: Encoded) -> Encoded:
    """``data`` for a decoder that does not look itself. Raises ``ValueError`` with the reason.

    Of a PNG, as libpng does it: a critical chunk up to its last pixel whose checksum is wrong is refused, others with a
    wrong one are left out, and what is damaged behind the pixels is replaced as in `ended`. A JPEG must be of `BITS`
    bits a sample. Other formats are not looked at.
    """
    if data[:8] == _SIGNATURE:
        return _png(data)
    if data[:2] == b"\xff\xd8":
        check_bits(jpeg_bits(data))
    return data


def check_bits(bits: int) -> None:
    """Raises ``ValueError`` for a JPEG whose samples are of other than `BITS` bits."""
    if bits != BITS:
        raise ValueError(
            f"is a JPEG of {bits} bits a sample, and only {BITS} are decoded: make it one of 8 bits, or a PNG of 16"
        )


def jpeg_bits(data: Encoded) -> int:
    """Bits a sample, by the frame header; `BITS` where there is none to be seen."""
    at = 2
    while at + 4 < len(data) and data[at] == 0xFF and data[at + 1] != _SOS:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _WITHOUT_FRAME:
            return data[at + 4]
        at += 1 if marker == 0xFF else 2 if marker in _ALONE else 2 + (data[at + 2] << 8 | data[at + 3])
    return BITS


def ended(data: Encoded) -> Encoded:
    """A PNG whose chunks lie within it, up to an IEND; ``data`` itself where they do. Raises ``ValueError``.

    OpenCV takes the memory that a chunk says it needs, 4 GB for four damaged bytes, and wants an IEND. libpng under
    torchvision stops at the last pixel: where what is behind is damaged, an IEND is put in its place.
    """
    at, whole = _walked(memoryview(data), lambda *_: None)
    return data if whole else bytes(data[:at]) + _IEND


def _png(data: Encoded) -> Encoded:
    view, wrong = memoryview(data), []

    def look(kind: bytes, at: int, end: int) -> None:
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            # A palette is only advice where the pixels are colours themselves.
            if _critical(kind) and not (kind == b"PLTE" and view[25:26] != _PALETTE):
                raise ValueError(f"the PNG's {kind.decode()} chunk does not have the checksum that it says")
            wrong.append((at, end))

    last, whole = _walked(view, look)
    if whole and not wrong:
        return data
    edges = [0, *(edge for piece in wrong for edge in piece), len(view) if whole else last]
    pieces = [view[first:last] for first, last in zip(edges[::2], edges[1::2], strict=True)]
    return b"".join(pieces if whole else [*pieces, _IEND])


def _walked(view: memoryview, look: Callable[[bytes, int, int], None]) -> tuple[int, bool]:
    """``look`` at the kind, start and end of each chunk before IEND; returns where they end, and whether IEND is there.

    Raises ``ValueError`` where the pixels are not all there, and for what libpng does not go past before them.
    """
    at, pixels = 8, False
    while at + 12 <= len(view):
        end, kind = at + 12 + int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        if kind == b"IEND" and end == at + 12:
            return at, True
        known = kind in _KNOWN if _critical(kind) else kind.isalpha()
        if end > len(view) or not known or (pixels and _critical(kind) and kind != b"IDAT"):
            if pixels and kind != b"IDAT":
                return at, False
            raise ValueError("the PNG is cut short" if known else f"the PNG holds a chunk of an unknown kind, {kind!r}")
        look(kind, at, end)
        pixels = pixels or kind == b"IDAT"
        at = end
    if not pixels:
        raise ValueError("the PNG is cut short")
    return at, False


def _critical(kind: bytes) -> bool:
    """Whether a reader that does not know the chunk must give up."""
    return not kind[0] & 0x20
