"""What the server does not have comes from origins: verified, once, and kept."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from datahub.core.digests import BLOCK
from datahub.serve import library
from datahub.serve.redirects import may_follow
from datahub.store import record as records
from datahub.stream.web import WebFiles
from datahub.wire.multipart import boundary_of, parts
from datahub.wire.ranges import Range, header_of
from tests.acquire.server import Behaviour, Origin, serving
from tests.serve.conftest import BIG, big_variant, content, digest_of, located

DATA = "/big/1.0/published/data.bin"


@pytest.fixture
def web(home) -> Iterator[Origin]:
    """A web server with the files of ``big`` and ``tiny``."""
    with serving() as origin:
        for name in ("big", "tiny"):
            folder = located(home, name).path
            for path in folder.rglob("*"):
                if path.is_file():
                    below = path.relative_to(folder).as_posix()
                    origin.paths[f"/{name}/1.0/published/{below}"] = Behaviour(data=path.read_bytes())
        yield origin


def body(server, home, start=0, end=BIG):
    return server.ask(f"/v1/blobs/{digest_of(home)}", Range=f"bytes={start}-{end - 1}")


def know(server):
    """Let a server look for ``big`` at its origins."""
    assert server.ask("/v1/datasets/big/1.0/published/dataset.json").status == 200


def data_requests(web):
    return [headers["Range"] for path, headers in web.requests if path == DATA]


@pytest.mark.parametrize("kind", ["http", "folder", "store", "cache server"])
def test_from_every_kind_of_origin(start, home, elsewhere, web, kind):
    url = {
        "http": web.url,
        "folder": str(home.datasets / "big" / "1.0" / "published"),
        "store": str(home.home),
        "cache server": start(home).url if kind == "cache server" else "",
    }[kind]
    server = start(elsewhere, origin=(url,))
    know(server)
    assert server.ask("/v1/datasets/big/1.0/published/data.bin").body == content()
    assert body(server, home, 7, BLOCK + 9).body == content()[7 : BLOCK + 9]
    assert server.metric("datahub_origin_bytes_total") == BIG
    assert server.server.cache.usage().bytes == BIG
    if kind != "folder":
        assert server.ask("/v1/datasets/tiny/1.0/published/samples/train-000000003.cls").status == 200


def test_what_was_fetched_is_there_after_a_restart_without_the_origin(start, home, elsewhere, web):
    first = start(elsewhere, origin=(web.url,))
    know(first)
    assert body(first, home).body == content()
    asked = len(web.requests)
    second = start(elsewhere, origin=(web.url,))
    assert body(second, home).body == content()
    assert len(web.requests) == asked


def test_a_hit_is_what_waited_for_no_origin(start, home, elsewhere, web):
    """Not only what was open already: a cache that was kept over a restart is worth as much as it saves."""
    name = {"dataset": "big@1.0/published"}
    first = start(elsewhere, origin=(web.url,))
    know(first)
    assert body(first, home, 0, 10).status == 206
    assert (first.metric("datahub_hits_total", **name), first.metric("datahub_misses_total", **name)) == (0, 1)
    second = start(elsewhere, origin=(web.url,))
    assert body(second, home, 0, 10).status == 206
    assert (second.metric("datahub_hits_total", **name), second.metric("datahub_misses_total", **name)) == (1, 0)
    assert second.metric("datahub_verified_total") == 0


def test_several_ranges_bring_their_blocks_once(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    asked = [Range(9, 20), Range(50, 60), Range(BLOCK - 5, BLOCK + 5), Range(2 * BLOCK + 1, BIG)]
    path = f"/v1/blobs/{digest_of(home)}"
    for _ in range(2):
        answer = server.ask(path, Range=header_of(asked))
        found = list(parts(iter([answer.body]), boundary_of(answer.headers["content-type"]), asked))
        assert found == [content()[each.start : each.end] for each in asked]
        assert len(data_requests(web)) == 3


def test_several_ranges_of_an_origin_that_fails_are_an_error_or_a_broken_connection(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    assert body(server, home, 0, 10).status == 206
    del web.paths[DATA]
    path = f"/v1/blobs/{digest_of(home)}"
    assert server.ask(path, Range=f"bytes={BLOCK}-{BLOCK + 5},{BLOCK + 9}-{BLOCK + 9}").status == 502
    with pytest.raises(http.client.IncompleteRead):
        server.ask(path, Range=f"bytes=0-5,{BLOCK}-{BLOCK + 5}")


def test_a_herd_costs_one_request_a_block(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    web.paths[DATA].pause = 0.005
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: body(server, home), range(16)))
    assert all(each.body == content() for each in answers)
    assert len(data_requests(web)) == 3 and server.metric("datahub_origin_bytes_total") == BIG


def test_two_servers_with_one_cache_ask_once(start, home, elsewhere, web):
    servers = [start(elsewhere, origin=(web.url,)) for _ in range(2)]
    for each in servers:
        know(each)
    web.paths[DATA].pause = 0.005
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: body(servers[number % 2], home), range(8)))
    assert all(each.body == content() for each in answers)
    assert len(data_requests(web)) == 3


def test_a_fill_goes_on_when_its_client_leaves(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    web.paths[DATA].pause = 0.01
    with socket.create_connection((server.host, server.port)) as leaving:
        leaving.sendall(f"GET /v1/blobs/{digest_of(home)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert wait(lambda: data_requests(web))
    assert body(server, home, 0, 9).body == content()[:9]
    assert data_requests(web).count(f"bytes=0-{BLOCK - 1}") == 1


FAULTS = {
    "breaks off": {"cut": [100_000, 5]},
    "fails": {"statuses": [500, 503]},
    "has no ranges": {"ranges": False},
    "has no etag": {"etag": None},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_faulty_origin_costs_time_and_no_byte(start, home, elsewhere, web, fault):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    web.paths[DATA] = Behaviour(data=content(), **fault)
    assert body(server, home).body == content()


def test_an_origin_whose_file_is_shorter_than_the_record_says(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    web.paths[DATA] = Behaviour(data=content()[:-1])
    assert body(server, home, 0, 2 * BLOCK).body == content()[: 2 * BLOCK]
    answer = body(server, home, 2 * BLOCK, BIG)
    assert answer.status == 502 and "data.bin" in json.loads(answer.body)["message"]


def test_wrong_bytes_are_fetched_again_and_never_served(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    wrong = bytearray(content())
    wrong[BLOCK + 5] ^= 1
    web.paths[DATA].data = bytes(wrong)
    answer = body(server, home, BLOCK, 2 * BLOCK)
    assert answer.status == 502 and json.loads(answer.body)["error"] == "DigestMismatch"
    assert body(server, home, 0, BLOCK).body == content()[:BLOCK]
    web.paths[DATA].data = content()
    assert body(server, home).body == content()


def test_wrong_bytes_in_the_middle_of_a_body_end_the_connection(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    wrong = bytearray(content())
    wrong[-1] ^= 1
    web.paths[DATA].data = bytes(wrong)
    whole = server.raw(f"GET /v1/blobs/{digest_of(home)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, sent = whole.partition(b"\r\n\r\n")
    assert b"200 OK" in head and sent == content()[: 2 * BLOCK]


def test_the_next_origin_is_asked(start, home, elsewhere, web):
    with serving() as empty:
        server = start(elsewhere, origin=(empty.url, web.url))
        know(server)
        assert body(server, home, 0, 10).body == content()[:10]


def test_an_origin_with_wrong_bytes_is_followed_by_the_next(start, home, elsewhere, web):
    with serving() as second:
        second.paths = dict(web.paths)
        server = start(elsewhere, origin=(web.url, second.url))
        know(server)
        server.server.library._blobs[digest_of(home)] = replace(
            server.server.library.blob(digest_of(home)),
            sources=tuple(WebFiles(f"{each.url}/big/1.0/published") for each in (web, second)),
        )
        wrong = bytearray(content())
        wrong[5] ^= 1
        web.paths[DATA] = Behaviour(data=bytes(wrong))
        assert body(server, home).body == content()
        assert [path for path, _ in second.requests].count(DATA) == 1


def test_an_origin_that_is_gone(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,), origin_timeout=5.0)
    know(server)
    for path in list(web.paths):
        del web.paths[path]
    assert body(server, home, 0, 10).status == 502
    gone = start(elsewhere, origin=("http://127.0.0.1:1",), origin_timeout=2.0)
    answer = gone.ask("/v1/datasets/tiny/1.0/published/dataset.json")
    assert answer.status in (502, 504) and json.loads(answer.body)["retryable"]


def test_an_origin_that_stalls_is_reported(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,), origin_timeout=1.0)
    know(server)
    web.paths[DATA].pause = 5.0
    answer = body(server, home, 0, 10)
    assert answer.status == 504 and json.loads(answer.body)["error"] == "OriginStalled"


def test_a_record_that_lies_about_its_blocks_is_refused(start, home, elsewhere, web):
    path = "/big/1.0/published/blocks.bin"
    web.paths[path].data = bytes(len(web.paths[path].data))
    answer = start(elsewhere, origin=(web.url,)).ask("/v1/datasets/big/1.0/published/dataset.json")
    assert answer.status == 502 and "block digests" in json.loads(answer.body)["message"]


def test_a_redirect_into_the_servers_network_is_refused(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    with serving(data__bin=Behaviour(data=content())) as inside:
        web.paths[DATA].redirect = f"{inside.url}/data.bin"
        answer = body(server, home, 0, 10)
        assert answer.status == 502 and "is not followed" in json.loads(answer.body)["message"]
        assert not inside.requests
    web.paths["/other"] = Behaviour(data=content())
    web.paths[DATA].redirect = f"{web.url}/other"
    assert body(server, home, 0, 10).body == content()[:10]


@pytest.mark.parametrize(
    ("after", "followed"),
    [
        ("http://origin.example:80/b", True),
        ("http://1.1.1.1/x", True),
        ("http://127.0.0.1/x", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("http://10.1.2.3/x", False),
        ("http://[::1]/x", False),
        ("http://[::ffff:127.0.0.1]/x", False),
        ("http://localhost:9/x", False),
        ("http:///x", False),
    ],
)
def test_redirects(after, followed):
    assert may_follow("http://origin.example:80/a", after) is followed


def test_a_quota_holds_while_more_than_it_is_read(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,), quota=BLOCK + 1000)
    know(server)
    for _ in range(2):
        assert body(server, home).body == content()
        assert server.server.cache.usage().bytes <= BLOCK + 1000


def test_a_cache_that_cannot_be_written_hands_through(start, home, elsewhere, web, tmp_path):
    (tmp_path / "file").write_text("no folder can be here")
    server = start(elsewhere, origin=(web.url,), cache_dir=tmp_path / "file" / "cache")
    know(server)
    with ThreadPoolExecutor(4) as pool:
        assert all(each.body == content() for each in pool.map(lambda _: body(server, home), range(4)))
    assert server.ask("/metrics").status == 200


def test_a_cached_block_that_was_damaged_is_fetched_again(start, home, elsewhere, web):
    server = start(elsewhere, origin=(web.url,))
    know(server)
    assert body(server, home).body == content()
    for path in (elsewhere.home / "cache" / "blocks").rglob("*/*"):
        flip(path, 1000)
    assert body(server, home).body == content()
    assert server.metric("datahub_origin_bytes_total") == 2 * BIG


def test_a_changed_byte_of_the_store_is_never_served(start, home):
    server = start(home)
    assert body(server, home).body == content()
    path = located(home, "big").path / "data.bin"
    times = path.stat()
    flip(path, BLOCK + 1)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    answer = body(server, home, BLOCK, BLOCK + 10)
    assert answer.status == 502 and "damaged" in json.loads(answer.body)["message"]
    assert body(server, home, 0, 10).body == content()[:10]
    flip(path, BLOCK + 1)
    assert body(server, home).body == content()


def test_what_is_damaged_in_the_store_comes_from_an_origin(start, home, web):
    server = start(home, origin=(web.url,))
    flip(located(home, "big").path / "data.bin", 5)
    assert body(server, home).body == content()
    assert body(server, home, 0, 10).body == content()[:10]
    assert data_requests(web) == [f"bytes=0-{BLOCK - 1}"]


def test_a_dataset_that_is_packed_or_removed_while_the_server_runs(start, home, monkeypatch):
    monkeypatch.setattr(library, "FRESH_LOCAL", 0.0)
    server = start(home)
    folder = big_variant(home.home, "late", seed=3, size=1000)
    assert server.ask("/v1/datasets/late/1.0/published/data.bin").body == content(3, 1000)
    (folder / records.FILENAME).unlink()
    assert server.ask("/v1/datasets/late/1.0/published/data.bin").status == 404


def flip(path, at):
    with path.open("r+b") as handle:
        handle.seek(at)
        byte = handle.read(1)
        handle.seek(at)
        handle.write(bytes([byte[0] ^ 1]))


def wait(condition, seconds=20.0):
    done = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        done.wait(0.01)
    return False
