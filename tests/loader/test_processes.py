"""Loaders whose batches are made by processes: the same batches, and an end to everything whoever is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from datahub.core.errors import BadArgument, WorkerDied
from datahub.core.settings import Settings
from datahub.loader import arguments
from datahub.loader.process import slab
from datahub.loader.streaming import StreamingLoader
from datahub.pack import authoring
from datahub.tensor.transforms import Compose, Decode, Normalize, RandomHorizontalFlip, RandomResizedCrop
from tests.conftest import ROOT
from tests.loader.conftest import no_threads, same
from tests.loader.troubled import troubled
from tests.tensor.images import encoded, noise

TRAIN = Compose([RandomResizedCrop(48), RandomHorizontalFlip(), Normalize([0.5], [0.2])])
COUNT = 60


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """A store that holds ``photos``: JPEGs and PNGs of differing sizes."""
    settings = Settings(home=tmp_path_factory.mktemp("processes"))
    with authoring.Writer("photos", {"image": "image", "label": "label"}, settings=settings, jobs=1) as writer:
        for row in range(COUNT):
            pixels = noise(70 + 7 * row % 50, 90 - 5 * row % 60, seed=row)
            data = encoded(pixels, "JPEG" if row % 3 else "PNG")
            writer.write(split="train", source=f"{row}", image=data, label=["even", "odd"][row % 2])
    return settings


def loader(settings: Settings, **arguments) -> StreamingLoader:
    options = {"batch_size": 8, "num_workers": 2, "workers": "process", "timeout": 60, **arguments}
    return StreamingLoader("photos", "train", settings=settings, **options)


def children(of: int) -> set[int]:
    """Processes below one, zombies not counted."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == of and state not in "ZX":
            pid = int(stat.parent.name)
            found |= {pid} | children(pid)
    return found


