"""Fields that say something of places in an image, and plain bytes: how each lies in a shard, and what is read of it.

| type         | in the shard                                     | value                                     |
|--------------|--------------------------------------------------|-------------------------------------------|
| ``boxes``    | ``[[x, y, x, y], ...]`` in the sample's ``.json`` | float32 (N, 4), in the field's ``format`` |
| ``labels``   | ``[3, 1, ...]`` there                             | int64 (N,): the class of each object      |
| ``ints``, ``floats`` | a number an object, there                | int64 (N,), float64 (N,)                  |
| ``keypoints`` | ``[[[x, y], ...], ...]`` there                   | float32 (N, K, 2)                         |
| ``visibility`` | ``[[2, 0, ...], ...]`` there                    | int64 (N, K): COCO's 0, 1, 2              |
| ``masks``    | ``<field>.json``: COCO run lengths, see `rle`     | uint8 (N, H, W)                           |
| ``mask``     | ``<field>.png``: a class number a pixel           | uint8, or int32 where 16-bit, (H, W)      |
| ``bytes``    | ``<field>.bin``                                   | bytes                                     |
| ``video``    | ``<field>.mp4``: MP4, WebM or AVI as published    | bytes                                     |

All but the last three have a row an object, as many rows as the boxes where there are boxes. Coordinates are pixels
from the image's top left corner, stored as the shortest decimals that are the same float32.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datahub.core.images import PIXEL_CAP, checked
from datahub.store import rle, video
from datahub.store.record import FieldSpec

FORMATS = ("xyxy", "xywh", "cxcywh")
"""Of boxes: two corners; a corner, width and height; the middle, width and height."""
ROWS: Mapping[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "boxes": (np.float32, (4,)),
    "labels": (np.int64, ()),
    "ints": (np.int64, ()),
    "floats": (np.float64, ()),
    "keypoints": (np.float32, (-1, 2)),
    "visibility": (np.int64, (-1,)),
}
"""Types that lie in the ``.json`` -> their dtype, and the shape of a row."""
MEMBERS = {"mask": "png", "masks": "json", "bytes": "bin", "video": "mp4"}
"""Types with a member of their own -> its extension, behind the field's name."""
OBJECTS = frozenset((*ROWS, "masks"))
"""Types with a row an object."""
PLACES = frozenset(("boxes", "keypoints", "masks", "mask"))
"""Types that have to follow when an image is cropped, scaled or flipped."""
TYPES = (*ROWS, *MEMBERS)
JSON = "json"
"""What the index calls the ``.json`` member."""
SIZE = re.compile(rb'\[\{"size":\[(\d{1,9}),(\d{1,9})\]')
"""How a member of masks begins."""
KEPT = frozenset(((8, 0), (16, 0), (1, 0), (1, 3), (2, 3), (4, 3), (8, 3)))
"""(bits, colour type) of PNGs that hold class numbers as they stand: gray of 1, 8 and 16 bits, and palettes."""


def spec(name: str, kind: str, shape: list[int] | None = None) -> FieldSpec:
    """The field of a type, which may say the format of boxes: ``boxes:xywh``. Raises ``ValueError`` with the reason."""
    plain, colon, form = kind.partition(":")
    if plain == "boxes":
        if (form or FORMATS[0]) not in FORMATS or (colon and not form):
            raise ValueError(f"is no format of boxes; known: {', '.join(f'boxes:{each}' for each in FORMATS)}")
        return FieldSpec(type=plain, extension=JSON, format=form or FORMATS[0])
    if colon or plain not in TYPES:
        raise ValueError(f"is not a type for {name}")
    return FieldSpec(type=plain, extension=f"{name}.{MEMBERS[plain]}" if plain in MEMBERS else JSON, shape=shape)


def stems(kinds: Mapping[str, str]) -> list[str]:
    """Members whose places the index knows beside image and label, in their order; ``kinds`` are the fields' types."""
    listed = [JSON] if any(kind in ROWS for kind in kinds.values()) else []
    return [*listed, *(name for name, kind in kinds.items() if kind in MEMBERS)]


def plain(kind: str, value: Any) -> list[Any]:
    """Rows as lists of Python's numbers, as they are stored. Raises ``ValueError`` with what is wrong."""
    dtype, row = ROWS[kind]
    array = _numbers(value, row)
    if dtype is np.float32:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("holds a number that is not finite")
    if dtype is np.float32:
        return shortest(array)
    if np.issubdtype(dtype, np.integer) and (array.astype(np.int64) != array).any():
        raise ValueError("holds a number that is not whole")
    found: list[Any] = array.astype(dtype).tolist()
    return found


