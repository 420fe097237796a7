"""Loaders and open datasets that read from cache servers."""

from __future__ import annotations

import http.server
import os
import pickle
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

import datahub
from datahub.core.errors import BadArgument, ConnectionLost, DigestMismatch, NotInStore, TokenRefused
from datahub.core.refs import Ref
from datahub.loader.opening import open_dataset, open_or_fetch
from datahub.loader.streaming import StreamingLoader
from datahub.serve import sending
from datahub.serve.config import ServeConfig, Tokens, tokens_of
from datahub.stream.origin import open_files
from datahub.stream.served import ServedFiles
from datahub.wire import client, ranges
from datahub.wire.ranges import Range
from datahub.wire.servers import ranked
from tests.acquire.server import Behaviour, serving
from tests.loader.conftest import same
from tests.serve.conftest import big_variant, content, digest_of
from tests.serve.running import running
from tests.store.builder import pixels

READ, ADMIN = "read-token-0123456789", "admin-token-0123456789"


def batches(settings, source=None, ref="tiny"):
    loader = StreamingLoader(
        ref, batch_size=6, shuffle=True, num_workers=2, settings=settings, source=source, timeout=20
    )
    try:
        return list(loader)
    finally:
        loader.close()


@pytest.mark.parametrize(
    "form", ["{url}", "{url}/", "datahub+{url}", "{url},http://127.0.0.1:1", "http://127.0.0.1:1, {url}"]
)
def test_batches_are_those_of_the_store(start, home, elsewhere, form):
    url = start(home).url
    ours = batches(elsewhere, form.format(url=url))
    assert all(map(same, ours, batches(home))) and len(ours) == 4


def test_from_the_environment(start, home, elsewhere, monkeypatch):
    monkeypatch.setenv("DATAHUB_HOME", str(elsewhere.home))
    monkeypatch.setenv("DATAHUB_SOURCE", start(home).url)
    dataset = datahub.open("tiny")
    assert (dataset["test"][2]["image"].permute(1, 2, 0).numpy() == pixels("test", 2)).all()
    assert dataset.card and dataset["train"].table(["key"]).num_rows == 20


def test_what_trains_reads_from_the_settings_source(start, home, elsewhere):
    """As `datahub train` and the Lightning module open what they read."""
    found = open_or_fetch("tiny", replace(elsewhere, source=start(home).url), False)
    assert found.fingerprint == open_dataset("tiny", home).fingerprint
    with pytest.raises(NotInStore):
        open_or_fetch("tiny", elsewhere, False)


def test_a_server_behind_a_server(start, home, elsewhere, tmp_path):
    near = start(elsewhere, origin=(start(home).url,))
    third = type(home)(home=tmp_path / "third")
    assert all(map(same, batches(third, near.url), batches(home)))
    assert near.metric("datahub_origin_bytes_total") > 0


def test_a_server_that_ends_is_followed_by_the_next_and_then_by_the_origin(start, home, elsewhere):
    with ExitStack() as first:
        one = first.enter_context(running(home, elsewhere.home.parent / "one.log"))
        two = start(home)
        files = ServedFiles([one.url, two.url], Ref("tiny", "1.0", "published"))
        files.whole("dataset.json", 10)
    found: list[bytes] = []
    files.receive("tiny-train-000000.tar", 10, 600, 10, found.append)
    shard = home.datasets / "tiny/1.0/published/tiny-train-000000.tar"
    assert b"".join(found) == shard.read_bytes()[10:600]
    alone = ServedFiles([one.url], Ref("tiny", "1.0", "published"))
    with pytest.raises(ConnectionLost):
        alone.receive("tiny-train-000000.tar", 10, 600, 5, found.append)
    store = f"{one.url},file://{home.home}"
    assert all(map(same, batches(elsewhere, store, ref="tiny@1.0/published"), batches(home)))


SHARD = "tiny-train-000000.tar"
SPANS = [Range(10, 600), Range(700, 701), Range(1000, 3000)]


