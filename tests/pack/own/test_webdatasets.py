from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from datahub.core.errors import LayoutError
from tests.pack.own.conftest import Pack, jpeg

Members = list[tuple[str, bytes]]


def shard(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sample(number: int, seed: int | None = None) -> Members:
    seed = number if seed is None else seed
    return [(f"{number:06d}.jpg", jpeg(seed)), (f"{number:06d}.cls", b"%d" % (number % 3))]


def test_every_split_numbers_its_keys_from_nought(tmp_path: Path, pack: Pack) -> None:
    shard(tmp_path / "train-0.tar", sample(0) + sample(1))
    shard(tmp_path / "train-1.tar.gz", sample(2), "w:gz")
    shard(tmp_path / "val-0.tar", sample(0, 7) + sample(1, 8))
    dataset = pack(f"wds:{tmp_path}")
    assert {name: len(dataset[name]) for name in dataset.splits} == {"train": 3, "val": 2}
    assert {each.encoded for each in dataset["val"]} == {jpeg(7), jpeg(8)}


@pytest.mark.parametrize(
    ("members", "what"),
    [
        (sample(0) + sample(1)[:1], r"000001\.jpg: has no \.cls"),
        (sample(0) + sample(1)[1:], r"000001\.cls: has no image"),
        (sample(0) + sample(1) + sample(0), r"000000\.jpg: is the key of two samples"),
        (sample(0) + sample(0), r"000000\.jpg: is there twice"),
        ([("a.seg.png", b""), ("a.txt", b"x")], "no samples with images"),
        ([("a.jpg", jpeg()), ("a.cls", b"")], "has no label"),
    ],
)
def test_what_is_wrong_is_told_with_the_member(tmp_path: Path, pack: Pack, members: Members, what: str) -> None:
    with pytest.raises(LayoutError, match=what):
        pack(f"wds:{shard(tmp_path / 'a.tar', members)}")


def test_documents_that_are_no_json_stay_texts(tmp_path: Path, pack: Pack) -> None:
    documents = {0: b'{"a": NaN}', 1: b"{bad", 2: b"[" * 100_000}
    members = [each for number in documents for each in [*sample(number), (f"{number:06d}.json", documents[number])]]
    found = {each["source"]: each["json"] for each in pack(f"wds:{shard(tmp_path / 'a.tar', members)}")["train"]}
    assert found == {"000000.jpg": {"a": None}, "000001.jpg": ["{bad"], "000002.jpg": ["[" * 100_000]}
