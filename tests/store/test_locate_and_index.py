from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.errors import BadArgument, NotYetSupported, RecordInvalid
from datahub.store import index, locate

U32 = st.integers(0, 2**32 - 1)
ROW = st.tuples(st.integers(0, 2**64 - 1), U32, U32, st.integers(-(2**31), 2**31 - 1), U32, U32)


@settings(deadline=None, max_examples=30)
@given(st.lists(ROW, min_size=1, max_size=50))
def test_locate_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, ...]]) -> None:
    path = tmp_path_factory.mktemp("locate") / "locate-train.npy"
    locate.write(path, np.array(rows, locate.LOCATE))
    found = locate.open_rows(path)
    assert found.tolist() == rows
    assert not found.flags.writeable
    assert not found.flags.owndata  # mapped, not read


def test_locate_rows_are_28_bytes_wide(tmp_path: Path) -> None:
    locate.write(tmp_path / "l.npy", np.zeros(1000, locate.LOCATE))
    assert locate.LOCATE.itemsize == 28
    assert (tmp_path / "l.npy").stat().st_size < 28 * 1000 + 512


@pytest.mark.parametrize("damage", ["gone", "empty", "truncated", "text", "ints", "table", "pickle"])
def test_what_is_no_locate_file_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "locate-train.npy"
    locate.write(path, np.zeros(100, locate.LOCATE))
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "ints":
        np.save(path, np.zeros(100, np.int64))
    elif damage == "table":
        np.save(path, np.zeros((10, 10), locate.LOCATE))
    elif damage == "pickle":
        np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes({"empty": b"", "truncated": whole[:-28], "text": b"hello" * 100}[damage])
    with pytest.raises(RecordInvalid, match=r"locate-train\.npy"):
        locate.open_rows(path)


def columns(count: int) -> dict[str, list[object]]:
    return {
        "key": [f"train-{n:09d}" for n in range(count)],
        "source": [f"{n}.png" for n in range(count)],
        "shard": [n // 10 for n in range(count)],
        "image_offset": [n * 2048 for n in range(count)],
        "image_size": [100] * count,
        "label_offset": [n * 2048 + 1024 for n in range(count)],
        "label_size": [1] * count,
        "label": [n % 3 for n in range(count)],
        "age": [n * n for n in range(count)],
        "width": [28] * count,
        "height": [28] * count,
        "format": ["png"] * count,
        "sha256": ["0" * 64] * count,
    }


def test_index_has_the_columns_and_types_of_the_plan(tmp_path: Path) -> None:
    made = columns(30)
    assert list(made) == index.columns(["age"], labelled=True)
    index.write(tmp_path / "i.parquet", made)
    schema = pq.read_schema(tmp_path / "i.parquet")
    strings = {"key", "source", "format", "sha256"}
    assert {name for name in schema.names if schema.field(name).type == pa.string()} == strings
    assert {name for name in schema.names if schema.field(name).type == pa.int32()} == {"shard", "width", "height"}
    assert index.read(tmp_path / "i.parquet").to_pydict() == made


def test_equal_columns_give_equal_bytes_however_they_were_gathered(tmp_path: Path) -> None:
    made = columns(3000)
    index.write(tmp_path / "a", made)
    half = {name: values[:1234] for name, values in made.items()}
    rest = {name: values[1234:] for name, values in made.items()}
    gathered = pa.concat_tables([pa.table(half), pa.table(rest)])
    index.write(tmp_path / "b", {name: gathered[name] for name in gathered.column_names})
    index.write(tmp_path / "c", {n: np.array(v) if n == "image_offset" else v for n, v in made.items()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_unlabelled_index_has_no_label_columns(tmp_path: Path) -> None:
    names = index.columns([], labelled=False)
    assert not [name for name in names if name.startswith("label")]
    index.write(tmp_path / "i", {name: values for name, values in columns(5).items() if name in names})
    assert index.read(tmp_path / "i").column_names == names


def test_columns_and_rows_can_be_chosen(tmp_path: Path) -> None:
    index.write(tmp_path / "i", columns(30))
    assert index.read(tmp_path / "i", ["age", "key"]).column_names == ["age", "key"]
    ones = index.read(tmp_path / "i", ["age"], pc.field("label") == 1)
    assert ones.to_pydict() == {"age": [n * n for n in range(1, 30, 3)]}
    with pytest.raises(BadArgument, match=r"colour.*it has key, source"):
        index.read(tmp_path / "i", ["colour"])
    with pytest.raises(BadArgument, match="column"):
        index.read(tmp_path / "i", None, pc.field("colour") == 1)
    with pytest.raises(NotYetSupported):
        index.read(tmp_path / "i", None, "label == 1")  # type: ignore[arg-type]


def test_single_rows_across_row_groups(tmp_path: Path) -> None:
    count = 2 * index.ROW_GROUP + 5
    index.write(tmp_path / "i", columns(count))
    rows = index.RowReader(tmp_path / "i", ["source", "age"])
    for n in (0, index.ROW_GROUP - 1, index.ROW_GROUP, count - 1, 7):
        assert rows[n] == {"source": f"{n}.png", "age": n * n}
    with pytest.raises(RecordInvalid, match="rows"):
        rows[count]


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not really PAR1"])
def test_what_is_no_index_is_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "index-train.parquet"
    if content is not None:
        path.write_bytes(content)
    for read in (lambda: index.read(path), lambda: index.RowReader(path, ["source"])):
        with pytest.raises(RecordInvalid, match=r"index-train\.parquet"):
            read()
