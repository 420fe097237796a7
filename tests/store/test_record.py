from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datahub.core.errors import RecordInvalid
from datahub.store import record
from tests.store.builder import tiny_variant


@pytest.fixture
def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "dataset.json").read_text())


def put(folder: Path, document: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(document))


def test_written_and_read_again_is_the_same(folder: Path) -> None:
    found = record.read(folder)
    before = (folder / "dataset.json").read_bytes()
    record.write(folder, found)
    assert (folder / "dataset.json").read_bytes() == before
    assert record.read(folder) == found
    assert found.ref == "tiny@1.0/published"
    assert found.bytes() == sum((folder / each.path).stat().st_size for each in found.files)


def test_newer_schemas_are_refused_by_number(folder: Path, document: dict[str, Any]) -> None:
    put(folder, {"schema": record.SCHEMA + 1, "shape": "unheard of"})
    with pytest.raises(RecordInvalid, match="schema 3 is newer") as caught:
        record.read(folder)
    assert "upgrade datahub" in str(caught.value)


def test_unknown_keys_of_the_same_schema_are_let_pass(folder: Path, document: dict[str, Any]) -> None:
    put(folder, {**document, "remark": "from a later minor version"})
    assert record.read(folder).title == document["title"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": "one"}', "\x00\xff"])
def test_garbage_is_one_clear_line(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text)
    with pytest.raises(RecordInvalid) as caught:
        record.read(folder)
    assert "dataset.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_type_is_named_by_its_place(folder: Path, document: dict[str, Any]) -> None:
    document["splits"]["train"]["samples"] = "twenty"
    put(folder, document)
    with pytest.raises(RecordInvalid, match=r"splits.*samples"):
        record.read(folder)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "a/../../b", "a\\b", "", "a//b", "./a"])
def test_paths_out_of_the_folder_are_refused(folder: Path, document: dict[str, Any], path: str) -> None:
    spoilt = json.loads(json.dumps(document))
    spoilt["files"][0]["path"] = path
    put(folder, spoilt)
    with pytest.raises(RecordInvalid, match="outside"):
        record.read(folder)
    document["splits"]["train"]["shards"][0]["path"] = path
    put(folder, document)
    with pytest.raises(RecordInvalid, match="outside"):
        record.read(folder)


def test_fingerprint_is_of_the_samples_and_their_place(tmp_path: Path) -> None:
    one, same, more, larger = (
        record.read(tiny_variant(tmp_path / name, splits={"train": count}, block=block))
        for name, count, block in (("a", 20, 8), ("b", 20, 8), ("c", 21, 8), ("d", 20, 9))
    )
    assert one.splits["train"].fingerprint == same.splits["train"].fingerprint
    assert len({each.splits["train"].fingerprint for each in (one, more, larger)}) == 3
