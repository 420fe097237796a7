"""What transforms are made with, checked: each raises `BadArgument` with the argument's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datahub.core.errors import BadArgument


def number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise BadArgument(name, value, "is not a number")
    return float(value)


def probability(p: Any, name: str = "p") -> float:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise BadArgument(name, p, "is no probability")
    return float(p)


def whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadArgument(name, value, f"must be a whole number of at least {least}")
    return value


def numbers(name: str, values: Any, *counts: int) -> tuple[float, ...]:
    """A sequence of finite numbers, of one of the ``counts`` of them."""
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) not in counts:
        raise BadArgument(name, values, f"must be {' or '.join(map(str, counts))} numbers")
    return tuple(number(name, value) for value in values)


def interval(name: str, values: Any) -> tuple[float, float]:
    """The least and the most, in this order."""
    low, high = numbers(name, values, 2)
    if low > high:
        raise BadArgument(name, values, "must be the least and the most, in this order")
    return low, high


def odd_sides(name: str, value: Any) -> tuple[int, int]:
    """Width and height, odd; one number stands for both."""
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(each, int) and each > 0 and each % 2 for each in pair):
        raise BadArgument(name, value, "must be an odd number, or an odd width and an odd height")
    return pair


def fill_values(fill: Any) -> tuple[float, ...] | None:
    """One value from 0 to 255, or one a channel; None for nothing."""
    if fill is None:
        return None
    given = (fill,) if isinstance(fill, int | float) else tuple(fill) if isinstance(fill, Sequence) else ()
    if not given or any(isinstance(each, bool | str) or not 0 <= each <= 255 for each in given):
        raise BadArgument("fill", fill, "is neither a value from 0 to 255 nor one a channel")
    return tuple(map(float, given))
