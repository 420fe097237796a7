"""Webdataset shards without an index as a source: batches are those of the samples webdataset reads."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from torch.utils.data import DataLoader

import datahub
from datahub.core.errors import (
    BadArgument,
    DigestMismatch,
    HttpError,
    LayoutError,
    Offline,
    OriginChanged,
    StateMismatch,
    StoreDamaged,
    UnknownSplit,
    VerificationError,
)
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.streaming import StreamingLoader
from datahub.stream.foreign import indexing
from tests.acquire.server import Behaviour, Origin, serving
from tests.loader.conftest import no_threads, same, seen
from tests.stream.foreign.shards import image, sample, tar, theirs, write_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def web(folder: Path) -> Iterator[Origin]:
    with serving() as origin:
        for path in folder.glob("*.tar"):
            origin.paths[f"/a/{path.name}"] = Behaviour(data=path.read_bytes(), etag='"1"')
        yield origin


@pytest.fixture
def make(settings: Settings, folder: Path) -> Iterator[Any]:
    made = []

    def loader(**arguments: Any) -> StreamingLoader:
        defaults: dict[str, Any] = {"batch_size": 8, "num_workers": 2, "timeout": 20, "settings": settings}
        if "ref" not in arguments:
            defaults["source"] = folder
        arguments = {**defaults, **arguments}
        made.append(StreamingLoader(arguments.pop("ref", "mine"), arguments.pop("split", "train"), **arguments))
        return made[-1]

    yield loader
    for each in made:
        each.close()


@pytest.fixture(params=["pattern", "wds:", "cached", "http", "memory"])
def place(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    there = {"settings": Settings(home=tmp_path / "elsewhere")}
    if request.param == "http":
        web: Origin = request.getfixturevalue("web")
        yield {"source": f"{web.url}/a/train-{{000000..000002}}.tar", **there}
    elif request.param == "memory":
        system = fsspec.filesystem("memory")
        for path in folder.glob("*.tar"):
            system.pipe_file(f"/{tmp_path.name}/{path.name}", path.read_bytes())
        yield {"source": f"memory://{tmp_path.name}", **there}
        system.rm(f"/{tmp_path.name}", recursive=True)
    elif request.param == "wds:":
        yield {"ref": f"wds:{folder}/train-*.tar"}
    elif request.param == "pattern":
        yield {"source": f"{folder}/train-{{000000..000002}}.tar"}
    else:
        yield {"source": folder, "cache_dir": tmp_path / "cache", "cache_limit": 15_000}


@pytest.mark.parametrize("order", [{}, {"order": datahub.Order(window=1, lanes=2)}], ids=["all", "window"])
def test_batches_are_the_same_from_anywhere(make, place, order):
    one, other = make(shuffle=True, seed=3, **order), make(shuffle=True, seed=3, **order, **place)
    for _ in range(2):
        ours, others = list(one), list(other)
        assert len(ours) == len(others) == 7 and all(map(alike, ours, others))
    other.load_state_dict(one.state_of(ours[2]))
    assert all(map(alike, other, ours[3:]))


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same bits; the datasets' names may differ."""
    return same(dict(one), dict(other))


def test_samples_are_webdatasets(make, folder):
    expected = theirs(sorted(folder.glob("*.tar")))
    fields = ("key", "encoded", "label", "json", "index", "image", "valid")
    seen = 0
    for keys, encoded, labels, documents, rows, images, valid in make(shuffle=True, fields=fields):
        assert valid.all() and images.shape[1:] == (3, 12, 10)
        for at, row in enumerate(rows.tolist()):
            each = expected[row]
            assert keys[at] == each["__key__"] and encoded[at] == each["png"]
            assert b"%d" % labels[at] == each["cls"] and documents[at] == {"weight": row * 3}
            seen += 1
    assert seen == 50


def test_open_gives_samples_and_tables(settings, folder):
    assert tuple(open_dataset("mine", settings, source=folder).fields) == ("image", "label", "json")
    dataset = open_dataset("mine", settings, source=folder)
    row = dataset["train"][30]
    assert (row.key, row["label"], row["source"]) == ("4/00030", 0, "4/00030.png")
    assert dataset["train"].table(["key"], 'key == "4/00030"').num_rows == 1
    assert dataset.classes == ["0", "1", "2"] and dataset["train"].entry.histogram == [17, 17, 16]
    again = pickle.loads(pickle.dumps(dataset))
    assert again["train"][30].encoded == row.encoded == image(30) and again["train"][30].key == row.key


