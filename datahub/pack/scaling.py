"""What stands beside an image that a recipe has made smaller, scaled with it: boxes, keypoints, masks.

Other fields stay as they were published, numbers that say something of pixels (COCO's ``area``) among them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from datahub.pack.images import BROKEN, QUIET
from datahub.store import rle, scaling, typed
from datahub.store.record import FieldSpec
from datahub.store.scaling import Size


def rows(kind: str, given: Sequence[Any] | None, before: Size, after: Size) -> Sequence[Any] | None:
    """The rows of a field of the ``.json``. Raises ``ValueError``."""
    if kind not in typed.PLACES or not given:
        return given
    array = np.asarray(typed.plain(kind, given), np.float32)
    return typed.shortest(scaling.places(array, before, after))


def member(spec: FieldSpec, data: bytes, before: Size, after: Size) -> bytes:
    """The file of a field that has one. Raises ``ValueError``."""
    if spec.type not in typed.PLACES or not data:
        return data
    if spec.type == "masks":  # one by one: objects of a large image are gigabytes of pixels
        each = (rle.decode([mask], before, at) for at, mask in enumerate(typed.run_lengths(data)))
        found = [rle.encode(scaling.pixels(mask, after))[0] for mask in each]
        return json.dumps(found, separators=(",", ":")).encode()
    return _png(scaling.pixels(typed.member(spec, data, before), after), _palette(data))


def _png(numbers: np.ndarray[Any, Any], palette: bytes | None) -> bytes:
    """Class numbers in as many bits as the mask had, 8 or 16, and its colours."""
    image = Image.fromarray(numbers if numbers.dtype == np.uint8 else numbers.astype(np.uint16))
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _palette(data: bytes) -> bytes | None:
    """Red, green and blue of each number. Raises ``ValueError``."""
    try:
        with QUIET, Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return bytes(image.getpalette() or b"") if image.mode == "P" else None
    except BROKEN as error:
        raise ValueError(f"cannot be decoded: {error}") from error
