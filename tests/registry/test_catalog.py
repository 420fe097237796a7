"""Finding manifests by name and version, among the shipped ones and the user's."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from datahub.core.errors import BadArgument, ManifestInvalid, NotReadable, UnknownDataset, UnknownVersion
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.registry import Catalog, catalog, from_dict, parse
from datahub.registry.nearest import hint, nearest
from tests.registry.sample import TEXT, table


def write(path: Path, text: str = TEXT) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def mine(name: str = "digits", version: str = "1.0", title: str = "Digits") -> str:
    text = TEXT.replace('name = "digits"', f'name = "{name}"').replace('version = "1.0"', f'version = "{version}"')
    return text.replace('title = "Digits"', f'title = "{title}"')


def test_the_shipped_datasets_are_known() -> None:
    names = Catalog().names()
    assert names == sorted(names)
    assert {"mnist", "fashion-mnist", "kmnist", "emnist", "qmnist", "cifar10", "cifar100", "shapes"} <= set(names)
    manifest = Catalog().find(Ref("mnist"))
    assert (manifest.name, manifest.splits) == ("mnist", {"train": 60000, "test": 10000})
    assert Catalog().find(Ref("mnist", manifest.version)) == manifest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("minst", "mnist"),
        ("MNIST", "mnist"),
        ("cifar", "cifar10"),
        ("fashion", "fashion-mnist"),
        ("cifar-100", "cifar100"),
    ],
)
def test_an_unknown_dataset_suggests_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UnknownDataset) as caught:
        Catalog().find(Ref(typed))
    assert caught.value.nearest[0] == meant
    assert f"did you mean {meant}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_nothing_near_suggests_the_list() -> None:
    with pytest.raises(UnknownDataset, match="see `datahub list`"):
        Catalog().find(Ref("zzzz"))


def test_nearest_prefers_spelling_and_knows_parts() -> None:
    known = ["imagenet-1k", "imagenette", "mnist", "Places365"]
    assert nearest("imagenete", known)[0] == "imagenette"
    assert nearest("places", known) == ["Places365"]
    assert nearest("my-mnist-copy", known) == ["mnist"]
    assert nearest("", known) == []
    assert hint("zzz", ["b", "a"]) == "known: a, b"


def test_the_newest_version_is_the_default_and_others_stay_reachable(tmp_path: Path) -> None:
    for version in ("1.9", "1.10", "1.2"):
        write(tmp_path / f"v{version}.toml", mine(version=version))
    known = Catalog([tmp_path])
    assert known.versions("digits") == ["1.2", "1.9", "1.10"]
    assert known.find(Ref("digits")).version == "1.10"
    assert known.find(Ref("digits", "1.2")).version == "1.2"
    with pytest.raises(UnknownVersion, match=r"known: 1\.2, 1\.9, 1\.10"):
        known.find(Ref("digits", "2.0"))
    assert [each.version for each in known.entries("digits")] == ["1.2", "1.9", "1.10"]


def test_a_file_a_folder_and_an_object_are_all_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.toml", mine("in-folder"))
    write(folder / ".a.toml.swp.toml", "not toml")
    write(folder / "notes.txt", "not toml")
    single = write(tmp_path / "single.toml", mine("single"))
    known = Catalog([folder, single, from_dict({**table(), "name": "made"})])
    for name in ("in-folder", "single", "made"):
        assert known.find(Ref(name)).name == name
    assert known.broken == ()
    assert known.file_of(known.find(Ref("single"))) == str(single)
    assert known.file_of(known.find(Ref("made"))) == ""
    assert known.file_of(known.find(Ref("mnist"))).endswith("mnist.toml")


def test_the_users_manifest_wins_and_the_first_of_two(tmp_path: Path) -> None:
    shipped = Catalog().find(Ref("mnist"))
    own = write(tmp_path / "a.toml", mine("mnist", shipped.version, "Mine"))
    other = write(tmp_path / "b.toml", mine("mnist", shipped.version, "Other"))
    known = Catalog([own, other])
    assert known.find(Ref("mnist")).title == "Mine"
    assert known.versions("mnist") == [shipped.version]
    assert [each.title for each in known.entries("mnist") if each.name == "mnist"] == ["Mine"]
    assert Catalog([other, own]).find(Ref("mnist")).title == "Other"


def test_a_broken_file_in_a_folder_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path / "good.toml", mine("good"))
    bad = write(tmp_path / "bad.toml", mine("bad").replace("test = 10_000", "test = 0"))
    worse = write(tmp_path / "worse.toml", "name = ")
    known = Catalog([tmp_path])
    assert "good" in [each.name for each in known.entries()]
    assert known.find(Ref("good")).name == "good"
    assert known.find(Ref("mnist")).name == "mnist"
    assert sorted(error.path for error in known.broken) == [str(bad), str(worse)]
    with pytest.raises(ManifestInvalid, match=r"bad\.toml has 1 problem: splits\.test"):
        known.find(Ref("bad"))
    with pytest.raises(ManifestInvalid, match=r"worse\.toml"):
        known.find(Ref("worse"))
    with pytest.raises(UnknownDataset):
        known.find(Ref("zzzz"))


def test_a_broken_file_is_asked_for_by_the_name_inside_it(tmp_path: Path) -> None:
    write(tmp_path / "file.toml", mine("mnist", "7").replace("test = 10_000", "test = 0"))
    known = Catalog([tmp_path])
    with pytest.raises(ManifestInvalid, match=r"file\.toml"):
        known.find(Ref("mnist"))
    with pytest.raises(ManifestInvalid, match=r"file\.toml"):
        known.find(Ref("mnist", "7"))
    assert known.find(Ref("mnist", Catalog().versions("mnist")[-1])).title == "MNIST", "the shipped version is whole"


def test_a_broken_file_that_was_named_is_reported_before_an_unknown_name(tmp_path: Path) -> None:
    bad = write(tmp_path / "anything.toml", "name = ")
    with pytest.raises(ManifestInvalid, match=r"anything\.toml"):
        Catalog([bad]).find(Ref("digits"))
    assert Catalog([bad]).find(Ref("mnist")).name == "mnist"


def test_a_manifest_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="no such file or folder"):
        Catalog([tmp_path / "absent.toml"]).find(Ref("mnist"))


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    known = Catalog([tmp_path])
    assert known.find(Ref("mnist")).name == "mnist"
    assert isinstance(known.broken[0], NotReadable)


def test_a_broken_shipped_file_hides_no_other(tmp_path: Path) -> None:
    from datahub.registry import listing

    write(tmp_path / "digits.toml")
    write(tmp_path / "other.toml", mine("other"))
    listing.write(tmp_path)
    write(tmp_path / "other.toml", "name = ")
    known = Catalog(folder=tmp_path)
    assert known.names() == ["digits", "other"]
    assert known.find(Ref("digits")) == parse(TEXT, "digits.toml")
    with pytest.raises(ManifestInvalid, match=r"other\.toml"):
        known.find(Ref("other"))
    write(tmp_path / "listing.json", "{}")
    with pytest.raises(ManifestInvalid, match="is not a listing"):
        Catalog(folder=tmp_path).names()


def test_entries_are_narrowed_by_name_task_and_licence() -> None:
    known = Catalog()
    assert [each.name for each in known.entries("CIFAR")] == ["cifar10", "cifar100"]
    assert [each.name for each in known.entries("kuzushiji")] == ["kmnist"], "titles count"
    assert [each.name for each in known.entries(licence="cc0")] == ["shapes"]
    assert known.entries(task="classification") == known.entries()
    assert known.entries(task="detection") == []
    assert {each.tried for each in known.entries()} <= {"published files", "miniature", "never"}


def test_a_listing_parses_no_shipped_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("parsed")

    module = sys.modules["datahub.registry.catalog"]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "load", refuse)
    monkeypatch.setattr(module, "decode", refuse)
    assert Catalog().entries("mnist")


def test_the_settings_name_the_users_manifests(tmp_path: Path, settings: Settings) -> None:
    write(tmp_path / "a.toml", mine("mine"))
    assert "mine" not in catalog(settings).names()
    assert "mine" in catalog(replace(settings, manifests=(tmp_path,))).names()
