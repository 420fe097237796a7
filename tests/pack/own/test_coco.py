"""COCO's files as torchvision reads them, in the layouts they are published in, and refused by annotation."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from datahub.core.errors import BadArgument, DatahubError, LayoutError, MissingExtra
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.pack.splitting import Shares
from datahub.store.find import find
from datahub.store.verify import verify
from tests.pack.own.conftest import Pack, jpeg


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
def test_real_annotations_are_those_that_torchvision_reads(shared_data: Path, pack: Pack, settings: Settings) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    folder = shared_data / "coco-mini"
    pack(f"coco:{folder / 'test_coco.json'}", masks=True)
    verify(find(settings, Ref("own")), deep=True)
    ours = {sample["image_id"]: sample for sample in open_dataset("own", settings)["train"]}
    plain = datasets.CocoDetection(folder, folder / "test_coco.json")
    keys = ("boxes", "labels", "masks", "image_id")
    typed = datasets.wrap_dataset_for_transforms_v2(plain, target_keys=keys)
    assert len(ours) == len(typed) == 4
    for at in range(4):
        image, theirs = typed[at]
        sample = ours[theirs["image_id"]]
        assert (image.height, image.width) == tuple(sample["image"].shape[1:]) == sample["boxes"].canvas_size
        assert sample["boxes"].format.name == theirs["boxes"].format.name
        assert torch.equal(sample["boxes"], theirs["boxes"]) and torch.equal(sample["masks"], theirs["masks"])
        assert torch.equal(sample["category_id"], theirs["labels"])
        published = plain[at][1]
        assert sample["annotation_id"].tolist() == [each["id"] for each in published]
        assert sample["area"].tolist() == [each["area"] for each in published]
        assert sample["iscrowd"].tolist() == [each["iscrowd"] for each in published]
        points = np.array([each["keypoints"] for each in published], np.float32).reshape(-1, 17, 3)
        assert np.array_equal(sample["keypoints"].numpy(), points[:, :, :2])
        assert np.array_equal(sample["visibility"].numpy(), points[:, :, 2])
        assert sample["source"] == plain.coco.loadImgs(theirs["image_id"])[0]["file_name"]


def document(numbers: range, **changed: Any) -> dict[str, Any]:
    """Images ``0.jpg`` and so on (20 x 16), as many objects as the number modulo 3."""
    objects = [(number, at) for number in numbers for at in range(number % 3)]
    return {
        "images": [{"id": 100 + n, "file_name": f"{n}.jpg", "height": 16, "width": 20} for n in numbers],
        "annotations": [
            {"id": 10 * n + at, "image_id": 100 + n, "category_id": 7 if at else 3, "bbox": [1.1, 2, 3.3, 4 + at]}
            | {"segmentation": [[1, 2, 4, 2, 4, 6]] if at else {"size": [16, 20], "counts": [5, 10, 305]}}
            for n, at in objects
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        **changed,
    }


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Training images in a folder, validation images in an archive."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    for number in range(8):
        (root / "train2017" / f"{number}.jpg").write_bytes(jpeg(number))
    with zipfile.ZipFile(root / "val2017.zip", "w") as archive:
        for number in range(8, 12):
            archive.writestr(f"val2017/{number}.jpg", jpeg(number))
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document(numbers)))
    (root / "annotations" / "captions_train2017.json").write_text("{}")
    return root


def check(dataset: Any, split: str, numbers: range) -> None:
    samples = {int(sample["source"].removesuffix(".jpg")): sample for sample in dataset[split]}
    assert sorted(samples) == list(numbers)
    for number, sample in samples.items():
        assert sample.encoded == jpeg(number) and sample["image_id"] == 100 + number
        assert sample["labels"].tolist() == [0, 1][: number % 3]
        assert sample["boxes"].shape == (number % 3, 4) and sample["area"].shape == (number % 3,)
        right = float(np.float32(1.1) + np.float32(3.3))
        wanted = np.array([[1.1, 2, right, 6], [1.1, 2, right, 7]][: number % 3]).reshape(-1, 4)
        assert np.allclose(sample["boxes"], wanted, rtol=1e-7)


def test_the_layout_it_is_published_in(published: Path, pack: Pack) -> None:
    dataset = pack(f"coco:{published}")
    assert dataset.classes == ["cat", "dog"] and "masks" not in dataset.fields
    check(dataset, "train", range(8))
    check(dataset, "val", range(8, 12))
    one = pack(f"coco:{published / 'annotations' / 'instances_val2017.json'}")
    assert list(one.splits) == ["val"]
    check(one, "val", range(8, 12))
    shared = pack(f"coco:{published / 'annotations' / 'instances_val2017.json'}", images=published / "val2017.zip")
    assert shared.fingerprint == one.fingerprint


def test_masks_of_polygons_and_run_lengths(published: Path, pack: Pack) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    dataset = pack(f"coco:{published}", masks=True)
    check(dataset, "train", range(8))
    (sample,) = (each for each in dataset["train"] if each["source"] == "2.jpg")
    flat = np.zeros(320, np.uint8)
    flat[5:15] = 1
    assert np.array_equal(sample["masks"][0], flat.reshape(20, 16).T)
    assert 0 < sample["masks"][1].sum() < 12 and not sample["masks"][1][7:].any()


def test_annotations_beside_the_images_of_each_split(tmp_path: Path, pack: Pack) -> None:
    for split, numbers in (("train", range(5)), ("valid", range(5, 8))):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(document(numbers)))
        for number in numbers:
            (tmp_path / split / f"{number}.jpg").write_bytes(jpeg(number))
    dataset = pack(f"coco:{tmp_path}")
    check(dataset, "train", range(5))
    check(dataset, "valid", range(5, 8))


def test_one_file_may_be_cut_into_splits(images: Path, pack: Pack) -> None:
    (images / "all.json").write_text(json.dumps(document(range(8))))
    dataset = pack(f"coco:{images / 'all.json'}", split=Shares.parse("train=5,val=3"))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 5, "val": 3}


def annotation(**changed: Any) -> dict[str, Any]:
    sound = {"id": 1, "image_id": 101, "category_id": 3, "bbox": [0, 0, 5, 5], "segmentation": [[1, 1, 5, 1, 5, 5]]}
    return {"annotations": [{**sound, **changed}]}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (annotation(bbox=[1, 2, 3]), "annotation 1: bbox .* is not"),
        (annotation(bbox=[1, 2, -3, 4]), "annotation 1: bbox .* is not"),
        (annotation(bbox="x"), r"annotations\[0\].bbox: is not COCO's form: expected `array`, got `str`"),
        (annotation(image_id=5), "annotation 1: is of the image 5, which is not there"),
        (annotation(category_id=5), "annotation 1: is of the category 5, which is not there"),
        ({"annotations": annotation()["annotations"] * 2}, "annotation 1: is there twice"),
        (annotation(segmentation=[[1, 2, 3]]), "annotation 1: segmentation has a polygon"),
        (annotation(segmentation=[[1e9, 2, 3, 4, 5, 6]]), "annotation 1: segmentation has a polygon"),
        (annotation(segmentation={"size": [16, 20], "counts": [1, 2]}), "annotation 1: the counts .* add up"),
        (annotation(segmentation={"size": [20, 16], "counts": [320]}), "annotation 1: segmentation is 20 x 16"),
        (annotation(segmentation="x"), "annotation 1: segmentation is neither"),
        (annotation(keypoints=[1, 2]), "annotation 1: has 2 numbers of keypoints"),
        ({"images": []}, "images: is empty"),
        ({"images": document(range(2))["images"] * 2, "annotations": []}, "images: has an id twice"),
        ({"categories": [{"id": 3, "name": "a"}] * 2, "annotations": []}, "categories: has an id twice"),
        ({"images": [{"id": 1, "file_name": "no.jpg", "height": 1, "width": 1}], "annotations": []}, "no.jpg"),
    ],
)
def test_what_is_wrong_is_told_by_annotation(images: Path, pack: Pack, changed: dict[str, Any], reason: str) -> None:
    (images / "a.json").write_text(json.dumps(document(range(8), **changed)))
    with pytest.raises(LayoutError, match=reason):
        pack(f"coco:{images / 'a.json'}", masks=True)


def test_masks_of_another_size_than_their_image_are_refused(images: Path, pack: Pack) -> None:
    wrong = [{"id": 101, "file_name": "1.jpg", "height": 20, "width": 16}]
    changed = annotation(segmentation={"size": [20, 16], "counts": [320]})
    (images / "a.json").write_text(json.dumps(document(range(8), images=wrong, **changed)))
    with pytest.raises(LayoutError, match=r"1.jpg: masks is 16 x 20, the image 20 x 16"):
        pack(f"coco:{images / 'a.json'}", masks=True)


def test_files_that_are_not_plain_are_asked_for(images: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadArgument, match=r"no file is called instances_<split>.json; its .json files: none"):
        pack(f"coco:{images}")
    for name in ("a.json", "b.json"):
        (images / name).write_text(json.dumps(document(range(8))))
    with pytest.raises(BadArgument, match=r"its .json files: a.json, b.json; name one"):
        pack(f"coco:{images}")
    (images / "instances_val2017.json").write_text(json.dumps(document(range(8))))
    (images / "person_keypoints_val2017.json").write_text(json.dumps(document(range(8))))
    with pytest.raises(BadArgument, match="several files of one split"):
        pack(f"coco:{images}")
    with pytest.raises(BadArgument, match="masks=True: says nothing to imagefolder"):
        pack(f"imagefolder:{images}", masks=True)
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(MissingExtra, match=r"datahub\[coco\]"):
        pack(f"coco:{images / 'a.json'}", masks=True)
    for text in ("", "[]", "{", '{"images": 5}', "\xff"):
        (images / "a.json").write_text(text, encoding="latin-1")
        with pytest.raises(DatahubError, match="is not COCO's form"):
            pack(f"coco:{images / 'a.json'}")
