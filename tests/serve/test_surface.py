"""What is asked over HTTP, and what comes back."""

from __future__ import annotations

import email.policy
import hashlib
import json
import re
import socket
import struct
import time

import pytest

from datahub.core.digests import BLOCK
from datahub.core.settings import Settings
from datahub.store.blocks import of_bytes
from datahub.wire.multipart import boundary_of, parts
from datahub.wire.ranges import MOST, Range, header_of
from tests.serve.conftest import BIG, big_variant, content, digest_of, located
from tests.serve.running import running
from tests.store.builder import encoded, label, pixels, tiny_variant


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    settings = Settings(home=tmp_path_factory.mktemp("surface") / "home")
    tiny_variant(settings.home)
    big_variant(settings.home)
    return settings


@pytest.fixture(scope="module")
def server(home, tmp_path_factory):
    with running(home, tmp_path_factory.mktemp("log") / "access.log") as found:
        yield found


TINY = "/v1/datasets/tiny/1.0/published"


def test_every_file_by_digest_and_by_name(server, home):
    for entry in located(home).record.files:
        blob = server.ask(f"/v1/blobs/{entry.sha256}")
        named = server.ask(f"{TINY}/{entry.path}")
        assert blob.status == named.status == 200
        assert hashlib.sha256(blob.body).hexdigest() == entry.sha256 and named.body == blob.body
        assert blob.headers["etag"] == named.headers["etag"] == f'"{entry.sha256}"'
        assert "immutable" in blob.headers["cache-control"] and named.headers["cache-control"] == "no-cache"
        digests = server.ask(f"/v1/blobs/{entry.sha256}/blocks").body
        assert digests == of_bytes(blob.body).raw


def test_the_record_has_its_digest_as_etag(server, home):
    answer = server.ask(f"{TINY}/dataset.json")
    assert answer.body == (located(home).path / "dataset.json").read_bytes()
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.body).hexdigest()}"'
    assert server.ask(f"{TINY}/dataset.json", If_None_Match=answer.headers["etag"]).status == 304
    assert server.ask(f"{TINY}/blocks.bin").body == (located(home).path / "blocks.bin").read_bytes()


def test_datasets_are_listed(server):
    found = json.loads(server.ask("/v1/datasets").body)["datasets"]
    assert [(each["name"], each["version"], each["variant"]) for each in found] == [
        ("big", "1.0", "published"),
        ("tiny", "1.0", "published"),
    ]
    assert found[1]["samples"] == {"train": 20, "test": 6} and found[1]["default"] and found[1]["local"]
    assert json.loads(server.ask("/v1/datasets/tiny").body)["datasets"] == found[1:]


def test_samples_by_key(server):
    answer = server.ask(f"{TINY}/samples/train-000000013.png")
    assert answer.body == encoded(pixels("train", 13)) and answer.headers["content-type"] == "image/png"
    assert server.ask(f"{TINY}/samples/test-000000005.cls").body == str(label("test", 5)).encode()
    part = server.ask(f"{TINY}/samples/train-000000013.png", Range="bytes=1-3")
    assert (part.status, part.body) == (206, b"PNG")
    head = server.ask(f"{TINY}/samples/train-000000013.png", "HEAD")
    assert head.headers["content-length"] == str(len(answer.body)) and head.body == b""
    for name in ("train-000000020.png", "train-000000001.jpg", "train-1.png", "none-000000001.png", "train"):
        assert server.ask(f"{TINY}/samples/{name}").status == 404


RANGES = [
    ("bytes=0-0", 206, (0, 1)),
    ("bytes=5-", 206, (5, BIG)),
    ("bytes=-7", 206, (BIG - 7, BIG)),
    (f"bytes=-{BIG + 1}", 206, (0, BIG)),
    ("bytes=4194300-4194310", 206, (4194300, 4194311)),
    (f"bytes={BIG - 1}-{10**30}", 206, (BIG - 1, BIG)),
    ("Bytes=1-2", 206, (1, 3)),
    ("bytes=, 1-2 ,", 206, (1, 3)),
    (f"bytes={BIG}-", 416, None),
    (f"bytes={10**30}-", 416, None),
    ("bytes=-0", 416, None),
    ("bytes=2-1", 200, (0, BIG)),
    ("bytes=-", 200, (0, BIG)),
    ("bytes", 200, (0, BIG)),
    ("items=0-1", 200, (0, BIG)),
    ("bytes=3-4,0-1", 200, (0, BIG)),
    ("bytes=0-4,4-5", 200, (0, BIG)),
    (f"bytes=0-1,{BIG}-", 200, (0, BIG)),
    ("bytes=0-1,3-4,x", 200, (0, BIG)),
    ("bytes=" + ",".join(f"{2 * at}-{2 * at}" for at in range(MOST + 1)), 200, (0, BIG)),
    ("bytes=" + "0-1," * 1500, 200, (0, BIG)),
    ("bytes=\u0661-2", 200, (0, BIG)),
]


