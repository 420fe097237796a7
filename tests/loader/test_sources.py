"""`source=`: batches from anywhere are the batches of the local store."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import datahub
from datahub.core.errors import (
    BadArgument,
    ConnectionLost,
    DigestMismatch,
    HttpError,
    Offline,
    OriginStalled,
    RecordInvalid,
    StoreDamaged,
)
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.sources import spread
from datahub.loader.streaming import StreamingLoader
from datahub.order import OrderOptions
from datahub.store.export import export
from datahub.store.find import find
from tests.acquire.server import Behaviour, Origin, serving
from tests.loader.conftest import check, image, no_threads, same, seen


@pytest.fixture
def folder(home: Settings) -> Path:
    """The variant's own folder."""
    return find(home, Ref.parse("tiny")).path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    """Settings of a machine with an empty store."""
    return Settings(home=tmp_path / "elsewhere")


@pytest.fixture
def web(folder: Path) -> Iterator[Origin]:
    with serving() as origin:
        serve(origin, folder)
        yield origin


def serve(origin: Origin, folder: Path, below: str = "/") -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            origin.paths[f"{below}{path.relative_to(folder).as_posix()}"] = Behaviour(data=path.read_bytes())


@pytest.fixture
def remote(elsewhere: Settings, web: Origin) -> Iterator[Any]:
    made = []

    def loader(**arguments: Any) -> StreamingLoader:
        defaults = {"batch_size": 8, "num_workers": 2, "timeout": 20, "source": web.url, "settings": elsewhere}
        made.append(StreamingLoader("tiny", arguments.pop("split", "train"), **(defaults | arguments)))
        return made[-1]

    yield loader
    for each in made:
        each.close()


def shard_requests(origin: Origin) -> list[str]:
    return [path for path, _ in origin.requests if path.endswith(".tar")]