def test_other_members_are_fields_of_bytes(make, tmp_path):
    members = [*sample(0, npy=b"123", bin=b"4"), *sample(1, bin=b""), *sample(2), *sample(3, npy=b"56")]
    (tmp_path / "s.tar").write_bytes(tar([*members, ("000003.Seg.png", b"789")]))
    source = f"{tmp_path}/s.tar"
    for options in ({}, {"cache_dir": tmp_path / "cache"}):
        loader = make(source=source, fields=("bin", "npy", "seg_png"), **options)
        assert next(iter(loader)) == ([b"4", b"", b"", b""], [b"123", b"", b"", b"56"], [b"", b"", b"", b"789"])
        assert [each["npy"] for each in loader.split] == [b"123", b"", b"", b"56"]
    assert next(iter(make(source=source))).keys() == {"image", "label", "index", "valid", "n_global"}


def test_what_selects_and_weighs(make, folder):
    labels = [row for batch in make(where="label in (1, 2)") for row in batch["label"].tolist()]
    assert sorted(labels) == [1] * 17 + [2] * 16
    parts = [{row for batch in make(part=part) for row in batch["index"].tolist()} for part in ((0, 0.6), (0.6, 1))]
    assert parts[0] | parts[1] == set(range(50)) and not parts[0] & parts[1] and min(map(len, parts)) > 8
    balanced = make(ref=datahub.balanced("mine"), source=folder, shuffle=True)
    counts = np.bincount([row for batch in balanced for row in batch["label"].tolist()])
    assert counts.max() - counts.min() <= 1
    mixed = make(ref=datahub.mix({f"wds:{folder}/train-000000.tar": 0.5, f"wds:{folder}/train-000001.tar": 0.5}))
    assert sum(len(batch["index"]) for batch in mixed) == 40
    with pytest.raises(BadArgument, match="there is no column size"):
        make(where="size > 3")


def test_workers_of_a_dataloader(make, folder, settings):
    dataset = datahub.StreamingDataset(f"wds:{folder}/*.tar", batch_size=8, shuffle=True, settings=settings)
    found = list(DataLoader(dataset, batch_size=None, num_workers=2))
    assert all(map(same, found, make(ref=f"wds:{folder}/*.tar", shuffle=True)))


def test_splits_are_told_by_names(make, folder):
    write_shards(folder, 9, name="val")
    dataset = make().dataset
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 50, "val": 9}
    assert len(make(split="val")) == 2
    with pytest.raises(UnknownSplit, match="it has train, val"):
        make(split="test")


