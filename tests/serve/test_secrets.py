"""Passwords and signatures in URLs: what is kept, logged, shown and said holds none of them."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from datahub import StreamingLoader
from datahub.cli.app import root, run
from datahub.core.errors import DatahubError
from tests.acquire.server import Behaviour, serving
from tests.serve.conftest import content, digest_of, located

OLD, NEW = "0ld-s3cret", "n3w-s3cret"
PAGES = ("/", "/live", "/metrics", "/v1", "/v1/datasets", "/v1/cache", "/v1/jobs", "/v1/openapi.json")


@pytest.fixture
def signed(home):
    """An HTTP origin of the store that wants a signature with every file; only `NEW` and `OLD` are right."""
    paths = {}
    with serving() as web:
        for name in ("tiny", "big"):
            folder = located(home, name).path
            for path in folder.rglob("*"):
                if path.is_file():
                    place = f"/store/{name}/1.0/published/{path.relative_to(folder)}"
                    for secret in (OLD, NEW):
                        paths[f"{place}?sig={secret}"] = Behaviour(path.read_bytes())
        web.paths.update(paths)
        yield web


def url_of(web, secret: str) -> str:
    return f"http://user:{secret}@{urlsplit(web.url).netloc}/store?sig={secret}"


def held(folder: Path) -> list[str]:
    """Files below a folder that hold a secret."""
    files = [each for each in folder.rglob("*") if each.is_file()]
    assert files
    return [str(each) for each in files if any(word.encode() in each.read_bytes() for word in (OLD, NEW, "user:"))]


def test_a_server_keeps_logs_and_shows_no_secret_of_its_origins(start, home, elsewhere, signed, tmp_path):
    cache = tmp_path / "cache"
    server = start(elsewhere, origin=(url_of(signed, OLD),), cache_dir=cache)
    blob = f"/v1/blobs/{digest_of(home)}"
    assert server.ask("/v1/datasets/big/1.0/published/dataset.json").status == 200
    assert server.ask(blob, Range="bytes=0-99").body == content()[:100]
    for each in signed.paths.values():
        each.statuses += [500] * 40
    failed = server.ask(blob, Range="bytes=8388608-8388700")
    assert failed.status == 502 and "data.bin" in json.loads(failed.body)["message"]
    assert server.ask("/v1/datasets/tiny/1.0/published/dataset.json").status == 502
    said = [failed, *(server.ask(path) for path in PAGES)]
    assert not [each for each in said if OLD in each.body.decode()]
    assert not held(cache) and OLD not in server.log.read_text()
    for each in signed.paths.values():
        each.statuses.clear()
    # What was kept is of the same origin when its signature is another one.
    signed.requests.clear()
    again = start(elsewhere, origin=(url_of(signed, NEW),), cache_dir=cache)
    assert again.ask(blob, Range="bytes=4194304-4194400").body == content()[4194304:4194401]
    assert [path for path, _ in signed.requests] == [f"/store/big/1.0/published/data.bin?sig={NEW}"]
    assert not held(cache)


def test_what_an_earlier_version_wrote_down_is_removed(start, home, elsewhere, tmp_path):
    cache = tmp_path / "cache"
    old = cache / "records" / "big" / "1.0" / "published" / "place.json"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"origin": f"http://user:{OLD}@x", "url": f"http://user:{OLD}@x/big"}))
    server = start(elsewhere, origin=(str(home.home),), cache_dir=cache)
    assert server.ask(f"/v1/blobs/{digest_of(home)}").status == 404  # which looks at what is kept
    assert not old.exists()


def test_a_loader_keeps_and_says_no_secret_of_its_source(signed, tmp_path):
    cache, settings = tmp_path / "cache", {"cache_dir": tmp_path / "cache", "residency": "stream", "batch_size": 4}
    with StreamingLoader("tiny@1.0/published", source=url_of(signed, OLD), **settings) as loader:
        list(loader)
        said = f"{loader.explain()} {loader.stats()} {loader.state_dict()}"
    assert "/store" in said and OLD not in said and "user" not in said
    assert not held(cache)
    for each in signed.paths.values():
        each.statuses += [403] * 40
    with pytest.raises(DatahubError) as caught:
        StreamingLoader("tiny@1.0/published", source=url_of(signed, OLD), **settings)
    assert "403" in str(caught.value) and OLD not in f"{caught.value} {caught.value!r}"
    with pytest.raises(DatahubError) as caught:
        StreamingLoader("none@1.0/published", source=url_of(signed, NEW), **settings)
    assert "/store" in str(caught.value) and NEW not in f"{caught.value} {caught.value!r}"


def test_the_command_line_shows_no_secret(monkeypatch, tmp_path, capfd):
    url = f"https://user:{OLD}@mirror.invalid/x?sig={OLD}"
    monkeypatch.setenv("DATAHUB_SOURCE", url)
    monkeypatch.setenv("DATAHUB_HOME", str(tmp_path))
    for line in (
        ["config"],
        ["config", "--json"],
        ["fetch", "mnist", "--from", url, "--dry-run"],
        ["fetch", "mnist", "--from", url, "--dry-run", "--json"],
        ["fetch", "mnist", "--from", url, "-y"],
        ["serve", "--origin", f"none://user:{OLD}@x/y?sig={OLD}"],
        ["cache", "status", "--server", f"http://user:{OLD}@127.0.0.1:9"],
    ):
        run(root, line)
        said = capfd.readouterr()
        assert said.out + said.err and OLD not in said.out + said.err, line
