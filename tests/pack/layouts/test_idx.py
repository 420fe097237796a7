"""IDX: real MNIST, every packing, and every way a file can disagree with itself or with the manifest."""

from __future__ import annotations

import gzip
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.acquire import Verified
from datahub.core.errors import BadArgument, LayoutError
from datahub.pack.inflate import Stream
from datahub.pack.layouts import idx, open_source
from datahub.registry.schema import File, Layout
from tests.pack.layouts.fakes import PACK, published, zipped
from tests.pack.layouts.fakes import idx as encode

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 0, 1, 2, 3], np.uint8)
OPTIONS = {"splits": {"train": {"images": "images", "labels": "labels"}}}


def source(
    folder: Path, images: bytes, labels: bytes, options: dict[str, Any] = OPTIONS, **given: Any
) -> idx.IdxSource:
    files = {
        "images": published(folder, given.pop("filename", "images-idx3-ubyte"), images, "images"),
        "labels": published(folder, "labels-idx1-ubyte", labels, "labels"),
    }
    asked = {"splits": {"train": 5}, "classes": list("abcd"), **given}
    opened = open_source(Layout(kind="idx", options=options), files, **asked)
    assert isinstance(opened, idx.IdxSource)
    return opened


def everything(opened: idx.IdxSource, split: str = "train") -> Any:
    opened.fields()
    return opened.read(split, np.arange(opened.splits()[split]))


def refused(folder: Path, images: bytes, labels: bytes, options: dict[str, Any] = OPTIONS, **given: Any) -> str:
    with pytest.raises(LayoutError) as caught:
        everything(source(folder, images, labels, options, **given))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_real_mnist(shared_data: Path) -> None:
    names = {
        "train-images": "train-images-idx3-ubyte.gz",
        "train-labels": "train-labels-idx1-ubyte.gz",
        "test-images": "t10k-images-idx3-ubyte.gz",
        "test-labels": "t10k-labels-idx1-ubyte.gz",
    }
    files = {
        role: Verified(File(filename=name, role=role), shared_data / "mnist" / name, "0" * 64)
        for role, name in names.items()
    }
    splits = {name: {"images": f"{name}-images", "labels": f"{name}-labels"} for name in ("train", "test")}
    layout = Layout(kind="idx", options={"splits": splits})
    opened = open_source(layout, files, splits={"train": 60_000, "test": 10_000}, classes=list("0123456789"))
    assert opened.fields()["image"].shape == [28, 28, 1]
    first = opened.read("train", np.arange(10))
    assert first.labels is not None and first.labels.dtype == np.int64
    assert first.labels.tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    with gzip.open(shared_data / "mnist" / names["test-images"]) as handle:
        plain = np.frombuffer(handle.read(), np.uint8, offset=16).reshape(10_000, 28, 28)
    chosen = np.array([9_999, 0, 17])
    test = opened.read("test", chosen)
    assert isinstance(test.images, np.ndarray)
    assert np.array_equal(test.images, plain[chosen])
    assert test.sources == [f"t10k-images-idx3-ubyte.gz#{i}" for i in chosen]


@pytest.mark.parametrize("suffix", PACK)
def test_packings(tmp_path: Path, suffix: str) -> None:
    opened = source(tmp_path, PACK[suffix](encode(IMAGES)), PACK[suffix](encode(LABELS)), filename=f"images{suffix}")
    chunk = opened.read("train", np.array([4, 0, 4]))
    assert isinstance(chunk.images, np.ndarray) and np.array_equal(chunk.images, IMAGES[[4, 0, 4]])
    assert chunk.labels is not None and chunk.labels.tolist() == [3, 3, 3]
    assert chunk.sources == [f"images{suffix}#4", f"images{suffix}#0", f"images{suffix}#4"]


def test_member_of_a_zip_that_is_itself_compressed(tmp_path: Path) -> None:
    archive = zipped({"gzip/": b"", "gzip/i.gz": PACK[".gz"](encode(IMAGES)), "gzip/l.gz": PACK[".gz"](encode(LABELS))})
    files = {"archive": published(tmp_path, "gzip.zip", archive, "archive")}
    split = {"images": "archive", "labels": "archive", "images_member": "gzip/i.gz", "labels_member": "gzip/l.gz"}
    layout = Layout(kind="idx", options={"splits": {"train": split}})
    opened = open_source(layout, files, splits={"train": 5}, classes=list("abcd"))
    chunk = opened.read("train", np.arange(5))
    assert isinstance(chunk.images, np.ndarray) and np.array_equal(chunk.images, IMAGES)
    assert chunk.sources[1] == "i.gz#1"
    missing = {**split, "images_member": "gzip/none.gz"}
    opened = open_source(
        Layout(kind="idx", options={"splits": {"train": missing}}), files, splits={"train": 5}, classes=[]
    )
    with pytest.raises(LayoutError, match=r"no member 'gzip/none.gz'"):
        opened.read("train", np.arange(1))


