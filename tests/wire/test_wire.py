"""Addresses, servers, tokens and messages."""

from __future__ import annotations

import collections

import pytest

from datahub.core.errors import BadArgument
from datahub.core.refs import Ref
from datahub.wire import messages, paths
from datahub.wire.client import checked
from datahub.wire.servers import ranked, split
from datahub.wire.tokens import job_of, token_of


def test_paths_are_quoted():
    assert paths.of_record(Ref("a", "1.0+x", "v")) == "/v1/datasets/a/1.0%2Bx/v/dataset.json"
    assert paths.of_file(Ref("a", "1", "v"), ".nv-meta/x y") == "/v1/datasets/a/1/v/.nv-meta/x%20y"
    assert paths.of_sample(Ref("a", "1", "v"), "train-000000001", "jpg").endswith("/samples/train-000000001.jpg")


def test_where_a_server_is_gone_only_its_share_moves():
    servers = [f"http://c{number}:8080" for number in range(5)]
    keys = [f"{number:064x}" for number in range(2000)]
    first = {key: ranked(servers, key)[0] for key in keys}
    shares = collections.Counter(first.values())
    assert all(300 < shares[each] < 500 for each in servers)
    left = servers[:2] + servers[3:]
    for key in keys:
        rank = ranked(servers, key)
        assert ranked(left, key) == [each for each in rank if each != servers[2]]


def test_urls_are_parted_at_schemes_only():
    assert split("http://a:1,http://b:2, s3://bucket/x,y") == ["http://a:1", "http://b:2", "s3://bucket/x,y"]
    assert split("http://a:1,s3://bucket/x,y") == ["http://a:1", "s3://bucket/x,y"]
    assert split("folder,with,commas") == ["folder,with,commas"]


def test_tokens_come_from_the_environment_or_a_file(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("# ours\n\nfirst-token  # of the week\nsecond\n")
    assert token_of({}) is None
    assert token_of({"DATAHUB_TOKEN": " abc "}) == "abc"
    assert token_of({"DATAHUB_TOKEN_FILE": str(file)}) == "first-token"
    assert token_of({"DATAHUB_TOKEN": "abc", "DATAHUB_TOKEN_FILE": "/none"}) == "abc"


@pytest.mark.parametrize("text", ["two words", "käse", "a\nb\x00"])
def test_what_is_no_token_is_refused_and_not_shown(text):
    with pytest.raises(BadArgument) as caught:
        token_of({"DATAHUB_TOKEN": text})
    assert text not in str(caught.value)
    assert caught.value.name == "DATAHUB_TOKEN"


def test_a_token_file_that_is_missing_or_empty_is_told(tmp_path):
    (tmp_path / "empty").write_text("# nothing\n")
    for path in (tmp_path / "none", tmp_path / "empty", tmp_path):
        with pytest.raises(BadArgument, match="DATAHUB_TOKEN_FILE"):
            token_of({"DATAHUB_TOKEN_FILE": str(path)})


def test_a_servers_address():
    assert checked("http://cache:8080/") == "http://cache:8080"
    assert checked("https://cache/prefix/?q=1#f") == "https://cache/prefix"
    for bad in ("cache:8080", "ftp://cache", "http://", "http://cache:port", "http://[::1", ""):
        with pytest.raises(BadArgument):
            checked(bad)
    with pytest.raises(BadArgument) as caught:
        checked("http://user:secret@cache")
    assert "secret" not in str(caught.value)


def test_messages_may_be_newer():
    info = b'{"datasets":[],"later":1}'
    assert messages.msgspec.json.decode(info, type=messages.Datasets) == messages.Datasets(datasets=[])
    failure = messages.Failure(error="X", message="m", retryable=True)
    assert messages.failure_of(messages.encode(failure)) == failure
    assert messages.failure_of(b"<html>") is None


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({}, ""),
        ({"DATAHUB_JOB": "a", "SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "r"}, "a"),
        ({"SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "r"}, "7"),
        ({"TORCHELASTIC_RUN_ID": "r"}, "r"),
        ({"TORCHELASTIC_RUN_ID": "none"}, ""),  # what torchrun calls a run that nobody named
        ({"DATAHUB_JOB": "a b"}, ""),
    ],
)
def test_a_run_is_named_by_the_environment(environ, job):
    assert job_of(environ) == job