def gone(pids: set[int], within: float = 20.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(_lives(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def workers_of(made: StreamingLoader) -> set[int]:
    """The processes that make its batches, without the one they come from."""
    nursery = made._staff._crew._nursery.pid
    return children(nursery)


@pytest.fixture(scope="module")
def trained(settings: Settings) -> Iterator[StreamingLoader]:
    with loader(settings, shuffle=True, seed=3, transform=TRAIN, prefetch=3) as made:
        yield made


@pytest.fixture
def whole(settings: Settings) -> list:
    with loader(settings, shuffle=True, seed=3, transform=TRAIN, workers="thread") as made:
        return list(made)


def test_batches_are_those_of_threads(trained, whole):
    before = children(os.getpid())
    trained.set_epoch(0)
    found = list(trained)
    assert same(found, whole)
    assert len(whole) == 8 and no_threads()
    assert len(workers_of(trained)) == 2
    stats = trained.stats()
    assert (stats["batches"], stats["samples"], stats["workers"]) == (8, COUNT, 2)
    assert stats["bytes"] == int(trained.split.locate["size"].sum())
    assert stats["decode_seconds"] > 0 < stats["read_seconds"]
    assert "2 worker processes, 3 batches ahead" in trained.explain()
    kept = [batch["image"].clone() for batch in found]
    for _ in range(3):
        list(trained)  # whose memory must not be that of the batches that are kept
    assert all(torch.equal(batch["image"], copy) for batch, copy in zip(found, kept, strict=True))
    assert children(os.getpid()) - before <= workers_of(trained) | {trained._staff._crew._nursery.pid}


def test_loops_that_are_left_and_taken_up(trained, whole):
    trained.set_epoch(9)
    trained.set_epoch(0)
    pids = workers_of(trained)
    for batch in trained:
        assert same(batch, whole[0])
        break
    trained.load_state_dict(trained.state_of(whole[2]))
    loop = iter(trained)
    assert same(next(loop), whole[3])
    trained.skip(2)
    assert same(list(loop), whole[6:])
    trained.load_state_dict({**trained.state_dict(), "epoch": 0, "position": 0})
    assert same(next(iter(trained)), whole[0])
    assert same(trained.at(0, 5), whole[5])
    assert workers_of(trained) == pids, "the same workers all along"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_do_not_add_up(trained):
    list(trained)
    had = descriptors()
    kept = list(trained) + list(trained)
    assert descriptors() <= had + len(kept)
    del kept
    for _ in range(4):
        for number, _batch in enumerate(trained):
            if number == 2:
                break
    list(trained)
    assert descriptors() <= had + 12


# -- trouble -------------------------------------------------------------------------------------------------------


def test_a_worker_in_trouble_is_one_clear_error_and_the_next_loop_goes_on(settings, tmp_path):
    bystanders = children(os.getpid())
    order = tmp_path / "order"
    order.write_text("")
    with loader(settings, transform=partial(troubled, order=order), timeout=60) as made:
        good = list(made)
        assert good[0]["image"].shape == (8, 3)
        order.write_text("raise")
        with pytest.raises(KeyError, match="mine") as caught:
            list(made)
        notes = caught.value.__notes__
        assert notes[0] == "in transform= for sample train-000000000" and "in worker process" in notes[1]
        pids = workers_of(made)
        order.write_text("kill")
        with pytest.raises(WorkerDied, match="was ended by SIGKILL; if memory ran out, use fewer workers") as died:
            list(made)
        assert died.value.pid in pids and died.value.signal == signal.SIGKILL
        assert (died.value.exit_code, died.value.retryable) == (4, True)
        order.write_text("")
        made.set_epoch(0)
        assert same(list(made), good)
        assert gone(pids)
        made._timeout = 1.0  # the start of a worker may take longer than a deadline that is worth waiting for
        order.write_text("hang")
        with pytest.raises(WorkerDied, match="none came within timeout=1 s"):
            list(made)
        assert gone(children(os.getpid()) - bystanders)


def test_how_a_worker_ended_decides_what_is_said():
    left = WorkerDied.ended("making a batch", 12, 7)
    assert "process 12 ended with status 7" in str(left) and (left.exit_code, left.retryable) == (4, True)
    crashed = WorkerDied.ended("making a batch", 12, -signal.SIGSEGV)
    assert "ended by SIGSEGV; a decoder or transform crashed" in str(crashed)
    assert (crashed.exit_code, crashed.retryable, crashed.pid) == (1, False, 12)


def test_damage_is_set_aside_as_with_threads(tmp_path):
    own = Settings(home=tmp_path)
    with authoring.Writer("photos", {"image": "image", "label": "label"}, settings=own, jobs=1) as writer:
        for row in range(24):
            writer.write(split="train", source=f"{row}", image=encoded(noise(40, 30, seed=row), "JPEG"), label="one")
    with loader(own, workers="thread") as plain:
        split = plain.split
    place = split.locate[13]
    shard = split.shards[int(place["shard"])]
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[int(place["offset"]) : int(place["offset"]) + 40] = bytes(40)
    shard.write_bytes(data)
    with loader(own, transform=Decode(orient=True, then=TRAIN), on_error="quarantine", num_workers=1) as made:
        found = list(made)
        assert made.stats()["quarantined"] == 1
    with loader(own, transform=Decode(orient=True, then=TRAIN), on_error="quarantine", workers="thread") as plain:
        assert same(found, list(plain))
    files = list(own.home.rglob("quarantine/*.jsonl"))
    assert [path.name.rpartition("-")[2] for path in files] == [f"{os.getpid()}.jsonl"]


SCRIPT = """
import os, sys, time
import datahub
from datahub.core.settings import Settings
from pathlib import Path

def own(image):
    return image.float().mean()

def run(transform):
    loader = datahub.StreamingLoader("photos", "train", batch_size=8, num_workers=2, workers="process",
                                     transform=transform, settings=Settings(home=Path(sys.argv[1])), timeout=60)
    for number, batch in enumerate(loader):
        print(number, len(batch["image"]), flush=True)
        if sys.argv[2] == "wait":
            time.sleep(600)
    global left_running
    left_running = iter(loader)
    next(left_running)

"""


def script(settings: Settings, tmp_path: Path, end: str, how: str = "run") -> subprocess.Popen[str]:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + end)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path), str(settings.home), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_nothing_is_left_of_a_caller_that_is_killed(settings, tmp_path):
    child = script(settings, tmp_path, "run(None)\n", "wait")
    assert child.stdout is not None
    assert child.stdout.readline() == "0 8\n", "no main guard is needed where nothing of the script is sent"
    pids = children(child.pid)
    assert len(pids) == 3
    child.kill()
    child.communicate(timeout=60)
    assert gone(pids)


@pytest.mark.slow
def test_a_script_without_a_guard_whose_function_is_sent(settings, tmp_path):
    child = script(settings, tmp_path, "run(own)\n")
    _, error = child.communicate(timeout=100)
    assert child.returncode == 1 and "UsageError" in error
    assert 'put what the script runs under `if __name__ == "__main__":`' in error
    child = script(settings, tmp_path, 'if __name__ == "__main__":\n    run(own)\n')
    output, error = child.communicate(timeout=100)
    assert (child.returncode, output.split()[-2:]) == (0, ["7", "4"]), error
    assert error == "", "the end of a script that is in the middle of a loop is silent"


# -- without processes ----------------------------------------------------------------------------------------------


def test_what_is_refused(settings):
    with pytest.raises(BadArgument, match='use "thread" or "process"'):
        loader(settings, workers="fibre")
    with pytest.raises(BadArgument, match="share no memory with a device"):
        arguments.process_workers("process", on_cpu=False)
    for name in ("transform", "map", "batch_transform", "collate"):
        with (
            pytest.raises(BadArgument, match=f"{name}=.*cannot be sent to a process") as caught,
            loader(settings, **{name: lambda value: value}) as made,
        ):
            iter(made)
        assert 'workers="thread"' in caught.value.next_step
    with loader(settings, num_workers=0) as made:
        assert len(list(made)) == 8
        assert "0 worker" in made.explain()


def test_a_slab_holds_what_is_written_until_its_last_user_is_gone():
    memory, released = slab.Slab(), []
    filling = slab.Filling(memory.descriptor)
    pixels = filling.empty((4, 3, 100, 90), torch.channels_last).random_(0, 255)
    value = {
        "image": pixels,
        "part": pixels[1:4],
        "floats": torch.randn(300, 500).t(),
        "halves": torch.ones(70_000, dtype=torch.bfloat16),
        "small": torch.arange(9).reshape(3, 3).t(),
        "none": torch.empty(0, 4),
        "rest": ["text", b"bytes" * 40_000, {"deep": (torch.tensor(True), 3)}],
    }
    expected = {**value, "image": pixels.clone(), "part": pixels[1:4].clone()}
    start, end = filling.write(value)
    found = slab.read(memory.descriptor, start, end, lambda: released.append(1))
    assert same(found, expected)
    assert found["image"].is_contiguous(memory_format=torch.channels_last)
    assert found["floats"].stride() == value["floats"].stride() and found["halves"].dtype == torch.bfloat16
    label, part = found["small"], found["part"]
    del found
    assert released == [], "a part of it is in use"
    del part
    assert released == [1] and label.sum() == 36, "a small tensor keeps nothing"
    start, end = slab.Filling(memory.descriptor).write({"small": torch.ones(3)})
    slab.read(memory.descriptor, start, end, lambda: released.append(2))
    assert released == [1, 2], "nothing is mapped for what is small"


def test_a_caller_that_is_gone_before_its_workers_are_born_is_no_error() -> None:
    kit, floor = os.memfd_create("kit"), os.memfd_create("floor")
    os.ftruncate(floor, 8)
    (control, ours), (line, theirs) = socket.socketpair(), socket.socketpair()
    with control, line:
        ours.close()
        theirs.close()
        inherited = (control.fileno(), kit, floor, line.fileno())
        code = f"from datahub.loader.process.nursery import main; main(*{inherited!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], pass_fds=inherited, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    os.close(kit)
    os.close(floor)
    assert done.returncode == 0 and "BrokenPipeError" not in done.stderr
