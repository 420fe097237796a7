"""Whatever is done to a manifest, reading it ends in a manifest or in `ManifestInvalid`, never in anything else."""

from __future__ import annotations

from datetime import date
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.errors import ManifestInvalid
from datahub.registry import Manifest, from_dict, parse, to_dict
from tests.registry.sample import TEXT, table

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=4)
    | st.just(date(2024, 1, 1))
    | st.sampled_from(["images", "train", "idx", "cifar", "shapes", "sha256", "https://a.org/", "published"])
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside ``value``."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in pairs for path in [(*here, key), *places(item, (*here, key))]]


PLACES = places(table())


def ends_well(read: Any) -> None:
    try:
        manifest = read()
    except ManifestInvalid as error:
        assert error.problems
        assert len({each.place for each in error.problems}) == len(error.problems)
        assert str(error).isprintable() or "\n" not in str(error)
        return
    assert isinstance(manifest, Manifest)
    assert from_dict(to_dict(manifest)) == manifest


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "remove", "add"]), ANYTHING), max_size=5))
def test_mutated_tables(changes: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    facts = table()
    for path, how, value in changes:
        where: Any = facts
        try:
            for part in path[:-1]:
                where = where[part]
            if how == "remove":
                del where[path[-1]]
            elif how == "set":
                where[path[-1]] = value
            elif isinstance(where, dict):
                where[str(value)] = value
            else:
                where.append(value)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change took this place away
    ends_well(lambda: from_dict(facts))


@settings(max_examples=200, deadline=None)
@given(ANYTHING.filter(lambda value: isinstance(value, dict)))
def test_arbitrary_tables(facts: dict[Any, Any]) -> None:
    ends_well(lambda: from_dict(facts))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, len(TEXT)), st.integers(0, 20), st.text(max_size=6) | st.sampled_from(["[[", "]", "'", '"""', "."])
)
def test_mutated_text(start: int, length: int, inserted: str) -> None:
    ends_well(lambda: parse(TEXT[:start] + inserted + TEXT[start + length :], "x.toml"))


@settings(max_examples=50, deadline=None)
@given(
    st.sets(st.sampled_from(["name", "version", "title", "task", "splits", "licence", "tried", "layout"]), min_size=1)
)
def test_every_missing_key_is_named(missing: set[str]) -> None:
    facts = {key: value for key, value in table().items() if key not in missing}
    try:
        from_dict(facts)
    except ManifestInvalid as error:
        assert missing <= {each.place for each in error.problems}
    else:
        raise AssertionError("accepted")
