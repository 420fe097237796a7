from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datahub.core.errors import BadArgument, LayoutError
from tests.pack.own.conftest import Pack, jpeg

FILES = [jpeg(number) for number in range(8)]
LABELS = [number % 2 for number in range(8)]


def hugging_face(first: int, last: int) -> pa.Table:
    """Rows as Hugging Face's Image and ClassLabel features are stored."""
    images = [{"bytes": FILES[number], "path": f"{number}.jpg"} for number in range(first, last)]
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": images, "label": LABELS[first:last]})
    return table.replace_schema_metadata({"huggingface": json.dumps(features)})


def test_hugging_face_images_with_class_names_and_splits(tmp_path: Path, pack: Pack) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(hugging_face(0, 5), tmp_path / "data/train-00000-of-00001.parquet")
    pq.write_table(hugging_face(5, 8), tmp_path / "data/test-00000-of-00001.parquet")
    dataset = pack(f"parquet:{tmp_path / 'data'}")
    assert dataset.classes == ["cat", "dog"]
    assert {name: len(dataset[name]) for name in dataset.splits} == {"train": 5, "test": 3}
    for name in dataset.splits:
        for sample in dataset[name]:
            number = int(Path(sample["source"]).stem)
            assert (sample.encoded, sample["label"]) == (FILES[number], LABELS[number])


def test_splits_by_folder_and_by_column(tmp_path: Path, pack: Pack) -> None:
    for name, rows in (("train", slice(0, 5)), ("validation", slice(5, 8))):
        (tmp_path / "in" / name).mkdir(parents=True)
        pq.write_table(pa.table({"image": FILES[rows]}), tmp_path / "in" / name / "0000.parquet")
    assert {split.samples for split in pack(f"parquet:{tmp_path / 'in'}").record.splits.values()} == {5, 3}
    parts = ["train"] * 6 + ["val"] * 2
    pq.write_table(pa.table({"image": FILES, "part": parts}), tmp_path / "one.parquet")
    dataset = pack(f"parquet:{tmp_path / 'one.parquet'}", columns={"split": "part"})
    assert {name: len(dataset[name]) for name in dataset.splits} == {"train": 6, "val": 2}


def test_columns_that_no_field_can_hold_as_they_are(tmp_path: Path, pack: Pack) -> None:
    table = pa.table(
        {
            "image": FILES,
            "mask": [{"raw": b"\x00"}] * 8,
            "hash": pa.array([2**64 - 1] * 8, pa.uint64()),
            "price": pa.array([1] * 8, pa.decimal128(5, 2)),
            "box": [[1.0, float("nan")]] * 8,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = pack(f"parquet:{tmp_path / 'a.parquet'}")
    assert set(dataset.fields) == {"image", "hash", "price", "box"}
    sample = dataset["train"][0]
    assert (sample["hash"], sample["price"]) == ("18446744073709551615", 1.0)
    assert sample["box"] == [1.0, None]


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ([pa.table({"image": pa.array([], pa.binary())})], "no rows"),
        ([pa.table({"image": FILES, "label": LABELS}), pa.table({"image": FILES})], "1.parquet: column label"),
        ([pa.table({"image": FILES}), pa.table({"image": ["a"]})], "1.parquet: column image"),
        ([pa.table({"image": [{"bytes": FILES[0], "path": "a"}, None]})], "row 1: has no image"),
        ([pa.table({"image": [FILES[0], None]})], "row 1: has no image"),
        ([pa.table({"a": FILES, "b": FILES})], "more than one"),
        ([pa.table({"a": [1]})], "none of the columns"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, pack: Pack, tables: list[pa.Table], what: str) -> None:
    (tmp_path / "in").mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"in/{number}.parquet")
    with pytest.raises(LayoutError, match=what):
        pack(f"parquet:{tmp_path / 'in'}")


def test_a_label_column_that_is_none(tmp_path: Path, pack: Pack) -> None:
    pq.write_table(pa.table({"image": FILES}), tmp_path / "a.parquet")
    with pytest.raises(BadArgument, match="no such column"):
        pack(f"parquet:{tmp_path / 'a.parquet'}", columns={"label": "kind"})


def test_damaged_pages_are_named_by_file(tmp_path: Path, pack: Pack) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": FILES}), buffer)
    data = bytearray(buffer.getvalue())
    data[600:900] = bytes(each ^ 0x55 for each in data[600:900])
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(LayoutError, match=r"a\.parquet: after row 0: cannot be read"):
        pack(f"parquet:{tmp_path / 'a.parquet'}")
