"""What transforms are made with, checked: each raises `BadArgument` with the argument's name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from datahub.core.errors import BadArgument

MOST = 1 << 20
"""A count above this is a mistake, and would end in an overflow or in no memory."""


def listed(values: Any) -> tuple[Any, ...] | None:
    """The members of a sequence, an array or a tensor; None for anything else, text among it."""
    found = values.tolist() if hasattr(values, "tolist") else values
    return None if isinstance(found, str | bytes | bytearray) or not isinstance(found, Sequence) else tuple(found)


def number(name: str, value: Any) -> float:
    """A finite number."""
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:  # a whole number of hundreds of digits
        found = math.inf
    if not math.isfinite(found):
        raise BadArgument(name, value, "is not a number")
    return found


def probability(p: Any, name: str = "p") -> float:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise BadArgument(name, p, "is no probability")
    return float(p)


def whole(name: str, value: Any, least: int, most: int = MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadArgument(name, value, f"must be a whole number of at least {least}")
    if value > most:
        raise BadArgument(name, value, f"is more than {most}")
    return value


def numbers(name: str, values: Any, *counts: int) -> tuple[float, ...]:
    """A sequence of finite numbers, of one of the ``counts`` of them; without those, of one or more."""
    given = listed(values)
    if not given or (counts and len(given) not in counts):
        raise BadArgument(name, values, f"must be {' or '.join(map(str, counts)) or 'a list of'} numbers")
    return tuple(number(name, value) for value in given)


def interval(name: str, values: Any) -> tuple[float, float]:
    """The least and the most, in this order."""
    low, high = numbers(name, values, 2)
    if low > high:
        raise BadArgument(name, values, "must be the least and the most, in this order")
    return low, high


def odd_sides(name: str, value: Any) -> tuple[int, int]:
    """Width and height, odd; one number stands for both."""
    pair = (value, value) if isinstance(value, int) else listed(value) or ()
    odd = all(isinstance(each, int) and not isinstance(each, bool) and each > 0 and each % 2 for each in pair)
    if len(pair) != 2 or not odd:
        raise BadArgument(name, value, "must be an odd number, or an odd width and an odd height")
    return pair


def fill_values(fill: Any) -> tuple[float, ...] | None:
    """One value from 0 to 255, or one a channel; None for nothing."""
    if fill is None:
        return None
    given = (fill,) if isinstance(fill, int | float) else listed(fill) or ()
    right = all(isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each <= 255 for each in given)
    if not given or not right:
        raise BadArgument("fill", fill, "is neither a value from 0 to 255 nor one a channel")
    return tuple(map(float, given))
