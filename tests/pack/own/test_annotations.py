from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from datahub.core.errors import BadArgument, LayoutError
from tests.pack.own.conftest import Pack, jpeg

ROWS = [(f"{number}.jpg", f"c{number % 2}") for number in range(8)]


def table(header: str, rows: list[tuple[str, ...]] | list[tuple[str, str]], delimiter: str = ",") -> str:
    return "\n".join([header, *(delimiter.join(row) for row in rows)]) + "\n"


@pytest.mark.parametrize(
    ("header", "delimiter", "encoding"),
    [
        ("image,label", ",", "utf-8"),
        ("image;label", ";", "utf-8-sig"),
        (" image, label", ", ", "utf-8"),
        ("IMAGE\tClass", "\t", "utf-8"),
    ],
)
def test_csv_as_programs_write_it(images: Path, pack: Pack, header: str, delimiter: str, encoding: str) -> None:
    (images / "a.csv").write_text(table(header, ROWS, delimiter), encoding=encoding)
    dataset = pack(f"csv:{images / 'a.csv'}")
    assert dataset.classes == ["c0", "c1"]
    assert list(dataset.fields) == ["image", "label"]
    for sample in dataset["train"]:
        number = int(sample["source"].partition(".")[0])
        assert sample.encoded == (images / f"{number}.jpg").read_bytes()
        assert sample["label"] == number % 2


def test_quoted_cells_may_hold_anything(images: Path, pack: Pack) -> None:
    name = 'odd, "name"\n;.jpg'
    (images / name).write_bytes((images / "0.jpg").read_bytes())
    quoted = name.replace('"', '""')
    (images / "a.csv").write_bytes(f'image,label,note\r\n"{quoted}","a,b","two\r\nlines"\r\n\r\n1.jpg,c,\r\n'.encode())
    rows = {sample["source"]: sample for sample in pack(f"csv:{images / 'a.csv'}")["train"]}
    assert rows[name]["note"] == "two\r\nlines"
    assert rows["1.jpg"]["note"] is None


def test_columns_named_as_the_index_has_them(images: Path, pack: Pack) -> None:
    header = "image,label,image_size,label_offset,key,valid," + "x" * 70 + "1," + "x" * 70 + "2"
    (images / "a.csv").write_text(table(header, [(*row, "1", "2", "3", "4", "5", "6") for row in ROWS]))
    sample = pack(f"csv:{images / 'a.csv'}")["train"][0]
    assert [sample[name] for name in ("image_size_field", "label_offset_field", "key_field", "valid_field")] == [
        1,
        2,
        3,
        4,
    ]
    assert [sample["x" * 40], sample["x" * 40 + "_2"]] == [5, 6]


def test_ids_keep_their_digits(images: Path, pack: Pack) -> None:
    (images / "a.csv").write_text(table("image,id", [("0.jpg", "9007199254740993"), ("1.jpg", "18446744073709551615")]))
    found = {sample["source"]: sample["id"] for sample in pack(f"csv:{images / 'a.csv'}")["train"]}
    assert found == {"0.jpg": "9007199254740993", "1.jpg": "18446744073709551615"}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("image,label\n0.jpg,a\n1.jpg\n", "line 3"),
        ("image,label\n0.jpg,a,b\n", "line 2"),
        ('image,label\n0.jpg,"a\n', "line 2"),
        ("image,label,label\n0.jpg,a,b\n", "'label' twice"),
        ("image,label\n0.jpg,a\n0.jpg,b\n", "row 3"),
        ("image,label\n0.jpg,\n", "row 2"),
        ("image,label\n\n", "no rows"),
        ("", "no rows"),
        (b"image,label\n0.jpg,caf\xe9\n", "byte 21"),
        ("image,label\n0.jpg,a\nnowhere.jpg,b\n", "row 3 (nowhere.jpg)"),
        ("image,label,split\n0.jpg,a,Hold Out\n", "'hold out' is not a split"),
    ],
)
def test_what_is_wrong_with_a_csv_is_told_with_its_place(
    images: Path, pack: Pack, content: str | bytes, place: str
) -> None:
    (images / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LayoutError) as caught:
        pack(f"csv:{images / 'a.csv'}")
    assert place in str(caught.value) and str(images / "a.csv") in str(caught.value)


