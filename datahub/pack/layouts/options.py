"""Layout options: a manifest's plain tables become typed, frozen structs, or a `BadArgument` that names the place."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from datahub.core.errors import BadArgument

FIELD = re.compile(r"[a-z][a-z0-9_]*")
PLACE = "layout.options"

TAKEN = frozenset(
    (
        *("image", "key", "source", "shard", "offset", "size", "width", "height", "format", "sha256"),
        *("image_offset", "image_size", "label_offset", "label_size"),
        *("json_offset", "json_size"),
        *("index", "valid", "n_global"),
    )
)
"""Names in every index, every sample or every batch."""

T = TypeVar("T", bound=msgspec.Struct)
_FIRST = threading.Lock()
"""Of several threads one reads a form: see `datahub.core.learning`."""


def read(options: Mapping[str, Any], form: type[T], place: str = PLACE) -> T:
    """``options`` as a ``form``; unknown names are refused beside the known ones."""
    known = form.__struct_fields__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadArgument(place, name, "is not an option of this layout", f"{hint}known: {', '.join(known)}")
    try:
        with _FIRST:
            return msgspec.convert(dict(options), form)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        name = f"{place}{where.rstrip('`')}"
        raise BadArgument(name, _value(options, where), reason[:1].lower() + reason[1:]) from error


def field_name(name: str, place: str) -> None:
    """Raise `BadArgument` unless ``name`` can name a field of a sample."""
    if not FIELD.fullmatch(name) or len(name) > 64:
        reason = "is not a field name: lower-case letters, digits and '_', at most 64"
        raise BadArgument(place, name, reason)
    if name in TAKEN:
        raise BadArgument(place, name, "is a name every sample has already", "choose another")


def _value(options: Any, where: str) -> Any:
    """What stands at msgspec's path ``.splits[...].images``, as far as it can be followed."""
    for step in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", where):
        name, index = step
        try:
            options = options[name] if name else options[int(index)]
        except (KeyError, IndexError, TypeError):
            break
    return options if not isinstance(options, dict | list) else type(options).__name__
