"""What manifests may say in words, of a variant's files, and in the options of the ILSVRC and image-folder layouts."""

from __future__ import annotations

from typing import Any

import pytest

from datahub.core.errors import ManifestInvalid
from datahub.registry import Manifest, from_dict, to_dict
from tests.registry.sample import table


def problems(facts: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ManifestInvalid) as caught:
        from_dict(facts)
    return dict(caught.value.problems)


def with_files(*roles: str, **changes: Any) -> dict[str, Any]:
    facts = table()
    facts["files"] = [{"filename": f"{role}.tar", "role": role} for role in roles]
    facts["variants"] = {"published": {}}
    return {**facts, **changes}


def folders(**split: Any) -> dict[str, Any]:
    """An image-folder manifest; ``split`` is laid over its training split's options."""
    train = {"archive": "full", "folder": "pets/train", **split}
    layout = {"kind": "imagefolder", "options": {"splits": {"train": train, "test": {"archive": "full"}}}}
    return with_files("full", "small", layout=layout)


def ilsvrc(**options: Any) -> dict[str, Any]:
    roles = {"train": "train", "val": "val", "devkit": "devkit"}
    named = {key: value for key, value in {**roles, **options}.items() if value is not None}
    return with_files(*roles, splits={"train": 9, "val": 3}, layout={"kind": "ilsvrc", "options": named})


def two_variants(**small: Any) -> dict[str, Any]:
    """Each variant packed from a file of its own; ``small`` is laid over the second one."""

    def splits(role: str) -> dict[str, Any]:
        return {"splits": {name: {"archive": role, "folder": name} for name in ("train", "test")}}

    variants = {
        "published": {"files": ["full"], "layout": splits("full")},
        "small": {"files": ["small"], "layout": splits("small"), **small},
    }
    return {**folders(), "variants": variants, "layout": {"kind": "imagefolder"}}


def test_words_are_kept_beside_the_classes_and_may_repeat() -> None:
    manifest = from_dict({**table(), "words": ["crane", "crane"]})
    assert manifest.words == ["crane", "crane"]
    assert from_dict(to_dict(manifest)) == manifest
    assert manifest.digest != from_dict(table()).digest


@pytest.mark.parametrize(
    ("words", "place", "says"),
    [
        (["crane"], "words", "must be as many as the classes: 1 for 2"),
        (["a", "b", "c"], "words", "3 for 2"),
        ([], "words", "0 for 2"),
        (["a", ""], "words[1]", "is empty"),
        (["a", " "], "words[1]", "is not a name"),
        (["a", "b\nc"], "words[1]", "is not a name"),
        (["a", 1], "words[1]", "must be text, not 1"),
        ("crane", "words", "must be a list"),
    ],
)
def test_wrong_words(words: Any, place: str, says: str) -> None:
    found = problems({**table(), "words": words})
    assert set(found) == {place} and says in found[place]


def test_words_without_classes_are_refused() -> None:
    facts = {**table(), "words": ["a"]}
    del facts["classes"]
    assert "1 for 0" in problems(facts)["words"]


def test_a_variant_is_packed_from_the_files_it_names() -> None:
    manifest = from_dict(two_variants())
    assert [each.role for each in manifest.files_of("small")] == ["small"]
    assert [each.role for each in manifest.files_of("published")] == ["full"]
    assert [each.role for each in from_dict(folders()).files_of("published")] == ["full", "small"]


@pytest.mark.parametrize(
    ("files", "place", "says"),
    [
        ([], "variants.small.files", "names no file"),
        (["smal"], "variants.small.files[0]", "no file has the role 'smal'; did you mean small?"),
        (["small", "full", "small"], "variants.small.files[2]", "'small' is listed twice"),
        (["small", 3], "variants.small.files[1]", "must be text, not 3"),
        ("small", "variants.small.files", "must be a list"),
    ],
)
def test_wrong_files_of_a_variant(files: Any, place: str, says: str) -> None:
    found = problems(two_variants(files=files))
    assert set(found) == {place} and says in found[place]


def test_a_variant_may_not_read_a_file_that_it_is_not_packed_from() -> None:
    found = problems(two_variants(files=["full"]))
    assert set(found) == {f"variants.small.layout.splits.{name}.archive" for name in ("train", "test")}
    for message in found.values():
        assert message.startswith("no file of variants.small has the role 'small'")