@pytest.fixture(params=["http", "memory", "file", "folder", "file, cached"])
def place(request: pytest.FixtureRequest, home: Settings, folder: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "http":
        with serving() as origin:
            serve(origin, folder)
            yield {"source": f"{origin.url}/"}
    elif request.param == "memory":
        url = f"memory://{tmp_path.name}/tiny"
        export(find(home, Ref.parse("tiny")), url)
        yield {"source": url}
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    else:
        source = str(folder) if request.param == "folder" else folder.as_uri()
        yield {"source": source} | ({"cache_dir": tmp_path / "cache"} if "cached" in request.param else {})


@pytest.mark.parametrize("order", [{}, {"order": datahub.Order(window=2, lanes=2)}], ids=["all", "window"])
def test_batches_are_those_of_the_store(make, remote, place, order):
    local = make(shuffle=True, seed=3, **order)
    far = remote(shuffle=True, seed=3, **order, **place)
    for _ in range(2):
        ours, theirs = list(far), list(local)
        assert len(ours) == len(theirs) and all(map(same, ours, theirs))
    check(ours[0])
    far.load_state_dict(local.state_of(theirs[2]))
    assert all(map(same, far, theirs[3:]))


def test_a_shuffle_wider_than_the_cache_reads_samples_by_themselves(make, remote, web):
    far, local = remote(shuffle=True, cache_limit=15_000), make(shuffle=True)
    for _ in range(2):
        assert all(map(same, list(far), list(local)))
    ranges = [headers["Range"] for path, headers in web.requests if path.endswith(".tar")]
    sizes = [int(each.partition("-")[2]) - int(each.removeprefix("bytes=").partition("-")[0]) + 1 for each in ranges]
    assert sum(size < 1000 for size in sizes) >= 50  # images are some 400 bytes, shards 60 kB


@pytest.mark.parametrize("cache", [{}, {"cache_limit": 15_000}], ids=["", "a small cache"])
def test_what_is_held_is_asked_of_the_origin_once(make, remote, web, cache):
    far, local = remote(residency="encoded", shuffle=True, **cache), make(shuffle=True)
    assert all(map(same, list(far), list(local)))
    asked = sorted(path for path in web.paths if path.endswith(".tar") and "train" in path)
    assert sorted(shard_requests(web)) == asked  # whole blocks, however small the cache is
    web.requests.clear()
    for path in web.paths.values():
        path.data = bytes(len(path.data))
    assert all(map(same, list(far), list(local))) and not web.requests


def test_what_is_held_was_verified(remote, web):
    name = next(path for path in web.paths if path.endswith("train-000001.tar"))
    web.paths[name].data = bytes(len(web.paths[name].data))
    with pytest.raises(DigestMismatch, match=rf"{web.url}{name} block 0: digest is"):
        next(iter(remote(residency="encoded")))


def test_open_gives_samples_cards_and_tables(elsewhere, web):
    dataset = open_dataset("tiny@1.0/published", elsewhere, source=web.url)
    assert (dataset["test"][3]["image"] == image("test", 3)).all()
    assert dataset["train"][5]["source"].startswith("train/") and "# tiny" in dataset.card
    assert len(dataset["train"].table(["key"])) == 50
    again = pickle.loads(pickle.dumps(dataset))
    assert again["test"][3].encoded == dataset["test"][3].encoded


def test_a_store_at_a_url_is_searched_by_name(elsewhere, web, folder, remote):
    web.paths.clear()
    serve(web, folder, "/datasets/tiny/1.0/published/")
    dataset = open_dataset("tiny@1.0/published", elsewhere, source=web.url)
    assert len(dataset["train"]) == 50


def test_settings_name_a_source_for_what_the_store_lacks(home, elsewhere, web):
    from dataclasses import replace

    far = replace(elsewhere, source=web.url)
    with StreamingLoader("tiny", batch_size=8, settings=far, timeout=20) as loader:
        assert sorted(seen(list(loader))) == list(range(50))
    asked = len(web.requests)
    with StreamingLoader("tiny", batch_size=8, settings=replace(home, source=web.url), timeout=20) as loader:
        assert sorted(seen(list(loader))) == list(range(50))
    assert len(web.requests) == asked


def test_the_origin_gives_each_block_once(remote, web):
    first, second = remote(shuffle=True), remote(shuffle=True, seed=9)
    assert sorted(seen(list(first))) == list(range(50))
    assert sorted(shard_requests(web)) == sorted(
        {path for path in web.paths if path.endswith(".tar") and "train" in path}
    )
    assert sorted(seen(list(second))) == list(range(50))
    assert len(shard_requests(web)) == 3


def test_what_was_kept_is_not_fetched_again(elsewhere, web, remote):
    list(remote(fields=("image", "source")))
    web.requests.clear()
    list(remote(fields=("image", "source")))
    assert [path for path, _ in web.requests] == ["/v1", "/dataset.json"]


def test_wrong_bytes_of_a_block_are_refused_by_name(remote, web):
    name = next(path for path in web.paths if path.endswith("train-000001.tar"))
    web.paths[name].data = bytes(len(web.paths[name].data))
    with pytest.raises(DigestMismatch, match=rf"{web.url}{name} block 0: digest is"):
        list(remote())
    assert shard_requests(web).count(name) >= 3
    assert no_threads()


@pytest.mark.parametrize("name", ["locate-train.npy", "blocks.bin", "dataset.json"])
def test_wrong_tables_are_refused_by_name(remote, web, name):
    data = web.paths[f"/{name}"].data
    web.paths[f"/{name}"].data = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    with pytest.raises((DigestMismatch, RecordInvalid), match=name):
        list(remote())


def test_a_failing_origin_is_put_up_with(remote, web):
    for path in web.paths:
        if path.endswith(".tar"):
            web.paths[path].statuses, web.paths[path].cut = [503, 429], [100, 0]
    assert sorted(seen(list(remote()))) == list(range(50))


def test_a_shard_that_vanished_is_named(remote, web):
    del web.paths[next(path for path in web.paths if path.endswith("train-000002.tar"))]
    with pytest.raises(HttpError, match=r"train-000002\.tar: HTTP 404"):
        list(remote())


def test_a_stalled_origin_is_named_within_the_timeout(remote, web):
    loader = remote(timeout=1.0)
    for path in web.paths:
        web.paths[path].pause, web.paths[path].cut = 30.0, [10]
    began = time.monotonic()
    with pytest.raises((OriginStalled, ConnectionLost), match=r"\.tar"):
        list(loader)
    assert time.monotonic() - began < 4.0


class TestArguments:
    def test_where_there_is_no_variant(self, remote, web, tmp_path):
        web.paths.clear()
        with pytest.raises(BadArgument, match=r"holds no dataset\.json of tiny; give the URL that `datahub export"):
            remote()
        with pytest.raises(BadArgument, match="holds no dataset"):
            remote(source=tmp_path / "nothing")

    @pytest.mark.parametrize("ref", ["other", "tiny@2.0", "tiny@1.0/tiled"])
    def test_another_dataset(self, elsewhere, web, ref):
        with pytest.raises(BadArgument, match=f"holds tiny@1.0/published, not {ref}"):
            open_dataset(ref, elsewhere, source=web.url)

    def test_offline(self, web, tmp_path):
        with pytest.raises(Offline):
            open_dataset("tiny", Settings(home=tmp_path, offline=True), source=web.url)

    @pytest.mark.parametrize(
        "wrong", [{"source": ""}, {"source": 3}, {"cache_dir": 5}, {"cache_limit": "much"}, {"cache_limit": 0}]
    )
    def test_values_that_cannot_be(self, remote, wrong):
        with pytest.raises(BadArgument, match=next(iter(wrong))):
            remote(**wrong)

    def test_a_cache_without_a_source(self, make):
        with pytest.raises(BadArgument, match=r"cache_limit=.*give source="):
            make(cache_limit="1GB")

    def test_a_cache_folder_that_cannot_be(self, remote, tmp_path):
        heard: list[Any] = []
        (tmp_path / "file").write_bytes(b"")
        loader = remote(cache_dir=tmp_path / "file", listener=heard.append)
        assert sorted(seen(list(loader))) == list(range(50))
        assert len(heard) == 2 and all(each.warning for each in heard)  # tables, then blocks


class TestLocalShards:
    """What happens to a running epoch when its shards do not stay as they are."""

    @pytest.mark.parametrize("harm", ["truncated", "deleted"])
    def test_is_told_by_name(self, make, folder, harm):
        loader = make(batch_size=2, prefetch=1)
        running = iter(loader)
        next(running)
        for path in sorted(folder.glob("*train*.tar")):
            os.truncate(path, 512) if harm == "truncated" else path.unlink()
        with pytest.raises(StoreDamaged, match=r"tiny-train-00000\d\.tar"):
            list(running)
        assert no_threads()


def test_two_datasets_share_a_folder_and_a_limit(home, elsewhere, web, tmp_path):
    from tests.store.builder import tiny_variant

    other = tiny_variant(tmp_path / "second", "other", splits={"train": 40}, shards=4)
    serve(web, other, "/other/")
    cache, limit = tmp_path / "cache", 20_000
    first = StreamingLoader(
        "tiny", batch_size=5, source=web.url, cache_dir=cache, cache_limit=limit, settings=elsewhere
    )
    second = StreamingLoader(
        "other", batch_size=5, source=f"{web.url}/other", cache_dir=cache, cache_limit=limit, settings=elsewhere
    )
    for _ in range(2):
        for ours, theirs in zip(first, second, strict=False):
            check(ours)
            check(theirs)
            held = sum(path.stat().st_size for path in (cache / "blocks").rglob("*") if path.is_file())
            assert held <= limit
    first.close()
    second.close()


RANK = """
import sys
import datahub
from datahub.core.settings import Settings
from pathlib import Path

url, home, rank = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
topology = datahub.Topology(rank=rank, world_size=2)
with datahub.StreamingLoader(
    "tiny", batch_size=4, shuffle=True, source=url, settings=Settings(home=home), topology=topology, timeout=30
) as loader:
    print(sorted(row for batch in loader for row in batch["index"][batch["valid"]].tolist()))
"""


def test_ranks_of_a_machine_ask_the_origin_once(elsewhere, web):
    command = [sys.executable, "-c", RANK, web.url, str(elsewhere.home)]
    ranks = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    found = [eval(each.communicate(timeout=120)[0]) for each in ranks]
    assert sorted(found[0] + found[1]) == list(range(50))
    assert len(shard_requests(web)) == 3


@pytest.mark.parametrize(
    ("window", "lanes", "nodes", "expected"),
    [
        ("all", 1, 1, 6400),
        ("all", 8, 1, 6400),
        ("all", 8, 8, 800),
        ("all", 16, 8, 800),
        (4, 1, 1, 80),
        (4, 8, 1, 640),
        (4, 8, 8, 80),
        (4, 16, 8, 160),
        (100, 8, 8, 800),
        (4, 1, 8, 6400),
        (4, 8, 3, 6400),
        ("all", 1, 8, 6400),
    ],
)
def test_a_machine_reads_among_its_own_lanes(window, lanes, nodes, expected):
    """Where machines share lanes, each needs but a few samples of every part."""
    assert spread(OrderOptions(window, lanes), nodes, 6400, 10) == expected
