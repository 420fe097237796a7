"""Pins, leases, warming, evicting and scrubbing, through a server and its command line."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from datahub.cli.app import root, run
from datahub.core.digests import BLOCK
from datahub.serve.config import Tokens
from datahub.serve.scrubbing import Scrubber
from tests.acquire.server import Behaviour, serving
from tests.serve.conftest import BIG, big_variant, content, digest_of

REF = "big@1.0/published"


@pytest.fixture
def far(home, elsewhere, start):
    """A server whose datasets are all at an origin, with room for one of them."""
    big_variant(home.home, "other", seed=1)
    return start(elsewhere, origin=(str(home.home),), quota=BIG + BLOCK, scrub_rate=0)


def post(server, verb, body, **headers):
    answer = server.ask(f"/v1/cache/{verb}", "POST", json.dumps(body).encode(), **headers)
    return answer.status, json.loads(answer.body)


def status(server):
    return json.loads(server.ask("/v1/cache").body)


def warmed(server, ref=REF):
    assert post(server, "warm", {"ref": ref})[0] == 202
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        told = [each for each in status(server)["warming"] if each["ref"] == ref]
        if told and not told[0].get("running", True):
            return told[0]
        time.sleep(0.02)
    raise AssertionError("it was not warmed in time")


def test_a_lease_is_answered_at_once(far):
    code, answer = post(far, "lease", {"ref": "big", "job": "train"})
    assert (code, answer["granted"], answer["bytes"]) == (200, True, BIG)
    code, answer = post(far, "lease", {"ref": "other", "job": "train"})
    assert (code, answer["granted"], answer["room"], answer["error"]) == (409, False, BLOCK, "LeaseRefused")
    assert [each["ref"] for each in answer["held"]] == [REF]
    assert post(far, "lease", {"ref": "big", "job": "train", "seconds": 0})[0] == 200
    assert post(far, "lease", {"ref": "big", "job": "train", "seconds": 0})[0] == 404
    assert post(far, "lease", {"ref": "other", "job": "train"})[0] == 200


def test_a_jobs_leases_end_with_it(far):
    assert post(far, "lease", {"ref": "big", "job": "train", "seconds": 60})[0] == 200
    said = {"job": "train", "dataset": "tiny@1.0/published", "ttl": 3000}
    assert far.ask("/v1/jobs", "POST", json.dumps(said).encode()).status == 200
    assert status(far)["held"][0]["seconds"] > 2000
    assert far.ask("/v1/jobs/train", "DELETE").status == 204
    assert status(far)["held"] == []


def test_warming_brings_all_of_it_and_pins_keep_it(far):
    told = warmed(far)
    assert (told["done"], told["bytes"]) == (BIG, BIG)
    before = far.metric("datahub_origin_bytes_total")
    assert far.ask(f"/v1/datasets/{REF.replace('@', '/')}/data.bin").body == content()
    assert far.metric("datahub_origin_bytes_total") == before
    assert post(far, "pin", {"ref": "big"})[0] == 200
    assert post(far, "evict", {"ref": "big"})[1]["error"] == "Held"
    assert far.ask("/v1/datasets/other/1.0/published/data.bin").body == content(1)  # passed through
    assert {each["ref"]: each["bytes"] for each in status(far)["cached"]}[REF] == BIG
    assert post(far, "unpin", {"ref": "big"})[0] == 200
    far.loop.call_soon_threadsafe(far.server.engine.close)  # nothing is open any more
    deadline = time.monotonic() + 10
    while status(far)["bytes"] and time.monotonic() < deadline:
        assert post(far, "evict", {"ref": "big"})[0] == 200
        post(far, "evict", {"ref": "other"})
    assert status(far)["bytes"] == 0


@pytest.mark.parametrize(
    ("verb", "body", "code"),
    [
        ("pin", {"ref": "nothing"}, 404),
        ("pin", {"ref": "../etc"}, 400),
        ("pin", {"name": "big"}, 400),
        ("pin", [], 400),
        ("pin", {"ref": "big", "force": True}, 400),
        ("unpin", {"ref": "big"}, 404),
        ("lease", {"ref": "big"}, 400),
        ("lease", {"ref": "big", "job": "a\nb"}, 400),
        ("lease", {"ref": "big", "job": "a", "seconds": -1}, 400),
        ("lease", {"ref": "big", "job": "a", "seconds": 1e99}, 400),
        ("warm", {"ref": "big", "split": "train"}, 404),
    ],
)
def test_what_is_no_command_is_said_so(far, verb, body, code):
    found, answer = post(far, verb, body)
    assert found == code and answer["message"]


def test_the_servers_own_store_is_never_evicted(server, home):
    assert post(server, "evict", {"ref": "big"})[1]["error"] == "OnlyCopy"
    code, answer = post(server, "lease", {"ref": "big", "job": "a"})
    assert (code, answer["bytes"]) == (200, 0)
    assert post(server, "warm", {"ref": "big"})[1]["running"] is False
    assert server.ask(f"/v1/blobs/{digest_of(home)}").body == content()


def test_only_administrators_say_anything(home, start):
    server = start(home, tokens=Tokens(("r" * 32,), ("a" * 32,)))
    bearer = {name: {"Authorization": f"Bearer {name * 32}"} for name in "ra"}
    for verb in ("warm", "pin", "unpin", "lease", "evict"):
        assert post(server, verb, {"ref": "big"})[0] == 401
        assert post(server, verb, {"ref": "big"}, **bearer["r"])[0] == 403
    assert server.ask("/v1/cache").status == 401
    assert server.ask("/v1/cache", **bearer["r"]).status == 200
    assert post(server, "pin", {"ref": "big"}, **bearer["a"])[0] == 200


def scrub(server):
    parts = server.server
    scrubber = Scrubber(
        parts.cache.folder, parts.library, parts.cache, parts.engine, 0, parts.metrics, parts.listener
    )  # fmt: skip
    return asyncio.run_coroutine_threadsafe(scrubber.round(), server.loop).result(30)


def rot(path, at):
    """Change a byte without changing what a file looks like but for its ctime."""
    import os

    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_the_scrubber_repairs_the_cache(far):
    warmed(far)
    found = scrub(far)
    assert (found.verified, found.wrong) == (BIG, 0)
    path = max((far.server.cache.folder / "blocks").rglob("*/*"), key=lambda each: each.stat().st_size)
    rot(path, 1000)
    found = scrub(far)
    assert (found.wrong, found.repaired) == (1, 1)
    assert scrub(far).wrong == 0
    assert far.metric("datahub_scrubbed_wrong_total") == 1
    assert far.ask("/v1/datasets/big/1.0/published/data.bin").body == content()


def test_what_is_rotten_in_the_store_comes_from_an_origin(home, elsewhere, start):
    big_variant(elsewhere.home)
    server = start(elsewhere, origin=(str(home.home),))
    assert server.ask("/v1/datasets/big/1.0/published/data.bin").body == content()
    rot(elsewhere.datasets / "big" / "1.0" / "published" / "data.bin", BLOCK + 7)
    found = scrub(server)
    assert (found.wrong, found.repaired) == (1, 1)
    assert server.ask("/v1/datasets/big/1.0/published/data.bin").body == content()
    assert server.metric("datahub_origin_bytes_total") == BLOCK


@pytest.fixture
def said(capfd):
    """The exit code and the output of ``datahub cache``."""

    def call(server, *arguments):
        capfd.readouterr()
        code = run(root, ["cache", *arguments, "--server", server])
        return code, "".join(capfd.readouterr())

    return call


def test_the_command_line(far, said):
    assert said(far.url, "lease", "big", "--job", "train", "--for", "2h")[0] == 0
    code, text = said(far.url, "lease", "other", "--job", "train")
    assert code == 6 and "takes" in text and "room for" in text and text.count("\n") == 1
    assert "warm, 9.4 MB of 9.4 MB" in said(far.url, "warm", "big", "--wait")[1]
    code, text = said(far.url, "status")
    assert code == 0 and REF in text and "for train" in text
    assert said(far.url, "evict", "big")[0] == 6
    assert said(far.url, "lease", "big", "--job", "train", "--end")[0] == 0
    assert said(far.url, "evict", "big")[0] == 0
    assert said(far.url, "pin", "nothing")[0] == 7
    assert said(far.url, "lease", "big", "--job", "train", "--for", "never")[0] == 2
    assert said(far.url, "unpin", "big")[0] == 6
    assert json.loads(said(far.url, "status", "--json")[1])["limit"] == BIG + BLOCK


def test_nobody_answers(said):
    assert said("http://127.0.0.1:1", "status")[0] == 4
    for url in ("ftp://x", "http://a b", "http://", "http://x:99999", "http://x,http://y", "x:80"):
        assert said(url, "status")[0] == 2, url
    assert said("http://127.0.0.1:1", "pin", "NO PE")[0] == 2  # before anybody is asked
    assert said("http://127.0.0.1:1", "status", "--offline")[0] == 7


def test_what_answers_as_no_cache_server(said):
    with serving() as web:
        web.paths["/v1/cache"] = Behaviour(b"<html>it works</html>")
        code, text = said(web.url, "status")
    assert code == 2 and "answers as no cache server does" in text and text.count("\n") == 1
