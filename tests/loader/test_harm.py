"""What befalls a running loop from outside: disks that fill, origins that pause, files that shrink, killed workers."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import datahub
from datahub.core.errors import SizeMismatch
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.store.cache.files import BlockFiles
from datahub.store.find import find
from datahub.stream import web as web_files
from tests.acquire.server import Origin, serving
from tests.loader.conftest import no_threads, seen
from tests.loader.test_sources import serve


@pytest.fixture
def web(home: Settings) -> Iterator[Origin]:
    with serving() as origin:
        serve(origin, find(home, Ref.parse("tiny")).path)
        yield origin


@pytest.fixture
def remote(tmp_path: Path, web: Origin) -> Iterator[Any]:
    made = []

    def loader(**arguments: Any) -> StreamingLoader:
        defaults = {"batch_size": 5, "num_workers": 2, "timeout": 20, "source": web.url}
        made.append(StreamingLoader("tiny", settings=Settings(home=tmp_path / "far"), **(defaults | arguments)))
        return made[-1]

    yield loader
    for each in made:
        each.close()


def test_a_disk_that_fills(remote, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "mine.txt").write_text("not the cache's")
    write, room, heard = BlockFiles.write, [1], []

    def full(self: BlockFiles, key: str, token: str, data: bytes) -> Any:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        room.pop()
        return write(self, key, token, data)

    monkeypatch.setattr(BlockFiles, "write", full)
    loader = remote(cache_dir=cache, listener=heard.append)
    for _ in range(2):
        assert sorted(seen(list(loader))) == list(range(50))
    assert [each.message for each in heard if each.warning] == [
        f"{cache} cannot be written (No space left on device); blocks are read from their origin and not kept"
    ]
    assert (cache / "mine.txt").read_text() == "not the cache's"
    assert not list((cache / "filling").iterdir())


def test_an_origin_that_pauses_is_asked_again(remote, web, monkeypatch):
    monkeypatch.setattr(web_files, "SILENCE", 0.2)
    loader = remote()
    for path, behaviour in web.paths.items():
        if path.endswith(".tar"):
            behaviour.pause, behaviour.cut, behaviour.claim = 5.0, [10], None
    assert sorted(seen(list(loader))) == list(range(50))


def test_a_shard_that_is_cut_at_its_origin(remote, web):
    loader = remote(prefetch=1, cache_limit=1)
    running = iter(loader)
    next(running)
    for path, behaviour in web.paths.items():
        if path.endswith(".tar"):
            behaviour.data = behaviour.data[:700]
    with pytest.raises(SizeMismatch, match=r"train-00000\d\.tar: truncated, 700 bytes instead of.*was cut"):
        list(running)
    assert no_threads()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_worker_of_a_dataloader(home):
    dataset = datahub.StreamingDataset("tiny", batch_size=2, settings=home, residency="stream", timeout=60)
    running = iter(DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork"))
    state = datahub.state_of(next(running))
    os.kill(running._workers[1].pid, signal.SIGKILL)
    # RuntimeError, but where the worker was about to hand over a tensor's memory: that is torch's own to tell.
    with pytest.raises((RuntimeError, EOFError, ConnectionError)):
        list(running)
    del running
    dataset.load_state_dict(state)
    left = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [row for batch in left for row in batch["index"].tolist()] == list(range(2, 50))
