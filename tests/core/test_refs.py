from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.core.errors import BadReference
from datahub.core.refs import NAME, VARIANT, VERSION, Ref, version_key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cifar10", Ref("cifar10")),
        ("imagenet/tiled", Ref("imagenet", None, "tiled")),
        ("parts@1.1", Ref("parts", "1.1")),
        ("parts@1.1/max256", Ref("parts", "1.1", "max256")),
        ("fashion-mnist", Ref("fashion-mnist")),
    ],
)
def test_reads_what_people_type(text: str, expected: Ref) -> None:
    assert Ref.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text", ["", "@1", "a@", "a/", "A", "a b", "../x", "a/../b", "a@../b", "a//b", "a/b/c", "-a", "a\n", "é"]
)
def test_refuses_the_rest(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        Ref.parse(text)
    assert caught.value.exit_code == 2


@given(
    st.from_regex(NAME, fullmatch=True),
    st.none() | st.from_regex(VERSION, fullmatch=True),
    st.none() | st.from_regex(VARIANT, fullmatch=True),
)
def test_writing_and_reading_is_the_identity(name: str, version: str | None, variant: str | None) -> None:
    ref = Ref(name, version, variant)
    assert Ref.parse(str(ref)) == ref


@given(st.text(max_size=40))
def test_any_text_gives_a_ref_or_the_one_error(text: str) -> None:
    try:
        assert str(Ref.parse(text)) == text
    except BadReference:
        pass


def test_versions_sort_as_people_expect() -> None:
    versions = ["1.10", "1.9", "2.0", "1.9rc1", "1.9.1", "1.0"]
    assert sorted(versions, key=version_key) == ["1.0", "1.9", "1.9rc1", "1.9.1", "1.10", "2.0"]
