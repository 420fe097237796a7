"""What a loader takes in place of a reference: `mix` of datasets, `balanced` and `weighted` sampling of one.

These are descriptions: nothing is opened, and their text in a state is all that a resumed run is held to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational, Real
from typing import Any, Literal

from datahub.core.errors import BadArgument
from datahub.core.refs import SHARDS, SPLIT, Ref
from datahub.order.mixture import RUN

Labels = Literal["same", "own"]
Value = str | int
Exact = tuple[int, ...]

EXACT = 10_000
"""Weights of strata whose whole-number form sums to at most this are exact; others are rounded to parts of it."""
LEAST = 10
"""Parts a stratum has on average where weights are rounded."""


@dataclass(frozen=True, slots=True)
class Mix:
    """``members``: "REF" or "REF:SPLIT", with thousandths that sum to 1000. Made by `mix`."""

    members: tuple[tuple[str, int], ...]
    stop: Literal["longest", "shortest"] | int
    labels: Labels = "same"


@dataclass(frozen=True, slots=True)
class Weighted:
    """``weights`` by value of the column ``by``; None: all values alike. Made by `balanced` and `weighted`."""

    ref: str
    weights: tuple[tuple[Value, Fraction], ...] | None
    by: str
    stop: Literal["size", "longest", "shortest"] | int


def mix(
    weights: Mapping[str | Ref, float],
    *,
    stop: Literal["longest", "shortest"] | int = "longest",
    labels: Labels = "same",
) -> Mix:
    """A mixture for a loader: ``StreamingLoader(datahub.mix({"a": 0.7, "b": 0.3}), ...)``.

    Of every 1000 samples in a row (of a lane, counted from its start) exactly 700 are of a; weights are multiples of
    1/1000 that sum to 1. A key is REF, for the loader's split, or "REF:SPLIT". Each dataset is walked pass after pass,
    every pass in an order of its own. The epoch ends when each was seen whole (``"longest"``), before one would repeat
    (``"shortest"``), or after a number of steps. Batches show ``dataset``, the number of the member, beside ``index``,
    the row in its split. ``labels="same"`` wants equal lists of classes; ``"own"`` leaves each its own numbers, -1
    where it has none. A loader's ``where``, ``part`` and ``max_samples`` apply to each member.
    """
    if not isinstance(weights, Mapping) or len(weights) < 2:
        raise BadArgument("mix", weights, "needs two datasets or more", 'write datahub.mix({"a": 0.7, "b": 0.3})')
    if labels not in ("same", "own"):
        raise BadArgument("labels", labels, 'must be "same" or "own"')
    names = [_named(each) for each in weights]
    return Mix(tuple(zip(names, _thousandths(weights), strict=True)), _stop(stop, ("longest", "shortest")), labels)


def balanced(
    ref: str | Ref, *, by: str = "label", stop: Literal["size", "longest", "shortest"] | int = "size"
) -> Weighted:
    """Class-balanced sampling: every class equally often, exactly once in each run of as many samples as classes.

    ``by`` names another column of the index. Each class is walked pass after pass, so a rare one repeats and none of
    its samples twice before all were seen. An epoch has as many samples as take part (``"size"``); or ends when every
    class was seen whole (``"longest"``), before one would repeat (``"shortest"``), or after a number of steps. Needs
    ``window="all"``, the default.
    """
    return Weighted(_reference(ref), None, _column(by), _stop(stop, ("size", "longest", "shortest")))


def weighted(
    ref: str | Ref,
    weights: Mapping[Value, float],
    *,
    by: str = "label",
    stop: Literal["size", "longest", "shortest"] | int = "size",
) -> Weighted:
    """`balanced` with a weight for each class, by name or number: ``datahub.weighted("pets", {"cat": 2, "dog": 1})``.

    Weights are relative; classes that are not named, or weigh 0, are left out. Weights that are not whole numbers of a
    run of 10,000 samples are rounded to such.
    """
    if not isinstance(weights, Mapping) or not weights:
        raise BadArgument("weights", weights, "names no class", 'write {"cat": 2, "dog": 1}')
    found = []
    for value, weight in weights.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadArgument("weights", value, "is no class", "use names or numbers of classes")
        if not _is_number(weight) or weight < 0:
            raise BadArgument("weights", weight, f"of {value!r} is no weight", "use numbers of at least 0")
        if weight:
            found.append((value, _fraction(weight)))
    if not found:
        raise BadArgument("weights", dict(weights), "are all 0")
    return Weighted(_reference(ref), tuple(found), _column(by), _stop(stop, ("size", "longest", "shortest")))


def member_of(name: str) -> tuple[str, str | None]:
    """ "REF:SPLIT" -> (REF, SPLIT); the split is None where it is not named, as in ``wds:SHARDS``."""
    if name.startswith(SHARDS):
        return name, None
    ref, _, split = name.partition(":")
    return ref, split or None


def whole_shares(weights: Sequence[Fraction], names: Sequence[object]) -> Exact:
    """Entries of each stratum in a run: exact where that takes at most `EXACT`, else rounded to parts of a run.

    Raises `BadArgument` for a weight that would round to nothing.
    """
    common = math.lcm(*(each.denominator for each in weights))
    exact = [int(each * common) for each in weights]
    divisor = math.gcd(*exact)
    if sum(exact) // divisor <= EXACT:
        return tuple(each // divisor for each in exact)
    parts = max(EXACT, LEAST * len(weights))
    shares = _largest_remainder(weights, parts)
    if 0 in shares:
        reason = f"is less than 1/{parts} of all weights"
        raise BadArgument("weights", names[shares.index(0)], reason, "give it 0, or more")
    return tuple(shares)


def _thousandths(weights: Mapping[Any, float]) -> list[int]:
    for name, weight in weights.items():
        if not _is_number(weight) or not weight > 0:
            raise BadArgument("mix", weight, f"is no weight for {name}", "weights are positive and sum to 1")
    fractions = [_fraction(each) * RUN for each in weights.values()]
    found = [round(each) for each in fractions]
    if sum(found) == RUN and all(abs(a - b) < Fraction(1, 10**6) for a, b in zip(fractions, found, strict=True)):
        return found
    near = _largest_remainder(fractions, RUN)
    if 0 in near:
        raise BadArgument("mix", dict(weights), f"a weight is less than 1/{RUN} of all", "leave that dataset out")
    hint = ", ".join(f'"{name}": {share / RUN:g}' for name, share in zip(weights, near, strict=True))
    raise BadArgument("mix", dict(weights), f"weights must be multiples of 1/{RUN} that sum to 1", f"write {{{hint}}}")


def _largest_remainder(weights: Sequence[Fraction], parts: int) -> list[int]:
    """Whole numbers that sum to ``parts``, each within 1 of its weight's part (Hamilton's method)."""
    total = sum(weights)
    ideal = [each * parts / total for each in weights]
    found = [math.floor(each) for each in ideal]
    by_rest = sorted(range(len(found)), key=lambda i: (found[i] - ideal[i], i))
    for i in by_rest[: parts - sum(found)]:
        found[i] += 1
    return found


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _fraction(value: Any) -> Fraction:
    """A float as the decimal number it is written as: 0.1 is a tenth."""
    return Fraction(value) if isinstance(value, Rational) else Fraction(str(float(value)))


def _stop(stop: Any, words: Sequence[str]) -> Any:
    if stop in words and isinstance(stop, str):
        return stop
    if isinstance(stop, int) and not isinstance(stop, bool) and stop >= 1:
        return stop
    allowed = ", ".join(f'"{word}"' for word in words)
    raise BadArgument("stop", stop, f"must be {allowed} or a number of steps")


def _named(name: Any) -> str:
    text = str(name) if isinstance(name, Ref) else name
    if not isinstance(text, str):
        raise BadArgument("mix", name, "is not a dataset's reference", 'write {"a": 0.7, "b:test": 0.3}')
    if text.startswith(SHARDS):
        return text
    ref, split = member_of(text)
    if ":" in text and not (split and SPLIT.fullmatch(split)):
        raise BadArgument("mix", text, f"{split!r} is not a split's name", "write REF or REF:SPLIT")
    Ref.parse(ref)
    return text


def _reference(ref: Any) -> str:
    if not isinstance(ref, str | Ref):
        raise BadArgument("ref", ref, "is not a dataset's reference", "sample one dataset, then mix loaders' output")
    return str(Ref.parse(ref) if isinstance(ref, str) else ref)


def _column(by: Any) -> str:
    if not isinstance(by, str) or not by:
        raise BadArgument("by", by, "is not a column's name")
    return by
