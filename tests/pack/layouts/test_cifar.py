"""CIFAR: the real members in a tar of the published form, and archives and pickles that are not what they should be."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datahub.core.errors import BadArgument, DigestMismatch, LayoutError, UnsafePickle
from datahub.pack.layouts import cifar, open_source
from datahub.registry.schema import Layout
from tests.pack.layouts.fakes import published, tar

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
MD5 = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
OPTIONS: dict[str, Any] = {
    "archive": "archive",
    "meta": "cifar-10-batches-py/batches.meta",
    "splits": {"train": ["cifar-10-batches-py/data_batch_1"], "test": ["cifar-10-batches-py/test_batch"]},
    "member_md5": MD5,
}


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The members at hand, in the order of the published archive."""
    folder = shared_data / "cifar-10"
    names = ("test_batch", "batches.meta", "data_batch_1")
    members = {f"cifar-10-batches-py/{name}": (folder / "cifar-10-batches-py" / name).read_bytes() for name in names}
    path = tmp_path_factory.mktemp("cifar") / "cifar-10-python.tar.gz"
    path.write_bytes(tar(members, "w"))
    return path


def opened(path: Path, options: dict[str, Any], **given: Any) -> cifar.CifarSource:
    files = {"archive": published(path.parent, path.name, path.read_bytes(), "archive")}
    asked = {"splits": {"train": 10_000, "test": 10_000}, "classes": CLASSES, **given}
    source = open_source(Layout(kind="cifar", options=options), files, **asked)
    assert isinstance(source, cifar.CifarSource)
    return source


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_members(real: Path, shared_data: Path, split: str) -> None:
    source = opened(real, OPTIONS)
    member = OPTIONS["splits"][split][0]
    plain = pickle.loads((shared_data / "cifar-10" / member).read_bytes(), encoding="bytes")
    chosen = np.random.default_rng(1).permutation(10_000)
    chunk = source.read(split, chosen)
    assert isinstance(chunk.images, np.ndarray) and chunk.images.shape == (10_000, 32, 32, 3)
    assert chunk.labels is not None and chunk.labels.dtype == np.int64
    assert chunk.labels.tolist() == [plain[b"labels"][i] for i in chosen]
    assert chunk.sources == [plain[b"filenames"][i].decode() for i in chosen]
    for channel in range(3):
        plane = plain[b"data"][chosen, channel * 1024 : (channel + 1) * 1024].reshape(-1, 32, 32)
        assert np.array_equal(chunk.images[..., channel], plane)
    assert source.classes() == CLASSES
    assert source.fields()["image"].shape == [32, 32, 3]


def test_real_members_against_the_manifest(real: Path) -> None:
    with pytest.raises(LayoutError, match="class 0 is 'airplane', in the manifest 'plane'"):
        opened(real, OPTIONS, classes=["plane", *CLASSES[1:]]).read("test", np.arange(1))
    with pytest.raises(LayoutError, match="it names 10 classes, the manifest 9"):
        opened(real, OPTIONS, classes=CLASSES[:9]).classes()
    with pytest.raises(LayoutError, match="split train has 10000 images, the manifest says 50000"):
        opened(real, OPTIONS, splits={"train": 50_000, "test": 10_000}).read("train", np.arange(1))
    with pytest.raises(DigestMismatch, match="test_batch"):
        wrong = {**MD5, "cifar-10-batches-py/test_batch": "0" * 32}
        opened(real, {**OPTIONS, "member_md5": wrong}).read("test", np.arange(1))


# -- small archives ----------------------------------------------------------------------------------------------------


def batch(count: int = 4, **changed: Any) -> bytes:
    table = {
        "data": np.arange(count * 3072, dtype=np.uint32).astype(np.uint8).reshape(count, 3072),
        "labels": [i % 3 for i in range(count)],
        "coarse": [i % 2 for i in range(count)],
        "filenames": [f"{i}.png" for i in range(count)],
        **changed,
    }
    return pickle.dumps({key: value for key, value in table.items() if value is not None}, protocol=2)


META = pickle.dumps({"label_names": ["a", "b", "c"]}, protocol=2)
SMALL: dict[str, Any] = {"archive": "archive", "meta": "d/meta", "splits": {"train": ["d/1", "d/2"]}}


def small(folder: Path, members: dict[str, bytes], options: dict[str, Any] = SMALL, **given: Any) -> cifar.CifarSource:
    path = folder / "small.tar.gz"
    path.write_bytes(tar(members))
    return opened(path, options, **{"splits": {"train": 7}, "classes": ["a", "b", "c"], **given})


