"""Encoded images to uint8 pixels, channels first, equal to what torchvision decodes.

Which channels: a field whose record gives a shape is decoded to that shape's channels (gray stays one channel); a
field of varying sizes to RGB, as torchvision's ``ImageReadMode.RGB``. Plain JPEGs go through simplejpeg, plain PNGs
through `datahub.tensor.png` and OpenCV; what is unusual (palettes, alpha, 16 bits, CMYK) and all other formats through
`datahub.tensor.pillow`: alpha is dropped, 16 bits keep the high byte, animations their first frame, gray from colour
is Pillow's luma (libpng's may differ by one). All of them release the interpreter's lock while they work.

The reference for JPEG, PNG and WebP is ``torchvision.io.decode_image``; for AVIF, GIF, TIFF, BMP and PNM, which it does
not decode or blends with a background of its own, Pillow. ``upright`` turns images by their EXIF orientation; by
default they come as they are stored, as from torchvision.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from datahub.core.errors import DamagedImage
from datahub.core.images import PIXEL_CAP, checked, ended
from datahub.pack import jpeg
from datahub.tensor import orientation, pillow, png
from datahub.tensor.pillow import FORMATS
from datahub.tensor.resample import split

PNM = re.compile(rb"P([56])[ \t\r\n]+([1-9][0-9]{0,8})[ \t\r\n]+([1-9][0-9]{0,8})[ \t\r\n]+255[ \t\r\n]")
"""The header of a binary PNM of 8 bits without comments (netpbm's pgm(5) and ppm(5)), as the packer writes it."""
TURNS = {"jpeg": orientation.of_jpeg, "png": orientation.of_png}
"""Kinds that fast decoders read -> where their EXIF orientation stands."""

Pixels = NDArray[np.uint8]
Encoded = bytes | memoryview


class Header(NamedTuple):
    """What the first bytes say. ``plain``: the fast decoders read it exactly as torchvision would.

    ``width`` and ``height`` are those of the image once it is turned by ``turn``, an EXIF orientation.
    """

    kind: str
    width: int
    height: int
    channels: int
    plain: bool
    turn: int = 1

    def stored(self) -> Header:
        """The same of the pixels before they are turned."""
        size = (self.height, self.width) if orientation.swaps(self.turn) else (self.width, self.height)
        return Header(self.kind, *size, self.channels, self.plain)

    def turned(self, turn: int) -> Header:
        """The same of the pixels of an image that is not turned yet, after they were."""
        size = (self.height, self.width) if orientation.swaps(turn) else (self.width, self.height)
        return Header(self.kind, *size, self.channels, self.plain, turn)


def header(data: Encoded, upright: bool = False) -> Header:
    """Read an image's header; raises `DamagedImage` for no image, or one above the pixel cap."""
    if data[:8] == png.SIGNATURE:
        found = _png_header(data)
    elif data[:2] == b"\xff\xd8":
        found = _jpeg_header(data)
    elif pnm := PNM.match(data):
        width, height = int(pnm[2]), int(pnm[3])
        found = Header("pnm", width, height, 3 if pnm[1] == b"6" else 1, plain=len(data) - pnm.end() == _bytes(pnm))
    else:
        return _other_header(data, upright)
    pillow.check_cap(found.width, found.height, PIXEL_CAP)
    return found.turned(TURNS[found.kind](data)) if upright and found.kind in TURNS else found


def _bytes(pnm: re.Match[bytes]) -> int:
    """Bytes of pixels that must follow a binary PNM's header."""
    return int(pnm[2]) * int(pnm[3]) * (3 if pnm[1] == b"6" else 1)


def decode(data: Encoded, channels: int = 3, upright: bool = False) -> Pixels:
    """One image as uint8 ``(C, H, W)``. Raises `DamagedImage`."""
    found = header(data, upright)
    out = np.empty((channels, found.height, found.width), np.uint8)
    _into(data, found, out)
    return out


def decode_rows(images: Sequence[Encoded], out: Pixels, upright: bool = False) -> None:
    """Images of one shape into the rows of ``out``, uint8 ``(n, C, H, W)``. Raises `DamagedImage` with the position."""
    for row in png.decode_alike(images, out):
        try:
            found = header(images[row], upright)
            if (found.height, found.width) != out.shape[2:]:
                reason = f"is {found.width} x {found.height}, not {out.shape[3]} x {out.shape[2]} as its index says"
                raise DamagedImage(reason)
            _into(images[row], found, out[row])
        except DamagedImage as damage:
            raise DamagedImage(damage.cause, row) from damage


def decode_each(images: Sequence[Encoded], channels: int = 3, upright: bool = False) -> list[Pixels]:
    """Images of any sizes. Raises `DamagedImage` with the position."""
    out = []
    for row, data in enumerate(images):
        try:
            out.append(decode(data, channels, upright))
        except DamagedImage as damage:
            raise DamagedImage(damage.cause, row) from damage
    return out


def decode_image(data: Encoded, channels: int = 3) -> torch.Tensor:
    """One image as a uint8 tensor ``(C, H, W)``. Raises `DamagedImage`."""
    return torch.from_numpy(decode(data, channels))


def _png_header(data: Encoded) -> Header:
    if len(data) < png.HEAD or data[12:16] != b"IHDR":
        raise DamagedImage("the PNG header is cut short")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour)
    if channels is None or not width or not height:
        raise DamagedImage("the PNG header makes no sense")
    start = bytes(data[: png.HEAD + 4096])
    # Transparency and animation, if any, are said before the pixels; OpenCV shows an animation's first frame, which
    # need not be the image that everybody else shows.
    simple = b"IDAT" in start and not any(chunk in start for chunk in (b"tRNS", b"acTL"))
    return Header("png", width, height, channels, plain=depth == 8 and colour in (0, 2) and simple)


