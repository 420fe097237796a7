from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.pack.own import tables
from datahub.pack.own.values import document, integer, number, typed
from datahub.store.index import columns


@pytest.mark.parametrize(
    ("values", "kind", "made"),
    [
        (["1", "2"], "int", [1, 2]),
        ([1, 2.5], "float", [1.0, 2.5]),
        (["1", ""], "float", [1.0, None]),
        (["0.5", "nan"], "float", [0.5, None]),
        ([float("nan"), None], "text", [None, None]),
        (["0.5", "inf"], "text", ["0.5", "inf"]),
        (["007", "1"], "text", ["007", "1"]),
        (["0.50", "1e3", "-2", ".5"], "float", [0.5, 1000.0, -2.0, 0.5]),
        (["1_000"], "text", ["1_000"]),
        (["9223372036854775807"], "int", [2**63 - 1]),
        (["9223372036854775808"], "text", ["9223372036854775808"]),
        ([2**64 - 1, 1], "text", ["18446744073709551615", "1"]),
        ([2**60, 0.5], "text", ["1152921504606846976", "0.5"]),
        (["\ud800"], "text", ["\\ud800"]),
        ([[1, float("nan")], None], "json", ["[1, null]", None]),
        ([{"a": float("inf")}], "json", ['{"a": null}']),
    ],
)
def test_the_narrowest_type_that_changes_no_value(values: list[Any], kind: str, made: list[Any]) -> None:
    assert typed(values) == (kind, made)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.lists(JSON, min_size=1))
def test_every_value_fits_an_index_and_a_json_document(values: list[Any]) -> None:
    kind, made = typed(values)
    for each in made:
        if each is None:
            continue
        if kind == "int":
            assert -(2**63) <= each < 2**63
        elif kind == "float":
            assert math.isfinite(each)
        else:
            each.encode()
            if kind == "json":
                json.loads(each, parse_constant=pytest.fail)


@given(st.integers() | st.integers().map(str))
def test_whole_numbers_are_exact_or_none(value: int | str) -> None:
    assert integer(value) in (int(value), None)
    assert number(value) in (int(value), None)


def test_what_json_does_not_know_is_text() -> None:
    assert document({"when": b"x", "n": [1, (2, 3)]}) == """{"n": [1, [2, 3]], "when": "b'x'"}"""


@given(st.lists(st.text(max_size=80) | st.sampled_from(columns([], True)), unique=True))
def test_columns_become_fields_that_collide_with_nothing(names: list[str]) -> None:
    fields = list(tables.field_names(names).values())
    assert len(set(fields)) == len(names)
    assert not set(fields) & {*columns([], True), "image", "index", "valid", "n_global"}
