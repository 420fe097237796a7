"""The manifests of ImageNet and its kin: their classes, their files, and packing archives of their shape."""

from __future__ import annotations

import io
import itertools
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datahub.acquire import plan
from datahub.core.errors import ManualFiles
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.registry import Catalog, Manifest, from_dict, to_dict

COUNTS = {
    "imagenet": (1000, {"train": 1_281_167, "val": 50_000}),
    "imagenette": (10, {"train": 9_469, "val": 3_925}),
    "imagewoof": (10, {"train": 9_025, "val": 3_929}),
    "tiny-imagenet": (0, {"train": 100_000, "val": 10_000}),
    "imagenetv2": (1000, {"test": 10_000}),
}
FOLDERS = {"imagenette": ["full", "320", "160"], "imagewoof": ["full", "320", "160"]}
V2 = ["matched-frequency", "threshold0_7", "top-images"]


def find(name: str) -> Manifest:
    return Catalog().find(Ref(name))


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_classes(name: str) -> None:
    manifest = find(name)
    classes, splits = COUNTS[name]
    assert len(manifest.classes) == len(manifest.words) == classes
    assert manifest.classes == sorted(set(manifest.classes))
    assert all(each[0] == "n" and each[1:].isdigit() and len(each) == 9 for each in manifest.classes)
    for variant in manifest.variants:
        assert manifest.splits_of(variant) == splits
        assert manifest.classes_of(variant) == manifest.classes


def published(shared_data: Path) -> dict[str, str]:
    lines = (shared_data / "imagenet-devkit" / "LOC_synset_mapping.derived.txt").read_text().splitlines()
    return {line[:9]: line[10:] for line in lines}


@pytest.mark.parametrize("name", ["imagenet", "imagenetv2"])
def test_the_thousand_classes_and_their_words(shared_data: Path, name: str) -> None:
    manifest, known = find(name), published(shared_data)
    assert len(known) == 1000
    assert manifest.classes == sorted(known)
    assert manifest.words == [known[wnid] for wnid in manifest.classes]


@pytest.mark.parametrize("name", FOLDERS)
def test_ten_classes_are_called_what_imagenet_calls_them(shared_data: Path, name: str) -> None:
    manifest, known = find(name), published(shared_data)
    for wnid, word in zip(manifest.classes, manifest.words, strict=True):
        assert known[wnid].split(", ")[0] == word


def test_imagenette_is_torchvisions() -> None:
    from torchvision.datasets import Imagenette

    manifest = find("imagenette")
    assert {wnid: words[0] for wnid, words in Imagenette._WNID_TO_CLASS.items()} == dict(
        zip(manifest.classes, manifest.words, strict=True)
    )
    for size, (url, md5) in Imagenette._ARCHIVES.items():
        file = manifest.file(size.removesuffix("px"))
        assert (file.mirrors, file.md5) == ([url], md5)


@pytest.mark.parametrize(("name", "variants"), [*FOLDERS.items(), ("imagenetv2", V2)])
def test_each_variant_downloads_its_own_archive_only(name: str, variants: list[str], settings: Settings) -> None:
    manifest = find(name)
    assert list(manifest.variants) == variants and manifest.default_variant == variants[0]
    for variant in variants:
        items = plan(manifest, settings, variant=variant).items
        assert [item.file.role.replace(".", "_") for item in items] == [variant]
    assert len(plan(manifest, settings).items) == 3
    listed = next(each for each in Catalog().entries(name) if each.name == name)
    assert listed.bytes == manifest.files_of(variants[0])[0].bytes


def test_imagenet_says_what_a_person_must_do(settings: Settings) -> None:
    manifest = find("imagenet")
    with pytest.raises(ManualFiles) as caught:
        plan(manifest, settings)
    said = str(caught.value)
    for file in manifest.files:
        assert file.filename in caught.value.instructions and file.filename in said
    for words in ("https://image-net.org/download", "Kaggle", "datahub fetch imagenet --from DIR"):
        assert words in said
    assert "\n" not in said


def test_imagenet_is_found_in_a_folder(settings: Settings, tmp_path: Path) -> None:
    manifest = find("imagenet")
    for file in manifest.files[:2]:
        (tmp_path / file.filename).write_bytes(b"")
    found = plan(manifest, replace(settings, from_=str(tmp_path)))
    assert [item.state for item in found.items] == ["present", "present", "missing"]
    assert found.missing[0].looked


def folders_of_wnids(manifest: Manifest, file: str) -> dict[str, int]:
    top = file.removesuffix(".tgz")
    found = {f"{top}/noisy_{manifest.name}.csv": -1}
    for label, split in ((9, "train"), (0, "train"), (3, "val")):
        wnid = manifest.classes[label]
        found[f"{top}/{split}/{wnid}/{wnid}_{label}.JPEG"] = label
    return found


