"""Jobs say what they read, live as long as they say something, and are known to every process."""

from __future__ import annotations

import json

import pytest

from datahub.serve import jobs as module
from datahub.serve.jobs import Jobs, TooManyJobs
from datahub.wire.messages import JobAsked

ASKED = {"job": "run-7", "dataset": "tiny@1.0/published", "split": "train", "order": {"seed": 3, "batch": 64}}


def post(server, **what):
    return server.ask("/v1/jobs", "POST", json.dumps(ASKED | what).encode(), Content_Type="application/json")


def test_a_job_is_renewed_and_ended(server):
    first = post(server, position=0, ttl=60)
    assert first.status == 200 and json.loads(first.body)["left"] == 60
    assert post(server, position=640, epoch=2).status == 200
    (job,) = json.loads(server.ask("/v1/jobs").body)["jobs"]
    assert (job["job"], job["position"], job["epoch"], job["order"]["batch"]) == ("run-7", 640, 2, 64)
    assert 590 < job["left"] <= 600
    assert server.metric("datahub_jobs") == 1
    assert server.ask("/v1/jobs/run-7", "DELETE").status == 204
    assert server.ask("/v1/jobs/run-7", "DELETE").status == 404
    assert json.loads(server.ask("/v1/jobs").body)["jobs"] == []


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ({"job": "a b"}, 400, "$.job"),
        ({"job": "x" * 65}, 400, "$.job"),
        ({"dataset": "tiny"}, 400, "NAME@VERSION/VARIANT"),
        ({"dataset": "../x"}, 400, "not a dataset reference"),
        ({"dataset": "none@1.0/published"}, 404, "no dataset"),
        ({"split": "none"}, 400, "no split"),
        ({"ttl": 0}, 400, "$.ttl"),
        ({"ttl": 1e12}, 400, "$.ttl"),
        ({"position": -1}, 400, "$.position"),
        ({"order": {"window": 0}}, 400, "window"),
        ({"order": {"batch": "x"}}, 400, "batch"),
        ({"unknown": 1}, 400, "unknown"),
    ],
)
def test_what_is_no_job(server, what, status, said):
    answer = post(server, **what)
    assert answer.status == status and said in json.loads(answer.body)["message"]


def test_bodies_that_are_no_json_or_too_large(server):
    for body in (b"", b"{", b"[]", b"\xff", b"1" * 5000):
        assert server.ask("/v1/jobs", "POST", body).status == 400
    assert server.ask("/v1/jobs", "POST", b" " * 100_000).status == 413


def test_time_ends_a_job_for_all_who_share_the_folder(tmp_path):
    now = [1000.0]
    one, two = (Jobs(tmp_path, lambda: now[0]) for _ in range(2))
    one.say(JobAsked(job="a", dataset="d@1/v", ttl=10))
    two.say(JobAsked(job="b", dataset="d@1/v", ttl=30))
    assert [each.job for each in one.alive()] == ["a", "b"]
    now[0] += 9
    two.say(JobAsked(job="a", dataset="d@1/v", ttl=10, position=5))
    now[0] += 9
    assert [(each.job, each.position) for each in one.alive()] == [("a", 5), ("b", 0)]
    now[0] += 5
    assert [each.job for each in one.alive()] == ["b"]
    one.close()
    again = Jobs(tmp_path, lambda: now[0])
    assert [each.job for each in again.alive()] == ["b"]
    again._boot = "another"
    assert again.alive() == []
    again.close()
    two.close()


def test_there_is_an_end_to_how_many(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    jobs = Jobs(tmp_path)
    for name in ("a", "b", "a"):
        jobs.say(JobAsked(job=name, dataset="d@1/v"))
    with pytest.raises(TooManyJobs):
        jobs.say(JobAsked(job="c", dataset="d@1/v"))
    jobs.close()


def test_a_disk_that_cannot_be_written_is_said_so(start, home, tmp_path):
    (tmp_path / "file").write_text("")
    server = start(home, cache_dir=tmp_path / "file" / "cache")
    answer = post(server)
    assert answer.status == 503 and json.loads(answer.body)["error"] == "NotWritable"