@pytest.mark.parametrize(("header", "status", "span"), RANGES, ids=[each[0][:24] for each in RANGES])
def test_ranges(server, home, header, status, span):
    answer = server.ask(f"/v1/blobs/{digest_of(home)}", Range=header.encode().decode("latin-1"))
    assert answer.status == status
    if span is None:
        assert answer.headers["content-range"] == f"bytes */{BIG}" and answer.body == b""
    else:
        assert answer.body == content()[slice(*span)]
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/{BIG}"


SEVERAL = [[(0, 2), (3, 5)], [(0, 1), (1, 2)], [(5, BLOCK + 9), (BLOCK + 9, BIG - 1), (BIG - 1, BIG)]]


@pytest.mark.parametrize("spans", [*SEVERAL, [(900 * at, 900 * at + 700) for at in range(MOST)]], ids=len)
def test_several_ranges_come_as_parts_in_their_order(server, home, spans):
    asked = [Range(*each) for each in spans]
    path = f"/v1/blobs/{digest_of(home)}"
    job = f"several-{len(spans)}-{spans[0][1]}"
    answer = server.ask(path, Range=header_of(asked), Datahub_Job=job)
    assert answer.status == 206 and "content-range" not in answer.headers
    boundary = boundary_of(answer.headers["content-type"])
    assert list(parts(iter([answer.body]), boundary, asked)) == [content()[each.start : each.end] for each in asked]
    assert answer.body.endswith(f"\r\n--{boundary}--\r\n".encode())
    assert len(answer.body) == int(answer.headers["content-length"])
    assert server.ask(path, Range=header_of(asked), If_Range='"other"').body == content()
    assert server.metric("datahub_job_bytes_total", job=job) == sum(each.size for each in asked)


def test_parts_as_another_reader_sees_them(server, home):
    """Python's own parser of MIME messages."""
    answer = server.ask(f"/v1/blobs/{digest_of(home)}", Range="bytes=0-99,200-299")
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    found = email.message_from_bytes(head + answer.body, policy=email.policy.HTTP).get_payload()
    assert [each["Content-Range"] for each in found] == [f"bytes 0-99/{BIG}", f"bytes 200-299/{BIG}"]
    assert {each.get_content_type() for each in found} == {"application/octet-stream"}


def test_conditions(server, home):
    path, etag = f"/v1/blobs/{digest_of(home)}", f'"{digest_of(home)}"'
    assert server.ask(path, Range="bytes=0-3", If_Range=etag).status == 206
    for other in ('"other"', f"W/{etag}", "Wed, 25 Nov 2026 09:00:00 GMT"):
        assert server.ask(path, "GET", Range="bytes=0-3", If_Range=other).status == 200
    for same in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        answer = server.ask(path, If_None_Match=same)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    assert server.ask(path, If_Match='"other"').status == 412
    assert server.ask(path, If_Match=etag, Range="bytes=0-1").status == 206
    head = server.ask(path, "HEAD", Range="bytes=0-3")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(BIG), b"")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nothing",
        "/v1/blobs/" + "0" * 64,
        "/v1/blobs/" + "A" * 64,
        "/v1/blobs/../../etc/passwd",
        f"{TINY}/../../../../../etc/passwd",
        f"{TINY}/%2e%2e/%2e%2e/%2e%2e/dataset.json",
        f"{TINY}/..%2f..%2fdataset.json",
        "/v1/datasets/tiny/1.0/%2e%2e/dataset.json",
        "/v1/datasets/..%2f..%2f..%2fetc/1.0/published/passwd",
        "/v1/datasets/.building/1.0/published/dataset.json",
        f"{TINY}/dataset.json%00",
        f"{TINY}//dataset.json",
        "/v1/datasets/none",
        "/v1/datasets/%ff%fe",
        "//v1/datasets",
    ],
)
def test_what_is_not_there_is_one_json_object(server, path):
    answer = server.ask(path)
    assert answer.status == 404
    assert json.loads(answer.body)["error"] == "NotFound"


