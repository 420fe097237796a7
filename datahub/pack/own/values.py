"""What people's values become: labels, and further fields as int, float, text or json.

A value that a type would change is not of that type: an ID of 19 digits is no float, infinity is no JSON. NaN is none:
the index and JSON have nulls for that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|nan", re.IGNORECASE | re.ASCII)
"""Not ``007`` or ``1_000``, which are names."""
LONG = re.compile(r"[-+]?[0-9]{16,}")
"""Digits that a float may not hold."""
INT64 = range(-(2**63), 2**63)
EXACT = 2**53
"""Whole numbers up to which a float holds every one."""


def text(value: object) -> str:
    """``value`` as text that UTF-8 can hold."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float | np.floating) and math.isnan(value))


def integer(value: Any) -> int | None:
    """The whole number that ``value`` says as it is usually written, None where it says none or one beyond 64 bits."""
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, int | np.integer) and int(value) in INT64:
        return int(value)
    return None


def number(value: Any) -> float | None:
    """The finite number that ``value`` says; None where it says none, or one that a float does not hold."""
    if isinstance(value, str) and (not DECIMAL.fullmatch(value) or LONG.fullmatch(value)):
        return None
    if isinstance(value, int | np.integer) and abs(int(value)) > EXACT:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isinf(found) else found


def document(value: object) -> str:
    """``value`` as JSON, NaN and infinity as null, what JSON does not know as text."""
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), sort_keys=True, allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | time | timedelta | UUID | bytes):
        return text(value)
    raise TypeError(f"a {type(value).__name__} has no form in it")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def typed(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """The narrowest of int, float, text and json that holds every value, and the values as such; "" is none."""
    plain = [None if missing(each) else each for each in values]
    there = [each for each in plain if each is not None]
    if any(isinstance(each, dict | list | tuple) for each in there):
        return "json", [None if each is None else document(each) for each in plain]
    if there and len(there) == len(plain) and all(integer(each) is not None for each in there):
        return "int", [integer(each) for each in plain]
    if there and all(_counts(each) for each in there):
        numbers = [None if each is None else number(each) for each in plain]
        return "float", [None if each is None or math.isnan(each) else each for each in numbers]
    return "text", [None if each is None else text(each) for each in plain]


def _counts(value: Any) -> bool:
    return number(value) is not None
