"""Shards written straight to an object store: an S3-speaking server in a process of its own, and fsspec's memory."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from datahub.core.errors import AlreadyPacked, BadArgument, ConnectionLost
from datahub.core.settings import Settings
from datahub.pack.ground import Bucket
from datahub.pack.plan import PackPlan
from datahub.pack.run import How, Part, run
from tests.pack.fakes import Pictures, planned
from tests.pack.test_packing import bytes_of

ROOT = Path(__file__).parents[2]
SOURCE = Pictures({"train": 60, "test": 9}, scalars=("writer",))
HAS_S3 = all(importlib.util.find_spec(name) for name in ("s3fs", "moto", "flask"))
needs_s3 = pytest.mark.skipif(not HAS_S3, reason="s3fs and moto[server] are not installed")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environ = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/moto-api/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield url
    server.kill()
    server.wait()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket on a real S3-speaking server."""
    for key, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(key, value)
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    name = f"bucket-{time.time_ns()}"
    fs.mkdir(name)
    yield f"s3://{name}"
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture(params=["memory", pytest.param("s3", marks=needs_s3)])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/packed"
    fsspec.filesystem("memory").store.clear()
    return "memory://packed"


def names(plan: PackPlan) -> list[str]:
    """What is there, also while another process writes it."""
    assert plan.to is not None
    fs, path = fsspec.core.url_to_fs(plan.to)
    fs.invalidate_cache()
    root = path.strip("/")
    return sorted(each.strip("/").removeprefix(f"{root}/") for each in fs.find(path))


def remote(plan: PackPlan) -> dict[str, bytes]:
    assert plan.to is not None
    fs, path = fsspec.core.url_to_fs(plan.to)
    return {name: fs.cat_file(f"{path}/{name}") for name in names(plan)}


def packed(settings: Settings, source: Pictures = SOURCE, **options: Any) -> tuple[PackPlan, str | None]:
    how = How(jobs=1, **{key: options.pop(key) for key in ("replace", "part") if key in options})
    plan = planned(source, settings, **options)
    return plan, run(plan, source, settings=settings, how=how)


@pytest.mark.filterwarnings("default")
def test_the_bytes_are_those_of_a_folder(url: str, tmp_path: Path) -> None:
    here, there = Settings(home=tmp_path / "here"), Settings(home=tmp_path / "there")
    _, folder = packed(here)
    plan, name = packed(there, to=url)
    assert folder is not None
    assert name == f"{url}/toy/1.0/published"
    assert remote(plan) == bytes_of(Path(folder))
    assert not (there.datasets / ".building").exists(), "nothing was built here"
    assert packed(there, to=url)[1] == name, "the same again does nothing"


@pytest.mark.filterwarnings("default")
def test_parts_of_several_machines_and_the_last_commits(url: str, tmp_path: Path) -> None:
    _, folder = packed(Settings(home=tmp_path / "here"))
    results = []
    for number in (3, 1, 2):
        settings = Settings(home=tmp_path / f"machine-{number}")
        plan, name = packed(settings, to=url, part=Part(number, 3))
        results.append(name)
    assert results[:2] == [None, None]
    assert results[2] == plan.to
    assert folder is not None
    assert remote(plan) == bytes_of(Path(folder))


@pytest.mark.filterwarnings("default")
def test_other_bytes_need_replace(url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    packed(settings, to=url)
    other = Pictures({"train": 30, "test": 9}, scalars=("writer",))
    with pytest.raises(AlreadyPacked):
        packed(settings, other, to=url)
    plan, _ = packed(settings, other, to=url, replace=True)
    _, folder = packed(Settings(home=tmp_path / "here"), other)
    assert folder is not None
    assert {**remote(plan), **bytes_of(Path(folder))} == remote(plan)


def test_urls_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="to="):
        packed(Settings(home=tmp_path), to="nosuch://place")
    with pytest.raises((ConnectionLost, BadArgument)):
        Bucket("http://127.0.0.1:9/x", "work").sink("out/a")


KILLED = """
import sys, time
from pathlib import Path
from datahub.core.settings import Settings
from datahub.pack.run import How, run
from tests.pack.fakes import planned
from tests.pack.test_packing import SLOW
settings = Settings(home=Path(sys.argv[1]))
plan = planned(SLOW, settings, to=sys.argv[2])
run(plan, SLOW, settings=settings, how=How(jobs=1))
"""


@needs_s3
@pytest.mark.filterwarnings("default")
def test_killed_and_begun_again_on_another_machine(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if url.startswith("memory"):
        pytest.skip("another process cannot see this one's memory")
    from tests.pack.test_packing import SLOW

    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "first"), url]
    child = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
    plan = planned(SLOW, Settings(home=tmp_path / "second"), to=url)
    while len([name for name in names(plan) if name.endswith(".done")]) < 4 and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert "dataset.json" not in remote(plan)
    fs = fsspec.core.url_to_fs(url)[0]
    done = {name: fs.info(f"{plan.to}/{name}")["LastModified"] for name in remote(plan) if name.endswith(".tar")}
    finished = [name for name in done if any(n.endswith(f"{name}.done") for n in remote(plan))]
    run(plan, SLOW, settings=Settings(home=tmp_path / "second"), how=How(jobs=1))
    fs.invalidate_cache()
    assert finished
    assert {name: fs.info(f"{plan.to}/{name}")["LastModified"] for name in finished} == {n: done[n] for n in finished}
    settings = Settings(home=tmp_path / "plain")
    folder = run(planned(SLOW, settings), SLOW, settings=settings, how=How(jobs=1))
    assert folder is not None
    assert remote(plan) == bytes_of(Path(folder))
