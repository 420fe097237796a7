"""Data of people's own as a source: image folders, annotation files, COCO, Parquet, WebDataset, ILSVRC archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datahub.core.digests import sha256_hex
from datahub.core.events import Listener
from datahub.pack import inventory
from datahub.pack.listed import Listed

if TYPE_CHECKING:
    from datahub.pack.sources import Reading


def open_own(scheme: str, location: str, reading: Reading, scratch: Path, listener: Listener) -> Listed:
    """Lists what is there. Raises `BadArgument`, `LayoutError` and what reading raises."""
    if scheme == "imagefolder":
        from datahub.pack.own.folders import open_folder

        return open_folder(location, reading, scratch, listener)
    if scheme == "wds":
        from datahub.pack.own.webdatasets import open_shards

        return open_shards(location, reading, scratch, listener)
    if scheme == "parquet":
        from datahub.pack.own.parquets import open_parquet

        return open_parquet(location, reading, scratch, listener)
    if scheme == "coco":
        from datahub.pack.own.coco import open_coco

        return open_coco(location, reading, scratch, listener)
    if scheme == "ilsvrc":
        return _ilsvrc(location, scratch, listener)
    from datahub.pack.own.annotations import open_annotations

    return open_annotations(scheme, location, reading, scratch, listener)


def _ilsvrc(location: str, scratch: Path, listener: Listener) -> Listed:
    """A folder with the three archives under their published names (train or val may be missing)."""
    from datahub.pack.layouts import ilsvrc

    root = inventory.check_root(Path(location).expanduser())
    devkit = inventory.check_root(root / "ILSVRC2012_devkit_t12.tar.gz")
    paths = {split: root / f"ILSVRC2012_img_{split}.tar" for split in ilsvrc.SPLITS}
    there = {split: path for split, path in paths.items() if path.exists()}
    if not there:
        inventory.check_root(paths["train"])
    identity = {path.name: inventory.identity([path]) for path in (devkit, *there.values())}
    return ilsvrc.list_archives(there, devkit, identity, scratch, listener)


def key_of(*facts: object) -> str:
    """A folder's name for a list that these facts decide."""
    return sha256_hex(repr(facts).encode("utf-8", "surrogateescape"))[:32]