def test_columns_become_fields(tmp_path: Path) -> None:
    labels = np.array([[3, 100], [0, -5], [1, 7], [2, 8], [3, 70_000]], np.int32)
    options = {**OPTIONS, "label_columns": ["label", "writer"]}
    opened = source(tmp_path, encode(IMAGES), encode(labels), options)
    assert list(opened.fields()) == ["image", "label", "writer"]
    chunk = everything(opened)
    assert chunk.labels.tolist() == [3, 0, 1, 2, 3]
    assert chunk.scalars["writer"].tolist() == [100, -5, 7, 8, 70_000]
    assert chunk.scalars["writer"].dtype == np.int64
    options = {**OPTIONS, "label_columns": ["label"]}
    assert "2 columns, layout.options.label_columns names 1" in refused(
        tmp_path, encode(IMAGES), encode(labels), options
    )
    assert "no column 2" in refused(tmp_path, encode(IMAGES), encode(labels), {**OPTIONS, "label_column": 2})


def test_slices_and_offset(tmp_path: Path) -> None:
    parts = {
        "head": {"images": "images", "labels": "labels", "start": 0, "count": 2},
        "rest": {"images": "images", "labels": "labels", "start": 2},
    }
    options = {"splits": parts, "label_offset": 1}
    labels = encode(LABELS + 1)
    opened = source(tmp_path, encode(IMAGES), labels, options, splits={"head": 2, "rest": 3})
    rest = everything(opened, "rest")
    assert np.array_equal(rest.images, IMAGES[2:])
    assert rest.labels.tolist() == [1, 2, 3]
    assert [name.rpartition("#")[2] for name in rest.sources] == ["2", "3", "4"]
    assert everything(opened, "head").labels.tolist() == [3, 0]
    with pytest.raises(IndexError):
        opened.read("head", np.array([2]))
    parts["head"]["count"] = 9
    assert "wants 9 from number 0" in refused(tmp_path, encode(IMAGES), labels, options, splits={"head": 9, "rest": 3})


@pytest.mark.parametrize("suffix", PACK)
def test_header_that_disagrees_with_the_length(tmp_path: Path, suffix: str) -> None:
    right = encode(IMAGES)
    short = refused(tmp_path, PACK[suffix](right[:-7]), encode(LABELS))
    assert "5x4x3 uint8, 60 bytes of values, but there are 53" in short and "images-idx3" in short
    assert "60 bytes of values, but more follow" in refused(tmp_path, PACK[suffix](right + b"x"), encode(LABELS))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_truncated_and_damaged_streams(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 40, 40)).astype(np.uint8)
    packed = PACK[suffix](encode(noise))
    for cut in (len(packed) - 1, len(packed) // 2, 20, 7):
        assert "truncated" in refused(tmp_path, packed[:cut], encode(LABELS))
    spoilt = bytearray(packed)
    spoilt[-6] ^= 0xFF  # in the check sum: every value is right, and the stream is damaged all the same
    assert "damaged" in refused(tmp_path, bytes(spoilt), encode(LABELS))
    assert "damaged" in refused(tmp_path, packed + b"trailing", encode(LABELS))
    whole = (
        PACK[suffix](encode(noise)[:90]) + PACK[suffix](encode(noise)[90:]) + bytes(8)
    )  # streams end to end are fine
    assert everything(source(tmp_path, whole, encode(LABELS))).images.shape == (5, 40, 40)


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (encode(IMAGES), encode(LABELS[:4]), "4 labels for the 5 images"),
        (encode(IMAGES[:4]), encode(LABELS[:4]), "split train has 4 images in it, the manifest says 5"),
        (encode(IMAGES), encode(np.array([0, 1, 2, 3, 4], np.uint8)), "label 4 of sample 4 is outside the 4 classes"),
        (encode(IMAGES), encode(np.array([0, 1, -1, 3, 0], np.int16)), "label -1 of sample 2"),
        (encode(IMAGES), encode(LABELS.astype(np.float32)), "labels are N or N x k integers"),
        (encode(IMAGES.astype(np.int32)), encode(LABELS), "images are N x H x W"),
        (encode(IMAGES[:, 0]), encode(LABELS), "images are N x H x W"),
        (encode(IMAGES[:, :, :0]), encode(LABELS), "no images of that shape"),
        (b"", encode(LABELS), "truncated: 0 bytes"),
        (b"\0\0\x08", encode(LABELS), "truncated: 3 bytes"),
        (b"\0\0\x08\x03\0\0", encode(LABELS), "2 of 12 bytes of dimensions"),
        (b"<html>", encode(LABELS), "not an IDX file"),
        (b"\0\0\x07\x03" + bytes(20), encode(LABELS), "not an IDX file"),
        (b"\0\0\x08\xff" + bytes(2000), encode(LABELS), "255 dimensions"),
        (struct.pack(">2xBB4I", 8, 4, *[0xFFFFFFFF] * 4), encode(LABELS), "over 8589934592 bytes"),
    ],
)
def test_bad_files(tmp_path: Path, images: bytes, labels: bytes, reason: str) -> None:
    assert reason in refused(tmp_path, images, labels)


