from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from datahub.core.digests import BLOCK
from datahub.core.errors import Problem, StoreDamaged
from datahub.core.events import Event, Note, Progress
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import blocks, index, locate, record
from datahub.store.find import Located, find
from datahub.store.verify import verify
from tests.store.builder import commit, damaged, tiny_variant

SHARD = "tiny-train-000001.tar"


def problems(located: Located, **depth: bool) -> list[Problem]:
    with pytest.raises(StoreDamaged) as caught:
        verify(located, **depth)
    assert "\n" not in str(caught.value)
    assert "datahub fetch tiny@1.0/published --replace" in str(caught.value)
    return list(caught.value.problems)


def recommit(located: Located, change: Callable[[record.Record], record.Record] = lambda found: found) -> Located:
    """The folder with a record and digests that fit its files as they are now, but for what ``change`` does."""
    made = record.read(located.path)
    files = []
    for entry in made.files:
        found = blocks.of_file(located.path / entry.path)
        files.append(msgspec.structs.replace(entry, bytes=found.bytes, sha256=found.sha256, blocks=found.blocks))
    digests = {entry.path: entry.sha256 for entry in files}
    splits = {}
    for name, split in made.splits.items():
        shards = [(each.samples, digests[each.path]) for each in split.shards]
        fingerprint = record.fingerprint(name, made.fields, split.block, shards)
        splits[name] = msgspec.structs.replace(split, fingerprint=fingerprint)
    made = change(msgspec.structs.replace(made, files=files, splits=splits))
    commit(located.path, made)
    return replace(located, record=made)


@pytest.mark.parametrize("depth", [{"quick": True}, {}, {"deep": True}])
@pytest.mark.parametrize("how", [{}, {"format": "jpeg", "channels": 1}, {"labelled": False}, {"scalars": {"age": int}}])
def test_a_whole_variant_passes(settings: Settings, depth: dict[str, bool], how: dict[str, object]) -> None:
    tiny_variant(settings.home, **how)  # type: ignore[arg-type]
    verify(find(settings, Ref("tiny")), **depth)


@pytest.mark.parametrize("depth", [{"quick": True}, {}, {"deep": True}])
def test_missing_and_truncated_files_are_all_told(located: Located, depth: dict[str, bool]) -> None:
    (located.path / SHARD).unlink()
    (located.path / "wids-test.json").unlink()
    os.truncate(located.path / "tiny-test-000000.tar", 5000)
    with (located.path / "README.md").open("a") as handle:
        handle.write("more")
    os.truncate(located.path / "blocks.bin", 32)
    found = dict(problems(located, **depth))
    assert found[SHARD] == "missing"
    assert found["wids-test.json"] == "missing"
    assert found["tiny-test-000000.tar"].startswith("truncated, 5000 bytes instead of 10240")
    assert found["README.md"].startswith("too long")
    assert found["blocks.bin"].startswith("truncated, 32 bytes")
    assert len(found) == 5
    shards = [each.place.endswith(".tar") for each in problems(located, quick=True)]
    assert shards == [True, True, False, False, False]


def test_a_truncated_shard_names_the_samples_it_lost(located: Located) -> None:
    rows = locate.open_rows(located.path / "locate-test.npy")
    os.truncate(located.path / "tiny-test-000000.tar", int(rows[1]["offset"]) + 1)
    [(_, message)] = problems(located)
    assert message.endswith("which held samples test-000000001, test-000000002")


def test_a_flipped_byte_is_found_by_block_and_sample(located: Located) -> None:
    rows = locate.open_rows(located.path / "locate-train.npy")
    damaged(located.path / SHARD, int(rows[14]["offset"]) + 200)
    verify(located, quick=True)
    [(place, message)] = problems(located)
    assert place == SHARD
    size = (located.path / SHARD).stat().st_size
    assert message.startswith(f"changed in block 0 of 1 (bytes 0-{size}), which held samples train-000000010, ")
    deep = problems(located, deep=True)
    assert any("train-000000014" in each.message for each in deep[1:])
    assert not any("train-000000013:" in each.message for each in deep)


