"""Boxes, masks and keypoints drawn into a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from datahub.store import typed
from datahub.store.record import FieldSpec

COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178))
"""Told apart by colour-blind people too: Okabe and Ito, 2008."""
MOST = 200
"""Objects that are drawn."""
PIXELS = 1 << 27
"""Pixels of all masks of a sample at most; more are not drawn."""


@dataclass(frozen=True, slots=True)
class Marks:
    """``boxes``: (N, 4) corners; ``masks``: (N, H, W); ``areas``: (H, W) class numbers; ``points``: (N, K, 2)."""

    boxes: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    masks: NDArray[Any] | None = None
    areas: NDArray[Any] | None = None
    points: NDArray[Any] | None = None
    wrong: tuple[str, ...] = field(default=())
    """What could not be read, in words."""


def extensions(fields: Mapping[str, FieldSpec]) -> list[str]:
    """The members that marks are read from."""
    if not any(spec.type in typed.PLACES for spec in fields.values()):
        return []
    wanted = typed.PLACES | {"labels"}
    return sorted({spec.extension for spec in fields.values() if spec.type in wanted})


def read(fields: Mapping[str, FieldSpec], found: Mapping[str, bytes], size: tuple[int, int]) -> Marks:
    """The first field of each type. ``found``: extension -> member; ``size``: height and width of the image."""
    names = {"boxes": "boxes", "labels": "labels", "masks": "masks", "mask": "areas", "keypoints": "points"}
    values: dict[str, Any] = {}
    wrong = []
    for name, spec in fields.items():
        place = names.get(spec.type)
        if place is None or place in values or spec.extension not in found:
            continue
        try:
            values[place] = _value(name, spec, found[spec.extension], size)
        except (ValueError, TypeError) as error:
            wrong.append(f"{name} {error}")
    return Marks(**values, wrong=tuple(wrong))


def draw(picture: Image.Image, marks: Marks, size: tuple[int, int]) -> Image.Image:
    """The RGB picture of an image of this height and width, with what is marked in it."""
    across, down = picture.width / size[1], picture.height / size[0]
    for number, mask in enumerate([] if marks.masks is None else marks.masks[:MOST]):
        _tint(picture, mask != 0, COLOURS[number % len(COLOURS)])
    if marks.areas is not None:
        for value in np.unique(marks.areas)[:MOST]:
            if value:
                _tint(picture, marks.areas == value, COLOURS[int(value) % len(COLOURS)])
    pen = ImageDraw.Draw(picture)
    thick = max(2, round(min(picture.size) / 160))
    for number, box in enumerate([] if marks.boxes is None else marks.boxes[:MOST]):
        corners = [float(at) * (down if side % 2 else across) for side, at in enumerate(box)]
        _box(pen, corners, number, thick, named=picture.width >= 320)
    for number, points in enumerate([] if marks.points is None else marks.points[:MOST]):
        for x, y in points:
            at, reach = (float(x) * across, float(y) * down), 2 * thick
            spot = (at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach)
            pen.ellipse(spot, fill=COLOURS[number % len(COLOURS)], outline=(0, 0, 0))
    return picture


def _value(name: str, spec: FieldSpec, data: bytes, size: tuple[int, int]) -> Any:
    if spec.type in typed.ROWS:
        found = typed.array(spec, typed.document(data).get(name))
        return _corners(found, spec.format or "xyxy") if spec.type == "boxes" else found
    if spec.type == "masks" and data.count(b'"counts"') * size[0] * size[1] > PIXELS:
        raise ValueError("are too large to be drawn")
    return typed.member(spec, data, size)


def _corners(boxes: NDArray[Any], form: str) -> NDArray[Any]:
    found = np.array(boxes, np.float64)
    if form == "cxcywh":
        found[:, :2] -= found[:, 2:] / 2
    if form in ("xywh", "cxcywh"):
        found[:, 2:] += found[:, :2]
    return found


def _tint(picture: Image.Image, where: NDArray[Any], colour: tuple[int, int, int]) -> None:
    veil = Image.fromarray(where.astype(np.uint8) * 120).resize(picture.size, Image.Resampling.NEAREST)
    picture.paste(colour, (0, 0, *picture.size), veil)


def _box(pen: ImageDraw.ImageDraw, corners: list[float], number: int, thick: int, *, named: bool) -> None:
    left, top, right, bottom = (min(max(at, -1e5), 1e5) for at in corners)
    if right < left or bottom < top:
        return
    colour = COLOURS[number % len(COLOURS)]
    pen.rectangle((left, top, right, bottom), outline=colour, width=thick)
    if named:
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=1)
        text, at = str(number + 1), (max(0.0, left), max(0.0, top))
        pen.rectangle((*at, at[0] + 4 + 7 * len(text), at[1] + 13), fill=colour)
        pen.text((at[0] + 2, at[1]), text, fill=(0, 0, 0))
