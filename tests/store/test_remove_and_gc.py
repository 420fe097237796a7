from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datahub.acquire import receipts
from datahub.core import atomic
from datahub.core.digests import Digest
from datahub.core.errors import NotInStore, NotWritable
from datahub.core.locks import FileLock
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import remove
from datahub.store.find import find, find_place
from datahub.store.gc import DAY, gc, leftovers
from datahub.store.paths import building_dir, pack_lock
from tests.store.builder import names, tiny_variant

PLAN = "c" * 64
OLD = time.time() - 2 * DAY


def put(path: Path, data: bytes = b"12345", *, old: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if old:
        age(path)
    return path


def age(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        os.utime(each, (OLD, OLD))


def downloaded(settings: Settings, name: str, version: str) -> Path:
    path = put(settings.downloads / name / version / "images.gz", b"published")
    receipts.write(settings, path, [Digest("sha256", "0" * 64)])
    return path


# -- remove ---------------------------------------------------------------------------------------------------------


def test_removed_at_once_with_the_folders_that_are_empty_then(settings: Settings) -> None:
    folder = tiny_variant(settings.home)
    expected = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    removal = remove.remove(find(settings, Ref("tiny")), settings)
    assert (removal.paths, removal.bytes) == ((folder,), expected)
    assert list(settings.datasets.iterdir()) == []
    assert list(settings.trash.iterdir()) == []
    with pytest.raises(NotInStore):
        find(settings, Ref("tiny"))


def test_other_variants_versions_and_downloads_stay(settings: Settings) -> None:
    tiny_variant(settings.home, variant="tiled")
    tiny_variant(settings.home, version="2.0")
    tiny_variant(settings.home)
    download = downloaded(settings, "tiny", "1.0")
    remove.remove(find(settings, Ref("tiny", "1.0")), settings)
    assert download.exists()
    assert find(settings, Ref("tiny", "1.0", "tiled")).path.is_dir()
    assert str(find(settings, Ref("tiny")).ref) == "tiny@2.0/published"


def test_downloads_of_this_version_and_their_receipts_go_if_asked(settings: Settings) -> None:
    tiny_variant(settings.home)
    mine, other = downloaded(settings, "tiny", "1.0"), downloaded(settings, "tiny", "2.0")
    removal = remove.remove(find(settings, Ref("tiny")), settings, downloads=True)
    assert removal.paths[1] == mine.parent
    assert not mine.exists()
    assert other.exists()
    assert receipts.read(settings, other) is not None
    assert len(list(settings.receipts.iterdir())) == 1


def test_a_plan_removes_nothing(settings: Settings) -> None:
    folder = tiny_variant(settings.home)
    before = names(folder)
    remove.plan(find(settings, Ref("tiny")), settings, downloads=True)
    assert names(folder) == before


def test_read_only_stores_are_never_touched(settings: Settings, tmp_path: Path) -> None:
    shared = tiny_variant(tmp_path / "shared")
    settings = replace(settings, stores=(tmp_path / "shared",))
    tiny_variant(settings.home)
    with pytest.raises(NotWritable, match="read-only store"):
        remove.remove(find(settings, Ref("tiny")), settings)
    assert len(names(shared)) == 18


def test_a_variant_with_a_broken_record_can_be_removed(settings: Settings) -> None:
    folder = tiny_variant(settings.home)
    (folder / "dataset.json").write_text("garbage")
    remove.remove(find_place(settings, Ref("tiny")), settings)
    assert not folder.exists()


def test_links_are_removed_not_followed(settings: Settings, tmp_path: Path) -> None:
    precious = put(tmp_path / "precious" / "thesis.tex")
    folder = tiny_variant(settings.home)
    (folder / "link").symlink_to(precious.parent)
    remove.remove(find(settings, Ref("tiny")), settings)
    assert precious.exists()


# -- gc -------------------------------------------------------------------------------------------------------------


def kinds(settings: Settings, **how: float) -> list[tuple[str, str]]:
    return [(each.kind, each.path.name) for each in leftovers(settings, **how)]


def litter(settings: Settings) -> dict[str, Path]:
    """One leftover of every kind, old enough to go."""
    gone = put(settings.downloads / "tiny" / "1.0" / "gone.gz")
    receipts.write(settings, gone, [Digest("sha256", "0" * 64)])
    gone.unlink()
    building = building_dir(settings.datasets, PLAN)
    put(building / "out" / "tiny-train-000000.tar", bytes(1000))
    put(building / "work" / "tiny-train-000000.tar.done")
    age(building)
    return {
        "trash": put(settings.trash / "published.00c0ffee" / "dataset.json").parent,
        "building": building,
        "temporary": put(settings.receipts / f".{'a' * 64}.json.4242.0123abcd.tmp", old=True),
        "part": put(settings.downloads / "tiny" / "1.0" / "images.gz.part", bytes(500), old=True),
        "part state": put(settings.downloads / "tiny" / "1.0" / "images.gz.part.json", old=True),
        "receipt": receipts.path_of(settings, gone),
    }


def test_leftovers_of_every_kind_go_and_all_else_stays(settings: Settings) -> None:
    kept = tiny_variant(settings.home)
    download = downloaded(settings, "tiny", "1.0")
    made = litter(settings)
    found = gc(settings)
    assert {each.path for each in found} == set(made.values())
    assert not any(path.exists() for path in made.values())
    assert {each.kind: each.bytes for each in found}["building"] == 1005
    assert len(names(kept)) == 18
    assert download.exists() and receipts.read(settings, download) is not None
    assert gc(settings) == []


def test_a_dry_run_says_the_same_and_removes_nothing(settings: Settings) -> None:
    made = litter(settings)
    before = names(settings.home)
    found = gc(settings, dry_run=True)
    assert names(settings.home) == before
    assert {each.path for each in found} == set(made.values())
    assert gc(settings) == found


def test_young_ones_may_be_in_use(settings: Settings) -> None:
    made = litter(settings)
    for path in made.values():
        for each in (path, *path.rglob("*")):
            os.utime(each)
    assert sorted(kind for kind, _ in kinds(settings)) == ["receipt", "trash"]
    assert len(kinds(settings, older_than=0)) == len(made)


def test_one_fresh_file_keeps_a_building_folder(settings: Settings) -> None:
    building = litter(settings)["building"]
    os.utime(building / "work" / "tiny-train-000000.tar.done")
    assert "building" not in dict(kinds(settings))


def test_one_fresh_half_keeps_both_halves_of_a_partial_download(settings: Settings) -> None:
    made = litter(settings)
    os.utime(made["part state"])
    assert "partial download" not in dict(kinds(settings))


def test_a_locked_building_folder_is_kept_and_a_dead_packers_is_not(settings: Settings) -> None:
    building = litter(settings)["building"]
    lock = pack_lock(settings.locks, f"sha256:{PLAN}")
    with FileLock(lock):
        assert "building" not in dict(kinds(settings))
        assert building not in [each.path for each in gc(settings)]
        assert building.exists()
    put(lock, b'{"token": "t", "pid": 1, "started": "0", "machine": "elsewhere//"}', old=True)
    assert building in [each.path for each in gc(settings)]
    assert not building.exists()
    assert not lock.exists()


def test_a_packer_that_comes_between_is_not_disturbed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    building = litter(settings)["building"]
    monkeypatch.setattr(FileLock, "held", lambda self: False)
    with FileLock(pack_lock(settings.locks, PLAN)):
        assert building not in [each.path for each in gc(settings)]
    assert building.exists()


def test_what_is_not_ours_is_never_removed(settings: Settings, tmp_path: Path) -> None:
    """Everything here is old and looks a little like a leftover, but datahub makes no such thing."""
    theirs = [
        put(settings.datasets / ".building" / "notes" / "plan.txt"),
        put(settings.datasets / ".building" / ("d" * 64)),
        put(settings.downloads / "tiny" / "1.0" / "report.tmp"),
        put(settings.downloads / "tiny" / "1.0" / ".report.tmp"),
        put(settings.downloads / "tiny" / "1.0" / "part"),
        put(settings.downloads / "tiny" / "1.0" / "book.part.json.bak"),
        put(settings.receipts / "readme.json", b"{}"),
        put(settings.receipts / f"{'e' * 64}.json", b'{"who": "knows"}'),
        put(settings.home / "thesis.part"),
        put(settings.home / ".thesis.tex.1.0123abcd.tmp.keep"),
    ]
    precious = put(tmp_path / "precious" / "x.part", old=True)
    for path in theirs:
        age(path)
    (settings.downloads / "link").symlink_to(precious.parent)
    (settings.datasets / ".building" / ("f" * 64)).symlink_to(precious.parent)
    assert [each for each in gc(settings, older_than=0) if each.kind != "building"] == []
    assert all(path.exists() for path in theirs)
    assert precious.exists()


def test_a_kill_between_write_and_rename_is_cleaned_up(settings: Settings) -> None:
    target = settings.receipts / "x.json"
    with pytest.raises(KeyboardInterrupt), atomic.writing(target) as handle:
        handle.write(b"half")
        name = next(settings.receipts.iterdir())
        name.with_name(name.name + ".copy").write_bytes(b"half")
        raise KeyboardInterrupt
    survivor = next(settings.receipts.iterdir())
    survivor = survivor.rename(survivor.with_suffix(""))
    age(survivor)
    assert kinds(settings) == [("temporary", survivor.name)]


def test_an_empty_home_has_no_leftovers(settings: Settings) -> None:
    assert gc(settings) == []
    assert not settings.home.exists()


def test_read_only_stores_are_not_swept(settings: Settings, tmp_path: Path) -> None:
    shared = Settings(home=tmp_path / "shared")
    made = litter(shared)
    assert gc(replace(settings, stores=(tmp_path / "shared",))) == []
    assert all(path.exists() for path in made.values())
