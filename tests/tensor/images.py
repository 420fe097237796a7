"""Small encoded images of every kind, for tests."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 (H, W) or (H, W, C), smooth enough that every PNG filter is chosen somewhere."""
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + np.arange(channels) * 40
    image = (slope + rng.integers(0, 12, slope.shape)).astype(np.uint8)
    return image[..., 0] if channels == 1 else image


def encoded(image: np.ndarray | Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_filtered(image: np.ndarray, filters: list[int]) -> bytes:
    """A PNG whose rows carry the given filters (0 to 2, None, Sub, Up), cycled."""
    pixels = image[..., None] if image.ndim == 2 else image
    height, width, channels = pixels.shape
    lines = pixels.reshape(height, width * channels)
    out = bytearray()
    for row in range(height):
        kind = filters[row % len(filters)]
        left = np.zeros(width * channels, np.uint8)
        left[channels:] = lines[row, :-channels]
        up = lines[row - 1] if row else np.zeros_like(left)
        out.append(kind)
        out += (lines[row] - [np.zeros_like(left), left, up][kind]).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(out))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_of_levels(levels: np.ndarray, bits: int = 12) -> bytes:
    """A JPEG of ``bits`` a sample whose blocks of 8 x 8 have one level each, int ``(rows, columns, components)``.

    Extended sequential (ITU-T T.81), written by hand: few encoders write 12 bits. Levels are from 0 to 2**bits - 1.
    """
    rows, columns, count = levels.shape
    parts = range(1, count + 1)
    frame = b"".join(bytes([part, 0x11, 0]) for part in parts)
    scan = b"".join(bytes([part, 0]) for part in parts)
    out = [
        b"\xff\xd8",
        _segment(0xDB, bytes([0, *[1] * 64])),
        _segment(0xC1, struct.pack(">BHHB", bits, 8 * rows, 8 * columns, count) + frame),
        _segment(0xC4, bytes([0x00, 0, 0, 0, 0, 16, *[0] * 11, *range(16)])),  # DC: 16 sizes, five bits each
        _segment(0xC4, bytes([0x10, 1, *[0] * 15, 0])),  # AC: the end of the block, one bit
        _segment(0xDA, bytes([count]) + scan + b"\0\x3f\0"),
    ]
    coded, before = "", [0] * count
    for block in (8 * (levels.reshape(-1, count).astype(int) - (1 << bits - 1))).tolist():
        for part, level in enumerate(block):
            step, before[part] = level - before[part], level
            size = abs(step).bit_length()
            value = f"{step if step > 0 else step + (1 << size) - 1:0{size}b}" if size else ""
            coded += f"{size:05b}{value}0"
    coded += "1" * (-len(coded) % 8)
    data = int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"".join([*out, data, b"\xff\xd9"])


def jpeg12(rows: int = 5, columns: int = 7, components: int = 3) -> bytes:
    """A JPEG of 12 bits a sample."""
    return jpeg_of_levels(np.random.default_rng(rows).integers(0, 4096, (rows, columns, components)))


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
