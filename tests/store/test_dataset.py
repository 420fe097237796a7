from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

from datahub.core.errors import BadReference, DamagedSample, NotInStore, RecordInvalid, UnknownSplit
from datahub.core.settings import Settings
from datahub.store import locate, record
from datahub.store import shards as module
from datahub.store.dataset import Dataset, Split, open_dataset
from tests.store import builder
from tests.store.builder import tiny_variant


def test_samples_are_what_was_packed(dataset: Dataset) -> None:
    for name, split in dataset.splits.items():
        assert len(split) == builder.SPLITS[name]
        for row, sample in enumerate(split):
            expected = builder.pixels(name, row)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample["image"]))), expected)
            assert sample.encoded == sample["image"] == split.read(row)
            assert (sample["label"], sample["index"]) == (builder.label(name, row), row)
            assert sample["key"] == sample.key == f"{name}-{row:09d}"
            assert sample["source"].endswith(f"/{row}.png")


def test_a_sample_is_a_mapping_of_its_fields(settings: Settings) -> None:
    tiny_variant(settings.home, scalars={"age": lambda row: row * 3, "writer": lambda row: row % 2})
    sample = open_dataset("tiny", settings)["train"][5]
    assert list(sample) == ["image", "label", "age", "writer", "index", "key", "source"]
    assert len(sample) == 7
    assert (sample["age"], sample["writer"]) == (15, 1)
    assert "colour" not in sample
    with pytest.raises(KeyError):
        sample["colour"]


def test_a_decoder_gives_the_image_and_leaves_the_bytes(folder: Path, settings: Settings) -> None:
    split = open_dataset("tiny", settings, decode=lambda data: np.asarray(Image.open(io.BytesIO(data))))["test"]
    assert np.array_equal(split[2]["image"], builder.pixels("test", 2))
    assert split[2].encoded.startswith(b"\x89PNG")


def test_what_has_no_labels_has_no_label(settings: Settings) -> None:
    tiny_variant(settings.home, labelled=False)
    dataset = open_dataset("tiny", settings)
    assert "label" not in dataset["train"][0]
    assert dataset.classes == []
    assert set(dataset["train"].locate["label"].tolist()) == {-1}


def test_jpeg_and_gray(settings: Settings) -> None:
    tiny_variant(settings.home, format="jpeg", channels=1)
    image = Image.open(io.BytesIO(open_dataset("tiny", settings)["train"][3]["image"]))
    assert (image.format, image.mode, image.size) == ("JPEG", "L", builder.SIZE)


def test_indices_are_those_of_a_sequence(dataset: Dataset) -> None:
    split = dataset["train"]
    assert split[-1].index == 19
    assert split[-20].index == 0
    for beyond in (20, -21):
        with pytest.raises(IndexError):
            split[beyond]


def test_facts_of_the_record(dataset: Dataset, folder: Path) -> None:
    assert str(dataset.ref) == "tiny@1.0/published"
    assert dataset.path == folder
    assert dataset.classes == list(builder.CLASSES)
    assert dataset.class_to_idx == {"circle": 0, "square": 1, "star": 2}
    assert set(dataset.fingerprint) == {"train", "test"}
    assert dataset.card.endswith("# tiny\n")
    train = dataset["train"]
    assert train.fingerprint == dataset.fingerprint["train"]
    assert (train.block, train.shard_samples) == (8, (10, 10))
    assert [path.name for path in train.shards] == ["tiny-train-000000.tar", "tiny-train-000001.tar"]
    assert "train: 20" in repr(dataset)


def test_table_chooses_columns_and_rows(dataset: Dataset) -> None:
    split = dataset["train"]
    assert split.table().num_rows == 20
    ones = split.table(["key"], pc.field("label") == 1)["key"].to_pylist()
    assert ones == [f"train-{row:09d}" for row in range(20) if builder.label("train", row) == 1]


def test_unknown_split_names_the_known(dataset: Dataset) -> None:
    with pytest.raises(UnknownSplit, match=r"tiny@1\.0/published has no split 'validation'; it has test, train"):
        dataset["validation"]


def test_not_packed_and_not_a_reference(settings: Settings) -> None:
    with pytest.raises(NotInStore, match="datahub fetch mnist"):
        open_dataset("mnist", settings)
    with pytest.raises(BadReference):
        open_dataset("Not A Name", settings)


def test_opening_touches_the_record_alone(folder: Path, settings: Settings) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "dataset.json":
            path.unlink()
    dataset = open_dataset("tiny", settings)
    assert len(dataset["train"]) == 20
    with pytest.raises(RecordInvalid, match="locate-train"):
        dataset["train"].read(0)