def test_batches_in_the_asked_order_with_extra_fields(tmp_path: Path) -> None:
    members = {"d/readme": b"hello", "d/2": batch(3, filenames=None), "d/meta": META, "d/1": batch(4)}
    source = small(tmp_path, members, {**SMALL, "extra": {"coarse_label": "coarse"}})
    assert list(source.fields()) == ["image", "label", "coarse_label"]
    chunk = source.read("train", np.arange(7))
    assert chunk.sources == ["0.png", "1.png", "2.png", "3.png", "d/2#0", "d/2#1", "d/2#2"]
    assert chunk.labels is not None and chunk.labels.tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert chunk.scalars["coarse_label"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert source.read("train", np.array([6, 2])).sources == ["d/2#2", "2.png"]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (batch(3, data=None), "its data are missing"),
        (batch(3, data=np.zeros((3, 3071), np.uint8)), "3x3071 uint8, not N x 3072 uint8"),
        (batch(3, data=np.zeros((3, 3072), np.int16)), "3x3072 int16"),
        (batch(3, data=[1, 2]), "its data are a list"),
        (batch(3, labels=[0, 1]), "2 labels for 3 images"),
        (batch(3, labels=[0, 1, 3]), "label 3 of image 2 is outside the 3 classes"),
        (batch(3, labels=[0, 1, -1]), "label -1 of image 2"),
        (batch(3, labels=[0, 1, 1 << 80]), "beyond 64 bits"),
        (batch(3, labels=["0", "1", "2"]), "not a plain list"),
        (batch(3, labels=None), "it has no 'labels', but coarse, data, filenames"),
        (batch(3, filenames=["a.png"]), "1 filenames for 3 images"),
        (batch(2), "split train has 6 images, the manifest says 7"),
        (batch(3)[:-100], "damaged pickle: truncated"),
        (b"not a pickle", "damaged pickle"),
        (b"", "damaged pickle"),
        (pickle.dumps([1], 2), "holds a list, not a dictionary"),
    ],
)
def test_bad_batches(tmp_path: Path, second: bytes, reason: str) -> None:
    source = small(tmp_path, {"d/1": batch(4), "d/2": second, "d/meta": META})
    with pytest.raises(LayoutError) as caught:
        source.read("train", np.arange(7))
    assert reason in str(caught.value) and "small.tar.gz" in str(caught.value) and "\n" not in str(caught.value)


def test_pickle_that_calls_something(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    source = small(tmp_path, {"d/1": batch(4), "d/2": batch(3, labels=Evil()), "d/meta": META})
    with pytest.raises(UnsafePickle, match="which is not allowed"):
        source.read("train", np.arange(7))
    assert not canary.exists()


def test_missing_members_and_truncated_archives(tmp_path: Path) -> None:
    members = {"d/1": batch(4), "d/2": batch(3), "d/meta": META}
    with pytest.raises(LayoutError, match="no member d/2, d/meta"):
        small(tmp_path, {"d/1": members["d/1"]}).read("train", np.arange(7))
    with pytest.raises(LayoutError, match="no member d/meta"):
        small(tmp_path, {"d/1": members["d/1"]}).classes()
    whole = tar(members)
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LayoutError, match="truncated"):
        opened(tmp_path / "cut.tar.gz", SMALL, splits={"train": 7}, classes=[]).read("train", np.arange(7))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"archive": "nowhere"}, "no file has this role; known: archive"),
        ({"splits": {"test": ["d/1"]}}, "the manifest's splits are train"),
        ({"splits": {"train": []}}, "must list its members"),
        ({"splits": {"train": ["d/1", "d/1"]}}, "each once"),
        ({"splits": {"train": "d/1"}}, "layout.options.splits"),
        ({"member_md5": {"d/1": "abc"}}, "is not an MD5"),
        ({"extra": {"label": "coarse"}}, "taken already"),
        ({"extra": {"width": "coarse"}}, "every sample has already"),
        ({"label_keys": "labels"}, "did you mean label_key?"),
    ],
)
def test_bad_options(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadArgument) as caught:
        small(tmp_path, {"d/1": batch()}, {**SMALL, **changed})
    assert reason in str(caught.value)


def test_pickles_small_and_digest_is_a_fact(tmp_path: Path) -> None:
    source = small(tmp_path, {"d/1": batch(4), "d/2": batch(3), "d/meta": META})
    source.read("train", np.arange(7))
    sent = pickle.dumps(source)
    assert len(sent) < 3_000
    copy = pickle.loads(sent)
    assert copy.read("train", np.array([5])).sources == ["1.png"]
    digest = hashlib.sha256((tmp_path / "small.tar.gz").read_bytes()).hexdigest()
    assert copy.facts()["files"] == {"archive": digest}
