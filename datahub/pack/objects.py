"""What a `Writer` is given for boxes, labels, masks, keypoints and bytes, checked and as it is stored."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datahub.core.errors import BadArgument, NotReadable
from datahub.core.images import PIXEL_CAP, checked
from datahub.pack import images
from datahub.pack.listed import LARGEST
from datahub.store import rle, typed, video
from datahub.store.record import FieldSpec

LOSSLESS = ("PNG", "TIFF", "GIF", "BMP", "PPM")
"""Formats whose pixels are those that were drawn: class numbers do not survive a JPEG."""
SCALED = {2: 85, 4: 17}
"""Bits a gray pixel -> what Pillow multiplies its value by."""
UINT16 = range(1 << 16)


def rows(name: str, spec: FieldSpec, given: Any) -> list[Any]:
    """Rows of a field of the ``.json``, as plain lists. Raises `BadArgument`."""
    form = getattr(getattr(given, "format", None), "name", "").lower()
    if spec.type == "boxes" and form in typed.FORMATS and form != spec.format:
        raise BadArgument(name, form, f"are boxes of another format than the field's, {spec.format}", "convert them")
    try:
        found = typed.plain(spec.type, given)
        if spec.type == "boxes":
            typed.check_boxes(found, str(spec.format))
    except ValueError as error:
        raise BadArgument(name, shown(given), str(error)) from None
    return found


def member(name: str, spec: FieldSpec, given: Any, size: tuple[int, int]) -> bytes:
    """The file of a field with a member of its own, for an image of this height and width. Raises `BadArgument`."""
    try:
        if spec.type == "bytes":
            return raw(given)
        if spec.type == "video":
            return film(given)
        return masks(given, size) if spec.type == "masks" else mask(given, size)
    except ValueError as error:
        raise BadArgument(name, shown(given), str(error)) from None


def each(name: str, given: Any) -> list[Any]:
    """The labels of the objects, one by one. Raises `BadArgument`."""
    plain = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(plain, str | bytes) or not isinstance(plain, Sequence):
        raise BadArgument(name, shown(given), "is no list of classes, one an object")
    return list(plain)


def check_counts(specs: Mapping[str, FieldSpec], stored: Mapping[str, Any]) -> None:
    """``stored``: what `rows` and `member` made. Raises `BadArgument` where their numbers of rows differ."""
    counts = {
        name: (specs[name].type, len(json.loads(value)) if specs[name].type == "masks" else len(value))
        for name, value in stored.items()
        if specs[name].type in typed.OBJECTS
    }
    try:
        typed.check_counts(counts)
    except ValueError as error:
        raise BadArgument("write", "sample", str(error), "give every object a row in each") from None


def masks(given: Any, size: tuple[int, int]) -> bytes:
    """Masks of objects, an array ``(N, H, W)`` or COCO's run lengths, as a file. Raises ``ValueError``."""
    if isinstance(given, Sequence) and all(isinstance(each, Mapping) for each in given):
        found = [rle.text_of(each, size, f"mask {at}") for at, each in enumerate(given)]
    else:
        array = np.asarray(given)
        if array.dtype.kind not in "biu" or array.ndim != 3:
            raise ValueError(f"is no array (N, H, W) of 0 and 1: {array.dtype} {array.shape}")
        if array.shape[1:] != size:
            raise ValueError(f"has the shape {array.shape}, the image is {size[0]} x {size[1]} (height x width)")
        found = rle.encode(array)
    return json.dumps(found, separators=(",", ":")).encode()


def mask(given: Any, size: tuple[int, int] | None = None) -> bytes:
    """A class number a pixel, as a PNG that keeps it: a path, a file's bytes, a PIL image or an array ``(H, W)``.

    PNGs of 8 or 16 bits, or with a palette, are kept as they are. A sample without one has none of the class: other
    readers decode every mask. Raises ``ValueError``.
    """
    data = _file(given)
    if data is not None:
        if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 33 and (data[24], data[25]) in typed.KEPT:
            _fits(typed.mask_size(data), size)
            return data
        given = _decoded(data)
    pixels = _indices(given) if isinstance(given, Image.Image) else np.asarray(given)
    if pixels.dtype.kind not in "biu" or pixels.ndim != 2 or not pixels.size:
        raise ValueError(f"is no array (H, W) of class numbers: {pixels.dtype} {pixels.shape}")
    if int(pixels.min()) not in UINT16 or int(pixels.max()) not in UINT16:
        raise ValueError(f"holds the class {pixels.min()} or {pixels.max()}, not in 0 to 65535")
    _fits(pixels.shape, size)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8 if int(pixels.max()) < 256 else np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def raw(given: Any) -> bytes:
    """Bytes, or a file's by its path. Raises `NotReadable`, ``ValueError``."""
    if isinstance(given, os.PathLike):
        return _read(given)
    if not isinstance(given, bytes | bytearray | memoryview):
        raise ValueError("is neither bytes nor a path (pathlib.Path) of a file")
    return bytes(given)


def film(given: Any) -> bytes:
    """A video's file as it was published: a path, or its bytes. Raises `NotReadable`, ``ValueError``."""
    data = _file(given)
    if data is None:
        raise ValueError("is neither a video's path nor its bytes")
    video.container(data)
    if len(data) > LARGEST:
        raise ValueError(f"has {len(data)} bytes: at most {LARGEST} are packed")
    return data


def _fits(found: tuple[int, ...], size: tuple[int, int] | None) -> None:
    if size is not None and found != size:
        raise ValueError(f"is {found[1]} x {found[0]}, the image {size[1]} x {size[0]}")


def _file(given: Any) -> bytes | None:
    if isinstance(given, str | os.PathLike):
        return _read(given)
    return bytes(given) if isinstance(given, bytes | bytearray | memoryview) else None


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotReadable(os.fspath(path), error.strerror or str(error)) from error


def _decoded(data: bytes) -> Image.Image:
    try:
        with images.QUIET, Image.open(io.BytesIO(checked(data))) as image:
            if image.format not in LOSSLESS:
                raise ValueError(f"is a {image.format}, which changes class numbers: give a PNG")
            if image.width * image.height > PIXEL_CAP:
                raise ValueError(f"has {image.width * image.height} pixels, more than {PIXEL_CAP}")
            image.load()
            if image.format == "PNG":
                image.info["bits"] = data[24]
            return image.copy()
    except images.BROKEN as error:
        raise ValueError(str(error) if isinstance(error, ValueError) else f"cannot be decoded: {error}") from error


def _indices(image: Image.Image) -> NDArray[Any]:
    """The numbers of an image that has one a pixel. Raises ``ValueError``."""
    if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        raise ValueError(f"has the mode {image.mode}: one class number a pixel is read (L, P or 16 bits)")
    pixels = np.asarray(image)
    return pixels // SCALED.get(image.info.get("bits", 8), 1) if image.mode == "L" else pixels


def shown(given: Any) -> str:
    """It as a message names it."""
    text = repr(given)
    if hasattr(given, "shape"):
        return f"{type(given).__name__} {tuple(given.shape)}"
    return text if len(text) <= 60 else f"{text[:57]}..."
