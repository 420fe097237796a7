"""Archives in the ILSVRC2012 layout, made of any JPEGs: what benchmarks and kill tests pack."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

DEVKIT, TRAIN, VAL = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def build(folder: Path, images: Sequence[Path], *, classes: int, samples: int, val: int = 0) -> Path:
    """``samples`` training images (``images`` over and over, each with a comment of its own so that none repeats) in
    ``classes`` class tars, ``val`` validation images, and the devkit.
    """
    import numpy as np
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    wnids = [f"n{10_000_000 + 37 * i:08d}" for i in range(classes)]
    with tarfile.open(folder / TRAIN, "w", format=tarfile.USTAR_FORMAT) as outer:
        for number, wnid in enumerate(wnids):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                for i in range(number, samples, classes):
                    _add(archive, f"{wnid}_{i}.JPEG", distinct(images[i % len(images)].read_bytes(), i))
            _add(outer, f"{wnid}.tar", inner.getvalue())
    if val:
        with tarfile.open(folder / VAL, "w", format=tarfile.USTAR_FORMAT) as archive:
            for i in range(val):
                data = distinct(images[i % len(images)].read_bytes(), samples + i)
                _add(archive, f"ILSVRC2012_val_{i + 1:08d}.JPEG", data)
    # IDs in another order than the wnids', as in the published devkit.
    ids = {wnid: 1 + (i * 7919) % classes for i, wnid in enumerate(wnids)}
    synsets = np.zeros(classes, dtype=[(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")])
    for row, wnid in zip(synsets, wnids, strict=True):
        row["ILSVRC2012_ID"], row["WNID"], row["words"], row["num_children"] = ids[wnid], wnid, f"thing {wnid}", 0
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{ids[wnids[i % classes]]}\n" for i in range(val)).encode()
    with tarfile.open(folder / DEVKIT, "w:gz") as archive:
        _add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        _add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)
    return folder


def distinct(data: bytes, number: int) -> bytes:
    """The JPEG with a comment behind its first marker."""
    comment = b"%016d" % number
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
