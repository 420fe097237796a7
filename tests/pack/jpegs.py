"""JPEGs of every kind that is tiled, and pixels to compare."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms

needs_jpegtran = pytest.mark.skipif(
    shutil.which("jpegtran") is None, reason="jpegtran is not installed (Debian package libjpeg-turbo-progs)"
)
SAMPLINGS = ("444", "422", "420", "440", "411")
SIZES = ((1, 1), (8, 8), (17, 9), (131, 77), (240, 160), (376, 40))
"""Width and height; 376 pixels are 47 blocks, a prime number."""


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Edges, slopes and noise, uint8 ``(H, W, 3)``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([x * 3 + y, 255 - y * 2, (x // 9 + y // 7) % 2 * 200], axis=-1)
    return np.clip(slopes % 256 + rng.normal(0, 20, slopes.shape), 0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], sampling: str = "420", quality: int = 85) -> bytes:
    """As a baseline JPEG, or a gray one where ``sampling`` is "Gray"."""
    space = "RGB"
    if sampling == "Gray":
        pixels, space = np.ascontiguousarray(pixels[..., 1:2]), "GRAY"
    data: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace=space, colorsubsampling=sampling)
    return data


def saved(pixels: NDArray[np.uint8], mode: str = "RGB", **options: Any) -> bytes:
    """As Pillow writes it."""
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def program(name: str, data: bytes, *switches: str) -> bytes:
    """What one of libjpeg-turbo's programs makes of ``data``."""
    return subprocess.run([name, *switches], input=data, capture_output=True, check=True).stdout


def sof(data: bytes) -> int:
    """Offset of a baseline frame header."""
    return data.index(b"\xff\xc0\x00\x11") if b"\xff\xc0\x00\x11" in data else data.index(b"\xff\xc0\x00\x0b")


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@cache
def made() -> dict[str, bytes]:
    """Name -> a JPEG that can be tiled."""
    found = {
        f"{sampling} {w}x{h}": encoded(picture(w, h), sampling) for sampling in (*SAMPLINGS, "Gray") for w, h in SIZES
    }
    gray = found["Gray 131x77"]
    found["Gray 2x2"] = patched(gray, sof(gray) + 11, b"\x22")
    found["RGB"] = saved(picture(131, 77), keep_rgb=True)
    pixels = picture(200, 120)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a picture"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found["metadata"] = saved(pixels, exif=exif, icc_profile=icc * 30, comment=b"said of it")
    found["restart"] = saved(pixels, restart_marker_blocks=1)
    for sampling in SAMPLINGS:
        found[f"progressive {sampling}"] = program("jpegtran", found[f"{sampling} 131x77"], "-progressive")
        found[f"arithmetic {sampling}"] = program("jpegtran", found[f"{sampling} 131x77"], "-arithmetic")
    ppm = b"P6 131 77 255\n" + picture(131, 77).tobytes()
    for sampling in ("1x1,2x2,2x2", "2x2,2x1,1x2", "2x1,2x1,2x1", "1x4,1x1,1x1", "3x1,1x1,1x1"):
        found[f"sampled {sampling}"] = program("cjpeg", ppm, "-sample", sampling)
    found["16-bit tables"] = program("cjpeg", ppm, "-quality", "1")
    return found


def real(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every photograph of the real files."""
    for part in ("imagenet-sample", "coco-mini", "torchvision-assets"):
        for path in sorted((folder / part).rglob("*.[jJ][pP]*[gG]")):
            if "damaged_jpeg" not in path.parts:
                yield str(path.relative_to(folder)), path.read_bytes()


def decoded(data: bytes) -> NDArray[np.uint8]:
    """uint8 ``(H, W, C)``; raises ``ValueError`` or ``OSError``."""
    try:
        space = simplejpeg.decode_jpeg_header(data, strict=False)[2]
    except (ValueError, KeyError):  # sampling factors that TurboJPEG has no name for
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    space = "GRAY" if space in ("Gray", "GRAY") else "RGB"
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    return pixels
