from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datahub.core.errors import AlreadyPacked, BadArgument, NotReadable
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack.authoring import Writer
from datahub.store.dataset import open_dataset
from datahub.store.find import find
from datahub.store.verify import verify
from tests.pack.test_packing import bytes_of

FIELDS = {"image": "image", "label": "label", "age": "int", "weight": "float", "note": "text", "boxes": "json"}


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6 + number % 3, 8, 3), np.uint8)


def add(writer: Writer, number: int) -> None:
    writer.write(
        split="train" if number % 4 else "val",
        source=f"it-{number:03d}",
        image=picture(number),
        label="odd" if number % 2 else "even",
        age=np.int64(number),
        weight=number / 3,
        note=f"nº {number}",
        boxes=[[number, 2, 3.5]],
    )


def write(settings: Settings, numbers: range, part: str = "1/1") -> Path | None:
    with Writer("things@1.0", FIELDS, settings=settings, part=part) as writer:
        for number in numbers:
            add(writer, number)
    return writer.path


def test_what_was_written_is_read_again(settings: Settings) -> None:
    folder = write(settings, range(30))
    assert folder is not None
    verify(find(settings, Ref("things")), deep=True)
    dataset = open_dataset("things@1.0", settings)
    assert dataset.classes == ["even", "odd"]
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 22, "val": 8}
    seen = set()
    for split in dataset.splits.values():
        for sample in split:
            number = int(sample["source"].removeprefix("it-"))
            seen.add(number)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample.encoded))), picture(number))
            assert (sample["label"], sample["age"], sample["note"]) == (number % 2, number, f"nº {number}")
            assert sample["weight"] == number / 3
    assert seen == set(range(30))
    assert not list((settings.datasets / ".building").iterdir())


def test_bytes_do_not_depend_on_the_number_of_writers(tmp_path: Path) -> None:
    one, many = Settings(home=tmp_path / "one"), Settings(home=tmp_path / "many")
    alone = write(one, range(24))
    assert write(many, range(16, 24), "3/3") is None
    assert write(many, range(8), "1/3") is None
    assert not (many.datasets / "things").exists()
    together = write(many, range(8, 16), "2/3")
    assert alone is not None
    assert together is not None
    assert bytes_of(alone) == bytes_of(together)


def test_an_exception_leaves_nothing(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), Writer("things", FIELDS, settings=settings) as writer:
        add(writer, 1)
        raise ZeroDivisionError
    assert not (settings.datasets / "things").exists()
    assert write(settings, range(3)) is not None


KILLED = """
import sys, time
from pathlib import Path
from datahub.core.settings import Settings
from datahub.pack.authoring import Writer
from tests.pack.test_authoring import FIELDS, add
writer = Writer("things@1.0", FIELDS, settings=Settings(home=Path(sys.argv[1])))
for number in range(10):
    add(writer, number)
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_publishes_nothing_and_can_begin_again(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    plain, killed = Settings(home=tmp_path / "plain"), Settings(home=tmp_path / "killed")
    environ = {**os.environ, "PYTHONPATH": str(root)}
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(killed.home)], cwd=root, env=environ, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (killed.datasets / "things").exists()
    began = time.monotonic()
    again, alone = write(killed, range(5)), write(plain, range(5))
    assert time.monotonic() - began < 60, "the dead writer's lock is not waited for"
    assert again is not None
    assert alone is not None
    assert bytes_of(again) == bytes_of(alone)


def test_another_dataset_under_the_name_needs_replace(settings: Settings) -> None:
    write(settings, range(4))
    with pytest.raises(AlreadyPacked):
        write(settings, range(5))
    with Writer("things@1.0", FIELDS, settings=settings, replace=True) as writer:
        add(writer, 1)
    assert len(open_dataset("things", settings)["train"]) == 1


def test_images_in_every_form_keep_their_bytes(settings: Settings, tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.fromarray(picture(2)).save(encoded, "JPEG")
    (tmp_path / "a.jpg").write_bytes(encoded.getvalue())
    with Writer("forms", {"image": "image"}, settings=settings) as writer:
        writer.write(image=tmp_path / "a.jpg", source="path")
        writer.write(image=encoded.getvalue(), source="bytes")
        writer.write(image=Image.fromarray(picture(1)), source="pil")
        writer.write(image=picture(1)[:, :, 0], source="grey")
    found = {sample["source"]: sample.encoded for sample in open_dataset("forms", settings)["train"]}
    assert found["path"] == found["bytes"] == encoded.getvalue()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found["pil"]))), picture(1))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found["grey"]))), picture(1)[:, :, 0])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"image": b"no image"}, "image"),
        ({"image": picture(1).astype(np.float32)}, "uint8"),
        ({"image": 7}, "int"),
        ({"label": None}, "label"),
        ({"age": "old"}, "age"),
        ({"age": True}, "age"),
        ({"size": 3}, "not one of the fields"),
        ({"split": "Train"}, "split"),
        ({"source": "it-001"}, "twice"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_written(
    settings: Settings, wrong: dict[str, object], says: str
) -> None:
    fields = {"image": "image", "label": "label", "age": "int"}
    with Writer("things", fields, settings=settings) as writer:
        writer.write(image=picture(1), label="a", age=1, source="it-001")
        good: dict[str, object] = {"image": picture(2), "label": "b", "age": 2, "source": "it-002"}
        with pytest.raises(BadArgument, match=says):
            writer.write(**{**good, **wrong})  # type: ignore[arg-type]
    assert len(open_dataset("things", settings)["train"]) == 1


def test_a_missing_file_and_an_empty_writer(settings: Settings, tmp_path: Path) -> None:
    writer = Writer("things", settings=settings)
    with pytest.raises(NotReadable, match="nowhere"):
        writer.write(image=tmp_path / "nowhere.jpg", label=1)
    with pytest.raises(BadArgument, match="no sample"):
        writer.close()
    for fields in ({"image": "label"}, {"image": "image", "Age": "int"}, {"image": "image", "age": "number"}):
        with pytest.raises(BadArgument):
            Writer("things", fields, settings=settings)
