"""Fields with a row an object among the rows of a source: their labels numbered, their form in the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datahub.core.errors import BadArgument
from datahub.store import index, typed
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    from datahub.pack.own.tables import Rows

LONGEST = 40
"""Letters of the name of a field with a member of its own: a member's name has 99, of which a split's takes some."""


def label_fields(rows: Rows) -> list[str]:
    """The fields that hold the class of each object."""
    return [name for name in rows.further if rows.kinds.get(name) == "labels"]


def pooled(rows: Rows) -> tuple[list[Any], list[str]]:
    """Every label of every sample and object, and where each is told of: classes are numbered over all of them."""
    every = [rows.place(at) for at in range(len(rows.table))]
    labels = list(rows.labels or [])
    places = [*every] if rows.labels is not None else []
    for name in label_fields(rows):
        for place, values in zip(every, rows.further[name], strict=True):
            labels += values or []
            places += [place] * len(values or [])
    return labels, places


def numbered(rows: Rows, numbers: Sequence[int]) -> tuple[list[int] | None, dict[str, list[Any]]]:
    """The samples' labels and the further fields, with the numbers of all `pooled` labels put back."""
    at = len(rows.labels) if rows.labels is not None else 0
    own = list(numbers[:at]) if rows.labels is not None else None
    further = dict(rows.further)
    for name in label_fields(rows):
        found = []
        for values in rows.further[name]:
            count = len(values or [])
            found.append(list(numbers[at : at + count]))
            at += count
        further[name] = found
    return own, further


def field_of(name: str, kind: str, values: Sequence[Any]) -> FieldSpec:
    """A further field as the record has it. Raises `BadArgument`."""
    if kind.partition(":")[0] not in typed.TYPES:
        return FieldSpec(type=kind, extension="json")
    try:
        return typed.spec(name, kind, _shape(kind, values))
    except ValueError as error:
        raise BadArgument("fields", kind, str(error)) from None


def _shape(kind: str, values: Sequence[Any]) -> list[int] | None:
    """(K, 2) of keypoints and (K,) of visibility, where every object has as many."""
    if kind not in ("keypoints", "visibility"):
        return None
    counts = {len(row) for rows in values for row in rows or ()}
    if len(counts) != 1:
        return None
    (count,) = counts
    return [count, 2] if kind == "keypoints" else [count]


def task_of(fields: Mapping[str, FieldSpec]) -> str:
    """What a dataset of these fields is for, as Hugging Face calls it."""
    kinds = {spec.type for spec in fields.values()}
    if "keypoints" in kinds:
        return "keypoint-detection"
    if "boxes" in kinds:
        return "object-detection"
    if kinds & {"mask", "masks"}:
        return "image-segmentation"
    return "image-classification" if "label" in fields else "images"


def check_columns(fields: Mapping[str, FieldSpec]) -> None:
    """Raises `BadArgument` for fields that cannot stand side by side in one index, or in one shard."""
    kinds = typed.kinds(fields)
    scalars = [name for name, kind in kinds.items() if kind not in typed.MEMBERS]
    columns = index.columns(scalars, "label" in fields, typed.stems(kinds))
    for name, kind in kinds.items():
        if columns.count(name) > 1 or (kind in typed.MEMBERS and name in (*columns, typed.JSON)):
            raise BadArgument("fields", name, "is the name of another column of the index", "choose another")
        if kind in typed.MEMBERS and len(name) > LONGEST:
            raise BadArgument("fields", name, f"has {len(name)} letters, a field of type {kind} at most {LONGEST}")
    boxes = [name for name, kind in kinds.items() if kind == "boxes"]
    if len(boxes) > 1:
        raise BadArgument("fields", boxes[1], f"a sample has one field of boxes, and that is {boxes[0]}")