class TestTheIndex:
    def test_is_kept_and_scans_no_more(self, make, folder, settings, monkeypatch):
        first = make().state_dict()
        monkeypatch.setattr(indexing, "scan", None)
        assert make().state_dict() == first
        assert not list(settings.locks.iterdir())

    def test_of_http_is_kept(self, make, web, tmp_path):
        place = {"source": f"{web.url}/a/train-{{000000..000002}}.tar", "settings": Settings(home=tmp_path / "far")}
        list(make(**place))
        web.requests.clear()
        assert sum(len(batch["index"]) for batch in make(**place)) == 50
        assert [headers["Range"] for _, headers in web.requests] == ["bytes=0-511"] * 3

    def test_is_made_anew_of_what_changed_alone(self, make, folder, monkeypatch):
        before, scanned = make(), []
        scan = indexing.scan
        monkeypatch.setattr(indexing, "scan", lambda shard: scanned.append(shard.path) or scan(shard))
        path = folder / "train-000001.tar"
        path.write_bytes(tar([member for number in range(9) for member in sample(100 + number)]))
        after = make()
        assert scanned == [str(path)] and (len(before.split), len(after.split)) == (50, 39)
        with pytest.raises(StateMismatch, match=r"the dataset was mine@\w{8}/wds:train, is mine@\w{8}/wds:train"):
            after.load_state_dict(before.state_dict())

    def test_is_the_same_of_a_copy(self, make, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "copy")
        os.utime(tmp_path / "copy/train-000000.tar", (1, 1))
        assert make(source=tmp_path / "copy").split.fingerprint == make().split.fingerprint

    def test_is_of_the_pixels_too(self, make, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "copy")
        path = tmp_path / "copy/train-000002.tar"
        data = bytearray(path.read_bytes())
        data[data.index(b"IDAT") + 40] ^= 1
        path.write_bytes(data)
        assert make(source=tmp_path / "copy").split.fingerprint != make().split.fingerprint

    def test_is_for_now_where_it_cannot_be_kept(self, make, tmp_path):
        heard: list[Any] = []
        (tmp_path / "file").write_bytes(b"")
        loader = make(settings=Settings(home=tmp_path / "file"), listener=heard.append)
        assert len(seen(list(loader))) == 50
        assert "the index is kept until the program ends" in next(each.message for each in heard if each.warning)

    def test_is_shared_by_processes_that_begin_at_once(self, folder, settings):
        code = (
            "import sys; from pathlib import Path; from datahub.core.refs import Ref\n"
            "from datahub.core.settings import Settings; from datahub.stream.remote import Here\n"
            "from datahub.stream.foreign.opening import open_foreign\n"
            "home = Path(sys.argv[2])\n"
            "print(len(open_foreign(Ref('mine'), sys.argv[1], Here(home), Settings(home=home))['train']))"
        )
        command = [sys.executable, "-c", code, str(folder), str(settings.home)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [each.communicate(timeout=120)[0].strip() for each in running] == ["50"] * 2
        assert not list(settings.locks.iterdir())


class TestWhatIsWrong:
    @pytest.mark.parametrize("harm", ["truncated", "deleted", "rewritten"])
    def test_under_a_running_epoch(self, make, folder, harm):
        running = iter(make(batch_size=2, prefetch=1))
        next(running)
        for path in folder.glob("*.tar"):
            if harm == "truncated":
                os.truncate(path, 512)
            elif harm == "deleted":
                path.unlink()
            else:
                path.with_name("new").write_bytes(path.read_bytes())
                path.with_name("new").replace(path)
        with pytest.raises(StoreDamaged, match=r"train-00000\d\.tar.*; open the shards again: those that changed"):
            list(running)
        assert no_threads()

    def test_an_origin_that_holds_other_bytes_than_were_indexed(self, make, web, tmp_path):
        far = {"source": f"{web.url}/a/train-{{000000..000002}}.tar", "settings": Settings(home=tmp_path / "far")}
        loader = make(**far, cache_limit=1)
        path = web.paths["/a/train-000001.tar"]
        path.data = path.data[:3000] + bytes(100) + path.data[3100:]
        with pytest.raises(DigestMismatch, match=r"/a/train-000001.tar block 0.*open the shards again"):
            list(loader)
        path.etag = '"2"'
        with pytest.raises(VerificationError, match=r"train-000001\.tar"):
            list(make(**far))

    def test_shards_that_change_while_they_are_scanned(self, make, web, monkeypatch):
        scan = indexing.scan

        def changing(shard):
            web.paths["/a/train-000000.tar"].etag = '"other"'
            return scan(shard)

        monkeypatch.setattr(indexing, "scan", changing)
        with pytest.raises(OriginChanged, match=r"train-000000\.tar"):
            make(source=f"{web.url}/a/train-{{000000..000002}}.tar")

    def test_shards_that_are_not_there(self, make, web, folder):
        with pytest.raises(BadArgument, match=r"train-000003\.tar.*there is no such shard"):
            make(source=f"{web.url}/a/train-{{000002..000003}}.tar")
        with pytest.raises(BadArgument, match=r"train-000003\.tar.*there is no such shard"):
            make(source=f"{folder}/train-{{000002..000003}}.tar")

    def test_an_origin_without_end(self, make, web):
        web.paths["/a/train-000001.tar"].statuses = [403] * 9
        with pytest.raises(HttpError, match=r"train-000001\.tar: HTTP 403"):
            make(source=f"{web.url}/a/train-{{000000..000002}}.tar")

    @pytest.mark.parametrize(
        ("members", "what"),
        [
            ([("a.ten", b"1"), ("b.ten", b"2")], r"holds no samples with images; they hold \.ten"),
            ([*sample(0), ("b.png", b"x")], r"b\.png: has no \.cls beside it, as others have"),
            ([("a.png", b"x"), ("a.cls", b"")], r"a\.png: has no label"),
        ],
    )
    def test_samples(self, make, tmp_path, members, what):
        (tmp_path / "s.tar").write_bytes(tar(members))
        with pytest.raises(LayoutError, match=what):
            make(source=tmp_path / "s.tar")

    def test_a_folder_of_a_packed_variant_is_no_foreign_one(self, home, folder):
        from datahub.core.refs import Ref
        from datahub.store.find import find

        with pytest.raises(BadArgument, match=r"holds tiny@1\.0/published, not mine"):
            StreamingLoader("mine", batch_size=8, source=find(home, Ref.parse("tiny")).path, settings=home)

    def test_arguments(self, make, folder, tmp_path):
        with pytest.raises(BadArgument, match="give a name, or leave source= out"):
            make(ref=f"wds:{folder}", source=folder)
        with pytest.raises(Offline):
            make(source="https://host/x-{0..3}.tar", settings=Settings(home=tmp_path, offline=True))
        settings = Settings(home=tmp_path / "other", source=f"{folder}/train-*.tar")
        with pytest.raises(BadArgument, match=r"DATAHUB_SOURCE=.*shards are not searched for mine"):
            make(source=None, settings=settings)
        (tmp_path / "none").mkdir()
        with pytest.raises(BadArgument, match=r"holds no dataset\.json"):
            make(source=tmp_path / "none")


def test_shards_of_other_hands(make, shared_data):
    folder = shared_data / "webdataset-testdata"
    with pytest.raises(BadArgument, match=r"sample\.tgz.*is compressed.*`datahub pack 'wds:.*sample\.tgz' NAME`"):
        make(source=folder / "sample.tgz")
    with pytest.raises(LayoutError, match=r"tendata\.tar: holds no samples with images; they hold \.ten"):
        make(source=folder / "tendata.tar")


def test_labels_in_documents_and_names(make, tmp_path):
    members = [(f"{n}.png", image(n)) for n in range(4)]
    members += [(f"{n}.json", b'{"label": %d, "x": "y"}' % (n % 2)) for n in range(4)]
    (tmp_path / "json.tar").write_bytes(tar(sorted(members)))
    assert sorted(next(iter(make(source=tmp_path / "json.tar")))["label"].tolist()) == [0, 0, 1, 1]
    named = [
        member for n in range(4) for member in ((f"{n}.png", image(n)), (f"{n}.cls", b"cat\n" if n % 2 else b"ant"))
    ]
    (tmp_path / "named.tar").write_bytes(tar(named))
    loader = make(source=tmp_path / "named.tar", where='label == "cat"')
    assert loader.dataset.classes == ["ant", "cat"] and seen(list(loader)) == [1, 3]


def test_samples_that_have_no_image_are_told(make, tmp_path):
    heard: list[Any] = []
    (tmp_path / "s.tar").write_bytes(tar([*sample(0), ("lost.json", b"{}"), *sample(1)]))
    (tmp_path / "t.tar").write_bytes(tar([]))
    loader = make(source=f"{tmp_path}/{{s,t}}.tar", listener=heard.append)
    assert len(loader.split) == 2 and len(loader.split.shards) == 2 and seen(list(loader)) == [0, 1]
    assert [each.message for each in heard if hasattr(each, "message")] == [
        "1 samples without an image are passed over: .json"
    ]


def test_random_access_in_a_dataloader(settings, folder):
    split = open_dataset("mine", settings, source=folder)["train"]
    found = [row for rows in DataLoader(split, batch_size=20, num_workers=1, collate_fn=list) for row in rows]
    assert [row["key"] for row in found] == [split[at].key for at in range(50)]
    assert all((row["image"] == split[at]["image"]).all() for at, row in enumerate(found))
