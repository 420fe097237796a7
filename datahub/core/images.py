"""What is refused of an encoded image before a decoder sees it, alike wherever one is decoded."""

from __future__ import annotations

import zlib

PIXEL_CAP = 178_956_970
"""Pixels above which an image is refused before memory is taken: where Pillow, too, sees a decompression bomb."""
BITS = 8
"""Bits a sample of the JPEGs that are decoded."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WITHOUT_FRAME = (0xC4, 0xC8, 0xCC)
_ALONE = (0x01, *range(0xD0, 0xD9))
"""JPEG markers without a length."""
_SOS = 0xDA

Encoded = bytes | memoryview


def checked(data: Encoded) -> Encoded:
    """``data`` for a decoder that does not look itself. Raises ``ValueError`` with the reason.

    Of a PNG, as libpng does it: a critical chunk before its end whose checksum is wrong is refused, and others with a
    wrong one are left out. A JPEG must be of `BITS` bits a sample. Other formats are not looked at.
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


def _png(data: Encoded) -> Encoded:
    view, at, wrong = memoryview(data), 8, []
    while at + 12 <= len(view):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        if end > len(view) or kind == b"IEND":
            break  # a decoder says what is cut short
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            if not kind[0] & 0x20:
                raise ValueError(f"the PNG's {kind.decode('latin-1')} chunk does not have the checksum that it says")
            wrong.append((at, end))
        at = end
    if not wrong:
        return data
    edges = [0, *(edge for piece in wrong for edge in piece), len(view)]
    return b"".join(view[first:last] for first, last in zip(edges[::2], edges[1::2], strict=True))
