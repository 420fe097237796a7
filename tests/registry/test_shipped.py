"""The shipped manifests: valid, listed as they are, and true to the published files that are at hand."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from datahub.core import digests
from datahub.core.refs import Ref
from datahub.registry import Catalog, from_dict, load, to_dict
from datahub.registry.entries import FILENAME, read, shipped_folder
from datahub.registry.listing import build, encode

FOLDER = shipped_folder()
FILES = sorted(FOLDER.glob("*.toml"))


def test_the_listing_says_what_the_toml_files_say() -> None:
    assert (FOLDER / FILENAME).read_bytes() == encode(build(FOLDER)), "run python -m datahub.registry.listing"
    assert read(FOLDER) == build(FOLDER)


def test_the_listing_is_plain_json() -> None:
    rows = {each["name"]: each for each in json.loads((FOLDER / FILENAME).read_bytes())}
    assert rows["mnist"] == {
        "name": "mnist",
        "version": "1.0",
        "title": "MNIST",
        "task": "image-classification",
        "licence": "CC-BY-SA-3.0",
        "classes": 10,
        "splits": {"train": 60000, "test": 10000},
        "variants": ["published"],
        "bytes": 9912422 + 28881 + 1648877 + 4542,
        "tried": "published files",
        "file": "mnist.toml",
    }
    assert rows["qmnist"]["bytes"] is None, "not all its sizes are published"
    assert rows["shapes"]["bytes"] == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_manifest_is_valid_and_complete(path: Path) -> None:
    manifest = load(path)
    assert path.stem == manifest.name
    assert from_dict(to_dict(manifest)) == manifest
    assert manifest.title and manifest.description and manifest.image and manifest.tags
    assert manifest.files or manifest.layout.kind == "shapes"
    for each in manifest.files:
        assert each.digests(), f"{each.filename}: shipped files have a digest"
        assert bool(each.mirrors) == (manifest.access.kind == "open"), "a mirror, unless a person must get the file"
    for variant in manifest.variants:
        assert manifest.splits_of(variant)
        assert manifest.classes_of(variant) or manifest.name == "tiny-imagenet", "its archive alone says which"


def test_mnist_is_true_to_the_published_files(shared_data: Path) -> None:
    for each in Catalog().find(Ref("mnist")).files:
        path = shared_data / "mnist" / each.filename
        assert path.stat().st_size == each.bytes
        digests.of_file(path, ("md5", "sha256")).check(str(path), each.digests())


def test_cifar10_is_true_to_the_members_at_hand(shared_data: Path) -> None:
    manifest = Catalog().find(Ref("cifar10"))
    options = manifest.layout.options
    members = options["member_md5"]
    assert set(members) == {*options["splits"]["train"], *options["splits"]["test"], options["meta"]}
    seen = 0
    for member, md5 in members.items():
        path = shared_data / "cifar-10" / member
        if path.exists():
            digests.of_file(path, ("md5",)).check(member, [digests.Digest("md5", md5)])
            seen += 1
    assert seen == 3
    meta = pickle.loads((shared_data / "cifar-10" / options["meta"]).read_bytes())
    assert meta[options["meta_key"]] == manifest.classes


def test_emnist_has_torchvisions_configurations_and_classes() -> None:
    from torchvision.datasets import EMNIST

    manifest = Catalog().find(Ref("emnist"))
    assert set(manifest.variants) == set(EMNIST.splits)
    assert manifest.default_variant == "balanced"
    for variant in manifest.variants:
        assert manifest.classes_of(variant) == EMNIST.classes_split_dict[variant]
        splits = manifest.layout_of(variant).options["splits"]
        assert splits["test"]["images_member"] == f"gzip/emnist-{variant}-test-images-idx3-ubyte.gz"
        assert splits["train"]["labels_member"] == f"gzip/emnist-{variant}-train-labels-idx1-ubyte.gz"
    assert manifest.splits_of("letters") == {"train": 124800, "test": 20800}


def test_qmnist_slices_cover_its_test_split_once() -> None:
    manifest = Catalog().find(Ref("qmnist"))
    splits = manifest.layout.options["splits"]
    first, rest = splits["test10k"], splits["test50k"]
    assert (first["start"], first["count"]) == (0, manifest.splits["test10k"])
    assert rest["start"] == first["count"]
    assert rest["start"] + rest["count"] == manifest.splits["test"]
    assert len(manifest.layout.options["label_columns"]) == 8


def test_shapes_names_the_ten_classes_it_draws() -> None:
    manifest = Catalog().find(Ref("shapes"))
    drawn = "circle square triangle pentagon hexagon star cross ring heart crescent"
    assert manifest.classes == drawn.split()
    assert manifest.layout.options["seed"] == 0


def test_the_registry_imports_nothing_heavy() -> None:
    heavy = ["numpy", "rich", "urllib3", "fsspec", "aiohttp", "pyarrow", "PIL", "cv2", "torch", "click"]
    code = f"import sys, datahub.registry; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
