from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from datahub.core.errors import BadArgument
from datahub.stream.foreign.naming import Named, find_shards, holds_shards, names_shards, title


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/train-000.tar", "b/train-001.tar", "b/val-000.tar", "c/train-000.tar", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("b", ["train-000.tar", "train-001.tar", "val-000.tar"]),
        ("b/train-*.tar", ["train-000.tar", "train-001.tar"]),
        ("wds:{}/b/train-00[1].tar", ["train-001.tar"]),
        ("b/train-{001..000..-1}.tar", None),
        ("b/train-{000..001}.tar", ["train-000.tar", "train-001.tar"]),
        ("{}/b/val-000.tar,{}/b/train-001.tar", ["val-000.tar", "train-001.tar"]),
        ("{}/b/val-000.tar::{}/c/train-000.tar", ["b/val-000.tar", "c/train-000.tar"]),
    ],
)
def test_what_a_text_stands_for(folder: Path, text: str, names: list[str] | None) -> None:
    text = text.replace("{}", str(folder))
    text = text if str(folder) in text else f"{folder}/{text}"
    if names is None:
        with pytest.raises(BadArgument, match="there is no such shard"):
            find_shards(text)
    else:
        found = find_shards(text)
        assert [each.name for each in found] == names
        assert all(Path(each.url).is_file() for each in found)


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    odd = tmp_path / "a,b{1,2}[3]"
    odd.mkdir()
    (odd / "x-{0..1}.tar").touch()
    assert holds_shards(str(odd))
    assert [each.url for each in find_shards(str(odd))] == [str(odd / "x-{0..1}.tar")]
    assert [each.name for each in find_shards(f"wds:{odd}/x-{{0..1}}.tar")] == ["x-{0..1}.tar"]


def test_urls_keep_what_only_their_host_may_know() -> None:
    found = find_shards("https://me:secret@host/a/x-{8..9}.tar?sig=1")
    assert found == [Named(f"https://me:secret@host/a/x-{n}.tar?sig=1", f"x-{n}.tar") for n in (8, 9)]
    assert [each.shown for each in found] == ["https://host/a/x-8.tar", "https://host/a/x-9.tar"]
    one_name = find_shards("https://host/get.tar?id={1..2}")
    assert [each.name for each in one_name] == ["shard-000000.tar", "shard-000001.tar"]


def test_file_systems_that_list(folder: Path) -> None:
    system = fsspec.filesystem("memory")
    for name in ("a-0.tar", "a-1.tar", "sub/b-0.tar", "readme"):
        system.pipe_file(f"/{folder.name}/{name}", b"")
    url = f"memory://{folder.name}"
    assert holds_shards(url) and not holds_shards(f"{url}/none") and not holds_shards("https://host/a")
    assert [each.name for each in find_shards(url)] == ["a-0.tar", "a-1.tar"]
    assert [each.name for each in find_shards(f"{url}/*/*.tar")] == ["b-0.tar"]
    system.pipe_file(f"/{folder.name}/dataset.json", b"")
    assert not holds_shards(url), "a packed variant's shards are its record's"
    system.rm(f"/{folder.name}", recursive=True)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("wds:", "names no shard"),
        ("wds:pipe:curl -s https://host/x.tar", "commands are not run"),
        ("x-{000..001}.tar.gz", "no such shard"),
        ("https://host/shards/*.tar", "a web server lists no files"),
        ("wds:https://host/shards/", "a web server lists no files"),
        ("https://host/x-{0..1}.tar.gz", r"is compressed.*datahub pack 'wds:"),
        ("https://host/x-{0..999999}.tar", "stands for 1000000 shards"),
        ("https://host/x.tar,https://host/x.tar", "names https://host/x.tar twice"),
        ("nosuch/folder/x-000.tar", "there is no such shard"),
    ],
)
def test_what_names_no_shards(text: str, what: str) -> None:
    with pytest.raises(BadArgument, match=what):
        find_shards(text)


def test_who_says_that_it_is_shards() -> None:
    assert (
        names_shards("wds:anything") and names_shards("s3://b/x/*.tar") and names_shards("https://h/x-{0..9}.tar?s=1")
    )
    assert not names_shards("s3://bucket/datasets") and not names_shards("/data/imagenet")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("wds:/data/ImageNet-train-{000000..000146}.tar", "imagenet-train"),
        ("wds:s3://b/LAION_2b/*.tar", "shards"),
        ("wds:/data/my set/", "my-set"),
        ("wds:000123.tar", "shards"),
        ("wds:birds-00{0..9}.tar", "birds"),
    ],
)
def test_shards_are_called_after_themselves(text: str, name: str) -> None:
    assert title(text) == name
