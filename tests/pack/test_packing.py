from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datahub.core.errors import AlreadyPacked, DiskFull, LayoutError, WorkerDied
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack import tar
from datahub.pack.run import How, run
from datahub.store import record
from datahub.store.find import find
from datahub.store.verify import verify
from tests.pack.fakes import Pictures, planned

SOURCE = Pictures({"train": 101, "test": 20}, scalars=("writer",))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


def pack(source: Pictures, settings: Settings, jobs: int = 1, *, replace: bool = False, **choices: Any) -> Path:
    how = How(jobs=jobs, replace=replace)
    folder = run(planned(source, settings, **choices), source, settings=settings, how=how)
    assert folder is not None
    return Path(folder)


def test_a_variant_is_whole_and_holds_every_sample(settings: Settings) -> None:
    folder = pack(SOURCE, settings)
    verify(find(settings, Ref("toy")), deep=True)
    for split, count in SOURCE.counts.items():
        rows = pq.read_table(folder / f"index-{split}.parquet").to_pylist()
        assert [row["key"] for row in rows] == [f"{split}-{i:09d}" for i in range(count)]
        found = sorted(int(row["source"].partition("/")[2]) for row in rows)
        assert found == list(range(count))
        assert [row["source"] for row in rows] != [f"{split}/{i}" for i in range(count)], "not in source order"
        for row in rows[:: max(1, count // 7)]:
            index = int(row["source"].partition("/")[2])
            shard = (folder / f"toy-{split}-{row['shard']:06d}.tar").read_bytes()
            data = shard[row["image_offset"] : row["image_offset"] + row["image_size"]]
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), SOURCE.pixels(split, index))
            assert hashlib.sha256(data).hexdigest() == row["sha256"]
            assert (row["label"], row["writer"], row["width"], row["height"]) == (index % 3, index * 10, 7, 9)
            at = row["label_offset"]
            assert shard[at : at + row["label_size"]] == str(index % 3).encode()


def test_shards_are_plain_ustar(settings: Settings) -> None:
    folder = pack(SOURCE, settings)
    assert len(list(folder.glob("toy-train-*.tar"))) == 8
    with tarfile.open(folder / "toy-train-000000.tar") as archive:
        members = archive.getmembers()
    assert [m.name.partition(".")[2] for m in members[:3]] == ["png", "cls", "json"]
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname, m.type) for m in members} == {
        (0, 0, 0, 0o644, "", "", b"0")
    }
    offsets = np.fromfile(folder / "toy-train-000000.tar.idx", "<u8")
    assert offsets[:-1].tolist() == [m.offset for m in members[::3]]
    whole = (folder / "toy-train-000000.tar").read_bytes()
    assert not any(whole[int(offsets[-1]) :])
    done = subprocess.run(["tar", "tf", str(folder / "toy-train-000000.tar")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 8**11 - 1])
def test_headers_are_what_tarfile_writes(size: int) -> None:
    info = tarfile.TarInfo("train-000000007.png")
    info.size = size
    assert tar.header(b"train-000000007.png", size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [(b"n" * 100, 1), (b"n", 8**11)])
def test_what_does_not_fit_a_header_is_refused(name: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        tar.header(name, size)


def test_bytes_depend_on_the_input_alone(tmp_path: Path) -> None:
    made = []
    for number, jobs in enumerate((1, 3, 1)):
        settings = Settings(home=tmp_path / str(number))
        made.append(bytes_of(pack(SOURCE, settings, jobs)))
    assert made[0].keys() == made[1].keys()
    assert made[0] == made[1] == made[2]


def test_statistics_are_those_of_the_pixels(settings: Settings) -> None:
    folder = pack(SOURCE, settings)
    split = record.read(folder).splits["train"]
    pixels = np.stack([SOURCE.pixels("train", i) for i in range(101)]) / 255
    assert split.stats is not None
    assert np.allclose(split.stats.mean, pixels.mean(axis=(0, 1, 2)), atol=1e-6)
    assert np.allclose(split.stats.std, pixels.std(axis=(0, 1, 2)), atol=1e-6)
    assert (split.stats.images, split.stats.full) == (101, True)
    assert split.histogram == [34, 34, 33]
    assert record.read(folder).fields["image"].shape == [9, 7, 3]


def test_the_same_again_does_nothing_and_other_bytes_need_replace(settings: Settings) -> None:
    folder = pack(SOURCE, settings)
    before = (folder / "dataset.json").stat()
    assert pack(SOURCE, settings) == folder
    assert (folder / "dataset.json").stat().st_ino == before.st_ino
    other = Pictures({"train": 50})
    with pytest.raises(AlreadyPacked) as caught:
        pack(other, settings)
    assert caught.value.exit_code == 6
    assert record.read(folder).splits["train"].samples == 101
    pack(other, settings, replace=True)
    assert record.read(folder).splits["train"].samples == 50
    assert not any((settings.home / ".trash").iterdir())


@pytest.mark.parametrize(
    "source",
    [Pictures({"train": 3}), Pictures({"train": 9}, labelled=False), Pictures({"train": 12}, random_access=False)],
)
def test_few_samples_no_labels_and_source_order(source: Pictures, settings: Settings) -> None:
    folder = pack(source, settings)
    verify(find(settings, Ref("toy")), deep=True)
    made = record.read(folder)
    assert len(made.splits["train"].shards) == min(8, source.counts["train"])
    assert all(each.samples for each in made.splits["train"].shards)
    assert ("label" in made.fields) is source.labelled
    assert made.splits["train"].permuted is source.random_access


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16 + seed % 5, 20, 3), np.uint8)).save(buffer, "jpeg")
    return buffer.getvalue()