def test_truncated_and_missing_shards_name_shard_key_and_offset(dataset: Dataset, folder: Path) -> None:
    split = dataset["train"]
    row = split.locate[13]
    os.truncate(folder / "tiny-train-000001.tar", int(row["offset"]) + 10)
    with pytest.raises(DamagedSample, match="shard ends after 10 of its") as caught:
        split.read(13)
    found = caught.value
    assert (found.shard, found.key, found.offset) == ("tiny-train-000001.tar", "train-000000013", int(row["offset"]))
    split.close()
    (folder / "tiny-train-000001.tar").unlink()
    with pytest.raises(DamagedSample, match="No such file"):
        split.read(13)
    assert split.read(3)


def test_locate_rows_that_point_nowhere(dataset: Dataset, folder: Path) -> None:
    rows = np.array(locate.open_rows(folder / "locate-train.npy"))
    rows["shard"][4] = 99
    locate.write(folder / "locate-train.npy", rows)
    with pytest.raises(DamagedSample, match="there is no shard 99"):
        dataset["train"].read(4)


def test_locate_rows_of_another_length_are_refused(dataset: Dataset, folder: Path) -> None:
    locate.write(folder / "locate-train.npy", locate.open_rows(folder / "locate-train.npy")[:-1])
    with pytest.raises(RecordInvalid, match="has 19 rows, the record says 20"):
        dataset["train"].read(0)


def test_reads_after_pickling_and_in_threads(dataset: Dataset) -> None:
    split = dataset["train"]
    expected = [split.read(row) for row in range(20)]
    copy = pickle.loads(pickle.dumps(split))
    assert len(copy._files) == 0
    assert [copy.read(row) for row in range(20)] == expected
    assert pickle.loads(pickle.dumps(dataset))["train"].read(7) == expected[7]
    fresh = pickle.loads(pickle.dumps(split))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fresh.read, list(range(20)) * 20)) == expected * 20
    assert len(fresh._files) == 2


def test_reads_after_fork_share_descriptors(dataset: Dataset) -> None:
    split = dataset["train"]
    expected = [split.read(row) for row in range(20)]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        ok = all(split.read(row) == expected[row] for row in range(20))
        split.close()
        os.write(writer, b"y" if ok else b"n")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 1) == b"y"
    os.close(reader)
    assert split.read(11) == expected[11]


def descriptors(below: Path) -> int:
    """How many shards below a folder this process has open; what else it has may come and go."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            path = each.readlink()
            found += path.suffix == ".tar" and path.is_relative_to(below)
    return found


def test_descriptors_are_bounded_and_given_back(folder: Path, settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_DESCRIPTORS", 1)
    split: Split = open_dataset("tiny", settings)["train"]
    assert len(split.locate) == 20
    assert [split.read(row) for row in range(20)] == [split.read(row) for row in range(20)]
    assert len(split._files) == 1
    assert descriptors(folder) == 1
    split.close()
    assert descriptors(folder) == 0


def test_opening_imports_neither_arrow_nor_torch_nor_pillow(folder: Path, settings: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from datahub.core.settings import Settings\n"
        "from datahub.store.dataset import open_dataset\n"
        f"d = open_dataset('tiny', Settings(home=Path({str(settings.home)!r})))\n"
        "opened = [m for m in ('numpy', 'pyarrow', 'torch', 'PIL') if m in sys.modules]\n"
        "d['train'].read(3)\n"
        "print(opened, [m for m in ('pyarrow', 'torch', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_million_samples_are_mapped_not_read(folder: Path, settings: Settings) -> None:
    """ImageNet's 1.28 M rows (36 MB): opening them and locating one costs a few pages."""
    count = 1_281_167
    rows = np.zeros(count, locate.LOCATE)
    rows["offset"] = np.arange(count, dtype=np.uint64) * 512
    locate.write(folder / "locate-train.npy", rows)
    made = record.read(folder)
    train = msgspec.structs.replace(made.splits["train"], samples=count)
    record.write(folder, msgspec.structs.replace(made, splits={"train": train}))
    code = (
        "import re, numpy, datahub.store.locate\n"
        "from pathlib import Path; from datahub.core.settings import Settings\n"
        "from datahub.store.dataset import open_dataset\n"
        "rss = lambda: int(re.search('VmRSS:\\\\s+(\\\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = rss()\n"
        f"split = open_dataset('tiny', Settings(home=Path({str(settings.home)!r})))['train']\n"
        "print(len(split), int(split.locate[1_234_567]['offset']), rss() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    samples, offset, kibibytes = map(int, done.stdout.split())
    assert (samples, offset) == (count, 1_234_567 * 512)
    assert kibibytes < 16 * 1024
