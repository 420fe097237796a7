"""What a restart, another process or a damaged disk leaves behind: found, and put right."""

from __future__ import annotations

import json

import pytest

from datahub.core.digests import BLOCK
from datahub.serve import keeping, library
from datahub.serve.jobs import NAME
from tests.serve.conftest import BIG, big_variant, content, digest_of
from tests.serve.test_filling import wait
from tests.serve.test_keeping import status, warmed

RECORD = "/v1/datasets/{}/1.0/published/dataset.json"
JOB = json.dumps({"job": "run-7", "dataset": "tiny@1.0/published"}).encode()


@pytest.mark.parametrize("local", [True, False], ids=["its store", "an origin"])
def test_a_file_of_what_another_process_has_just_learnt_of(start, home, elsewhere, monkeypatch, local):
    """A client has the record from one process and asks another for a file, which has just looked for something."""
    monkeypatch.setattr(library, "AGAIN", 1e9)
    origin = () if local else (str(home.home),)
    cache = {"cache_dir": elsewhere.home / "cache"}
    one, other = (start(elsewhere, origin=origin, **cache) for _ in range(2))
    assert other.ask("/v1/blobs/" + "0" * 64).status == 404
    if local:
        big_variant(elsewhere.home)
    assert one.ask(RECORD.format("big")).status == 200
    assert other.ask(f"/v1/blobs/{digest_of(home)}").body == content()
    assert one.ask(RECORD.format("big")).status == 200
    scanned = other.server.library._scanned
    assert other.ask("/v1/blobs/" + "0" * 64).status == 404 and other.server.library._scanned == scanned


def test_a_quota_that_is_lower_than_it_was_is_kept_from_the_start(start, home, elsewhere, monkeypatch):
    monkeypatch.setattr(keeping, "TRIM", 0.05)
    first = start(elsewhere, origin=(str(home.home),))
    assert warmed(first)["done"] == BIG
    first.loop.call_soon_threadsafe(first.stop)
    assert wait(lambda: first.server.draining)
    second = start(elsewhere, origin=(str(home.home),), quota=BLOCK)
    assert wait(lambda: status(second)["bytes"] <= BLOCK)
    assert second.ask(RECORD.format("big")).status == 200
    assert second.ask(f"/v1/blobs/{digest_of(home)}").body == content()


def test_warming_ends_where_there_is_no_more_room(start, home, elsewhere):
    large = 20 * BLOCK
    big_variant(home.home, "large", size=large)
    server = start(elsewhere, origin=(str(home.home),), quota=10 * BLOCK, scrub_rate=0)
    told = warmed(server, "large@1.0/published")
    assert "no room" in told["error"] and told["failed"] * BLOCK == large - told["done"]
    assert told["done"] == status(server)["bytes"] == 10 * BLOCK
    assert server.metric("datahub_origin_bytes_total") == 10 * BLOCK


@pytest.mark.parametrize("damage", [b"\xff" * 9000, b"SQLite format 3\0" + b"\xff" * 9000, b""])
def test_a_damaged_file_of_jobs_is_begun_anew(start, home, damage):
    path = home.home / "cache" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    server = start(home)
    assert server.ask("/v1/jobs", "POST", JOB).status == 200
    assert [each["job"] for each in json.loads(server.ask("/v1/jobs").body)["jobs"]] == ["run-7"]


def test_a_file_of_jobs_that_is_damaged_while_it_is_used(start, home):
    server = start(home)
    assert server.ask("/v1/jobs", "POST", JOB).status == 200
    path = home.home / "cache" / NAME
    path.write_bytes(b"\xff" * path.stat().st_size)
    answers = [server.ask("/v1/jobs", "POST", JOB).status for _ in range(3)]
    assert answers[-1] == 200 and set(answers) <= {200, 503}
