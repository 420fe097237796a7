"""Blocks on their way, and open files, as the event loop handles them."""

from __future__ import annotations

import asyncio
import hashlib
import os

from datahub.serve import filling
from datahub.serve.descriptors import Descriptors, Handle, look
from datahub.serve.filling import CachedBlocks
from datahub.serve.library import Blob
from datahub.serve.metrics import Metrics
from datahub.store import blocks
from datahub.store.cache.blockcache import BlockCache
from datahub.stream.origin import MemoryFiles


def blob_of(data: bytes, files: MemoryFiles) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data), blocks.of_bytes(data).raw, "d@1/v", "f", None, (files,))


def test_a_block_that_has_just_come_is_there_for_who_asks_at_that_moment(tmp_path, monkeypatch):
    """The future is done and its callback has not run yet: waiting for it does not let the loop run."""
    files = MemoryFiles({"f": b"x" * 1000})
    blob = blob_of(files.files["f"], files)

    async def main():
        cached = CachedBlocks(BlockCache(tmp_path), lambda _: (), 10.0, Metrics())
        future, works = asyncio.get_running_loop().create_future(), []
        monkeypatch.setattr(cached._fetcher, "ask", lambda key, work, urgent: works.append(work))
        monkeypatch.setattr(filling.asyncio, "wrap_future", lambda _: future)
        cached.start(blob, 0)
        future.set_result(works[0](True))
        ready = cached.ready(blob, 0)
        try:
            ready.send(None)
        except StopIteration as stop:
            assert stop.value == filling.Ready(None, here=False)
        else:
            raise AssertionError("it waited")
        handle = cached.warm(blob, 0)
        assert os.pread(handle.descriptor, 10, 0) == b"x" * 10
        cached.release(handle)
        await asyncio.sleep(0)  # the callback, which finds nothing left to do
        cached.close()

    asyncio.run(main())


def opened(path, data=b"abc"):
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    return Handle(descriptor, look(descriptor))


def is_open(handle):
    try:
        os.fstat(handle.descriptor)
    except OSError:
        return False
    return True


def test_files_in_use_are_closed_when_they_are_given_back(tmp_path):
    files = Descriptors(2)
    handles = {}
    for name in "abc":
        handles[name] = opened(tmp_path / name)
        files.put(name, handles[name])
        if name == "a":
            assert files.take("a") is handles["a"]
    assert len(files) == 2 and "a" not in files and is_open(handles["a"])
    files.give_back(handles["a"])
    assert not is_open(handles["a"]) and files.take("none") is None
    files.close()
    assert not is_open(handles["b"]) and not is_open(handles["c"])


def test_a_sweep_says_what_was_used_and_closes_what_was_not(tmp_path):
    files = Descriptors(5)
    for name in "ab":
        files.put(name, opened(tmp_path / name))
    assert sorted(files.sweep()) == ["a", "b"]
    handle = files.take("a")
    files.give_back(handle)
    assert files.sweep() == ["a"]
    files._open["b"].used -= 1000
    files.sweep()
    assert "a" in files and "b" not in files
    files.close()


def test_any_change_of_a_file_is_seen(tmp_path):
    path = tmp_path / "f"
    handle = opened(path)
    assert handle.unchanged()
    times = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not handle.unchanged()
    os.close(handle.descriptor)
