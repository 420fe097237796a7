"""What a `Writer` is given: each value is checked when it is written, not when everything is."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datahub.core.errors import BadArgument, NotReadable
from datahub.pack import images, objects
from datahub.pack.layouts import options as opt
from datahub.pack.own.objects import check_columns
from datahub.pack.own.values import INT64, document, text
from datahub.store import typed
from datahub.store.record import FieldSpec

Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
KINDS: dict[str, tuple[type, ...]] = {
    "int": (int, np.integer),
    "float": (float, int, np.floating, np.integer),
    "text": (str,),
    "json": (dict, list, str, int, float, bool, type(None)),
}
"""Types of further fields, and what may be given for them."""


def fields(given: Mapping[str, str] | None) -> dict[str, str]:
    """Raises `BadArgument` for names and types that no field can have."""
    if given is not None and not isinstance(given, Mapping):
        raise BadArgument("fields", given, "is no mapping", 'say {"image": "image", "label": "label"}')
    found = dict(given or {"image": "image", "label": "label"})
    if found.pop("image", "image") != "image":
        raise BadArgument("fields", given, "the field image is of type image")
    if found.get("label", "label") != "label":
        raise BadArgument("fields", given, "the field label is of type label")
    for name, kind in found.items():
        if name == "label":
            continue
        opt.field_name(name, "fields")
        if kind not in KINDS:
            _check_typed(name, kind)
    found = {"image": "image", **found}
    check_columns(specs(found))
    return found


def specs(fields: Mapping[str, str]) -> dict[str, FieldSpec]:
    """The fields as a record has them."""
    return {
        name: FieldSpec(type=kind, extension="") if kind in (*KINDS, "image", "label") else typed.spec(name, kind)
        for name, kind in fields.items()
    }


def _check_typed(name: str, kind: Any) -> None:
    try:
        typed.spec(name, str(kind))
    except ValueError as error:
        known = ", ".join(["image", "label", *KINDS, *typed.TYPES])
        raise BadArgument("fields", kind, str(error), f"known: {known}; boxes may say boxes:xywh") from None


def classes(given: Sequence[str] | None) -> list[str] | None:
    """Raises `BadArgument` for names that are none, and for one that comes twice."""
    if given is None:
        return None
    found = list(given)
    for name in found:
        if not isinstance(name, str) or text(name) != name:
            raise BadArgument("classes", name, "is not the name of a class")
    if len(set(found)) != len(found):
        raise BadArgument("classes", next(name for name in found if found.count(name) > 1), "is there twice")
    return found


def label(given: object, wanted: bool, known: Sequence[str] | None) -> int | str | None:
    """A label as it is stored: a class's name, or a number from 0 on."""
    if wanted != (given is not None):
        what = "is missing" if wanted else "is given, but the fields name no label"
        raise BadArgument("label", given, what, 'say fields={"image": "image", "label": "label"}')
    found = given.item() if isinstance(given, np.generic) else given
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise BadArgument("label", given, "is neither a class's name nor its number")
    if isinstance(found, str):
        if not found or text(found) != found or (known is not None and found not in known):
            raise BadArgument("label", given, "is not one of the classes" if known is not None else "names no class")
    elif not 0 <= found < (len(known) if known is not None else 2**31):
        raise BadArgument("label", given, "is not the number of a class")
    return found


def value(name: str, kind: str, given: Any) -> Any:
    """A further field's value as it is stored, JSON as its text. Raises `BadArgument`."""
    found = given.item() if isinstance(given, np.generic) else given
    if not isinstance(found, KINDS[kind]) or (isinstance(found, bool) and kind in ("int", "float")):
        raise BadArgument(name, given, f"is not of type {kind}")
    if kind == "int" and found not in INT64:
        raise BadArgument(name, given, "does not fit 64 bits", "write it as text")
    if kind == "float":
        return _float(name, found)
    if kind == "text" and text(found) != found:
        raise BadArgument(name, given, "is not a text that UTF-8 holds")
    if kind == "json":
        try:
            return document(found)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadArgument(name, type(given).__name__, f"is no JSON: {error}") from error
    return found


def further(
    specs: Mapping[str, FieldSpec], given: Mapping[str, Any], size: tuple[int, int], known: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The further fields' values as they are stored, and the files of those with a member of their own.

    ``size``: the image's height and width. Raises `BadArgument`.
    """
    for name in given:
        if name not in specs:
            raise BadArgument(name, given[name], "is not one of the fields", f"they are {', '.join(specs)}")
    values: dict[str, Any] = {}
    members: dict[str, bytes] = {}
    for name, spec in typed.further(specs).items():
        if name not in given:
            raise BadArgument(name, None, "is missing", f"it is a field of type {spec.type}")
        if spec.type in typed.MEMBERS:
            members[name] = objects.member(name, spec, given[name], size)
        elif spec.type == "labels":
            values[name] = [label(each, True, known) for each in objects.each(name, given[name])]
        elif spec.type in typed.ROWS:
            values[name] = objects.rows(name, spec, given[name])
        else:
            values[name] = value(name, spec.type, given[name])
    objects.check_counts(specs, {**values, **members})
    return values, members


def _float(name: str, given: Any) -> float:
    try:
        found = float(given)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise BadArgument(name, "nan" if math.isnan(found) else "inf", "is not finite, and JSON has only such numbers")
    return found


def pictured(
    image: Picture | None, specs: Mapping[str, FieldSpec], given: dict[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """The image's file, where there is none that of the first video, and ``given`` with that video read.

    Raises `BadArgument`, `NotReadable`.
    """
    if image is not None:
        return encoded(image), given
    name = next((name for name, spec in specs.items() if spec.type == "video" and name in given), None)
    if name is None:
        raise BadArgument("image", None, "is missing", "only a sample with a video may leave it out")
    data = objects.member(name, specs[name], given[name], (0, 0))
    from datahub.pack.posters import poster  # OpenCV, which datasets of images do not need here

    try:
        return poster(data), {**given, name: data}
    except ValueError as error:
        raise BadArgument(name, objects.shown(given[name]), str(error)) from error


def encoded(image: Picture) -> bytes:
    """The image's file."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise NotReadable(os.fspath(image), error.strerror or str(error)) from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))):
            what = f"an array must be uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}"
            raise BadArgument("image", "array", what)
        if not image.size:
            raise BadArgument("image", "array", f"has no pixels: {image.shape}")
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if not isinstance(image, Image.Image):
        raise BadArgument("image", type(image).__name__, "is no path, bytes, PIL image or array")
    buffer = io.BytesIO()
    try:
        # The fast end of zlib's scale: half the time for a few per cent.
        image.save(buffer, "PNG", compress_level=3)
    except images.BROKEN as error:  # no pixels, a mode that PNG has not, a file behind it that ends too early
        raise BadArgument("image", f"{image.mode} {image.size}", str(error), "convert it to L or RGB") from error
    return buffer.getvalue()
