"""A table walked against the schema's types, field by field, so that every wrong one is found, not only the first.

What comes back is the well-typed part of the table, which the rules then judge: a field whose value has the wrong type
is left out; such an item of a list or of a table of free keys becomes None, so that its place and name still count.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from datahub.core.errors import Problem
from datahub.registry.nearest import hint

Report = Callable[[str, str], None]
"""Takes a dotted place and what is wrong there."""

BAD: Any = object()
"""What `walk` gives for a value of the wrong type."""

DEEPEST = 32
"""Tables within tables: far more than any layout needs, and far from Python's own limit."""

_WANTED = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}
_GOT = {**_WANTED, int: "a number", float: "a number", bool: "a truth value", type(None): "nothing"}


class Problems:
    """Problems in the order they were found; a place is reported once, by whoever looked first."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def __call__(self, place: str, message: str) -> None:
        self._found.setdefault(place, message)

    def __bool__(self) -> bool:
        return bool(self._found)

    def all(self) -> list[Problem]:
        return [Problem(place, message) for place, message in self._found.items()]


def under(place: str, key: str) -> str:
    """``files[0]`` and ``md5`` give ``files[0].md5``; a key that TOML would quote is shown quoted."""
    written = key if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key) else repr(key)
    return f"{place}.{written}" if place else written


def too_deep(value: object) -> bool:
    """Whether tables and lists stand in each other more than `DEEPEST` times."""
    stack = [(value, 0)]
    while stack:
        each, depth = stack.pop()
        if depth > DEEPEST:
            return True
        if isinstance(each, dict | list):
            items = each.values() if isinstance(each, dict) else each
            stack.extend((item, depth + 1) for item in items)
    return False


def walk(kind: Any, value: Any, place: str, report: Report) -> Any:
    """``value`` as far as it is a ``kind``: a schema type, ``list[...]``, ``dict[str, ...]``, a leaf. Else `BAD`."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not types.NoneType)
        origin = get_origin(kind)
    if kind is Any:
        return _free(value, place, report)
    if origin is dict:
        return _table(get_args(kind)[1], value, place, report)
    if origin is list:
        return _list(get_args(kind)[0], value, place, report)
    if origin is Literal:
        return _choice(get_args(kind), value, place, report)
    if issubclass(kind, msgspec.Struct):
        return _struct(kind, value, place, report)
    return _leaf(kind, value, place, report)


def _struct(kind: type[msgspec.Struct], value: Any, place: str, report: Report) -> Any:
    if not isinstance(value, dict):
        return _wrong(dict, value, place, report)
    fields = {each.name: each for each in msgspec.structs.fields(kind) if each.name != "digest"}
    for key in value:
        if key not in fields:
            report(under(place, str(key)), f"is not known here; {hint(str(key), fields)}")
    found: dict[str, Any] = {}
    for key, field in fields.items():
        if key in value:
            item = walk(field.type, value[key], under(place, key), report)
            if item is not BAD:
                found[key] = item
        elif field.required:
            report(under(place, key), "is missing")
    return found


def _table(kind: Any, value: Any, place: str, report: Report) -> Any:
    if not isinstance(value, dict):
        return _wrong(dict, value, place, report)
    found = {}
    for key, item in value.items():
        if not isinstance(key, str) or not _encodes(key):
            report(under(place, repr(key)), "is not a key: keys are text")
            continue
        item = walk(kind, item, under(place, key), report)
        found[key] = None if item is BAD else item
    return found


def _list(kind: Any, value: Any, place: str, report: Report) -> Any:
    if not isinstance(value, list):
        return _wrong(list, value, place, report)
    items = [walk(kind, item, f"{place}[{i}]", report) for i, item in enumerate(value)]
    return [None if item is BAD else item for item in items]


def _choice(choices: Iterable[str], value: Any, place: str, report: Report) -> Any:
    if isinstance(value, str) and value in choices:
        return value
    report(place, f"must be one of {', '.join(repr(each) for each in choices)}, not {_got(value)}")
    return BAD


def _leaf(kind: type, value: Any, place: str, report: Report) -> Any:
    try:
        return _free(msgspec.convert(value, kind), place, report)
    except msgspec.ValidationError:
        return _wrong(kind, value, place, report)


def _free(value: Any, place: str, report: Report) -> Any:
    """Plain data of any shape: what JSON holds, so that it has one canonical form."""
    if isinstance(value, dict):
        return _table(Any, value, place, report)
    if isinstance(value, list):
        return _list(Any, value, place, report)
    if wrong := _not_plain(value):
        report(place, wrong)
        return BAD
    return value


def _not_plain(value: Any) -> str:
    if isinstance(value, str):
        return "" if _encodes(value) else "is not valid Unicode text"
    if isinstance(value, int):
        return "" if abs(value) < 1 << 63 else "is too large a number"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "must be a finite number"
    return f"must be text, a number, true or false, a list or a table, not {_got(value)}"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(kind: type, value: Any, place: str, report: Report) -> Any:
    report(place, f"must be {_WANTED[kind]}, not {_got(value)}")
    return BAD


def _got(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "a number that large"  # and never its digits: Python refuses to write out very many
    if isinstance(value, str | int | float) and len(shown := repr(value)) <= 40:
        return shown.lower() if isinstance(value, bool) else shown
    name = type(value).__name__
    return _GOT.get(type(value), f"{'an' if name[0] in 'aeiou' else 'a'} {name}")
