"""Ranges from origins that fail now and then."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from datahub.acquire.policy import RetryPolicy
from datahub.core.errors import BadArgument, ConnectionLost, HttpError, OriginStalled
from datahub.stream.origin import MemoryFiles, open_files
from datahub.stream.patience import read_range, read_whole
from tests.acquire.server import Behaviour, serving

DATA = bytes(range(256)) * 4096
QUICK = RetryPolicy(attempts=3, base=0.01, cap=0.02)


def get(files, path="a", start=100, end=900_000, seconds=10.0):
    return bytes(read_range(files, path, start, end, seconds, policy=QUICK))


class TestPatience:
    def test_a_broken_answer_is_taken_up_where_it_ended(self):
        files = MemoryFiles({"a": DATA})
        files.cut = [1000, 0, 5]
        assert get(files) == DATA[100:900_000]
        assert [start for _, start, _ in files.asked] == [100, 1100, 1100, 1105]

    def test_failures_in_a_row_end_it(self):
        files = MemoryFiles({"a": DATA})
        files.failures = [HttpError("fake://origin/a", 503)] * 3
        with pytest.raises(HttpError, match="fake://origin/a: HTTP 503"):
            get(files)
        assert len(files.asked) == 3

    def test_what_no_retry_can_mend_is_raised_at_once(self):
        files = MemoryFiles({})
        with pytest.raises(HttpError, match="404"):
            get(files)
        assert len(files.asked) == 1

    def test_out_of_time_names_the_file_and_the_last_cause(self):
        files = MemoryFiles({"a": DATA})
        files.failures = [HttpError("fake://origin/a", 429, retry_after=60.0)]
        with pytest.raises(OriginStalled, match=r"fake://origin/a: did not give .* within 0.3 s \(HTTP 429\); check"):
            get(files, seconds=0.3)


class TestWebFiles:
    @pytest.fixture
    def origin(self):
        with serving(a=Behaviour(data=DATA)) as found:
            yield found

    @pytest.fixture
    def files(self, origin):
        made = open_files(origin.url)
        yield made
        made.close()

    def test_reads_ranges_over_one_connection(self, files, origin):
        for start in range(0, 4000, 1000):
            assert get(files, start=start, end=start + 1000) == DATA[start : start + 1000]
        assert [headers["Range"] for _, headers in origin.requests][:2] == ["bytes=0-999", "bytes=1000-1999"]
        assert pickle.loads(pickle.dumps(files)).name("b c") == f"{origin.url}/b c"

    def test_whole_files(self, files):
        assert read_whole(files, "a", 10.0) == DATA
        with pytest.raises(HttpError, match="404"):
            read_whole(files, "none", 10.0)

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_servers_that_ask_for_patience_get_it(self, files, origin, status):
        origin.paths["/a"].statuses = [status, status]
        assert get(files) == DATA[100:900_000]

    def test_retry_after_is_honoured(self, files, origin):
        origin.paths["/a"].statuses, origin.paths["/a"].headers = [429], {"Retry-After": "1"}
        began = time.monotonic()
        assert get(files) == DATA[100:900_000]
        assert time.monotonic() - began >= 1.0

    def test_connections_cut_short_are_taken_up(self, files, origin):
        origin.paths["/a"].cut = [70_000, 0, 300_000]
        assert get(files) == DATA[100:900_000]
        assert [headers["Range"].partition("-")[0] for _, headers in origin.requests][1] == "bytes=70100"

    def test_an_origin_without_ranges_is_read_from_its_start(self, files, origin):
        origin.paths["/a"].ranges = False
        assert get(files, start=300_000, end=300_100) == DATA[300_000:300_100]

    def test_a_lie_about_the_length_is_an_error_in_time(self, files, origin):
        origin.paths["/a"].claim, origin.paths["/a"].ranges = len(DATA) + 10_000, False
        with pytest.raises((ConnectionLost, OriginStalled), match="/a"):
            get(files, start=len(DATA) - 10, end=len(DATA) + 10, seconds=2.0)

    def test_a_dribbling_origin_is_reported_in_time(self, files, origin):
        origin.paths["/a"].pause = 0.4
        began = time.monotonic()
        with pytest.raises(OriginStalled, match=r"/a: did not give .* within 0.5 s"):
            get(files, seconds=0.5)
        assert time.monotonic() - began < 3.0

    def test_an_origin_that_is_not_there_is_named(self):
        with silent() as url:
            pass
        with pytest.raises(ConnectionLost, match=f"{url}/a: .*refused"):
            get(open_files(url))

    def test_a_silent_origin_is_reported_in_time(self):
        began = time.monotonic()
        with silent() as url, pytest.raises(OriginStalled, match=f"{url}/a"):
            get(open_files(url), seconds=0.5)
        assert time.monotonic() - began < 3.0

    def test_credentials_stay_out_of_names(self):
        assert open_files("http://me:secret@host/x?sig=1").name("a") == "http://host/x/a"


@contextmanager
def silent() -> Iterator[str]:
    """An origin that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for each in held:
                each.close()


class TestSystemFiles:
    def test_memory(self):
        import fsspec

        fsspec.filesystem("memory").pipe_file("/patience/a", DATA)
        files = pickle.loads(pickle.dumps(open_files("memory://patience")))
        assert get(files) == DATA[100:900_000]
        with pytest.raises(HttpError, match="memory://patience/none: HTTP 404"):
            get(files, "none")
        with pytest.raises(ConnectionLost, match=r"ended after \d+ of \d+ bytes"):
            get(files, start=len(DATA) - 10, end=len(DATA) + 10)

    def test_a_client_that_hangs_is_left_alone(self, monkeypatch):
        from fsspec.implementations.memory import MemoryFileSystem

        released = threading.Event()
        monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *a, **k: released.wait(10) and b"")
        with pytest.raises(OriginStalled, match=r"memory://patience/a: did not give .* within 0.2 s"):
            get(open_files("memory://patience"), seconds=0.2)
        released.set()

    def test_schemes_nobody_speaks(self):
        with pytest.raises(BadArgument, match=r"source='nope://x'.*give a URL that fsspec knows"):
            open_files("nope://x")
        with pytest.raises(BadArgument, match="is not a URL"):
            open_files("folder")
