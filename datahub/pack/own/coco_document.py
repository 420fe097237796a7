"""COCO's annotation files (cocodataset.org/#format-data) as rows of objects, one list an image."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from datahub.core.errors import LayoutError, MissingExtra, NotReadable
from datahub.store import rle, typed

KINDS = {
    **{"boxes": "boxes:xyxy", "labels": "labels", "area": "floats", "iscrowd": "ints"},
    **{"annotation_id": "ints", "category_id": "ints", "image_id": "int"},
    **{"keypoints": "keypoints", "visibility": "visibility"},
}
"""The fields that are made, and their types."""
FAR = 16
"""How many times an image's sides a polygon may reach out of it, before it is taken for a mistake."""


class Category(msgspec.Struct, frozen=True):
    id: int
    name: str


class Picture(msgspec.Struct, frozen=True):
    id: int
    height: int
    width: int
    file_name: str = ""
    coco_url: str = ""
    """Where LVIS says the file's name."""

    @property
    def name(self) -> str:
        return self.file_name or PurePosixPath(self.coco_url).name


class Annotation(msgspec.Struct, frozen=True):
    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float | None = None
    iscrowd: int = 0
    keypoints: list[float] | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"")


class Document(msgspec.Struct, frozen=True):
    images: list[Picture]
    annotations: list[Annotation]
    categories: list[Category]


