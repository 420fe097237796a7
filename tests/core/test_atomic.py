from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from datahub.core import atomic
from datahub.core.errors import DiskFull, NotWritable


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "deep" / "f", b"new")
    assert (tmp_path / "deep" / "f").read_bytes() == b"new"
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["f"]


def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic.writing(tmp_path / "f") as handle:
        handle.write(b"half")
        raise RuntimeError
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_no_space_is_one_error_and_no_litter(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as caught, atomic.writing(tmp_path / "f"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_must_be(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(NotWritable, match=re.escape(f"cannot write {tmp_path / 'f' / 'g'}: {tmp_path / 'f'} is not")):
        atomic.make_dir(tmp_path / "f" / "g")
    with pytest.raises(NotWritable, match="f is not a folder"):
        atomic.make_dir(tmp_path / "f")


def test_a_folder_where_a_file_must_be(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(NotWritable, match="it is a folder"):
        atomic.write_bytes(tmp_path / "f", b"")
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_publishing_replaces_a_folder_through_the_trash(tmp_path: Path) -> None:
    old, built, trash = tmp_path / "target", tmp_path / "built", tmp_path / "trash"
    for folder, text in ((old, "old"), (built, "new")):
        folder.mkdir()
        (folder / "f").write_text(text)
    atomic.publish_dir(built, old, trash)
    assert (old / "f").read_text() == "new"
    assert not built.exists()
    assert list(trash.iterdir()) == []


def test_discarding_what_is_gone_is_fine(tmp_path: Path) -> None:
    atomic.discard(tmp_path / "nothing", tmp_path / "trash")
    (tmp_path / "f").write_text("x")
    atomic.discard(tmp_path / "f", tmp_path / "trash")
    assert not (tmp_path / "f").exists()
