"""Columns of annotation files and Parquet that are said to be boxes, masks and the like."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datahub.core.errors import BadArgument, LayoutError
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import rle
from datahub.store.find import find
from datahub.store.verify import verify
from tests.pack.own.conftest import Pack, jpeg

TYPES = {"boxes": "boxes:xywh", "kinds": "labels", "seg": "mask", "parts": "masks", "blob": "bytes"}


def mask(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((16, 20), number, np.uint8)


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def row(number: int) -> dict[str, Any]:
    count = number % 3
    parts = rle.encode(np.stack([mask(1)] * count)) if count else []
    return {
        "image": f"{number}.jpg",
        "boxes": [[number, 1.5, 3, 4.25]] * count,
        "kinds": ["cat", "dog"][:count],
        "seg": f"seg/{number}.png",
        "parts": parts,
        "blob": f"seg/{number}.png",
        "note": f"n{number}",
    }


@pytest.fixture
def rows(images: Path) -> Path:
    (images / "seg").mkdir()
    for number in range(8):
        (images / "seg" / f"{number}.png").write_bytes(png(mask(number)))
    return images


def check(dataset: Any, settings: Settings) -> None:
    verify(find(settings, Ref("own")), deep=True)
    assert dataset.classes == ["cat", "dog"] and len(dataset["train"]) == 8
    assert {name: spec.type for name, spec in dataset.record.fields.items()} == {
        **{name: kind.partition(":")[0] for name, kind in TYPES.items()},
        **{"image": "image", "note": "text"},
    }
    for sample in dataset["train"]:
        number = int(sample["note"][1:])
        wanted = row(number)
        assert sample.encoded == jpeg(number)
        assert sample["boxes"].tolist() == wanted["boxes"] and sample["boxes"].shape == (number % 3, 4)
        assert sample["kinds"].tolist() == list(range(number % 3))
        assert np.array_equal(sample["seg"], mask(number)) and sample["blob"] == png(mask(number))
        assert sample["parts"].shape == (number % 3, 16, 20) and sample["parts"].all()


@pytest.mark.parametrize("scheme", ["jsonl", "csv"])
def test_annotation_files(rows: Path, pack: Pack, settings: Settings, scheme: str) -> None:
    path = rows / f"a.{scheme}"
    if scheme == "csv":
        with path.open("w", newline="") as file:
            out = csv.DictWriter(file, row(0))
            out.writeheader()
            for number in range(8):
                cells = row(number)
                out.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in cells.items()})
    else:
        path.write_text("\n".join(json.dumps(row(number)) for number in range(8)))
    check(pack(f"{scheme}:{path}", types=TYPES), settings)


def test_parquet_with_bytes(tmp_path: Path, pack: Pack, settings: Settings) -> None:
    files = [
        {**row(n), "image": {"bytes": jpeg(n), "path": f"{n}.jpg"}, "seg": {"bytes": png(mask(n)), "path": None}}
        for n in range(8)
    ]
    table = pa.Table.from_pylist([{**each, "blob": each["seg"]["bytes"]} for each in files])
    pq.write_table(table, tmp_path / "a.parquet")
    check(pack(f"parquet:{tmp_path / 'a.parquet'}", columns={"image": "image"}, types=TYPES), settings)
    with pytest.raises(BadArgument, match="the column note holds no bytes"):
        pack(f"parquet:{tmp_path / 'a.parquet'}", columns={"image": "image"}, types={"note": "mask"})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"boxes": [[1, 2, 3]]}, "line 2|row 2.*boxes has the shape"),
        ({"boxes": "[1"}, "row 2.*boxes is no JSON"),
        ({"boxes": [[1, 2, -3, 4]]}, "row 2.*ends before it begins"),
        ({"kinds": ["cat"] * 3}, "row 2.*kinds has 3 rows, boxes has 1"),
        ({"kinds": [None]}, "row 2.*kinds|row 2.*label"),
        ({"parts": [{"size": [16, 20], "counts": [3]}]}, "row 2.*add up"),
        ({"parts": [{"counts": [320]}]}, "row 2.*does not say the size"),
        ({"parts": 5}, "row 2.*no list of run lengths"),
        ({"seg": None}, "row 2.*names no file in column seg"),
        ({"seg": "none.png"}, "none.png"),
        ({"parts": [{"size": [20, 16], "counts": [320]}]}, "1.jpg: parts is 16 x 20, the image 20 x 16"),
        ({"seg": "0.jpg"}, "1.jpg: seg is no PNG"),
        ({"seg": "seg/rgb.png"}, "1.jpg: seg is no PNG of class numbers"),
        ({"seg": "seg/small.png"}, "1.jpg: seg is 4 x 4, the image 20 x 16"),
    ],
)
def test_what_is_wrong_is_told_by_row(rows: Path, pack: Pack, changed: dict[str, Any], reason: str) -> None:
    (rows / "seg" / "rgb.png").write_bytes(png(np.zeros((16, 20, 3), np.uint8)))
    (rows / "seg" / "small.png").write_bytes(png(np.zeros((4, 4), np.uint8)))
    lines = [{**row(number), **(changed if number == 1 else {})} for number in range(4)]
    (rows / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(LayoutError, match=reason):
        pack(f"jsonl:{rows / 'a.jsonl'}", types=TYPES)


def test_types_of_columns_that_are_none(rows: Path, pack: Pack) -> None:
    (rows / "a.jsonl").write_text(json.dumps(row(1)))
    for types, reason in (
        ({"bbox": "boxes"}, "has no such column"),
        ({"image": "mask"}, "is the column of images"),
        ({"boxes": "box"}, "not a type for boxes"),
        ({"boxes": "boxes", "parts": "boxes"}, "no array|one field of boxes"),
    ):
        with pytest.raises((BadArgument, LayoutError), match=reason):
            pack(f"jsonl:{rows / 'a.jsonl'}", types=types)
    with pytest.raises(BadArgument, match="types='boxes=boxes': says nothing to imagefolder"):
        pack(f"imagefolder:{rows}", types={"boxes": "boxes"})
