"""The members that stand beside an image and its label: the ``.json`` of further fields, masks, bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datahub.pack import scaling
from datahub.pack.images import Looks
from datahub.store import typed
from datahub.store.record import FieldSpec


@dataclass(frozen=True, slots=True)
class Beside:
    """``scalars``: the fields of the ``.json``, each with its type; ``members``: those with a member of their own."""

    scalars: Mapping[str, str]
    members: Mapping[str, FieldSpec]

    @property
    def stems(self) -> list[str]:
        """Members whose places the index knows."""
        return typed.stems({**self.scalars, **{name: spec.type for name, spec in self.members.items()}})

    def files(self, values: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
        """(stem, extension, data) of a sample's members, in their order."""
        if self.scalars:
            yield typed.JSON, typed.JSON, document(values, self.scalars)
        for name, spec in self.members.items():
            yield name, spec.extension, files[name]

    @property
    def placed(self) -> bool:
        """Whether some of it says something of places in the image."""
        return any(kind in typed.PLACES for kind in (*self.scalars.values(), *(m.type for m in self.members.values())))

    def scaled(
        self, values: Mapping[str, Any], files: Mapping[str, bytes], before: Looks, after: Looks
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """A sample's fields and members when its image has another size. Raises ``ValueError``."""
        sizes = (before.height, before.width), (after.height, after.width)
        rows = {name: _told(name, scaling.rows, self.scalars[name], value, *sizes) for name, value in values.items()}
        made = {name: _told(name, scaling.member, self.members[name], data, *sizes) for name, data in files.items()}
        return rows, made

    def damage(self, files: Mapping[str, bytes], look: Looks) -> str:
        """Why a mask is not one of this image or a video none, "" where its header says nothing against it."""
        for name, spec in self.members.items():
            try:
                size = typed.size_of(spec, files[name])
            except ValueError as error:
                return f"{name} {error}"
            if size is not None and size != (look.height, look.width):
                return f"{name} is {size[1]} x {size[0]}, the image {look.width} x {look.height}"
        return ""


def _told(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


def document(values: Mapping[str, Any], kinds: Mapping[str, str]) -> bytes:
    """The sample's ``.json``: further fields by name; those of type json are stored as the values they say."""
    plain = {name: _value(kinds[name], value) for name, value in values.items()}
    return json.dumps(plain, sort_keys=True, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _value(kind: str, value: Any) -> Any:
    if kind in typed.ROWS:
        return [] if value is None else typed.plain(kind, value)
    return json.loads(value) if kind == "json" and value is not None else value