def numbered_folders(manifest: Manifest, file: str) -> dict[str, int]:
    """In an order of text, 10 would come before 2."""
    top = file.removesuffix(".tar.gz") + "-format-val"
    return {f"{top}/{label}/{label:040x}.jpeg": label for label in (10, 2, 999)}


def tiny(manifest: Manifest, file: str) -> dict[str, int]:
    top = "tiny-imagenet-200"
    return {
        f"{top}/wnids.txt": -1,
        f"{top}/test/images/test_0.JPEG": -1,
        f"{top}/train/n02124075/n02124075_boxes.txt": -1,
        f"{top}/train/n02124075/images/n02124075_0.JPEG": 1,
        f"{top}/train/n01443537/images/n01443537_0.JPEG": 0,
        f"{top}/val/val_annotations.txt": -1,
        f"{top}/val/images/val_0.JPEG": 1,
        f"{top}/val/images/val_1.JPEG": 0,
    }


ANNOTATIONS = b"val_0.JPEG\tn02124075\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t52\t55\t57\t59\n"
SHAPES: Mapping[str, Callable[[Manifest, str], dict[str, int]]] = {
    "imagenette/full": folders_of_wnids,
    "imagenette/160": folders_of_wnids,
    "imagewoof/320": folders_of_wnids,
    "tiny-imagenet/published": tiny,
    "imagenetv2/matched-frequency": numbered_folders,
    "imagenetv2/threshold0_7": numbered_folders,
}
"""What makes the members of an archive of each shape, with their labels; -1 for what is not to be packed."""


def write(path: Path, members: Mapping[str, bytes]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def miniature(manifest: Manifest, splits: Mapping[str, int], **changes: Any) -> Manifest:
    """The manifest as shipped but for its counts and its files' sizes and digests."""
    facts = {**to_dict(manifest), "splits": dict(splits), **changes}
    facts["files"] = [{"filename": each.filename, "role": each.role} for each in manifest.files]
    return from_dict(facts)


def labels(manifest: Manifest, variant: str, raw: Path, settings: Settings) -> dict[str, list[tuple[str, int]]]:
    """Pack it from ``raw``: of each split, the published file names and labels in their order."""
    from datahub.pack.fetch import Options, download, of_manifest, pack_files
    from datahub.store.dataset import open_dataset

    at = replace(settings, from_=str(raw))
    wanted, options = of_manifest(manifest, variant), Options(jobs=1, stats="none")
    pack_files(wanted, download(wanted, at, options), at, options)
    dataset = open_dataset(str(wanted.ref), at)
    assert dataset.words == manifest.words or manifest.layout.kind == "ilsvrc"
    return {
        split: sorted((Path(each["source"]).name, int(each["label"])) for each in dataset[split])
        for split in manifest.splits
    }


@pytest.mark.parametrize("ref", SHAPES)
def test_an_archive_of_its_shape_is_packed(ref: str, shared_data: Path, settings: Settings, tmp_path: Path) -> None:
    name, variant = ref.split("/")
    manifest = find(name)
    file = manifest.files_of(variant)[0].filename
    members = SHAPES[ref](manifest, file)
    images = itertools.cycle(sorted((shared_data / "imagenet-sample").glob("*.JPEG"))[:9])
    data = {each: next(images).read_bytes() if "JP" in each.upper() else b"" for each in members}
    data.update({each: ANNOTATIONS for each in members if each.endswith("val_annotations.txt")})
    write(tmp_path / file, data)
    expected: dict[str, list[tuple[str, int]]] = {split: [] for split in manifest.splits}
    for member, label in members.items():
        if label >= 0:
            split = next((each for each in expected if f"/{each}/" in member), "test")
            expected[split].append((Path(member).name, label))
    small = miniature(manifest, {split: len(each) for split, each in expected.items()})
    found = labels(small, variant, tmp_path, settings)
    assert found == {split: sorted(each) for split, each in expected.items()}


def test_the_three_archives_of_imagenet_are_packed(shared_data: Path, settings: Settings) -> None:
    pytest.importorskip("scipy", reason="the devkit's meta.mat needs scipy")
    raw = shared_data / "torchvision-assets" / "_history" / "imagenet"
    small = miniature(find("imagenet"), {"train": 3, "val": 3}, classes=[], words=[])
    assert labels(small, "published", raw, settings) == {
        "train": [("n01440764_18.JPEG", 0), ("n01443537_2.JPEG", 1), ("n01484850_17.JPEG", 2)],
        "val": [(f"ILSVRC2012_val_0000000{number}.JPEG", label) for number, label in ((1, 2), (2, 0), (3, 1))],
    }
