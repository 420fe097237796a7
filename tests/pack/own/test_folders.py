from __future__ import annotations

import os
from pathlib import Path

import pytest

from datahub.core.errors import LayoutError
from tests.pack.own.conftest import Pack, jpeg


def lay(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))
    return root


def test_names_of_any_letters_and_of_none(tmp_path: Path, pack: Pack) -> None:
    root = lay(tmp_path / "in", f"日本/{'é' * 120}.jpg", "b/new\nline.jpg")
    odd = os.fsencode(root) + b"/\xff\xfe"
    os.mkdir(odd)  # noqa: PTH102 - no text names it
    Path(os.fsdecode(odd + b"/\xe9.jpg")).write_bytes(jpeg(9))
    dataset = pack(f"imagefolder:{root}")
    assert dataset.classes == ["\\xff\\xfe", "b", "日本"]
    assert {each["source"] for each in dataset["train"]} == {
        f"日本/{'é' * 120}.jpg",
        "b/new\nline.jpg",
        "\\xff\\xfe/\\xe9.jpg",
    }


def test_only_folders_of_splits_hold_empty_classes(tmp_path: Path, pack: Pack) -> None:
    root = lay(tmp_path / "in", "train/a/0.jpg", "val/a/1.jpg")
    (root / "notes/xml").mkdir(parents=True)
    assert pack(f"imagefolder:{root}").classes == ["a"]
    (root / "val/c").mkdir()
    with pytest.raises(LayoutError, match="c: 1 class folders hold no image"):
        pack(f"imagefolder:{root}")
    assert pack(f"imagefolder:{root}", empty_classes=True).classes == ["a", "c"]
