from __future__ import annotations

import errno
import os
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from datahub.core.errors import BadArgument, DiskFull, NotWritable, NotYetSupported, StoreDamaged
from datahub.core.events import Event, Progress
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import export as module
from datahub.store.export import export, plan
from datahub.store.find import Located, find
from datahub.store.verify import verify
from tests.store.builder import damaged, names, tiny_variant


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def same(located: Located, folder: Path) -> bool:
    return names(folder) == names(located.path) and all(
        (folder / name).read_bytes() == (located.path / name).read_bytes() for name in names(folder)
    )


def test_a_folder_receives_exactly_the_files(located: Located, tmp_path: Path) -> None:
    done = export(located, str(tmp_path / "out"))
    assert same(located, tmp_path / "out")
    assert (done.url, done.files) == (str(tmp_path / "out"), 18)
    assert done.bytes == sum((tmp_path / "out" / name).stat().st_size for name in names(tmp_path / "out"))


def test_a_store_is_made_by_exporting_into_its_place(located: Located, settings: Settings, tmp_path: Path) -> None:
    export(located, str(tmp_path / "srv" / "datasets" / "tiny" / "1.0" / "published"))
    reader = Settings(home=tmp_path / "empty", stores=(tmp_path / "srv",))
    found = find(reader, Ref("tiny"))
    assert found.root == tmp_path / "srv" / "datasets"
    verify(found, deep=True)


def test_any_fsspec_url(located: Located, memory: fsspec.AbstractFileSystem) -> None:
    done = export(located, "memory://bucket/tiny")
    assert done.url == "memory:///bucket/tiny"
    found = {path.removeprefix("/bucket/tiny/") for path in memory.find("/bucket/tiny")}
    assert sorted(found) == names(located.path)
    for name in found:
        assert memory.cat_file(f"/bucket/tiny/{name}") == (located.path / name).read_bytes()
    assert export(located, "memory://bucket/tiny").files == 0


def test_the_record_comes_last_and_blocks_before_it(located: Located, tmp_path: Path) -> None:
    files = plan(located, str(tmp_path / "out")).files
    assert files[-2:] == ("blocks.bin", "dataset.json")
    assert sorted(files) == names(located.path)


def test_a_plan_writes_nothing(located: Located, tmp_path: Path) -> None:
    found = plan(located, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert found.lines() == [f"18 files, {found.bytes / 1000:.1f} kB, to {tmp_path / 'out'}"]
    export(located, str(tmp_path / "out"))
    assert plan(located, str(tmp_path / "out")).lines() == [f"{tmp_path / 'out'} holds it already"]


def test_progress_ends_at_the_total(located: Located, tmp_path: Path) -> None:
    events: list[Event] = []
    done = export(located, str(tmp_path / "out"), listener=events.append)
    steps = [each for each in events if isinstance(each, Progress)]
    assert len(steps) == done.files
    assert (steps[-1].done, steps[-1].total) == (done.bytes, done.bytes)


def test_broken_off_and_taken_up_again(located: Located, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and len(names(out)) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(located, str(out), listener=stop)
    assert not (out / "dataset.json").exists()
    (out / f".README.md.{os.getpid()}.0123abcd.tmp").write_bytes(b"what a kill leaves")
    kept = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    assert export(located, str(out)).files == 12
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    (out / f".README.md.{os.getpid()}.0123abcd.tmp").unlink()
    assert same(located, out)


@pytest.mark.parametrize("url", ["folder", "memory"])
def test_changed_bytes_are_not_exported(
    located: Located, tmp_path: Path, memory: fsspec.AbstractFileSystem, url: str
) -> None:
    damaged(located.path / "tiny-train-000001.tar", 5000)
    with pytest.raises(StoreDamaged, match=r"tiny-train-000001\.tar: changed"):
        export(located, "memory://bucket/tiny" if url == "memory" else str(tmp_path / "out"))
    written = memory.find("/bucket/tiny") if url == "memory" else names(tmp_path / "out")
    assert len(written) > 5
    assert not [name for name in written if "tiny-train-000001.tar" in name and not name.endswith("idx")]
    assert not [name for name in written if "dataset.json" in name or ".tmp" in name]


def test_missing_files_and_changed_block_digests_are_damage(located: Located, tmp_path: Path) -> None:
    damaged(located.path / "blocks.bin", 0)
    with pytest.raises(StoreDamaged, match=r"blocks\.bin"):
        export(located, str(tmp_path / "one"))
    assert not (tmp_path / "one" / "dataset.json").exists()
    (located.path / "README.md").unlink()
    with pytest.raises(StoreDamaged, match=r"README\.md: missing"):
        export(located, str(tmp_path / "two"))


def test_another_dataset_is_not_overwritten(located: Located, settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(located, str(out))
    tiny_variant(settings.home, splits={"train": 7}, version="2.0")
    other = find(settings, Ref("tiny", "2.0"))
    with pytest.raises(BadArgument, match=r"holds another dataset\.json"):
        export(other, str(out))
    assert same(located, out)


def test_other_files_are_neither_overwritten_nor_joined(located: Located, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("my project")
    with pytest.raises(BadArgument, match=r"holds another README\.md"):
        export(located, str(out))
    (out / "README.md").unlink()
    (out / "main.py").write_text("")
    with pytest.raises(BadArgument, match=r"holds other files \(main\.py\)"):
        export(located, str(out))
    assert names(out) == ["main.py"]
    with pytest.raises(BadArgument, match="is a file"):
        export(located, str(out / "main.py"))


def test_a_changed_copy_of_the_right_size_is_found(located: Located, tmp_path: Path) -> None:
    export(located, str(tmp_path / "out"))
    damaged(tmp_path / "out" / "tiny-train-000000.tar", 3000)
    with pytest.raises(BadArgument, match=r"holds another tiny-train-000000\.tar"):
        export(located, str(tmp_path / "out"))


def test_other_forms_and_unknown_protocols(located: Located, tmp_path: Path) -> None:
    for form in ("hf", "imagefolder", "croissant"):
        with pytest.raises(NotYetSupported, match=form):
            export(located, str(tmp_path / "out"), form=form)
    with pytest.raises(BadArgument, match="zip9"):
        export(located, str(tmp_path / "out"), form="zip9")
    with pytest.raises(BadArgument, match="Protocol not known"):
        export(located, "nosuch://bucket/tiny")


def test_a_full_disk_is_seen_before_the_first_byte(located: Located, tmp_path: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(1000, 990, 10))
    with pytest.raises(DiskFull) as caught:
        export(located, str(tmp_path / "out"))
    assert caught.value.free == 10
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EACCES, NotWritable)])
def test_errors_while_writing(
    located: Located, tmp_path: Path, monkeypatch, number: int, kind: type[Exception]
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind):
        export(located, str(tmp_path / "out"))
    assert names(tmp_path / "out") == []


def test_exporting_a_variant_onto_itself_changes_nothing(located: Located) -> None:
    assert export(replace(located), str(located.path)).files == 0
