"""Boxes, labels, masks, keypoints and bytes of a batch: read beside the images, moved as they are, and wrapped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.store import typed
from datahub.store.dataset import Split
from datahub.store.record import FieldSpec
from datahub.stream.spans import Data, Spans
from datahub.tensor.annotations import nothing, wrap
from datahub.tensor.batched import BatchTransform
from datahub.tensor.draws import Draws
from datahub.tensor.following import follow
from datahub.tensor.geometry import sanitizes, stages, unable
from datahub.tensor.turning import turn

Read = Callable[[Spans], Sequence[Data]]
"""Reads members of the shards."""
Damage = Callable[[int, str, str], None]
"""Takes a row, the member and what is wrong with it; raises, or goes on without the sample."""
Values = dict[str, Any]
"""A sample's arrays and bytes, by field."""


class Annotations:
    """Safe to use from many threads. ``specs``: the fields that are read, by name."""

    def __init__(self, split: Split, specs: dict[str, FieldSpec]) -> None:
        self._split, self._specs = split, specs
        self._listed = {name: spec for name, spec in specs.items() if spec.type in typed.ROWS}

    @staticmethod
    def of(split: Split, names: Sequence[str], transform: Any) -> Annotations | None:
        """None where a batch shows nothing of the kind. Raises `BadArgument` where they cannot follow ``transform``."""
        fields = split.dataset.record.fields
        specs = {name: fields[name] for name in names if name in fields and fields[name].type in typed.TYPES}
        _check(specs, transform)
        if sanitizes(transform) and any(spec.type in typed.OBJECTS for spec in specs.values()):
            specs |= {
                name: spec for name, spec in fields.items() if spec.type == "boxes"
            }  # they say which objects stay
        return Annotations(split, specs) if specs else None

    @property
    def names(self) -> frozenset[str]:
        """The fields that a batch always shows as lists."""
        return frozenset(name for name, spec in self._specs.items() if spec.type != "video")

    @property
    def placed(self) -> bool:
        """Whether some of them have to follow what becomes of the image."""
        return any(spec.type in typed.PLACES for spec in self._specs.values())

    def offset(self, row: int, stem: str) -> int:
        """Where a member is in its shard."""
        return int(self._split.beside.of(stem)[0][row])

    @property
    def _stems(self) -> Sequence[str]:
        return typed.stems({name: spec.type for name, spec in self._specs.items()})

    def spans(self, index: NDArray[np.int64], rows: NDArray[Any]) -> list[Spans]:
        """Where the members are that `read` reads, those of each kind together."""
        places = [self._split.beside.of(stem) for stem in self._stems]
        return [Spans(rows["shard"], offset[index], size[index]) for offset, size in places]

    def read(self, index: NDArray[np.int64], rows: NDArray[Any], read: Read, damage: Damage) -> list[Values]:
        """The values of some samples, whose places ``rows`` say. A damaged one lacks what cannot be read of it."""
        found: list[Values] = [{} for _ in index]
        for stem, spans in zip(self._stems, self.spans(index, rows), strict=True):
            for row, data in enumerate(read(spans)):
                try:
                    found[row] |= self._values(stem, data, (int(rows["height"][row]), int(rows["width"][row])))
                except ValueError as error:
                    damage(row, stem, str(error))
        return found

    def _values(self, stem: str, data: Data, size: tuple[int, int]) -> Values:
        """What a member holds. Raises ``ValueError``."""
        listed = typed.document(data) if stem not in self._specs else {}
        wanted = self._listed if stem not in self._specs else {stem: self._specs[stem]}
        values = {}
        for name, spec in wanted.items():
            try:
                values[name] = typed.member(spec, data, size) if name == stem else typed.array(spec, listed.get(name))
            except ValueError as error:
                raise ValueError(f"its {name} {error}") from error
        return values

    def finish(
        self,
        values: list[Values],
        rows: NDArray[Any],
        aside: Collection[int],
        transform: Any,
        draws: Draws,
        turns: Sequence[int] = (),
    ) -> dict[str, list[Any]]:
        """The batch's fields as lists, moved as ``transform`` moves the images. Rows ``aside`` hold nothing.

        ``turns``: EXIF orientations by which the images are turned before; none: they are not.
        """
        values = [dict(value) for value in values]
        sizes = np.stack([rows["height"], rows["width"]], axis=1).astype(np.int64)
        for row in aside:
            size = sizes[row, 0].item(), sizes[row, 1].item()
            values[row] = {name: nothing(spec, size) for name, spec in self._specs.items()}
        if any(each != 1 for each in turns):
            sizes = turn(self._specs, values, sizes, [1 if row in aside else each for row, each in enumerate(turns)])
        if isinstance(transform, BatchTransform):
            sizes = follow(self._specs, values, sizes, stages(transform, sizes, draws))
        shapes = [(height, width) for height, width in sizes.tolist()]
        return {
            name: [wrap(spec, value[name], shape) for value, shape in zip(values, shapes, strict=True)]
            for name, spec in self._specs.items()
        }


def _check(specs: dict[str, FieldSpec], transform: Any) -> None:
    """Every annotation that has a place must follow what becomes of the images, or nothing does."""
    placed = [name for name, spec in specs.items() if spec.type in typed.PLACES]
    if not placed or transform is None:
        return
    if not isinstance(transform, BatchTransform):
        hint = "use datahub.transforms, do it to the whole sample in map=, or leave them out of fields="
        raise BadArgument("transform", _name(transform), f"sees images alone, and {placed[0]} would not follow", hint)
    part = unable(transform)
    if part is not None:
        hint = "leave it out, do it to the whole sample in map=, or leave them out of fields="
        raise BadArgument("transform", _name(part), f"moves pixels where {placed[0]} cannot follow", hint)


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", type(transform).__name__)