def test_json_lines_are_cut_at_newlines_only(images: Path, pack: Pack) -> None:
    rows = [{"image": "0.jpg", "label": "a\u2028b\x85c"}, {"image": "1.jpg", "label": "d", "box": [1, float("nan")]}]
    (images / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    dataset = pack(f"jsonl:{images / 'a.jsonl'}")
    assert dataset.classes == ["a\u2028b\x85c", "d"]
    member = next(sample["box"] for sample in dataset["train"] if sample["source"] == "1.jpg")
    assert member == [1, None]


@pytest.mark.parametrize(
    ("scheme", "content", "what"),
    [
        ("json", "[" * 100_000, "not JSON"),
        ("jsonl", "[" * 100_000, "line 1"),
        ("json", '{"images": [], "annotations": []}', "COCO"),
        ("json", '[{"image": "0.jpg", "label": ["a", "b"]}]', "no one label"),
        ("json", '[{"image": "0.jpg", "label": NaN}]', "no label"),
        ("jsonl", '{"image": "0.jpg"}\n{"image": 5}', "row 2"),
    ],
)
def test_what_is_wrong_with_json_is_told_with_its_place(
    images: Path, pack: Pack, scheme: str, content: str, what: str
) -> None:
    (images / "a.txt").write_text(content)
    with pytest.raises(LayoutError, match=what):
        pack(f"{scheme}:{images / 'a.txt'}")


def test_numbers_of_classes_that_were_floats_for_a_while(images: Path, pack: Pack) -> None:
    rows = [{"image": f"{number}.jpg", "label": float(number)} for number in range(3)]
    (images / "a.json").write_text(json.dumps(rows))
    assert pack(f"json:{images / 'a.json'}").classes == ["0", "1", "2"]


def test_what_a_source_has_no_use_for_is_refused(images: Path, pack: Pack) -> None:
    for reading in ({"columns": {"image": "x"}}, {"images": images}):
        with pytest.raises(BadArgument, match="imagefolder"):
            pack(f"imagefolder:{images}", **reading)


def test_what_else_lies_beside_the_annotations_does_not_matter(images: Path, pack: Pack) -> None:
    (images / "a.csv").write_text("image,label\n0.jpg,a\n./1.jpg,b\n")
    (images / "other.tar").write_bytes(b"cut short")
    before = pack(f"csv:{images / 'a.csv'}")
    assert len(before["train"]) == 2
    (images / "other.tar").unlink()
    (images / "notes.txt").write_text("new")
    assert pack(f"csv:{images / 'a.csv'}").record.plan == before.record.plan


def test_rows_may_name_images_in_archives_of_a_folder_that_is_named(images: Path, pack: Pack, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("8.jpg", jpeg(8))
    (tmp_path / "a.csv").write_text("image,label\nimages/0.jpg,a\nmore/8.jpg,b\n")
    assert len(pack(f"csv:{tmp_path / 'a.csv'}", images=tmp_path)["train"]) == 2
    with pytest.raises(LayoutError, match=r"1 of 2 images are not in .*row 3 \(more/8.jpg\).*--images"):
        pack(f"csv:{tmp_path / 'a.csv'}")


@pytest.mark.parametrize("name", ["../images/0.jpg", "/etc/hostname", "sub"])
def test_rows_stay_below_their_folder(images: Path, pack: Pack, name: str) -> None:
    (images / "sub").mkdir()
    (images / "a.csv").write_text(f"image,label\n{name},a\n")
    with pytest.raises(LayoutError, match="1 of 1 images are not in"):
        pack(f"csv:{images / 'a.csv'}")