def _jpeg_header(data: Encoded) -> Header:
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # also for sampling that TurboJPEG has no name for, 4:1:0 say, and Pillow decodes
        return _odd_jpeg_header(data)
    channels = {"Gray": 1, "GRAY": 1}.get(space, 3)
    return Header("jpeg", width, height, channels, plain=space in ("Gray", "GRAY", "YCbCr", "RGB"))


def _odd_jpeg_header(data: Encoded) -> Header:
    try:
        found = jpeg.read(data)
    except ValueError as error:
        raise DamagedImage(f"the JPEG header cannot be read: {error}") from error
    return Header("jpeg", found.width, found.height, 1 if len(found.components) == 1 else 3, plain=False)


def _other_header(data: Encoded, upright: bool) -> Header:
    kind = pillow.kind_of(data)
    if kind is None:
        raise DamagedImage(f"is no image that datahub reads ({', '.join(FORMATS)})")
    width, height, channels, turn = pillow.look(data, kind, PIXEL_CAP)
    found = Header(kind, width, height, channels, plain=False)
    return found.turned(turn) if upright else found


def interleaved(data: Encoded, found: Header, channels: int) -> Pixels:
    """Pixels as decoders give them: uint8 ``(H, W, channels)``, or ``(H, W)`` for one. Raises `DamagedImage`.

    ``found`` is the header of the same bytes.
    """
    if found.turn != 1:
        return orientation.turned(interleaved(data, found.stored(), channels), found.turn)
    image: Pixels | None = None
    if found.plain and channels in (1, 3):
        if found.kind == "jpeg":
            image = _jpeg(data, channels)
        elif channels >= found.channels:
            image = _pnm(data, found, channels) if found.kind == "pnm" else _png(data, channels)
    if image is None:
        image = pillow.decoded(data, found.kind, channels)
    if image.shape[:2] != (found.height, found.width):
        raise DamagedImage(f"decodes to {image.shape[1]} x {image.shape[0]}, not as its header says")
    return image


def _into(data: Encoded, found: Header, out: Pixels) -> None:
    split(interleaved(data, found, len(out)), out)


def _jpeg(data: Encoded, channels: int) -> Pixels | None:
    """None where libjpeg has something to say: Pillow then tells a harmless remark from damage."""
    space = "RGB" if channels == 3 else "GRAY"
    try:
        image: Pixels = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    except ValueError:
        return None
    return image


def _pnm(data: Encoded, found: Header, channels: int) -> Pixels:
    """Pixels stand behind the header as they are; gray is spread over three channels."""
    shape = (found.height, found.width, found.channels)
    image = np.frombuffer(data, np.uint8)[-found.height * found.width * found.channels :].reshape(shape)
    return image if channels == found.channels else np.repeat(image, channels, axis=2)


def _png(data: Encoded, channels: int) -> Pixels:
    """What OpenCV refuses is not tried with Pillow, which takes pixels that are not there for black."""
    try:
        image: Any = cv2.imdecode(np.frombuffer(ended(data), np.uint8), cv2.IMREAD_UNCHANGED)
    except ValueError as error:
        raise DamagedImage(str(error)) from error
    except cv2.error as error:
        raise DamagedImage(f"PNG data do not decode: {error.err}") from error
    if image is None or image.dtype != np.uint8:
        raise DamagedImage(_why(data))
    if channels == 3:  # OpenCV's channels are blue, green, red
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
    return image  # type: ignore[no-any-return]


def _why(data: Encoded) -> str:
    """What there is to say of a PNG that does not decode."""
    try:
        checked(data)
    except ValueError as error:
        return str(error)
    return "PNG data do not decode"
