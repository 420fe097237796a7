"""The block cache: verified, bounded, shared, and unharmed by whatever happens to its processes and its disk."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from datahub.core.errors import ConnectionLost, DigestMismatch, OriginStalled, SizeMismatch
from datahub.store.cache import books, policy, trust
from datahub.store.cache.block import Block
from datahub.store.cache.blockcache import BlockCache
from datahub.store.cache.files import BlockFiles, file_system
from datahub.store.cache.ledger import NAME

SIZE = 1000


def content(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (SIZE // 32) + bytes(SIZE % 32)


def block(number: int, tag: str = "t") -> Block:
    digest = hashlib.sha256(content(number)).digest()
    return Block(digest.hex(), SIZE, digest, f"shard.tar block {number}", tag)


class Counting:
    """An origin that counts, and can be slow or wrong."""

    def __init__(self, number: int, wrong: int = 0, delay: float = 0.0) -> None:
        self.number, self.wrong, self.delay, self.calls = number, wrong, delay, 0

    def __call__(self, seconds: float) -> bytes:
        self.calls += 1
        time.sleep(self.delay)
        return bytes(SIZE) if self.calls <= self.wrong else content(self.number)


def unreachable(seconds: float) -> bytes:
    raise AssertionError("the origin was asked")


@pytest.fixture
def cache(tmp_path: Path):
    made = BlockCache(tmp_path / "cache", 10 * SIZE)
    yield made
    made.close()


def filled(cache: BlockCache, *numbers: int) -> None:
    for number in numbers:
        assert cache.fill(block(number), Counting(number), seconds=5) == content(number)


def on_disk(folder: Path) -> int:
    return sum(
        path.stat().st_size for kind in ("blocks", "filling") for path in (folder / kind).rglob("*") if path.is_file()
    )


def test_a_block_is_fetched_once_and_then_read(cache):
    origin = Counting(1)
    assert cache.read(block(1)) is None
    assert cache.fill(block(1), origin, seconds=5) == content(1)
    assert cache.fill(block(1), unreachable, seconds=5) == content(1)
    assert cache.read(block(1), [(0, 10), (990, 1000), (5, 5)]) == [content(1)[:10], content(1)[990:], b""]
    assert origin.calls == 1
    assert (cache.usage().bytes, cache.usage().blocks, cache.usage().filling) == (SIZE, 1, 0)


def test_many_threads_ask_the_origin_once(cache):
    origin = Counting(1, delay=0.1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: bytes(cache.fill(block(1), origin, seconds=5) or b""), range(16)))
    assert set(found) == {content(1)}
    assert origin.calls == 1


def test_the_limit_holds_and_what_is_wanted_stays(cache):
    filled(cache, *range(10))
    cache.want([block(n).key for n in range(4)])
    filled(cache, *range(10, 30))
    assert cache.usage().bytes <= 10 * SIZE and on_disk(cache.folder) <= 10 * SIZE
    assert [n for n in range(4) if cache.has(block(n))] == [0, 1, 2, 3]
    cache.unwant([block(n).key for n in range(4)])
    cache.unwant()
    filled(cache, *range(30, 50))
    assert cache.usage().bytes <= 10 * SIZE


def test_what_others_want_stays_until_they_end(cache):
    other = BlockCache(cache.folder, 10 * SIZE)
    filled(cache, *range(10))
    other.want([block(n).key for n in range(10)])
    assert cache.fill(block(11), Counting(11), seconds=5) == content(11)  # handed through
    assert not cache.has(block(11)) and all(cache.has(block(n)) for n in range(10))
    assert cache.fill(block(11), unreachable, seconds=5, through=False) is None
    other.close()
    filled(cache, 11)
    assert cache.has(block(11))


def test_without_evicting_only_free_room_is_taken(cache):
    filled(cache, *range(10))
    assert cache.fill(block(11), unreachable, seconds=5, evict=False, through=False) is None
    assert all(cache.has(block(n)) for n in range(10))


def test_without_evicting_what_nobody_reads_any_more_goes(cache, monkeypatch):
    filled(cache, *range(10))
    monkeypatch.setattr(policy, "IDLE", -1.0)
    cache.want([block(n).key for n in range(5)])
    new = replace(block(11), tag="another")
    assert cache.fill(new, Counting(11), seconds=5, evict=False, through=False) == content(11)
    assert cache.has(new) and all(cache.has(block(n)) for n in range(5))
    assert cache.usage().bytes <= 10 * SIZE


def test_that_no_dataset_is_idle_is_remembered_for_a_while(cache, monkeypatch):
    looked = []
    monkeypatch.setattr(books, "idle", lambda entries, now: looked.append(now) or policy.idle(entries, now))
    filled(cache, *range(10))
    for _ in range(3):
        assert cache.fill(block(11), unreachable, seconds=5, evict=False, through=False) is None
    assert len(looked) == 1
    cache._crowded_until = 0.0
    assert cache.fill(block(11), unreachable, seconds=5, evict=False, through=False) is None
    assert len(looked) == 2


def test_a_block_being_read_is_not_evicted(cache):
    filled(cache, *range(10))
    files = BlockFiles(cache.folder)
    with files.reading(block(3).key) as opened:
        assert opened is not None
        filled(cache, *range(10, 60))
        assert cache.has(block(3))
        assert opened.read(0, SIZE) == content(3)
    assert on_disk(cache.folder) <= 10 * SIZE


def test_a_block_too_large_for_the_limit_is_handed_through(tmp_path):
    cache = BlockCache(tmp_path, SIZE - 1)
    assert cache.fill(block(1), Counting(1), seconds=5) == content(1)
    assert not cache.has(block(1)) and cache.usage().bytes == 0
    cache.close()


def test_wrong_bytes_are_fetched_again_then_refused(cache):
    origin = Counting(1, wrong=2)
    assert cache.fill(block(1), origin, seconds=5) == content(1)
    with pytest.raises(DigestMismatch, match=r"shard.tar block 2: digest is .* holds other bytes than its record"):
        cache.fill(block(2), Counting(2, wrong=99), seconds=5)
    with pytest.raises(SizeMismatch, match=r"shard.tar block 2: truncated, 3 bytes instead of 1000"):
        cache.fill(block(2), lambda seconds: b"abc", seconds=5)
    assert (cache.usage().bytes, cache.usage().filling) == (SIZE, 0)
    assert not list((cache.folder / "filling").iterdir())


def test_a_failing_origin_leaves_nothing_reserved(cache):
    def lost(seconds: float) -> bytes:
        raise ConnectionLost("http://o", "reset")

    with pytest.raises(ConnectionLost):
        cache.fill(block(1), lost, seconds=5)
    assert cache.usage().bytes == 0


@pytest.mark.parametrize("harm", ["flipped", "truncated", "gone", "replaced"])
def test_what_was_changed_behind_its_back_is_fetched_again(cache, harm):
    filled(cache, 1)
    path = BlockFiles(cache.folder).path(block(1).key)
    if harm == "gone":
        path.unlink()
    elif harm == "replaced":
        path.unlink()
        path.write_bytes(bytes(SIZE))
    else:
        with path.open("r+b") as handle:
            handle.write(b"\xff\xff") if harm == "flipped" else handle.truncate(10)
    origin = Counting(1)
    assert cache.read(block(1)) is None
    assert cache.fill(block(1), origin, seconds=5) == content(1)
    assert origin.calls == 1 and cache.read(block(1)) == [content(1)]
    assert cache.usage().bytes == SIZE


def test_blocks_of_another_boot_are_verified_again(cache, monkeypatch):
    filled(cache, 1, 2)
    files = BlockFiles(cache.folder)
    facts = files.path(block(2).key).stat()
    files.path(block(2).key).write_bytes(bytes(SIZE))  # what a crash can leave: right name, right size, no data
    os.utime(files.path(block(2).key), ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    monkeypatch.setattr(trust, "boot", lambda: "another")
    later = BlockCache(cache.folder, 10 * SIZE)
    assert later.read(block(1)) == [content(1)]
    assert later.read(block(2)) is None and not later.has(block(2))
    later.close()


def test_lost_and_damaged_books_are_made_anew(cache, tmp_path):
    filled(cache, 1, 2)
    cache.close()
    for suffix in ("-wal", "-shm"):
        (cache.folder / f"{NAME}{suffix}").unlink(missing_ok=True)
    (cache.folder / NAME).write_bytes(b"no database at all" * 1000)
    later = BlockCache(cache.folder, 10 * SIZE)
    assert later.read(block(1)) == [content(1)]
    assert later.usage().bytes == 2 * SIZE
    later.close()


def test_what_is_not_ours_stays(tmp_path):
    folder = tmp_path / "cache"
    strangers = [folder / "mine.txt", folder / "blocks" / "ab" / "notes", folder / "blocks" / "original.tar"]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5 * SIZE)
    cache = BlockCache(folder, 3 * SIZE)
    filled(cache, *range(20))
    cache.close()
    assert all(path.read_bytes() == b"x" * 5 * SIZE for path in strangers)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_told_once_and_bytes_come_through(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o500)
    heard = []
    cache = BlockCache(folder, 10 * SIZE, listener=heard.append)
    filled(cache, 1, 2, 1)
    assert len(heard) == 1 and heard[0].warning and "cannot be written" in heard[0].message


def test_a_folder_that_cannot_be_is_told_once_and_bytes_come_through(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    heard = []
    cache = BlockCache(tmp_path / "file" / "cache", 10 * SIZE, listener=heard.append)
    filled(cache, 1, 2, 1)
    assert len(heard) == 1 and heard[0].warning and "Not a directory" in heard[0].message


def test_a_full_disk_is_told_once_and_bytes_come_through(cache, monkeypatch):
    heard = []
    cache._listener = heard.append
    filled(cache, 1)
    write = os.write
    full = OSError(28, "No space left on device")

    def failing(descriptor: int, data: bytes) -> int:
        raise full

    monkeypatch.setattr("datahub.store.cache.files.os.write", failing)
    filled(cache, 2, 3, 1)
    monkeypatch.setattr("datahub.store.cache.files.os.write", write)
    assert [each.message.count("No space left") for each in heard] == [1]
    assert cache.usage().bytes == SIZE and cache.read(block(1)) == [content(1)]
    cache._off_until = 0.0
    filled(cache, 2)
    assert cache.has(block(2))


def test_a_stalled_fill_of_another_is_reported_by_name(cache):
    other = BlockCache(cache.folder, 10 * SIZE)
    began, release = threading.Event(), threading.Event()

    def stalled(seconds: float) -> bytes:
        began.set()
        release.wait(10)
        return content(1)

    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(other.fill, block(1), stalled, seconds=10)
        assert began.wait(5)
        with pytest.raises(OriginStalled, match=r"shard\.tar block 1"):
            cache.fill(block(1), unreachable, seconds=0.2)
        release.set()
        assert filling.result(10) == content(1)
    assert cache.read(block(1)) == [content(1)]
    other.close()


def test_travels_through_pickle_and_fork(cache):
    filled(cache, 1)
    again = pickle.loads(pickle.dumps(cache))
    assert again.read(block(1)) == [content(1)]
    again.close()
    child = os.fork()
    if child == 0:
        try:
            good = cache.read(block(1)) == [content(1)] and cache.fill(block(2), Counting(2), seconds=5) == content(2)
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.fill(block(2), unreachable, seconds=5) == content(2)


def test_file_systems_are_told_apart(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /data rw shared:1 - nfs4 host:/x rw\n")
    assert file_system(Path("/data/cache"), mounts) == "nfs4"
    assert file_system(Path("/dataset"), mounts) == "ext4"


# -- several processes ----------------------------------------------------------------------------------------------

WORKER = """
import hashlib, os, sys, time
from pathlib import Path
from tests.store.cache.test_blockcache import SIZE, block, content
from datahub.store.cache.blockcache import BlockCache

