"""A packed directory with boxes, masks and bytes, unchanged, in the readers people already have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import rle
from datahub.store.find import find
from tests.pack.things import CLASSES, COUNT, thing, write_things


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(home=tmp_path_factory.mktemp("things") / "home")
    write_things(settings)
    return find(settings, Ref("things")).path


def check(document: Any, mask: Any, masks: Any, raw: bytes) -> int:
    """Members as a reader gives them; returns the sample's number."""
    number = int(document["meta"]["number"])
    wanted = thing(number)
    assert np.array_equal(np.array(document["boxes"], np.float32).reshape(-1, 4), wanted["boxes"])
    assert [CLASSES[each] for each in document["kind"]] == wanted["kind"]
    assert raw == wanted["raw"] and np.array_equal(np.asarray(mask), wanted["mask"])
    found = [{"size": list(each["size"]), "counts": each["counts"]} for each in masks]
    assert np.array_equal(rle.decode(found, wanted["mask"].shape), wanted["masks"])
    return number


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset(folder: Path) -> None:
    import webdataset as wds

    shards = sorted(str(each) for each in folder.glob("*.tar"))
    names = ("json", "mask.png", "masks.json", "raw.bin")
    dataset = wds.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple(*names)
    # Its "pil" decodes every image to RGB: a gray mask's channels are alike.
    seen = {check(document, np.asarray(mask)[..., 0], masks, raw) for document, mask, masks, raw in dataset}
    assert seen == set(range(COUNT))


def test_wids(folder: Path, tmp_path: Path) -> None:
    wids = pytest.importorskip("wids", reason="wids is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = wids.ShardListDataset(str(folder / "wids-train.json"), cache_dir=str(tmp_path))
        samples = [dataset[at] for at in range(len(dataset))]
    seen = {check(s[".json"], s[".mask.png"], s[".masks.json"], s[".raw.bin"].read()) for s in samples}
    assert seen == set(range(COUNT))


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(streaming: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = datasets.load_dataset(str(folder), streaming=streaming, cache_dir=str(tmp_path))["train"]
        seen = {check(row["json"], row["mask.png"], row["masks.json"], row["raw.bin"]) for row in rows}
    assert seen == set(range(COUNT))


def test_energon(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        energon = pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")
        dataset = energon.get_train_dataset(
            str(folder), batch_size=1, split_part="train", shuffle_buffer_size=None, max_samples_per_sequence=None,
            repeat=False, worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        )  # fmt: skip
        found = [(batch.__key__[0].rpartition("/")[2], batch.image.shape[-2:]) for batch in energon.get_loader(dataset)]
    assert len({key for key, _ in found}) == COUNT
