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
