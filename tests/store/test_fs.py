from __future__ import annotations

import errno
import pickle
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pandas
import pyarrow.dataset
import pyarrow.parquet
import pytest

from datahub.store import fs as module
from datahub.store.fs import DatahubFileSystem, register_webdataset
from tests.conftest import ROOT
from tests.store import builder
from tests.store.builder import names, tiny_variant


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that the environment names, with nothing else of this machine in it."""
    for name in ("STORES", "MANIFESTS", "FROM", "OFFLINE"):
        monkeypatch.delenv(f"DATAHUB_{name}", raising=False)
    monkeypatch.setenv("DATAHUB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "home"


@pytest.fixture
def fs(home: Path) -> DatahubFileSystem:
    tiny_variant(home, "mnist")
    tiny_variant(home, "mnist", variant="tiled", splits={"train": 9})
    tiny_variant(home, "emnist", variant="letters")
    return DatahubFileSystem()


def test_the_entry_point_names_the_class() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["fsspec.specs"]
    room, _, name = points["datahub"].partition(":")
    assert (room, name) == (module.__name__, DatahubFileSystem.__name__)


def test_fsspec_knows_the_protocol(fs: DatahubFileSystem) -> None:
    if "datahub" not in fsspec.available_protocols():
        pytest.skip("the installed package is older than its entry point; install it again")
    assert type(fsspec.filesystem("datahub")).__name__ == "DatahubFileSystem"
    with fsspec.open("datahub://mnist/README.md", "rt") as handle:
        assert handle.read().startswith("---\n")


def test_listing(fs: DatahubFileSystem, home: Path) -> None:
    folder = home / "datasets" / "mnist" / "1.0" / "published"
    assert fs.ls("", detail=False) == ["emnist", "mnist"]
    assert sorted(fs.find("datahub://mnist")) == [f"mnist/{name}" for name in names(folder)]
    assert fs.ls("mnist/.nv-meta", detail=False) == ["mnist/.nv-meta/.info.json"]
    assert "mnist@1.0/tiled/README.md" in fs.ls("mnist@1.0/tiled", detail=False)
    assert fs.ls("mnist/README.md", detail=False) == ["mnist/README.md"]
    assert fs.glob("datahub://mnist/*-train-*.tar") == [f"mnist/mnist-train-00000{n}.tar" for n in range(2)]
    assert fs.glob("mnist/tiled/index-*.parquet") == ["mnist/tiled/index-train.parquet"]


def test_a_name_whose_default_variant_is_not_packed_lists_the_others(fs: DatahubFileSystem) -> None:
    assert fs.ls("emnist", detail=False) == ["emnist/letters"]
    assert fs.isdir("emnist")
    assert fs.exists("emnist/letters/README.md")
    with pytest.raises(FileNotFoundError, match="datahub fetch emnist"):
        fs.open("emnist/README.md")


def test_facts(fs: DatahubFileSystem, home: Path) -> None:
    path = home / "datasets" / "mnist" / "1.0" / "published" / "blocks.bin"
    found = fs.info("datahub://mnist/blocks.bin")
    assert (found["name"], found["type"], found["size"]) == ("mnist/blocks.bin", "file", path.stat().st_size)
    assert fs.size("mnist@1.0/published/blocks.bin") == path.stat().st_size
    assert fs.isfile("mnist/blocks.bin") and fs.isdir("mnist") and fs.isdir("mnist/tiled") and fs.isdir("")
    assert fs.modified("mnist/blocks.bin").timestamp() == pytest.approx(path.stat().st_mtime, abs=1e-3)
    assert fs.local_path("mnist/blocks.bin") == path


def test_the_part_after_the_name_is_a_variant_only_where_one_is_packed(fs: DatahubFileSystem, home: Path) -> None:
    (home / "datasets" / "mnist" / "1.0" / "published" / "plain").write_bytes(b"a file without a dot")
    assert fs.cat_file("mnist/plain") == b"a file without a dot"
    assert fs.isdir("mnist/tiled")
    tiny_variant(home, "mnist", variant="plain", splits={"train": 5})
    assert DatahubFileSystem().isdir("mnist/plain")


def test_the_newest_version_unless_one_is_named(fs: DatahubFileSystem, home: Path) -> None:
    tiny_variant(home, "mnist", version="2.0", splits={"train": 3})
    fresh = DatahubFileSystem()
    assert b'"version": "2.0"' in fresh.cat_file("mnist/dataset.json")
    assert b'"version": "1.0"' in fresh.cat_file("mnist@1.0/dataset.json")


def test_reading_in_all_the_ways_of_fsspec(fs: DatahubFileSystem, home: Path) -> None:
    shard = home / "datasets" / "mnist" / "1.0" / "published" / "mnist-train-000000.tar"
    data = shard.read_bytes()
    path = "datahub://mnist/mnist-train-000000.tar"
    assert fs.cat_file(path) == data
    assert fs.cat_file(path, 512, 1024) == data[512:1024]
    assert fs.cat_file(path, -100) == data[-100:]
    assert fs.cat_ranges([path] * 3, [0, 7, 512], [4, 9, 600]) == [data[:4], data[7:9], data[512:600]]
    assert fs.cat(["mnist/blocks.bin", "mnist/README.md"]).keys() == {"mnist/blocks.bin", "mnist/README.md"}
    with fs.open(path) as handle:
        assert handle.name == str(shard)
        handle.seek(512)
        assert handle.read(88) == data[512:600]
    fs.get_file(path, str(home / "copy.tar"))
    assert (home / "copy.tar").read_bytes() == data


@pytest.mark.parametrize(
    "path",
    [
        "nope/x",
        "mnist/nope.tar",
        "mnist@9/README.md",
        "mnist/../emnist",
        "mnist/./x",
        "No Name/x",
        "mnist/published/no",
    ],
)
def test_what_is_not_there_is_file_not_found(fs: DatahubFileSystem, path: str) -> None:
    for ask in (fs.open, fs.info, fs.ls, fs.local_path):
        with pytest.raises(FileNotFoundError):
            ask(path)
    assert not fs.exists(path)


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_writes_are_refused(fs: DatahubFileSystem, mode: str) -> None:
    with pytest.raises(OSError, match="read-only") as caught:
        fs.open("mnist/README.md", mode)
    assert caught.value.errno == errno.EROFS


def test_a_removed_variant_is_not_remembered(fs: DatahubFileSystem, home: Path) -> None:
    assert fs.exists("mnist/README.md")
    for path in (home / "datasets" / "mnist" / "1.0").iterdir():
        path.rename(home / path.name)
    assert not fs.exists("mnist/README.md")


def test_settings_are_the_environments_unless_given(fs: DatahubFileSystem, tmp_path: Path, monkeypatch) -> None:
    tiny_variant(tmp_path / "other", "kmnist")
    assert DatahubFileSystem(home=str(tmp_path / "other")).ls("", detail=False) == ["kmnist"]
    assert DatahubFileSystem(stores=[str(tmp_path / "other")]).ls("", detail=False) == ["emnist", "kmnist", "mnist"]
    monkeypatch.setenv("DATAHUB_HOME", str(tmp_path / "other"))
    assert DatahubFileSystem().ls("", detail=False) == ["kmnist"]


def test_it_pickles_with_what_it_was_given(fs: DatahubFileSystem, tmp_path: Path) -> None:
    tiny_variant(tmp_path / "other", "kmnist")
    given = DatahubFileSystem(home=str(tmp_path / "other"))
    assert pickle.loads(pickle.dumps(given)).ls("", detail=False) == ["kmnist"]
    assert pickle.loads(pickle.dumps(fs)).ls("", detail=False) == ["emnist", "mnist"]


def test_pyarrow_reads(fs: DatahubFileSystem) -> None:
    table = pyarrow.parquet.read_table("mnist/index-train.parquet", filesystem=fs)
    assert table["key"].to_pylist() == [f"train-{row:09d}" for row in range(20)]
    both = pyarrow.dataset.dataset(["mnist/index-train.parquet", "mnist/index-test.parquet"], filesystem=fs)
    assert both.count_rows(filter=pyarrow.dataset.field("label") >= 0) == 26


def test_pandas_reads(fs: DatahubFileSystem) -> None:
    if "datahub" not in fsspec.available_protocols():
        pytest.skip("the installed package is older than its entry point; install it again")
    frame = pandas.read_parquet("datahub://mnist/index-train.parquet")
    assert frame["label"].tolist() == [builder.label("train", row) for row in range(20)]


@pytest.fixture
def webdataset_scheme() -> Iterator[Callable[[], None]]:
    import webdataset

    before = dict(webdataset.gopen_schemes)
    yield register_webdataset
    webdataset.gopen_schemes.clear()
    webdataset.gopen_schemes.update(before)


def test_webdataset_reads(fs: DatahubFileSystem, webdataset_scheme: Callable[[], None]) -> None:
    import webdataset

    url = "datahub://mnist/mnist-train-{000000..000001}.tar"
    with pytest.raises(ValueError, match="no gopen handler"):
        next(iter(webdataset.WebDataset(url, shardshuffle=False)))
    webdataset_scheme()
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode("rgb8"))
    assert [each["__key__"] for each in samples] == [f"train-{row:09d}" for row in range(20)]
    assert [each["cls"] for each in samples] == [builder.label("train", row) for row in range(20)]
    assert (samples[7]["png"] == builder.pixels("train", 7)).all()
    with pytest.raises(OSError, match="ead-only"):
        webdataset.gopen("datahub://mnist/mnist-train-000000.tar", "wb")