def _numbers(value: Any, row: tuple[int, ...]) -> NDArray[Any]:
    """The rows as an array. Raises ``ValueError``."""
    wanted = f"(N{''.join(f', {side}' if side > 0 else ', K' for side in row)})"
    wanted = "(N,)" if not row else wanted
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        raise ValueError(f"is no array {wanted} of numbers") from None
    if array.size == 0 and array.ndim <= len(row) + 1:
        return np.zeros((len(array) if array.ndim else 0, *(max(side, 0) for side in row)))[:0]
    if array.dtype.kind not in "iuf" or array.ndim != len(row) + 1:
        raise ValueError(f"is no array {wanted} of numbers")
    if any(side > 0 and side != there for side, there in zip(row, array.shape[1:], strict=True)):
        raise ValueError(f"has the shape {array.shape}, not {wanted}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and (array > np.iinfo(np.int64).max).any():
        raise ValueError("holds a number beyond 64 bits")
    return array


def shortest(array: Any) -> list[Any]:
    """Nested lists of floats that say the same float32 in as few digits as can be."""
    whole = np.asarray(array, np.float32)
    flat = np.array([float(str(value)) for value in whole.reshape(-1)], np.float64)
    nested: Any = flat.reshape(whole.shape).tolist()
    return list(nested)


def check_boxes(rows: list[list[float]], form: str) -> None:
    """Raises ``ValueError`` for a box that ends before it begins: mostly one in another format."""
    for at, row in enumerate(rows):
        width, height = (row[2] - row[0], row[3] - row[1]) if form == "xyxy" else (row[2], row[3])
        if width < 0 or height < 0:
            raise ValueError(f"box {at}, {row}, ends before it begins: is it {form}?")


def check_counts(counts: Mapping[str, tuple[str, int]]) -> None:
    """``counts``: field -> its type and its rows. Raises ``ValueError`` where objects differ in them."""
    rows = {name: count for name, (kind, count) in counts.items() if kind in OBJECTS}
    boxes = next((name for name, (kind, _) in counts.items() if kind == "boxes"), None)
    if boxes is None:
        return
    for name, count in rows.items():
        if count != rows[boxes]:
            raise ValueError(f"{name} has {count} rows, {boxes} has {rows[boxes]}")


def array(field: FieldSpec, value: Any) -> NDArray[Any]:
    """What a ``.json`` holds of a field, as an array; nothing is no rows. Raises ``ValueError``."""
    dtype, row = ROWS[field.type]
    if not value:
        known = tuple(field.shape or ())
        return np.zeros((0, *(known[at] if at < len(known) else max(side, 0) for at, side in enumerate(row))), dtype)
    found: NDArray[Any] = np.asarray(_numbers(value, row), dtype)
    return found


def member(field: FieldSpec, data: bytes | memoryview, size: tuple[int, int]) -> Any:
    """The value of a member for an image of this height and width. Raises ``ValueError``."""
    if field.type == "bytes":
        return bytes(data)
    if field.type == "video":
        video.container(data)
        return bytes(data)
    if field.type == "masks":
        return rle.decode(run_lengths(data), size)
    return _pixels(data, size)


def run_lengths(data: bytes | memoryview) -> list[Any]:
    """The encoded masks of a member of them. Raises ``ValueError``."""
    found = _parsed(data, "is no JSON")
    if not isinstance(found, list):
        raise ValueError("is no list of run lengths")
    return found


def document(data: bytes | memoryview) -> dict[str, Any]:
    """What a ``.json`` member holds. Raises ``ValueError``."""
    found = _parsed(data, "its .json cannot be read")
    if not isinstance(found, dict):
        raise ValueError("its .json holds no fields")
    return found


def _parsed(data: bytes | memoryview, fault: str) -> Any:
    """JSON of any kind. Raises ``ValueError``, which begins with ``fault``."""
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{fault}: {error}") from None


def size_of(field: FieldSpec, data: bytes) -> tuple[int, int] | None:
    """Height and width of the image that a member is for, as far as it says so at its head. Raises ``ValueError``."""
    if field.type == "mask":
        return mask_size(data)
    if field.type == "video":
        video.container(data)
    if field.type == "masks" and (found := SIZE.match(data)):
        return int(found[1]), int(found[2])
    return None


def mask_size(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width of a mask, by its header. Raises ``ValueError``."""
    head = bytes(data[:33])
    if len(head) < 33 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        raise ValueError("is no PNG")
    if (head[24], head[25]) not in KEPT:
        raise ValueError("is no PNG of class numbers: gray of 8 or 16 bits, or with a palette")
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")


def _pixels(data: bytes | memoryview, size: tuple[int, int]) -> NDArray[Any]:
    found = mask_size(data)
    if found != size or size[0] * size[1] > PIXEL_CAP:
        raise ValueError(f"is {found[1]} x {found[0]}, the image {size[1]} x {size[0]}")
    try:
        with Image.open(io.BytesIO(checked(data)), formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error
    if pixels.ndim != 2:
        raise ValueError("has colours: a class number a pixel is read")
    return np.array(pixels, np.uint8 if pixels.dtype in (np.bool_, np.uint8) else np.int32)


def same(field: FieldSpec, one: Any, other: Any) -> bool:
    """Whether two lists of rows are the same field."""
    return bool(np.array_equal(array(field, one), array(field, other)))


def further(fields: Mapping[str, FieldSpec]) -> dict[str, FieldSpec]:
    """The fields beyond image and label."""
    return {name: spec for name, spec in fields.items() if name not in ("image", "label")}


def kinds(fields: Mapping[str, FieldSpec]) -> dict[str, str]:
    """Name -> type of those."""
    return {name: spec.type for name, spec in further(fields).items()}
