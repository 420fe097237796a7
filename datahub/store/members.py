"""What stands beside a sample's image in its shard: where it is, and its value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datahub.core.errors import DamagedSample
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from datahub.store.dataset import Split

Wrap = Callable[[FieldSpec, Any, tuple[int, int]], Any]
"""Makes what a sample shows of a field from its array, given the image's height and width."""


class Places:
    """Offsets and sizes of a split's further members, read from its index when one is first asked for."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._found: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def of(self, stem: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64 ``(n,)`` each, in sample order; of the data, not of tar headers."""
        found = self._found.get(stem)
        if found is None:  # threads may both read it
            from datahub.store.arrow import numbers

            names = [f"{stem}_offset", f"{stem}_size"]
            table = self._split.table(columns=names)
            found = self._found[stem] = (numbers(table[names[0]]), numbers(table[names[1]]))
        return found


def value(split: Split, index: int, name: str) -> Any:
    """A field that is not in the index: an array or bytes. Raises `DamagedSample`."""
    from datahub.store import typed

    spec = split.dataset.record.fields[name]
    stem = name if spec.type in typed.MEMBERS else typed.JSON
    data = split.member(index, stem)
    row = split.locate[index]
    size = int(row["height"]), int(row["width"])
    try:
        if spec.type in typed.ROWS:
            found: Any = typed.array(spec, typed.document(data).get(name))
        else:
            found = typed.member(spec, data, size)
    except ValueError as error:
        shard = split.shards[int(row["shard"])].name
        raise DamagedSample(shard, split.key(index), int(split.beside.of(stem)[0][index]), f"{name} {error}") from error
    wrap = split.dataset.wrap
    return found if wrap is None else wrap(spec, found, size)


def plain(spec: FieldSpec, stored: Any) -> Any:
    """The value of a field that is in the index."""
    return json.loads(stored) if spec.type == "json" and stored is not None else stored


def check_further(
    fields: Mapping[str, FieldSpec], found: Mapping[str, tuple[int, bytes]], row: Mapping[str, Any], *, whole: bool
) -> None:
    """Raises ``ValueError`` where a sample's further members are not as its ``row`` of the index says.

    ``found``: extension -> where the data are and what they are. ``whole``: masks are decoded, too.
    """
    from datahub.store import typed

    for stem in typed.stems(typed.kinds(fields)):
        offset, data = found[fields[stem].extension if stem in fields else typed.JSON]
        if (offset, len(data)) != (row[f"{stem}_offset"], row[f"{stem}_size"]):
            raise ValueError(f"its {stem} is {len(data)} bytes at {offset}, not as the index says")
    for name, spec in typed.further(fields).items():
        data = found[spec.extension][1]
        try:
            if spec.type not in typed.MEMBERS:
                _check_value(spec, typed.document(data)[name], row[name])
            elif whole:
                typed.member(spec, data, (row["height"], row["width"]))
        except KeyError:
            raise ValueError(f"its {spec.extension} member does not hold {name}") from None
        except ValueError as error:
            raise ValueError(f"its {name} {error}") from error


def _check_value(spec: FieldSpec, found: Any, stored: Any) -> None:
    """Raises ``ValueError`` where the ``.json`` and the index differ."""
    from datahub.store import typed

    if spec.type in typed.ROWS:
        if not typed.same(spec, found, stored):
            raise ValueError("is not as the index says")
    elif found != plain(spec, stored) and found == found:  # NaN differs from itself
        raise ValueError(f"is {found}, the index says {stored}")