def test_a_file_without_a_role_makes_one_problem_not_one_for_each_variant() -> None:
    facts = two_variants()
    facts["files"][1]["role"] = "Small!"
    assert set(problems(facts)) == {"files[1].role"}


def test_variant_files_of_a_generator_are_refused() -> None:
    facts = {**table(), "layout": {"kind": "shapes"}, "variants": {"published": {"files": ["x"]}}}
    del facts["files"]
    assert set(problems(facts)) == {"variants.published.files[0]"}


def test_a_right_ilsvrc_layout() -> None:
    manifest = from_dict(ilsvrc())
    assert manifest.layout.kind == "ilsvrc"
    assert from_dict({**ilsvrc(), "splits": {"val": 3}}).splits == {"val": 3}


@pytest.mark.parametrize("key", ["train", "val", "devkit"])
@pytest.mark.parametrize(
    ("role", "says"),
    [(None, "is missing: name the role of the archive"), ("devkt", "did you mean devkit?"), (3, "must be the role")],
)
def test_an_ilsvrc_layout_names_three_files(key: str, role: Any, says: str) -> None:
    found = problems(ilsvrc(**{key: role}))
    assert set(found) == {f"layout.options.{key}"}
    assert says in found[f"layout.options.{key}"]


def test_ilsvrc_has_no_other_splits() -> None:
    found = problems({**ilsvrc(), "splits": {"train": 9, "vals": 3}})
    assert found == {"splits.vals": "this layout has no split 'vals'; did you mean val?"}


@pytest.mark.parametrize(
    "split",
    [
        {},
        {"folder": ""},
        {"folder": "*"},
        {"folder": "a..b/c d"},
        {"annotations": "pets/list.txt"},
        {"labels": "numbers"},
    ],
)
def test_right_image_folders(split: dict[str, str]) -> None:
    manifest: Manifest = from_dict(folders(**split))
    assert manifest.layout.options["splits"]["train"].items() >= split.items()


@pytest.mark.parametrize(
    ("split", "key", "says"),
    [
        ({"archive": "ful"}, "archive", "no file has the role 'ful'; did you mean full?"),
        ({"archive": ["full"]}, "archive", "must be the role of a file"),
        ({"folder": "/pets"}, "folder", "not a path inside the archive"),
        ({"folder": "/"}, "folder", "not a path inside the archive"),
        ({"folder": "../pets"}, "folder", "not a path inside the archive"),
        ({"folder": "pets/../../x"}, "folder", "not a path inside the archive"),
        ({"folder": "./pets"}, "folder", "write it like folder/train"),
        ({"folder": "pets//train"}, "folder", "not a path inside the archive"),
        ({"folder": 3}, "folder", "must be a path"),
        ({"annotations": ""}, "annotations", "must be a path"),
        ({"annotations": "/etc/passwd"}, "annotations", "not a path inside the archive"),
        ({"labels": "number"}, "labels", "did you mean numbers?"),
        ({"labels": True}, "labels", "must be 'names' or 'numbers'"),
    ],
)
def test_wrong_image_folders(split: dict[str, Any], key: str, says: str) -> None:
    found = problems(folders(**split))
    place = f"layout.options.splits.train.{key}"
    assert set(found) == {place} and says in found[place]


def test_an_image_folder_has_an_archive_for_each_split_of_the_manifest() -> None:
    facts = folders()
    splits = facts["layout"]["options"]["splits"]
    splits["train"] = "full"
    splits["tset"] = splits.pop("test")
    found = problems(facts)
    assert set(found) == {f"layout.options.splits.{name}" for name in ("train", "test", "tset")}
    assert "must be a table: archive = ROLE" in found["layout.options.splits.train"]
    assert "did you mean test?" in found["layout.options.splits.tset"]
    del facts["layout"]["options"]["splits"]
    assert set(problems(facts)) == {"layout.options.splits"}
    facts["layout"]["kind"] = "imagefolders"
    assert problems(facts) == {"layout.kind": "'imagefolders' is not a layout; did you mean imagefolder?"}
