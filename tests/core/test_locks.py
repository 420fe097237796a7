from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from datahub.core.errors import LockTimeout
from datahub.core.locks import FileLock

HOLD = """
import sys, time
from pathlib import Path
from datahub.core.locks import FileLock
with FileLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

COUNT = """
import sys
from pathlib import Path
from datahub.core.locks import FileLock
path, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(25):
    with FileLock(path, poll=0.001):
        seen = int(counter.read_text())
        counter.write_text(str(seen + 1))
"""


def hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_holder_among_processes(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "lock"), str(counter)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [each.wait() for each in running] == [0, 0, 0]
    assert counter.read_text() == "75"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["counter"]


def test_waiting_ends_with_the_owner_named(tmp_path: Path) -> None:
    process = hold(tmp_path / "lock")
    told: list[str] = []
    try:
        with pytest.raises(LockTimeout) as caught:
            FileLock(tmp_path / "lock", timeout=0.3, on_wait=told.append).acquire()
        assert str(process.pid) in caught.value.owner
        assert told == [caught.value.owner]
    finally:
        process.kill()
        process.communicate()


def test_a_killed_holder_on_this_machine_is_noticed_at_once(tmp_path: Path) -> None:
    process = hold(tmp_path / "lock")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    with FileLock(tmp_path / "lock", timeout=5):
        assert time.monotonic() - began < 2


def foreign(path: Path, age: float) -> None:
    """A lock of another machine whose last heartbeat was ``age`` seconds ago."""
    path.write_text(json.dumps({"token": "t", "pid": 1, "started": "1", "machine": "elsewhere/boot/ns"}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_another_machines_lock_is_stale_by_its_heartbeat_alone(tmp_path: Path) -> None:
    foreign(tmp_path / "lock", age=5)
    with pytest.raises(LockTimeout):
        FileLock(tmp_path / "lock", timeout=0.2, stale_after=60).acquire()
    foreign(tmp_path / "lock", age=120)
    with FileLock(tmp_path / "lock", timeout=5, stale_after=60):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_the_heartbeat_keeps_a_lock_alive(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", heartbeat=0.05):
        os.utime(tmp_path / "lock", (1, 1))
        time.sleep(0.3)
        assert time.time() - (tmp_path / "lock").stat().st_mtime < 2


def test_many_breakers_leave_one_holder(tmp_path: Path) -> None:
    foreign(tmp_path / "lock", age=120)
    inside, most = 0, 0
    guard = threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        with FileLock(tmp_path / "lock", poll=0.001, timeout=20):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.005)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 1


def test_a_breaker_does_not_touch_a_lock_that_was_taken_since(tmp_path: Path) -> None:
    foreign(tmp_path / "lock", age=120)
    late = FileLock(tmp_path / "lock")
    seen = late._owner()
    with FileLock(tmp_path / "lock", timeout=5):
        holder = (tmp_path / "lock").stat().st_ino
        late._break(seen)  # what it saw was broken by somebody else meanwhile
        assert (tmp_path / "lock").stat().st_ino == holder
    assert [each.name for each in tmp_path.iterdir()] == []


def test_a_breaker_that_was_killed_over_it_stops_nobody(tmp_path: Path) -> None:
    foreign(tmp_path / "lock", age=120)
    guard = tmp_path / "lock.breaking"
    guard.touch()
    os.utime(guard, (1, 1))
    with FileLock(tmp_path / "lock", timeout=5, poll=0.01):
        assert not guard.exists()
