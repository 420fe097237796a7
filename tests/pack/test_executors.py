from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from pathlib import Path

import pytest

from datahub.core.errors import BadArgument, DiskFull, ExecutorUnreachable, MissingExtra, WorkerDied
from datahub.core.settings import Settings
from datahub.pack import executors
from datahub.pack.run import How, run
from tests.pack import tasks
from tests.pack.fakes import Pictures, planned
from tests.pack.test_packing import bytes_of

ROOT = Path(__file__).parents[2]
HAS_RAY = importlib.util.find_spec("ray") is not None
HAS_DASK = importlib.util.find_spec("distributed") is not None
pytestmark = pytest.mark.filterwarnings("default")  # Dask and Ray warn of much that is theirs
needs_dask = pytest.mark.skipif(not HAS_DASK, reason="distributed is not installed (pip install 'datahub[dask]')")
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (pip install 'datahub[ray]')")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """A Dask scheduler and two workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        base = [sys.executable, "-m", "distributed.cli"]
        host, port = self.address.split(":")
        common = {"cwd": folder, "env": environ, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.scheduler = subprocess.Popen(
            [*base[:2], "distributed.cli.dask_scheduler", "--host", host, "--port", port, "--no-dashboard"], **common
        )
        self.workers = [
            subprocess.Popen(
                [
                    *base[:2],
                    "distributed.cli.dask_worker",
                    f"tcp://{self.address}",
                    "--nthreads",
                    "1",
                    "--no-dashboard",
                ],
                **common,
            )
            for _ in range(2)
        ]

    def close(self) -> None:
        for each in [*self.workers, self.scheduler]:
            each.terminate()
        for each in [*self.workers, self.scheduler]:
            try:
                each.wait(10)
            except subprocess.TimeoutExpired:
                each.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("dask"))
    yield made
    made.close()


@pytest.fixture(
    params=[
        "local-1",
        "local-2",
        pytest.param("dask", marks=needs_dask),
        pytest.param("ray", marks=[needs_ray, pytest.mark.slow]),
    ]
)
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    kind, _, jobs = str(request.param).partition("-")
    where = {"local": "local", "ray": "ray://"}.get(kind)
    if where is None:
        where = f"dask://{request.getfixturevalue('cluster').address}"
    made = executors.make(where, int(jobs or 2))
    yield made
    executors.stop(made)


def test_results_and_errors_come_back_as_they_are(pool: Executor) -> None:
    futures = [pool.submit(tasks.double, i) for i in range(5)]
    broken, odd = pool.submit(tasks.fail, "/full"), pool.submit(tasks.break_down)
    assert [each.result(60) for each in futures] == [0, 2, 4, 6, 8]
    with pytest.raises(DiskFull) as caught:
        broken.result(60)
    assert (caught.value.path, caught.value.needed, caught.value.exit_code) == ("/full", 10, 5)
    assert odd.exception(60) is not None


def test_a_worker_killed_in_the_middle(pool: Executor, tmp_path: Path) -> None:
    if type(pool).__name__ == "InProcess":
        pytest.skip("its worker is this process")
    future = pool.submit(tasks.die_once, str(tmp_path / "mark"))
    if type(pool).__name__ == "ProcessPoolExecutor":  # run() makes WorkerDied of it
        assert isinstance(future.exception(60), BrokenExecutor)
    else:
        assert future.result(90) > 0, "the cluster runs it again"


SOURCE = Pictures({"train": 64, "test": 9}, scalars=("writer",))


@pytest.mark.parametrize(
    "where", ["local", pytest.param("dask", marks=needs_dask), pytest.param("ray", marks=[needs_ray, pytest.mark.slow])]
)
def test_bytes_do_not_depend_on_where_they_were_packed(
    where: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if where == "dask":
        where = f"dask://{request.getfixturevalue('cluster').address}"
    elif where == "ray":
        where = "ray://"
    found = []
    for name, how in (("plain", How(jobs=1)), ("there", How(jobs=2, executor=where))):
        settings = Settings(home=tmp_path / name)
        folder = run(planned(SOURCE, settings), SOURCE, settings=settings, how=how)
        assert folder is not None
        found.append(bytes_of(Path(folder)))
    assert found[0] == found[1]


@needs_dask
@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_every_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datahub.pack.executors.dask.GONE", 3.0)
    cluster = Cluster(tmp_path)
    pool = executors.make(f"dask://{cluster.address}", 2)
    try:
        future = pool.submit(tasks.sleep, 100)
        time.sleep(1)
        cluster.scheduler.send_signal(signal.SIGKILL)
        assert isinstance(future.exception(90), WorkerDied)
    finally:
        cluster.close()
        executors.stop(pool)


@pytest.mark.parametrize("scheme", [pytest.param("dask", marks=needs_dask)])
def test_nobody_answers(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datahub.pack.executors.dask.PATIENCE", 1.0)
    with pytest.raises(ExecutorUnreachable, match="does not answer") as caught:
        executors.make(f"{scheme}://127.0.0.1:{free_port()}", 2)
    assert caught.value.exit_code == 4


UNGUARDED = """
import os, sys
from datahub.pack import executor

with open(sys.argv[1], "a") as file:
    file.write("run\\n")
with executor.make(2) as pool:
    assert pool.submit(os.getpid).result(timeout=60) != os.getpid()
"""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script, runs = tmp_path / "script.py", tmp_path / "runs"
    script.write_text(UNGUARDED)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script, runs], check=True, timeout=120, env=environ)
    assert runs.read_text() == "run\n"


@pytest.mark.parametrize("where", ["slurm://x", "dask", "dask://a/b", "ray://user@host"])
def test_what_is_no_executor(where: str) -> None:
    with pytest.raises(BadArgument, match="dask://HOST"):
        executors.make(where, 1)


@pytest.mark.parametrize("scheme", ["dask", "ray"])
def test_a_missing_package_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, {"dask": "distributed", "ray": "ray"}[scheme], None)
    with pytest.raises(MissingExtra, match=rf"datahub\[{scheme}\]") as caught:
        executors.make(f"{scheme}://host", 1)
    assert caught.value.exit_code == 6


class NeverReady:
    """Ray, as far as starting it goes, on a machine too busy for its node."""

    tries = 0

    def is_initialized(self) -> bool:
        return False

    def init(self, **_options: object) -> None:
        self.tries += 1
        raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        return


def test_ray_that_does_not_start_here_is_tried_twice_and_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    never = NeverReady()
    monkeypatch.setitem(sys.modules, "ray", never)
    with pytest.raises(ExecutorUnreachable, match="timed out during startup"):
        executors.make("ray://", 1)
    assert never.tries == 2