def test_changed_blocks_of_a_large_shard_are_ranges(settings: Settings) -> None:
    folder = tiny_variant(settings.home, splits={"train": 16}, shards=1, size=(760, 720))
    located = find(settings, Ref("tiny"))
    shard = folder / "tiny-train-000000.tar"
    size = shard.stat().st_size
    assert 6 * BLOCK < size < 7 * BLOCK
    for block in (1, 2, 5):
        damaged(shard, block * BLOCK + 12345)
    [(_, message)] = problems(located)
    assert f"changed in block 1-2, 5 of 7 (bytes {BLOCK}-{3 * BLOCK}, {5 * BLOCK}-{6 * BLOCK})" in message
    rows = locate.open_rows(folder / "locate-train.npy")
    hit = []
    for row, (start, length) in enumerate(zip(rows["offset"].tolist(), rows["size"].tolist(), strict=True)):
        lies_in = {byte // BLOCK for byte in range(start, start + length)}
        hit += [f"train-{row:09d}"] if lies_in & {1, 2, 5} else []
    assert 8 < len(hit) < 16
    assert message.endswith(f"which held samples {', '.join(hit[:8])} and {len(hit) - 8} more")


def test_changed_block_digests_are_not_blamed_on_the_file(located: Located) -> None:
    damaged(located.path / "blocks.bin", 3)
    [(place, message)] = problems(located)
    assert place == "blocks.bin"
    assert message.startswith("the block digests of .nv-meta/.info.json changed")


def test_a_record_that_lies_about_a_digest(located: Located) -> None:
    files = list(located.record.files)
    at = next(n for n, each in enumerate(files) if each.path == "README.md")
    files[at] = msgspec.structs.replace(files[at], sha256="0" * 64)
    lying = replace(located, record=msgspec.structs.replace(located.record, files=files))
    [(place, message)] = problems(lying)
    assert (place, message[:20]) == ("README.md", "changed: SHA-256 is ")


def spoil(located: Located, **facts: object) -> Located:
    train = msgspec.structs.replace(located.record.splits["train"], **facts)
    splits = {**located.record.splits, "train": train}
    return replace(located, record=msgspec.structs.replace(located.record, splits=splits))


def test_a_record_against_itself(located: Located) -> None:
    [(place, message)] = problems(spoil(located, samples=21, histogram=[]), quick=True)
    assert (place, message) == ("dataset.json: splits.train", "the shards hold 20 samples, not 21")
    [(_, message)] = problems(spoil(located, histogram=[1, 2, 3]), quick=True)
    assert message == "the histogram counts 6 samples, not 20"
    [(_, message)] = problems(spoil(located, block=9), quick=True)
    assert message == "the fingerprint is not of these shards"
    [(_, message)] = problems(spoil(located, index="other.parquet"), quick=True)
    assert message == "other.parquet is not among the files"


def test_a_folder_under_another_name(located: Located, settings: Settings) -> None:
    shutil.copytree(located.path, settings.datasets / "tiny" / "2.0" / "published")
    moved = find(settings, Ref("tiny", "2.0"))
    with pytest.raises(StoreDamaged, match=r"is of tiny@1\.0/published, but stands as tiny@2\.0/published"):
        verify(moved, quick=True)


def test_a_stray_shard_is_a_problem_other_strays_are_told(located: Located) -> None:
    events: list[Event] = []
    (located.path / "notes.txt").write_text("mine")
    (located.path / ".DS_Store").write_text("")
    verify(located, listener=events.append)
    notes = [each for each in events if isinstance(each, Note)]
    assert [("notes.txt" in each.message, each.warning) for each in notes] == [(True, True)]
    shutil.copy(located.path / SHARD, located.path / "tiny-train-000002.tar")
    [(place, message)] = problems(located)
    assert (place, "not in the record" in message) == ("tiny-train-000002.tar", True)
    verify(located, quick=True)


def test_progress_ends_at_the_total(located: Located) -> None:
    events: list[Event] = []
    verify(located, deep=True, jobs=3, listener=events.append)
    for stage, total in (("verify", located.record.bytes()), ("decode", 26)):
        steps = [each for each in events if isinstance(each, Progress) and each.stage == stage]
        assert [each.done for each in steps] == sorted(each.done for each in steps)
        assert (steps[-1].done, steps[-1].total) == (total, total)


# -- deep: files that fit their digests but not each other ----------------------------------------------------------


def deep(located: Located) -> str:
    """The problems that only --deep finds, as one text."""
    verify(located)
    return "; ".join(f"{place}: {message}" for place, message in problems(located, deep=True))


def rewrite(located: Located, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]]) -> None:
    """Write a shard again with members that ``change`` made (of unchanged size, so that offsets hold)."""
    path = located.path / SHARD
    with tarfile.open(path) as old:
        members = [change(member, old.extractfile(member).read()) for member in old]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as new:
        for member, data in members:
            new.addfile(member, io.BytesIO(data))


def change_rows(located: Located, split: str, **columns: object) -> None:
    rows = np.array(locate.open_rows(located.path / f"locate-{split}.npy"))
    for name, value in columns.items():
        rows[name][3] = value
    locate.write(located.path / f"locate-{split}.npy", rows)


def change_index(located: Located, name: str, row: int, value: object) -> None:
    path = located.path / "index-train.parquet"
    columns = index.read(path).to_pydict()
    columns[name][row] = value
    index.write(path, columns)


@pytest.mark.parametrize(
    ("name", "value"), [("offset", 7), ("size", 7), ("shard", 1), ("label", 1), ("width", 7), ("height", 7)]
)
def test_locate_rows_against_the_index(located: Located, name: str, value: int) -> None:
    change_rows(located, "train", **{name: value})
    assert f"locate-train.npy: {name} differs from the index in row 3" in deep(recommit(located))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("key", "train-000000099", "the index calls it train-000000099"),
        ("sha256", "0" * 64, "the SHA-256 of its image"),
        ("format", "jpeg", "its image is PNG, the index says jpeg"),
        ("image_offset", 1024, "not as the index says"),
        ("label", 1, "its label member is not 1"),
    ],
)
def test_index_against_the_shards(located: Located, name: str, value: object, said: str) -> None:
    change_index(located, name, 12, value)
    text = deep(recommit(located))
    assert f"{SHARD}: train-000000012: " in text
    assert said in text