def test_clients_that_leave_are_no_bugs(server, home, caplog):
    request = f"GET /v1/blobs/{digest_of(home)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    for _ in range(20):
        with socket.create_connection((server.host, server.port)) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            leaving.sendall(request * 3)
    assert server.ask(f"/v1/blobs/{digest_of(home)}").body == content()
    assert not [each for each in caplog.records if each.name == "aiohttp.server" and each.levelname == "ERROR"]


def test_clients_that_leave_within_a_body_are_no_bugs(start, settings):
    server = start(settings)
    for framing, part in ((b"Content-Length: 10", b"abc"), (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n")):
        with socket.create_connection((server.host, server.port)) as leaving:
            leaving.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + part)
    lines = [json.loads(line) for line in wait_for(server.log, 2)]
    assert [line.get("status") for line in lines] == [400, 400], lines


def test_other_methods_are_refused(server, home):
    answer = server.ask(f"/v1/blobs/{digest_of(home)}", "DELETE")
    assert answer.status == 405 and answer.headers["allow"] == "GET,HEAD"
    assert json.loads(answer.body)["error"] == "MethodNotAllowed"


def test_broken_requests_are_answered_and_closed(server):
    for sent in (
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /%zz HTTP/9.9\r\n\r\n",
    ):
        assert re.match(rb"HTTP/1.[01] 4", server.raw(sent))
    assert server.ask("/healthz").status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"secret\r\n\r\n", 400),
        (b"\x16\x03\x01\x02secret\r\n\r\n", 400),
        (b"GET /secret HTTP/1.1\r\nsecret\r\n\r\n", 400),
        (b"GET /secret HTTP/1.1\r\nX: " + b"secret" * 5000 + b"\r\n\r\n", 400),
        (b"GET /" + b"secret" * 5000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET //[secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET http://[secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n", 400),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: secret\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: secret\r\nConnection: close\r\n\r\n", 417),
        (b"GET /secret HTTP/1.1\r\nHost: x\r\nExpect: secret\r\nConnection: close\r\n\r\n", 417),
    ],
)
def test_what_no_handler_sees_is_refused_as_everything_else(server, sent, status):
    head, _, body = server.raw(sent).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert int(lines[0].split()[1]) == status
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines[1:])}
    assert (headers["server"], headers["datahub-api"]) == ("datahub", "1")
    assert headers["content-type"].startswith("application/json")
    said = json.loads(body)
    assert said["error"] and said["message"] and not said.get("retryable") and b"secret" not in body


def test_who_answers_and_how_it_is(server):
    assert json.loads(server.ask("/v1").body)["service"] == "datahub-cache"
    assert server.ask("/healthz").body == b"ok\n" and server.ask("/readyz").body == b"ready\n"
    document = json.loads(server.ask("/v1/openapi.json").body)
    for path, operations in document["paths"].items():
        assert all(each["responses"] for each in operations.values()), path


def test_everything_is_counted(start, settings):
    big_variant(settings.home)
    server, path = start(settings), f"/v1/blobs/{digest_of(settings)}"
    server.ask(path, Datahub_Job="run-7")
    server.ask(path, Range="bytes=0-99", Datahub_Job="run-7")
    server.ask("/v1/none")
    assert server.metric("datahub_sent_bytes_total", dataset="big@1.0/published") == BIG + 100
    assert server.metric("datahub_job_bytes_total", job="run-7") == BIG + 100
    assert server.metric("datahub_requests_total", route="/v1/blobs/{sha256}", status="206") == 1
    assert server.metric("datahub_requests_total", route="none", status="404") == 1
    assert 1 <= server.metric("datahub_verified_total", dataset="big@1.0/published") <= 3  # it has three blocks
    assert server.metric("datahub_hits_total", dataset="big@1.0/published") >= 2  # all of it was in the store
    assert server.metric("datahub_misses_total") == 0


def test_the_access_log_is_json_lines_without_queries_or_headers(start, settings):
    big_variant(settings.home)
    server, path = start(settings), f"/v1/blobs/{digest_of(settings)}"
    server.ask(f"{path}?token=secret", Authorization="Bearer secret", Range="bytes=0-9")
    server.raw(b"GARBAGE\r\n\r\n")
    lines = [json.loads(line) for line in wait_for(server.log, 2)]
    assert (lines[0]["path"], lines[0]["status"], lines[0]["bytes"], lines[0]["method"]) == (path, 206, 10, "GET")
    assert lines[1]["status"] == 400 and "secret" not in server.log.read_text()


def wait_for(path, lines):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if len(found := path.read_text().splitlines()) >= lines:
            return found
        time.sleep(0.01)
    raise AssertionError(path.read_text())