folder, log, limit, seed, rounds, delay = sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(float, sys.argv[4:])
cache = BlockCache(Path(folder), limit)
descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
print("ready", flush=True)
sys.stdin.readline()
for step in range(int(rounds)):
    number = (step * 7 + int(seed)) % 24

    def fetch(seconds):
        os.write(descriptor, b"%d\\n" % number)
        time.sleep(delay)
        return content(number)

    assert bytes(cache.fill(block(number), fetch, seconds=30)) == content(number)
    found = cache.read(block(number), [(3, 40)])
    assert found in (None, [content(number)[3:40]]), found
cache.close()
"""


def start(folder: Path, log: Path, limit: int, seed: int, rounds: int, delay: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), str(log), str(limit), str(seed), str(rounds), str(delay)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def ended(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=60)
    return process.returncode


def test_processes_fetch_each_block_once(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    workers = [start(folder, log, 100 * SIZE, seed, 24, 0.01) for seed in (0, 0, 5)]
    go(*workers)
    assert [ended(each) for each in workers] == [0, 0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(24))


def test_processes_never_hold_more_than_the_limit(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    workers = [start(folder, log, 6 * SIZE, seed, 150) for seed in (0, 3)]
    watcher = BlockCache(folder, 6 * SIZE)
    go(*workers)
    most = 0
    while any(each.poll() is None for each in workers):
        most = max(most, watcher.usage().bytes)
    assert [ended(each) for each in workers] == [0, 0]
    assert 0 < most <= 6 * SIZE
    assert on_disk(folder) == watcher.usage().bytes <= 6 * SIZE
    watcher.close()


def test_killed_at_any_moment_nothing_torn_is_served_and_nothing_stays_reserved(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    for attempt in range(12):
        worker = start(folder, log, 6 * SIZE, attempt, 10_000, 0.001 * (attempt % 3))
        go(worker)
        time.sleep(0.02 + 0.007 * attempt)
        worker.send_signal(signal.SIGKILL)
        worker.wait(30)
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.close()
        worker.stdout.close()
        cache = BlockCache(folder, 6 * SIZE)
        filled(cache, *range(24))  # waits for nobody: the dead one's fill is taken over at once
        assert cache.usage().bytes <= 6 * SIZE and cache.usage().filling == 0
        cache.close()
        assert on_disk(folder) <= 6 * SIZE
        for path in (folder / "blocks").rglob("*"):
            if path.is_file():
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_killed_filler_is_followed_at_once(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    worker = start(folder, log, 6 * SIZE, 0, 1, 30.0)
    go(worker)
    deadline = time.monotonic() + 10
    while not log.exists() or not log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cache = BlockCache(folder, 6 * SIZE)
    assert cache.usage().filling == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.fill, block(0), Counting(0), seconds=20)
        worker.kill()
        began = time.monotonic()
        assert waiting.result(20) == content(0)
        assert time.monotonic() - began < 5
    worker.communicate(timeout=10)
    cache.close()


def test_readers_locks_are_shared(tmp_path):
    cache = BlockCache(tmp_path, 10 * SIZE)
    filled(cache, 1)
    descriptor = os.open(BlockFiles(tmp_path).path(block(1).key), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert cache.read(block(1)) == [content(1)]
    os.close(descriptor)
    cache.close()
