"""Raw layouts: what a manifest calls ``layout.kind`` becomes a `Source` of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from datahub.core.errors import BadArgument
from datahub.pack.layouts import cifar, idx, shapes

if TYPE_CHECKING:
    from datahub.acquire import Verified
    from datahub.pack.source import Source
    from datahub.registry.schema import Layout


class Opener(Protocol):
    def __call__(
        self,
        options: Mapping[str, Any],
        files: Mapping[str, Verified],
        /,
        *,
        splits: Mapping[str, int],
        classes: Sequence[str],
    ) -> Source: ...


KINDS: Mapping[str, Opener] = {"idx": idx.open_source, "cifar": cifar.open_source, "shapes": shapes.open_source}


def open_source(
    layout: Layout, files: Mapping[str, Verified], *, splits: Mapping[str, int], classes: Sequence[str]
) -> Source:
    """The samples inside verified ``files`` (by role). Options are checked now, files when they are first read.

    Raises `BadArgument` for an unknown kind and for options that do not fit it.
    """
    opener = KINDS.get(layout.kind)
    if opener is None:
        raise BadArgument("layout.kind", layout.kind, "is not a layout", f"known: {', '.join(sorted(KINDS))}")
    return opener(layout.options, files, splits=splits, classes=classes)
