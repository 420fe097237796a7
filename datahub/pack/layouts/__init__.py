"""Raw layouts: what a manifest calls ``layout.kind`` becomes a `Source` of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datahub.core.errors import BadArgument
from datahub.core.events import Listener, ignore

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


KINDS = ("cifar", "idx", "shapes")
LISTED = ("ilsvrc", "imagefolder")
"""Modules of this package; each is imported when it is needed."""


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
    if layout.kind in KINDS:
        opener: Opener = import_module(f"{__name__}.{layout.kind}").open_source
        return opener(layout.options, files, splits=splits, classes=classes)
    if layout.kind in LISTED and scratch is not None:
        lister: Lister = import_module(f"{__name__}.{layout.kind}").open_source
        return lister(layout.options, files, splits=splits, classes=classes, scratch=scratch, listener=listener)
    known = ", ".join(sorted([*KINDS, *LISTED]))
    raise BadArgument("layout.kind", layout.kind, "is not a layout", f"known: {known}")
