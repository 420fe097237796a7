"""``/browse/...``: the samples of a variant in a grid, and each of them on a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from datahub.serve.library import Variant
from datahub.serve.pages import grid, marks
from datahub.serve.pages.grid import PAGE, Asked
from datahub.serve.pages.made import MADE
from datahub.serve.pages.pictures import members
from datahub.serve.pages.rendering import browse_url, html, missing, page
from datahub.serve.pages.variants import variant_of
from datahub.serve.state import SERVER
from datahub.store import typed
from datahub.store.record import Record
from datahub.wire import paths

TEXT = 300
"""Characters of a value that are shown."""
MOST = 10_000_000
"""Bytes of fields that are read for a page."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the form says. ``label``: None for all classes."""

    split: str
    label: int | None
    typed: str
    page: int

    def link(self, page: int) -> str:
        """The query of another page of the same."""
        label = "" if self.label is None else self.label
        values = {"split": self.split, "class": label, "key": self.typed, "page": page}
        return "?" + urlencode({name: value for name, value in values.items() if value != ""})


@page
async def browse(request: web.Request) -> web.StreamResponse:
    variant = await variant_of(request)
    record = variant.record
    if not record.splits or "image" not in record.fields:
        return html(request, "nothing.html", variant=variant)
    wanted = _wanted(request, record)
    asked = grid.asked(variant, wanted.split, wanted.typed) if wanted.typed else None
    everything = Asked(wanted.split, 0, record.splits[wanted.split].samples)
    shown = asked or (everything if not wanted.typed else Asked(wanted.split, 0, 0))
    rows = await _rows(request, variant, shown, wanted.label)
    last = max(1, -(-len(rows) // PAGE))
    at = min(wanted.page, last)
    cards = await grid.cards(
        request.app[SERVER].engine, variant, shown.split, [int(row) for row in rows[(at - 1) * PAGE : at * PAGE]]
    )
    return html(
        request, "browse.html", variant=variant, wanted=wanted, split=shown.split, cards=cards, total=len(rows),
        first=(at - 1) * PAGE + 1, at=at, last=last, names=names(record), counts=_counts(record, shown.split),
        strange=bool(wanted.typed) and asked is None,
    )  # fmt: skip


@page
async def sample(request: web.Request) -> web.StreamResponse:
    variant, key = await variant_of(request), request.match_info["key"]
    found = grid.row_of(variant, key)
    if found is None or "image" not in variant.record.fields:
        raise missing(f"sample {key} in {variant.ref}")
    split, row = found
    engine, entry, fields = request.app[SERVER].engine, variant.record.splits[split], variant.record.fields
    near = [each for each in (row - 1, row, row + 1) if 0 <= each < entry.samples]
    cards = {each.row: each for each in await grid.cards(engine, variant, split, near)}
    card = cards[row]
    further = typed.further(fields)
    beside = await members(engine, variant, key, sorted({each.extension for each in further.values()}))
    read = await request.app[SERVER].in_thread(
        lambda: (marks.read(fields, beside, (card.height, card.width)), _values(variant.record, beside))
    )
    places = any(each.type in typed.PLACES for each in fields.values())
    links = {each: paths.of_sample(variant.ref, key, each) for each in _extensions(variant.record)}
    return html(
        request, "sample.html", variant=variant, card=card, split=split, before=cards.get(row - 1),
        after=cards.get(row + 1), names=names(variant.record), marks=read[0], values=read[1], places=places,
        links=links, up=browse_url(variant.ref) + f"?split={split}&page={row // PAGE + 1}",
        most=marks.MOST,
    )  # fmt: skip


def names(record: Record) -> list[str]:
    """What classes are called: in words, with the identifier, where there are words."""
    if len(record.words) == len(record.classes):
        return [f"{word} ({name})" for word, name in zip(record.words, record.classes, strict=True)]
    return list(record.classes)


async def _rows(request: web.Request, variant: Variant, asked: Asked, label: int | None) -> Sequence[int]:
    if label is None:
        return range(asked.first, asked.end)
    found = await request.app[MADE].labels.rows(variant, asked.split, label)
    return found[(found >= asked.first) & (found < asked.end)]  # type: ignore[return-value]


def _wanted(request: web.Request, record: Record) -> Wanted:
    """What is no split, class or page is taken for the first, all, and the first."""
    query = request.query
    split = query.get("split", "")
    label = _number(query.get("class", ""), len(record.classes) - 1)
    return Wanted(
        split=split if split in record.splits else grid.first_split(record),
        label=label,
        typed=query.get("key", "").strip()[:128],
        page=max(1, _number(query.get("page", ""), 1 << 40) or 1),
    )


def _number(text: str, most: int) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 13 and int(text) <= most else None


def _counts(record: Record, split: str) -> list[int | None]:
    """Samples of each class, where the record says it."""
    found = record.splits[split].histogram
    return list(found) if len(found) == len(record.classes) else [None] * len(record.classes)


def _extensions(record: Record) -> list[str]:
    return list(dict.fromkeys(each.extension for each in record.fields.values()))


def _values(record: Record, beside: dict[str, bytes]) -> list[tuple[str, str, str]]:
    """Name, type and value of each further field that is not drawn."""
    found = []
    for name, spec in typed.further(record.fields).items():
        data = beside.get(spec.extension)
        if data is None or spec.type in ("masks", "mask", "bytes") or len(data) > MOST:
            value: Any = "not here" if data is None else f"{len(data):,} bytes"
        else:
            value = _stored(name, spec.type, data)
        found.append((name, spec.type, _short(value)))
    return found


def _stored(name: str, kind: str, data: bytes) -> Any:
    """What a ``.json`` member holds of a field; of what is drawn, how much it is."""
    try:
        value = typed.document(data).get(name)
    except ValueError as error:
        return str(error)
    return f"of {len(value):,} objects" if kind in typed.PLACES and isinstance(value, list) else value


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        value = [*value[:8], f"and {len(value) - 8} more"]
    text = str(value)
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"