def test_dimensions_against_the_image(located: Located) -> None:
    change_index(located, "width", 12, 13)
    rows = np.array(locate.open_rows(located.path / "locate-train.npy"))
    rows["width"][12] = 13
    locate.write(located.path / "locate-train.npy", rows)
    assert "train-000000012: its image is 12 x 10, the index says 13 x 10" in deep(recommit(located))


def test_scalars_against_their_member(settings: Settings) -> None:
    tiny_variant(settings.home, scalars={"age": lambda row: row})
    located = find(settings, Ref("tiny"))
    change_index(located, "age", 12, 99)
    assert "train-000000012: its age is 12, the index says 99" in deep(recommit(located))


def test_histogram_against_the_labels(located: Located) -> None:
    def wrong(made: record.Record) -> record.Record:
        train = made.splits["train"]
        moved = [train.histogram[0] + 1, train.histogram[1] - 1, train.histogram[2]]
        return msgspec.structs.replace(
            made, splits={**made.splits, "train": msgspec.structs.replace(train, histogram=moved)}
        )

    assert "the histogram is not that of the labels" in deep(recommit(located, wrong))


def test_a_renamed_member(located: Located) -> None:
    def rename(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        member.name = member.name.replace("train-000000015.png", "train-000000015.jpg")
        return member, data

    rewrite(located, rename)
    assert "train-000000015: has members train-000000015.jpg, train-000000015.cls in place of" in deep(
        recommit(located)
    )


def test_an_image_that_does_not_decode(located: Located) -> None:
    def garble(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        if member.name == "train-000000015.png":
            data = data[:60] + bytes(len(data) - 60)
        return member, data

    rewrite(located, garble)
    assert "train-000000015: the SHA-256 of its image" in deep(recommit(located))
    import hashlib

    with tarfile.open(located.path / SHARD) as tar:
        data = tar.extractfile("train-000000015.png").read()  # type: ignore[union-attr]
    change_index(located, "sha256", 15, hashlib.sha256(data).hexdigest())
    assert "train-000000015: its image does not decode" in deep(recommit(located))


def test_a_huge_image_is_refused_by_its_header(located: Located) -> None:
    """A PNG that claims 60,000 x 60,000 pixels in a few hundred bytes: seen before memory is taken."""
    import hashlib
    import zlib

    def bomb(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        if member.name == "train-000000015.png":
            header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + data[24:29]
            data = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
            change_index(located, "sha256", 15, hashlib.sha256(data).hexdigest())
        return member, data

    rewrite(located, bomb)
    assert "train-000000015: its image" in (text := deep(recommit(located)))
    assert "pixels" in text


def test_offsets_that_are_not_the_samples(located: Located) -> None:
    path = located.path / f"{SHARD}.idx"
    offsets = np.fromfile(path, "<u8")
    path.write_bytes(offsets[:-1].tobytes())
    assert f"{SHARD}.idx: does not hold the ascending offsets of 10 samples" in deep(recommit(located))
    offsets[3] += 512
    path.write_bytes(offsets.tobytes())
    text = deep(recommit(located))
    assert "train-000000012: " in text and "train-000000013: no tar header at byte" in text


def test_many_bad_samples_are_counted(settings: Settings) -> None:
    tiny_variant(settings.home, splits={"train": 60}, shards=1)
    located = find(settings, Ref("tiny"))
    path = located.path / "index-train.parquet"
    columns = index.read(path).to_pydict()
    columns["format"] = ["jpeg"] * 60
    index.write(path, columns)
    found = problems(recommit(located), deep=True)
    assert len(found) == 9
    assert found[-1].message == "and 52 more problems"


def test_an_index_of_another_length_or_without_a_column(located: Located) -> None:
    path = located.path / "index-train.parquet"
    columns = index.read(path).to_pydict()
    index.write(path, {name: values[:-1] for name, values in columns.items()})
    assert "index-train.parquet: has 19 rows, the record says 20" in deep(recommit(located))
    index.write(path, {name: values for name, values in columns.items() if name != "sha256"})
    assert "index-train.parquet: has no column sha256" in deep(recommit(located))


def test_images_in_the_store_are_readable_by_pillow_alone(located: Located) -> None:
    """The cap of --deep is Pillow's own limit, so that what passes there opens anywhere."""
    from datahub.core.images import PIXEL_CAP

    assert Image.MAX_IMAGE_PIXELS is not None
    assert PIXEL_CAP <= 2 * Image.MAX_IMAGE_PIXELS + 1


def test_file_that_cannot_be_read(located: Located, tmp_path: Path) -> None:
    (located.path / SHARD).unlink()
    (located.path / SHARD).mkdir()
    assert (SHARD, "not a file") in [tuple(each) for each in problems(located)]
