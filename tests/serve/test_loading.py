"""What happens to a server while it starts: signals, a parent that dies, and processes that cannot be had.

Each server here does what it does at an exact place of its start, not after some time.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.serve.conftest import big_variant
from tests.serve.test_running import DEADLINE, alive, wait

HOOKED = """
import os, signal, sys, time
from pathlib import Path
import datahub.serve.running as running
from datahub.cli import main

load, serve, parent = running.load, running._serve, os.getpid()
def while_loading(): pass
def while_starting(): pass
{hooks}
def hooked_load(**options):
    while_loading()
    load(**options)
def hooked_serve(*arguments):
    while_starting()
    return serve(*arguments)
running.load, running._serve = hooked_load, hooked_serve
sys.argv = ["datahub", *{arguments!r}]
main()
"""
TOLD = "def while_loading(): os.kill(parent, signal.{name})"
TOLD_LATER = """
def while_starting():
    try:
        Path({once!r}).mkdir()
    except FileExistsError:
        return
    os.kill(parent, signal.{name})
"""
"""With several processes one of them tells their parent."""
Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(settings, tmp_path) -> Started:
    """A server with a hook in its start."""
    big_variant(settings.home)

    def start(hooks: str, *options: str) -> subprocess.Popen[str]:
        arguments = ["serve", "--store", str(settings.home), "--port", "0", "--access-log", "off", *options]
        code = HOOKED.format(hooks=hooks, arguments=arguments)
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def end(server: subprocess.Popen[str], *, told: bool = False) -> tuple[int, str]:
    """The exit code and what it said to standard error; with ``told`` it is told to end once it is there."""
    with server:
        assert server.stdout is not None
        try:
            if told:
                assert server.stdout.readline().startswith("serving")
                server.terminate()
            _, errors = server.communicate(timeout=DEADLINE)
        finally:
            server.kill()
    return server.returncode, errors


@pytest.mark.parametrize("hook", [TOLD, TOLD_LATER], ids=["loading", "starting"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_is_told_to_end_while_it_starts_ends_as_one_that_serves(begin, tmp_path, hook, workers):
    hooks = hook.format(name="SIGTERM", once=str(tmp_path / "once"))
    assert end(begin(hooks, "--workers", workers, "--drain", "600")) == (0, "")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_while_it_starts_is_none_too_many(begin, workers):
    code, errors = end(begin(TOLD.format(name="SIGHUP"), "--workers", workers), told=True)
    assert code == 0 and errors.count("were read again") == int(workers) and "warning" not in errors


def test_processes_end_whose_parent_dies_while_they_start(begin, tmp_path):
    hooks = f"""
def while_starting():
    Path({str(tmp_path)!r}, f"pid-{{os.getpid()}}").touch()
    deadline = time.monotonic() + {DEADLINE}
    while len(list(Path({str(tmp_path)!r}).glob("pid-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.001)
"""
    code, _ = end(begin(hooks, "--workers", "2"))
    assert code == -9
    started = [int(path.name.partition("-")[2]) for path in tmp_path.glob("pid-*")]
    assert len(started) == 2 and wait(lambda: not any(alive(pid) for pid in started))


def test_processes_that_cannot_start_say_why_and_are_given_up(begin):
    hooks = 'def while_starting(): raise running.BadArgument("--cert", "x", "is gone")'
    code, errors = end(begin(hooks, "--workers", "2"))
    *said, last = errors.splitlines()
    assert code == 4 and "process" in last and "ended 5 times as soon as it was started" in last
    assert said and all('"level":"warning"' in line and "is gone" in line for line in said)


def test_a_bug_in_a_process_is_told_with_its_place(begin):
    code, errors = end(begin("def while_starting(): [][0]", "--workers", "2"))
    assert code == 4 and "IndexError" in errors and "while_starting" in errors


def test_certificate_authorities_are_read_only_for_those_who_may_ask_by_aiohttp():
    code = """
import gc, ssl, sys
from datahub.serve.loading import load
load(clients=sys.argv[1] == "yes")
found = [each for each in gc.get_objects() if isinstance(each, ssl.SSLContext)]
print(len(found), sum(each.cert_store_stats()["x509"] for each in found))
print(ssl.create_default_context().cert_store_stats()["x509"])
"""
    told = {}
    for clients in ("yes", "no"):
        done = subprocess.run([sys.executable, "-c", code, clients], capture_output=True, text=True, timeout=DEADLINE)
        contexts, trusted, after = map(int, done.stdout.split())
        told[clients] = (contexts, trusted)
        if not after:
            pytest.skip("no certificate authorities are installed here")
    assert told["no"][1] == 0 < told["yes"][1] and told["no"][0] == told["yes"][0]