def test_bomb_costs_no_memory(tmp_path: Path) -> None:
    """A header of 60 bytes over 300 MB of zeros: no more than the header says is ever inflated."""
    bomb = gzip.compress(encode(IMAGES) + bytes(300_000_000), 1)
    lying = struct.pack(">2xBB3I", 8, 3, 5, 40_000, 40_000) + bytes(100)
    opened = [source(tmp_path, data, encode(LABELS), filename=str(i)) for i, data in enumerate((bomb, lying))]
    tracemalloc.start()
    try:
        for each in opened:
            with pytest.raises(LayoutError):
                everything(each)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "missing required field `splits`"),
        ({"splits": {}}, "manifest's splits are train"),
        ({"splits": {"train": {"images": "images"}}}, "missing required field `labels`"),
        ({"splits": {"train": {"images": "images", "labels": "nowhere"}}}, "no file has this role; known: images"),
        ({"splits": {"train": {"images": "images", "labels": 3}}}, "splits[...].labels"),
        ({"splits": {"train": {"images": "images", "labels": "labels", "form": 1}}}, "unknown field `form`"),
        ({"splits": {"train": {"images": "images", "labels": "labels", "start": -1}}}, "not be negative"),
        ({"splits": {"train": {"images": "images", "labels": "labels", "count": 0}}}, "at least 1"),
        ({**OPTIONS, "label_colum": 1}, "did you mean label_column?"),
        ({**OPTIONS, "label_column": -1}, "not be negative"),
        ({**OPTIONS, "label_columns": ["label", "Writer"]}, "not a field name"),
        ({**OPTIONS, "label_columns": ["label", "writer", "writer"]}, "taken already"),
        ({**OPTIONS, "label_columns": ["label", "image"]}, "every sample has already"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadArgument) as caught:
        source(tmp_path, encode(IMAGES), encode(LABELS), options)
    assert reason in str(caught.value)


def test_unknown_kind() -> None:
    with pytest.raises(BadArgument, match="known: cifar, idx, ilsvrc, imagefolder, shapes"):
        open_source(Layout(kind="coco"), {}, splits={}, classes=[])


def test_pickles_without_its_arrays(tmp_path: Path) -> None:
    big = np.zeros((5, 1000, 1000), np.uint8)
    opened = source(tmp_path, PACK[".gz"](encode(big)), encode(LABELS))
    everything(opened)
    sent = pickle.dumps(opened)
    assert len(sent) < 5_000
    copies = [pickle.loads(sent), pickle.loads(sent)]
    copies[0].read("train", np.arange(5))
    (tmp_path / "images-idx3-ubyte").unlink()
    second = copies[1].read("train", np.array([1]))  # a second task in the same process reads no file
    assert second.labels.tolist() == [0]
    assert copies[1].facts() == opened.facts()


def test_facts_hold_no_path_and_tell_files_apart(tmp_path: Path) -> None:
    one = source(tmp_path, encode(IMAGES), encode(LABELS)).facts()
    assert str(tmp_path) not in repr(one)
    assert source(tmp_path, encode(IMAGES), encode(LABELS)).facts() == one
    assert source(tmp_path, encode(IMAGES + 1), encode(LABELS)).facts() != one


class Bytes:
    """A reader that counts what is taken from it."""

    def __init__(self, data: bytes) -> None:
        self._data, self.taken = data, 0

    def read(self, size: int, /) -> bytes:
        piece = self._data[self.taken : self.taken + size]
        self.taken += len(piece)
        return piece


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_parser_never_surprises(data: st.DataObject) -> None:
    """Whatever is done to a file, it is read as its header says or refused with a `LayoutError`."""
    dtype = data.draw(st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    spoilt = bytearray(encode(np.arange(np.prod(shape), dtype=dtype).reshape(shape)))
    for _ in range(data.draw(st.integers(0, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.none(), st.integers(0, len(spoilt))))
    spoilt = spoilt[:end] + data.draw(st.binary(max_size=3))
    reader = Bytes(bytes(spoilt))
    try:
        array = idx.read_array(Stream(reader, "file"))
    except LayoutError:
        return
    assert reader.taken == len(spoilt)
    assert len(spoilt) == 4 + 4 * array.ndim + array.nbytes
    assert struct.unpack(f">{array.ndim}I", spoilt[4 : 4 + 4 * array.ndim]) == array.shape
    assert array.tobytes() == bytes(spoilt[4 + 4 * array.ndim :])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_parser_on_noise(noise: bytes) -> None:
    for head in (b"", b"\0\0\x08\x01", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"BZh9"):
        try:
            array = idx.read_array(Stream(Bytes(head + noise), "file"))
        except LayoutError:
            continue
        assert array.nbytes <= len(head + noise)
