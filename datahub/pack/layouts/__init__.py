"""Raw layouts: what a manifest calls ``layout.kind`` becomes a `Source` of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datahub.core.errors import BadArgument
from datahub.core.events import Listener, ignore
from datahub.pack.layouts import cifar, idx, ilsvrc, imagefolder, shapes

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


class Lister(Protocol):
    """Opens a layout of many files: it lists them first, and keeps the list in ``scratch``."""

    def __call__(
        self,
        options: Mapping[str, Any],
        files: Mapping[str, Verified],
        /,
        *,
        splits: Mapping[str, int],
        classes: Sequence[str],
        scratch: Path,
        listener: Listener,
    ) -> Source: ...


KINDS: Mapping[str, Opener] = {"idx": idx.open_source, "cifar": cifar.open_source, "shapes": shapes.open_source}
LISTED: Mapping[str, Lister] = {"ilsvrc": ilsvrc.open_source, "imagefolder": imagefolder.open_source}


def open_source(
    layout: Layout,
    files: Mapping[str, Verified],
    *,
    splits: Mapping[str, int],
    classes: Sequence[str],
    scratch: Path | None = None,
    listener: Listener = ignore,
) -> Source:
    """The samples inside verified ``files`` (by role). Options are checked now; files when they are first read, or now
    where they must be listed.

    Raises `BadArgument` for an unknown kind and for options that do not fit it.
    """
    if opener := KINDS.get(layout.kind):
        return opener(layout.options, files, splits=splits, classes=classes)
    if (lister := LISTED.get(layout.kind)) and scratch is not None:
        return lister(layout.options, files, splits=splits, classes=classes, scratch=scratch, listener=listener)
    known = ", ".join(sorted([*KINDS, *LISTED]))
    raise BadArgument("layout.kind", layout.kind, "is not a layout", f"known: {known}")