def ranges_of(files, spans=SPANS):
    found = {}
    files.receive_many(SHARD, spans, 10, found.__setitem__)
    return [found[number] for number in range(len(spans))]


def test_many_ranges_from_one_server_or_the_next_or_from_behind(start, home, elsewhere):
    whole = (home.datasets / "tiny/1.0/published" / SHARD).read_bytes()
    expected, ref = [whole[each.start : each.end] for each in SPANS], Ref("tiny", "1.0", "published")
    server = start(home)
    alone = ServedFiles([server.url], ref)
    alone.whole("dataset.json", 10)
    before = server.metric("datahub_requests_total", status="206")
    assert ranges_of(alone) == expected == ranges_of(pickle.loads(pickle.dumps(alone)))
    assert server.metric("datahub_requests_total", status="206") == before + 2
    assert ranges_of(ServedFiles(["http://127.0.0.1:1", server.url], ref)) == expected
    behind = open_files(f"file://{home.datasets}/tiny/1.0/published")
    assert ranges_of(ServedFiles(["http://127.0.0.1:1"], ref, behind)) == expected
    with pytest.raises(ConnectionLost):
        ranges_of(ServedFiles(["http://127.0.0.1:1"], ref))


class Wrong(http.server.BaseHTTPRequestHandler):
    """A cache server whose memory changes the bytes of blobs."""

    protocol_version = "HTTP/1.1"
    right = ""

    def do_GET(self) -> None:
        passed = {name: value for name, value in self.headers.items() if name.lower() in ("range", "accept")}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.right + self.path, headers=passed), timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
        self.wfile.write(bytes(each ^ 1 for each in body) if "/blobs/" in self.path else body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def wrong(start, home) -> Iterator[str]:
    handler = type("Handler", (Wrong,), {"right": start(home).url})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("limit", [None, 1], ids=["blocks", "samples"])
@pytest.mark.parametrize("other", ["server", "behind"])
def test_a_server_whose_bytes_stay_wrong_is_followed_by_the_next(start, home, elsewhere, wrong, other, limit):
    source = f"{wrong},{start(home).url if other == 'server' else f'file://{home.home}'}"
    found = replace(elsewhere, cache_limit=limit)
    assert all(map(same, batches(found, source, ref="tiny@1.0/published"), batches(home)))
    with pytest.raises(DigestMismatch):
        batches(replace(found, home=elsewhere.home.parent / "alone"), wrong, ref="tiny@1.0/published")


def test_a_server_that_hangs_is_followed_by_the_next_wherever_it_is_named(start, home, monkeypatch):
    monkeypatch.setattr("datahub.stream.served.SHORT", 0.3)
    other = start(home).url
    with ExitStack() as deaf:
        hangs = other
        while ranked([hangs, other], "dataset.json")[0] == other:  # so that it is the one that is asked first
            listening = deaf.enter_context(socket.create_server(("127.0.0.1", 0)))
            hangs = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for servers in ([hangs, other], [other, hangs]):
            began = time.monotonic()
            assert b"tiny" in ServedFiles(servers, Ref("tiny", "1.0", "published")).whole("dataset.json", 30)
            assert time.monotonic() - began < 20, "it does not use up the time of all"


def test_a_server_that_gives_one_range_a_request_is_asked_so(start, home, monkeypatch):
    whole = (home.datasets / "tiny/1.0/published" / SHARD).read_bytes()
    monkeypatch.setattr(sending.ranges, "parse_many", one_only)
    server = start(home)
    files = ServedFiles([server.url], Ref("tiny", "1.0", "published"))
    for _ in range(2):
        assert ranges_of(files) == [whole[each.start : each.end] for each in SPANS]
    assert (
        server.metric("datahub_requests_total", status="200", route="/v1/datasets/{name}/{version}/{variant}/{file}")
        <= 1
    )
    assert server.metric("datahub_requests_total", status="206") == 6


def one_only(header, total):
    found = ranges.parse(header, total)
    return () if found is None else (found,)


def test_a_loader_without_a_cache_asks_for_many_samples_at_once(start, home, elsewhere):
    server = start(home)
    loader = StreamingLoader(
        "tiny", batch_size=6, shuffle=True, num_workers=2, settings=elsewhere, source=server.url, cache_limit=1
    )
    found = list(loader)
    loader.close()
    assert all(map(same, found, batches(home))) and len(found) == 4
    assert 0 < server.metric("datahub_requests_total", route="/v1/blobs/{sha256}") < 20


def test_each_of_several_cold_servers_brings_its_share(start, home, elsewhere, tmp_path):
    """A server that a client did not ask for the record knows no digest of it, and finds it by the variant's name."""
    for seed in range(8):
        big_variant(home.home, f"set{seed}", seed=seed, size=100_000)
    servers = [
        start(replace(elsewhere, home=tmp_path / name), origin=(str(home.home),), cache_dir=tmp_path / name / "cache")
        for name in ("one", "two")
    ]
    for seed in range(8):
        files = ServedFiles([each.url for each in servers], Ref(f"set{seed}", "1.0", "published"))
        files.whole("dataset.json", 20.0)
        assert files.whole("data.bin", 20.0) == content(seed, 100_000)
        digest = digest_of(home, f"set{seed}")
        first = ranked([each.url for each in servers], digest)[0]
        shares = [each.metric("datahub_sent_bytes_total", dataset=f"set{seed}@1.0/published") for each in servers]
        assert [each.url for each, share in zip(servers, shares, strict=True) if share >= 100_000] == [first]
    cold = start(replace(elsewhere, home=tmp_path / "cold"), origin=(str(home.home),), cache_dir=tmp_path / "third")
    blob = f"/v1/blobs/{digest_of(home, 'set1')}"
    assert cold.ask(blob).status == 404
    for of in ("none@1.0/published", "set0@1.0/published", "set1", "..", "%00", "x" * 3000):
        assert cold.ask(f"{blob}?of={of}").status == 404, of
    assert cold.ask(f"{blob}?of=set1@1.0/published").body == content(1, 100_000)
    assert cold.ask(blob).status == 200


def test_what_no_server_has(start, home, elsewhere):
    url = start(home).url
    with pytest.raises(BadArgument, match="has no nothing"):
        open_dataset("nothing", elsewhere, source=url)
    with pytest.raises(BadArgument, match="it has tiny as 1"):
        open_dataset("tiny@2.0", elsewhere, source=url)
    with pytest.raises(BadArgument, match="more than one place"):
        open_dataset("tiny", elsewhere, source=f"{url},file:///a,file:///b")
    with pytest.raises(NotInStore):
        open_dataset("tiny", elsewhere)


def test_tokens(start, home, elsewhere, monkeypatch, tmp_path):
    server = start(home, tokens=Tokens((READ,), (ADMIN,)))
    for path in ("/v1/datasets", "/metrics", "/v1/openapi.json", "/v1/none"):
        answer = server.ask(path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="datahub"')
        assert server.ask(path, Authorization="Bearer wrong").status == 401
        assert server.ask(path, Authorization=f"Basic {READ}").status == 401
        assert server.ask(path, Authorization=f"bearer {READ}").status in (200, 404)
        assert server.ask(path, Authorization=f"Bearer {ADMIN}").status in (200, 404)
    assert server.ask("/v1/datasets", Authorization=f"Bearer {READ}\xff").status == 401
    assert [server.ask(path).status for path in ("/v1", "/healthz", "/readyz")] == [200, 200, 200]
    assert server.ask("/v1/datasets", "POST", Authorization=f"Bearer {READ}").status == 403
    assert server.ask("/v1/datasets", "POST", Authorization=f"Bearer {ADMIN}").status == 405
    with pytest.raises(TokenRefused, match="wants a token") as caught:
        open_dataset("tiny", elsewhere, source=server.url)
    assert caught.value.exit_code == 6
    monkeypatch.setenv("DATAHUB_TOKEN", "wrong")
    with pytest.raises(TokenRefused, match="refuses the token"):
        open_dataset("tiny", elsewhere, source=server.url)
    monkeypatch.delenv("DATAHUB_TOKEN")
    (tmp_path / "token").write_text(f"{READ}\n")
    monkeypatch.setenv("DATAHUB_TOKEN_FILE", str(tmp_path / "token"))
    dataset = open_dataset("tiny", elsewhere, source=server.url)
    assert READ.encode() not in pickle.dumps(dataset)
    assert (pickle.loads(pickle.dumps(dataset))["train"][3]["image"] == dataset["train"][3]["image"]).all()
    assert READ not in server.log.read_text()


def test_a_token_is_shown_to_cache_servers_only(start, home, elsewhere, monkeypatch):
    monkeypatch.setenv("DATAHUB_TOKEN", READ)
    with serving() as web:
        folder = home.datasets / "tiny/1.0/published"
        for path in folder.rglob("*"):
            if path.is_file():
                web.paths[f"/{path.relative_to(folder).as_posix()}"] = Behaviour(data=path.read_bytes())
        assert all(map(same, batches(elsewhere, web.url), batches(home)))
        assert web.requests and not any("Authorization" in headers for _, headers in web.requests)


def test_a_job_is_counted_by_its_name(start, home, elsewhere, monkeypatch):
    server = start(home)
    monkeypatch.setenv("DATAHUB_JOB", "run-7")
    batches(elsewhere, server.url)
    told = server.ask("/metrics").body.decode()
    found = re.findall(r'datahub_job_bytes_total\{job="run-7\.train\.[0-9a-f]{4}"\} (\S+)', told)
    assert len(found) == 1 and float(found[0]) > 10_000  # requests of a loop
    assert server.metric("datahub_job_bytes_total", job="run-7") > 0  # those that opened the dataset


def test_who_may_change_something(start, home):
    open_to_all = start(home, tokens=Tokens(trusting=False))
    assert open_to_all.ask("/v1/datasets").status == 200
    assert open_to_all.ask("/v1/datasets", "POST").status == 403
    here = start(home)
    assert here.ask("/v1/datasets", "POST").status == 405
    assert here.ask("/v1/jobs/x", "DELETE", Origin="http://evil.example").status == 403
    assert here.ask("/v1/jobs/x", "DELETE", Origin=here.url).status == 404
    # Its name may come to stand for this machine's address.
    assert here.ask("/v1/jobs/x", "DELETE", Origin="http://evil.example", Host="evil.example").status == 403
    assert tokens_of(ServeConfig(host="0.0.0.0", insecure=True)).trusting is False


def test_a_clients_rate(start, home):
    server = start(home, rate=2.0)
    statuses = [server.ask("/v1/datasets").status for _ in range(10)]
    assert statuses[:4] == [200] * 4 and 429 in statuses
    refused = server.ask("/v1/datasets")
    while refused.status != 429:
        refused = server.ask("/v1/datasets")
    assert refused.headers["retry-after"] == "1"


def test_a_pool_is_left_behind_by_a_fork(start, home):
    url = start(home).url
    assert client.ServerClient(url).is_server(10)
    before = client._pools.of(url)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            other = client._pools.of(url)
            right = other is not before and b"tiny" in client.ServerClient(url).whole("/v1/datasets", 10)
            os.write(write, b"y" if right else b"n")
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    assert os.read(read, 1) == b"y"
    os.close(read)
    assert client._pools.of(url) is before


def test_webdataset_and_pandas_read_plain_urls(start, home):
    pandas = pytest.importorskip("pandas")

    server = start(home)
    base = f"{server.url}/v1/datasets/tiny/1.0/published"
    assert len(pandas.read_parquet(f"{base}/index-train.parquet")) == 20
    with urllib.request.urlopen(f"{base}/tiny-train-000000.tar") as answer:
        assert answer.read() == (home.datasets / "tiny/1.0/published/tiny-train-000000.tar").read_bytes()