def test_encoded_images_keep_their_bytes(settings: Settings) -> None:
    files = {i: jpeg(i) for i in range(30)}
    folder = pack(Pictures({"train": 30}, encoded=files), settings)
    rows = pq.read_table(folder / "index-train.parquet").to_pylist()
    for row in rows:
        index = int(row["source"].partition("/")[2])
        assert row["sha256"] == hashlib.sha256(files[index]).hexdigest()
        assert (row["format"], row["width"], row["height"]) == ("jpeg", 20, 16 + index % 5)
    assert record.read(folder).fields["image"].shape is None


@pytest.mark.parametrize("damage", [b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b""])
def test_a_damaged_image_is_named(damage: bytes, settings: Settings) -> None:
    files = {i: jpeg(i) for i in range(30)} | {17: damage}
    with pytest.raises(LayoutError) as caught:
        pack(Pictures({"train": 30}, encoded=files), settings, damaged="refuse")
    assert "train/17" in str(caught.value)
    assert not (settings.datasets / "toy").exists()


def test_a_full_disk_keeps_finished_shards(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = os.writev, [0]

    def full(descriptor: int, parts: list[bytes]) -> int:
        written[0] += sum(map(len, parts))
        if written[0] > 120_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, parts)

    with monkeypatch.context() as patch, pytest.raises(DiskFull) as caught:
        patch.setattr(os, "writev", full)
        pack(SOURCE, settings)
    assert caught.value.exit_code == 5
    building = planned(SOURCE, settings).building
    finished = {
        each: each.stat().st_ino
        for each in (building / "out").glob("*.tar")
        if (building / "work" / f"{each.name}.done").exists()
    }
    assert finished
    assert not (settings.datasets / "toy").exists()
    folder = pack(SOURCE, settings)
    assert {folder / each.name: inode for each, inode in finished.items()} == {
        folder / each.name: (folder / each.name).stat().st_ino for each in finished
    }
    verify(find(settings, Ref("toy")))


def test_a_disk_that_is_too_small_is_known_before(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datahub.pack.plan._free", lambda folder: 10)
    with pytest.raises(DiskFull):
        planned(SOURCE, settings)


SLOW = Pictures({"train": 101, "test": 20}, scalars=("writer",), pause=0.05)
KILLED = """
import sys
from pathlib import Path
from datahub.core.settings import Settings
from tests.pack.test_packing import SLOW, pack
if __name__ == "__main__":
    pack(SLOW, Settings(home=Path(sys.argv[1])), jobs=int(sys.argv[2]))
"""


def start(home: Path, jobs: int, folder: Path) -> subprocess.Popen[bytes]:
    script = folder / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, str(script), str(home), str(jobs)], cwd=root, env=environ, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("shards", [1, 5, 12, 16])
def test_kill_9_then_again_gives_the_same_bytes(shards: int, tmp_path: Path) -> None:
    plain, settings = Settings(home=tmp_path / "plain"), Settings(home=tmp_path / "killed")
    child = start(settings.home, 1, tmp_path)
    work = planned(SLOW, settings).building / "work"
    while len(list(work.glob("*.done"))) < shards and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = {
        each.name.removesuffix(".done"): (work.parent / "out" / each.name.removesuffix(".done"))
        for each in work.glob("*.done")
    }
    inodes = {name: path.stat().st_ino for name, path in done.items()}
    folder = pack(SLOW, settings)
    assert {name: (folder / name).stat().st_ino for name in inodes} == inodes
    assert bytes_of(folder) == bytes_of(pack(SLOW, plain))
    assert not work.parent.exists()


def test_two_processes_pack_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert [each.wait(timeout=60) for each in [start(home, 1, tmp_path) for _ in range(2)]] == [0, 0]
    verify(find(Settings(home=home), Ref("toy")))


def test_a_killed_worker_is_one_error_and_no_loss(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    import datahub.pack.executor as executor

    real = executor.make

    def make(jobs: int) -> object:
        pool = real(jobs)

        def kill() -> None:
            while not getattr(pool, "_processes", None):
                time.sleep(0.01)
            os.kill(next(iter(pool._processes)), signal.SIGKILL)  # type: ignore[attr-defined]

        threading.Timer(0.3, kill).start()
        return pool

    with monkeypatch.context() as patch, pytest.raises(WorkerDied) as caught:
        patch.setattr(executor, "make", make)
        pack(SLOW, settings, jobs=2)
    assert caught.value.retryable
    pack(SLOW, settings, jobs=2)
    verify(find(settings, Ref("toy")))


def test_the_plan_is_printable_and_ignores_jobs(settings: Settings) -> None:
    found = planned(SOURCE, settings)
    assert found.digest != planned(SOURCE, settings, stats="full").digest
    assert "train 101, test 20 into 16 shards" in found.lines()[0]
    assert json.loads(json.dumps(found.to_dict()))["splits"] == {"train": 101, "test": 20}
