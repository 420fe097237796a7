"""A cache server as an fsspec file system."""

from __future__ import annotations

import errno
import pickle
import time
from pathlib import Path

import fsspec
import pandas
import pytest

from datahub.serve import library
from datahub.serve.config import Tokens
from datahub.store.fs import DatahubFileSystem
from datahub.store.served_fs import ServedFileSystem
from tests.serve.conftest import BIG, big_variant, content, located

READ = "r" * 32


@pytest.fixture(autouse=True)
def registered():
    """As the entry points of an installed datahub do."""
    for protocol in ServedFileSystem.protocol:
        fsspec.register_implementation(protocol, ServedFileSystem, clobber=True)


def test_what_is_installed_names_it():
    from importlib import import_module
    from tomllib import loads

    project = loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for protocol in ServedFileSystem.protocol:
        module, _, name = project["entry-points"]["fsspec.specs"][protocol].partition(":")
        assert getattr(import_module(module), name) is ServedFileSystem


@pytest.fixture
def url(server):
    ServedFileSystem.clear_instance_cache()
    return f"datahub+{server.url}"


def test_every_file_is_listed_and_read(url, home):
    folder = located(home).path
    fs, path = fsspec.core.url_to_fs(f"{url}/tiny")
    truth = {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    found = fs.find(path, detail=True)
    assert {name.removeprefix("tiny/"): facts["size"] for name, facts in found.items()} == {
        name: len(data) for name, data in truth.items()
    }
    assert {name.removeprefix("tiny/"): data for name, data in fs.cat(list(found)).items()} == truth
    assert sorted(fs.ls("", detail=False)) == ["big", "tiny"] and fs.isdir("tiny/.nv-meta")
    assert fs.unstrip_protocol("tiny/x.tar") == f"{url}/tiny/x.tar"


@pytest.mark.parametrize("ref", ["tiny", "tiny@1.0", "tiny/published", "tiny@1.0/published"])
def test_paths_name_variants_as_references_do(url, home, ref):
    shards = [f"{ref}/{each.name}" for each in sorted(located(home).path.glob("*.tar"))]
    assert fsspec.core.url_to_fs(url)[0].glob(f"{ref}/*.tar") == shards
    assert len(fsspec.open_files(f"{url}/{ref}/*.tar")) == len(shards)


def test_ranges_and_seeking(url, server):
    whole, before = content(), server.metric("datahub_sent_bytes_total")
    fs, path = fsspec.core.url_to_fs(f"{url}/big/data.bin")
    assert fs.cat_ranges([path] * 3, [0, 7, BIG - 9], [5, 7, BIG]) == [whole[:5], b"", whole[-9:]]
    assert fs.cat_file(path, -9) == whole[-9:] and fs.cat_file(path, BIG - 1, BIG + 9) == whole[-1:]
    assert server.metric("datahub_sent_bytes_total") - before == 5 + 9 + 9 + 1
    with fs.open(path) as file, pickle.loads(pickle.dumps(fs)).open(path) as other:
        assert file.seek(BIG - 100) and file.read() == whole[-100:]
        assert other.read(10) == whole[:10] and other.size == BIG


def test_pandas_reads_an_index(url):
    assert len(pandas.read_parquet(f"{url}/tiny/index-train.parquet", columns=["key"])) == 20


@pytest.mark.parametrize("path", ["none/x", "tiny/none", "tiny@2.0/x", "tiny/other/x", "..", "tiny/../big", "A/b"])
def test_what_is_not_there(url, path):
    fs, _ = fsspec.core.url_to_fs(url)
    assert not fs.exists(path)
    for read in (fs.cat_file, fs.info, fs.open, fs.ls):
        with pytest.raises(FileNotFoundError):
            read(path)


def test_what_cannot_be_done(url, start, home, monkeypatch):
    fs, _ = fsspec.core.url_to_fs(url)
    with pytest.raises(OSError, match="read-only") as refused:
        fs.open("tiny/README.md", "wb")
    assert refused.value.errno == errno.EROFS
    with pytest.raises(IsADirectoryError):
        fs.cat_file("tiny/.nv-meta")
    with pytest.raises(OSError, match="refused") as gone:
        ServedFileSystem("http://127.0.0.1:9").ls("tiny")
    assert gone.value.errno == errno.EIO
    closed = ServedFileSystem(start(home, tokens=Tokens((READ,), ())).url)
    with pytest.raises(PermissionError, match="DATAHUB_TOKEN"):
        closed.ls("tiny")
    monkeypatch.setenv("DATAHUB_TOKEN", READ)
    assert closed.cat_file("big/data.bin", 0, 9) == content()[:9]


CHANGES = [
    lambda fs: fs.mkdir("x"), lambda fs: fs.makedirs("x/y", exist_ok=True), lambda fs: fs.rmdir("tiny"),
    lambda fs: fs.rm("tiny", recursive=True), lambda fs: fs.rm_file("tiny/dataset.json"), lambda fs: fs.touch("tiny/x"),
    lambda fs: fs.mv("tiny/dataset.json", "tiny/x"), lambda fs: fs.cp_file("tiny/dataset.json", "tiny/x"),
    lambda fs: fs.pipe_file("tiny/x", b"1"), lambda fs: fs.put_file(__file__, "tiny/x"), lambda fs: fs.open("x", "ab"),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_can_be_changed(url, home, change):
    for fs in (fsspec.core.url_to_fs(url)[0], DatahubFileSystem(home=str(home.home))):
        with pytest.raises(OSError, match="is read-only") as caught:
            change(fs)
        assert caught.value.errno == errno.EROFS


def test_a_server_that_fails_is_no_absence(start, home, monkeypatch):
    """Nothing is taken for missing, and no pattern for one that matches nothing, because nobody could be asked."""
    server = start(home, tokens=Tokens((READ,)))
    fs, _ = fsspec.core.url_to_fs(f"datahub+{server.url}/tiny")
    for ask in (fs.exists, fs.isdir, fs.isfile, fs.find, lambda path: fs.glob(f"{path}/*.tar"), lambda _: fs.glob("*")):
        with pytest.raises(PermissionError):
            ask("tiny")
    monkeypatch.setenv("DATAHUB_TOKEN", READ)
    assert fs.exists("tiny") and len(fs.glob("tiny/*.tar")) == 4
    assert not fs.exists("none") and not fs.isdir("none") and not fs.isfile("tiny") and fs.isdir("tiny")
    assert fs.glob("none/*.tar") == [] and fs.find("none") == []
    server.loop.call_soon_threadsafe(server.stop)
    wait_closed(server)
    assert len(fs.ls("tiny")) == 18
    with pytest.raises(OSError, match="refused"):
        fs.ls("tiny", refresh=True)
    with pytest.raises(OSError, match="refused"):
        fs.glob("tiny/*.tar")


def wait_closed(server):
    deadline = time.monotonic() + 20
    while not server.loop.is_closed():
        assert time.monotonic() < deadline, "the server did not end"
        time.sleep(0.02)


def test_a_variant_that_is_replaced_is_not_mixed_with_what_it_was(start, home, elsewhere, monkeypatch):
    monkeypatch.setattr(library, "FRESH_ORIGIN", 0.0)
    server = start(elsewhere, origin=(str(home.home),))
    fs = ServedFileSystem(server.url)
    assert fs.cat_file("big/data.bin", 0, 9) == content()[:9]
    big_variant(elsewhere.home, seed=9)
    assert server.ask("/v1/datasets/big/1.0/published/data.bin").body == content(9)
    assert fs.cat_file("big/data.bin", 0, 9) == content()[:9]
    fs.invalidate_cache()
    assert fs.cat_file("big/data.bin", 0, 9) == content(9)[:9]
