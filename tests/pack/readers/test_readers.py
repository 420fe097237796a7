"""One packed directory of MNIST, unchanged, in the readers people already have."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store.find import find

SPLITS = {"train": 60_000, "test": 10_000}
PUBLISHED = {"train": "train-labels-idx1-ubyte.gz", "test": "t10k-labels-idx1-ubyte.gz"}


@pytest.fixture(scope="module")
def folder(mnist_store: Settings) -> Path:
    return find(mnist_store, Ref("mnist")).path


@pytest.fixture(scope="module")
def labels(folder: Path, shared_data: Path) -> dict[str, list[int]]:
    """Label of every packed sample in order, from the published label files by the samples' original indices."""
    found = {}
    for split, name in PUBLISHED.items():
        raw = np.frombuffer(gzip.decompress((shared_data / "mnist" / name).read_bytes()), np.uint8, offset=8)
        sources = pq.read_table(folder / f"index-{split}.parquet", columns=["source"])["source"].to_pylist()
        found[split] = raw[[int(each.rpartition("#")[2]) for each in sources]].tolist()
        assert sorted(int(each.rpartition("#")[2]) for each in sources) == list(range(SPLITS[split]))
    return found


def rows(keys: list[str]) -> list[int]:
    return [int(key.rpartition("-")[2]) for key in keys]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("split", SPLITS)
def test_webdataset(split: str, folder: Path, labels: dict[str, list[int]]) -> None:
    import webdataset as wds

    shards = sorted(str(each) for each in folder.glob(f"mnist-{split}-*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=False).to_tuple("__key__", "png", "cls")
    found = [(key, data[:4], int(label)) for key, data, label in dataset]
    assert len(found) == SPLITS[split]
    assert {head for _, head, _ in found} == {b"\x89PNG"}
    assert [label for _, _, label in found] == labels[split]


def test_wids(folder: Path, labels: dict[str, list[int]], tmp_path: Path) -> None:
    wids = pytest.importorskip("wids", reason="wids is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for split, count in SPLITS.items():
            dataset = wids.ShardListDataset(str(folder / f"wids-{split}.json"), cache_dir=str(tmp_path))
            assert len(dataset) == count
            for index in range(0, count, 97):
                sample = dataset[index]
                assert sample[".cls"] == labels[split][index]
                assert sample[".png"].size == (28, 28)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(
    streaming: bool, folder: Path, labels: dict[str, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = datasets.load_dataset(str(folder), streaming=streaming, cache_dir=str(tmp_path))
        assert set(loaded) == set(SPLITS)
        for split, count in SPLITS.items():
            columns = loaded[split].select_columns(["__key__", "cls"])
            found = [(each["__key__"], each["cls"]) for each in columns]
            assert len(found) == count
            assert [label for _, label in found] == [labels[split][row] for row in rows([key for key, _ in found])]
        assert next(iter(loaded["train"]))["png"].size == (28, 28)


def test_energon(folder: Path, labels: dict[str, list[int]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        energon = pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")
        dataset = energon.get_train_dataset(
            str(folder), batch_size=100, split_part="test", shuffle_buffer_size=None, max_samples_per_sequence=None,
            repeat=False, worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        )  # fmt: skip
        seen: dict[str, int] = {}
        for batch in energon.get_loader(dataset):
            keys = [key.rpartition("/")[2] for key in batch.__key__]
            seen |= dict(zip(keys, [int(label) for label in batch.label], strict=True))
            assert batch.image.shape[-2:] == (28, 28)
    assert sorted(rows(list(seen))) == list(range(SPLITS["test"]))
    assert [seen[key] for key in sorted(seen)] == labels["test"]