@dataclass(frozen=True)
class Objects:
    """Annotations by image; ``of[i]`` are those of ``pictures[i]``, in the file's order."""

    path: Path
    pictures: list[Picture]
    of: list[list[Annotation]]
    classes: list[str]
    """Names of the categories by ascending id, and so of the labels."""
    label: dict[int, int]
    """Category id -> label."""

    @property
    def has_keypoints(self) -> bool:
        return any(each.keypoints is not None for found in self.of for each in found)

    @property
    def has_segmentation(self) -> bool:
        return any(bytes(each.segmentation) not in (b"", b"null") for found in self.of for each in found)

    def fields(self, *, keypoints: bool) -> dict[str, list[Any]]:
        """Field -> the value of each image. Raises `LayoutError` naming the annotation that is wrong."""
        found: dict[str, list[Any]] = {
            "boxes": [[self._box(each) for each in some] for some in self.of],
            "labels": [[self.label[each.category_id] for each in some] for some in self.of],
            "area": [[self._area(each) for each in some] for some in self.of],
            "iscrowd": [[each.iscrowd for each in some] for some in self.of],
            "annotation_id": [[each.id for each in some] for some in self.of],
            "category_id": [[each.category_id for each in some] for some in self.of],
            "image_id": [each.id for each in self.pictures],
        }
        if keypoints:
            count = self._points()
            points = [[self._keypoints(each, count) for each in some] for some in self.of]
            found["keypoints"] = [[row[:, :2].tolist() for row in some] for some in points]
            found["visibility"] = [[row[:, 2].astype(np.int64).tolist() for row in some] for some in points]
        return found

    def masks(self) -> Iterator[bytes]:
        """The masks of each image's objects, as a field's member. Raises `LayoutError`, `MissingExtra`."""
        for picture, some in zip(self.pictures, self.of, strict=True):
            found = [self._mask(each, (picture.height, picture.width)) for each in some]
            yield json.dumps(found, separators=(",", ":")).encode()

    def _box(self, each: Annotation) -> list[float]:
        """Corners, in the 32-bit arithmetic of torchvision's ``wrap_dataset_for_transforms_v2``."""
        if len(each.bbox) != 4 or not all(map(math.isfinite, each.bbox)) or min(each.bbox[2:]) < 0:
            raise self._wrong(each, f"bbox {each.bbox} is not [left, top, width, height]")
        near, size = np.array(each.bbox[:2], np.float32), np.array(each.bbox[2:], np.float32)
        return list(typed.shortest(np.concatenate([near, size + near])))

    def _area(self, each: Annotation) -> float:
        area = each.bbox[2] * each.bbox[3] if each.area is None else each.area
        if not math.isfinite(area):
            raise self._wrong(each, f"area {area} is not finite")
        return area

    def _points(self) -> int:
        """Keypoints of an object. Raises `LayoutError` where their number differs."""
        count = 0
        for some in self.of:
            for each in some:
                if each.keypoints:
                    count = count or len(each.keypoints) // 3
                    if len(each.keypoints) != 3 * count or not all(map(math.isfinite, each.keypoints)):
                        reason = f"has {len(each.keypoints)} numbers of keypoints, not 3 (x, y, visibility) of {count}"
                        raise self._wrong(each, reason)
        return count

    @staticmethod
    def _keypoints(each: Annotation, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array(each.keypoints or [0.0] * 3 * count, np.float64).reshape(count, 3)

    def _mask(self, each: Annotation, size: tuple[int, int]) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(each.segmentation) if bytes(each.segmentation) else None
            if isinstance(found, dict):
                return rle.text_of(found, size, "segmentation")
            return rle.text_of(_drawn(found or [], size), size, "segmentation")
        except (ValueError, msgspec.DecodeError) as error:
            raise self._wrong(each, str(error)) from error

    def _wrong(self, each: Annotation, reason: str) -> LayoutError:
        return LayoutError(str(self.path), f"annotation {each.id}", reason)


def read(path: Path) -> Objects:
    """Raises `LayoutError` for what is not COCO's form, and where ids do not fit together; `NotReadable`."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=Document)
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        reason, _, place = str(error).partition(" - at `$")
        hint = "pack annotation files of objects: instances_*.json, person_keypoints_*.json"
        raise LayoutError(str(path), place.strip("`."), _plain(reason), hint) from error
    label, classes = _categories(path, document.categories)
    row = _rows(path, document.images)
    of: list[list[Annotation]] = [[] for _ in document.images]
    seen: set[int] = set()
    for each in document.annotations:
        for what, known, value in (("image", row, each.image_id), ("category", label, each.category_id)):
            if value not in known:
                raise LayoutError(str(path), f"annotation {each.id}", f"is of the {what} {value}, which is not there")
        if each.id in seen:
            raise LayoutError(str(path), f"annotation {each.id}", "is there twice")
        seen.add(each.id)
        of[row[each.image_id]].append(each)
    return Objects(path, document.images, of, classes, label)


def _plain(reason: str) -> str:
    return f"is not COCO's form: {reason[:1].lower()}{reason[1:]}"


def _categories(path: Path, given: Sequence[Category]) -> tuple[dict[int, int], list[str]]:
    """Category id -> label, and the classes' names; one that stands for several categories gets its id."""
    ordered = sorted(given, key=lambda each: each.id)
    names = [each.name for each in ordered]
    label = {each.id: at for at, each in enumerate(ordered)}
    if len(label) != len(ordered):
        raise LayoutError(str(path), "categories", "has an id twice")
    return label, [f"{each.name} ({each.id})" if names.count(each.name) > 1 else each.name for each in ordered]


def _rows(path: Path, pictures: Sequence[Picture]) -> dict[int, int]:
    """Image id -> its place. Raises `LayoutError`."""
    if not pictures:
        raise LayoutError(str(path), "images", "is empty")
    row = {each.id: at for at, each in enumerate(pictures)}
    names = {each.name for each in pictures}
    if len(row) != len(pictures) or len(names) != len(pictures):
        raise LayoutError(str(path), "images", f"has {'an id' if len(row) != len(pictures) else 'a file_name'} twice")
    if "" in names:
        raise LayoutError(str(path), "images", "has one without a file_name")
    return row


def _drawn(polygons: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Polygons as one mask, by pycocotools. Raises ``ValueError``, `MissingExtra`."""
    height, width = size
    if not isinstance(polygons, list) or not all(isinstance(each, list) for each in polygons):
        raise ValueError("segmentation is neither polygons nor run lengths")
    if not polygons:
        return {"size": [height, width], "counts": [height * width]}
    far = FAR * max(size)
    for each in polygons:
        if len(each) < 6 or len(each) % 2 or not all(isinstance(at, int | float) and abs(at) <= far for at in each):
            raise ValueError("segmentation has a polygon that is no list of three or more points near the image")
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise MissingExtra("coco", "drawing COCO's polygons as masks") from None
    found = coco.merge(coco.frPyObjects(polygons, height, width))
    return {"size": [height, width], "counts": found["counts"]}
