"""Published files and weights, and datasets that are fetched because somebody asked."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from datahub.acquire import plan, run
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.registry import catalog
from tests.serve.test_filling import flip

MNIST = "t10k-labels-idx1-ubyte.gz"


@pytest.fixture
def mirror(shared_data: Path, tmp_path: Path) -> Path:
    """A site mirror that holds MNIST."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "mnist").symlink_to(shared_data / "mnist")
    return folder


def downloaded(settings: Settings, shared_data: Path) -> Path:
    folder = settings.downloads / "mnist" / "1.0"
    folder.mkdir(parents=True)
    source = next(shared_data.rglob(MNIST))
    (folder / MNIST).write_bytes(source.read_bytes())
    return folder / MNIST


def test_published_files_are_verified_before_they_are_served(start, settings, shared_data):
    path = downloaded(settings, shared_data)
    server = start(settings)
    for below in ("mnist", "mnist/1.0"):
        answer = server.ask(f"/v1/files/{below}/{MNIST}")
        assert answer.body == path.read_bytes()
        assert answer.headers["etag"] == f'"{hashlib.sha256(answer.body).hexdigest()}"'
    part = server.ask(f"/v1/files/mnist/{MNIST}", Range="bytes=5-9")
    assert (part.status, part.body) == (206, path.read_bytes()[5:10])
    flip(path, 100)
    answer = server.ask(f"/v1/files/mnist/{MNIST}")
    assert answer.status == 502 and json.loads(answer.body)["error"] == "DigestMismatch"


@pytest.mark.parametrize(
    "path",
    ["mnist/none.gz", "none/x", "mnist/9.9/x", "mnist/..%2f..%2fx", "weights/x.pth", "weights/resnet18-f37072fd.pth"],
)
def test_what_no_manifest_describes_is_not_served(start, settings, path):
    settings.home.mkdir()
    assert start(settings).ask(f"/v1/files/{path}").status == 404


def test_weights_by_the_digest_in_their_name(start, settings):
    data = b"weights" * 1000
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    folder = settings.downloads / "weights"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    (folder / "net-00000000.pth").write_bytes(data)
    server = start(settings)
    assert server.ask(f"/v1/files/weights/{name}").body == data
    assert server.ask("/v1/files/weights/net-00000000.pth").status == 502


def test_published_files_are_downloaded_through_a_server(start, settings, mirror, tmp_path):
    server = start(Settings(home=settings.home, from_=str(mirror)), allow_fetch=True)
    there = Settings(home=tmp_path / "there", from_=f"{server.url}/v1/files")
    found = run(plan(catalog(there).find(Ref("mnist")), there), there)
    assert {each.path.name for each in found} >= {MNIST, "train-images-idx3-ubyte.gz"}
    assert server.metric("datahub_sent_bytes_total") == sum(each.path.stat().st_size for each in found)


@pytest.mark.slow
def test_what_nobody_packed_is_fetched_when_it_is_asked_for(start, settings, elsewhere, mirror):
    server = start(Settings(home=settings.home, from_=str(mirror)), allow_fetch=True)
    answer = server.ask("/v1/datasets/mnist")
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")
    assert json.loads(answer.body)["error"] == "BeingFetched"
    deadline = time.monotonic() + 120
    while server.ask("/v1/datasets/mnist").status == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    dataset = open_dataset("mnist", elsewhere, source=server.url)
    assert dataset["test"][0]["image"].shape == (1, 28, 28)
    assert server.ask("/v1/datasets/none").status == 404


def test_a_fetch_that_fails_is_told(start, settings):
    server = start(settings, allow_fetch=True)
    deadline = time.monotonic() + 60
    answer = server.ask("/v1/datasets/imagenet/2012/published/dataset.json")
    while answer.status == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
        answer = server.ask("/v1/datasets/imagenet/2012/published/dataset.json")
    said = json.loads(answer.body)
    assert (answer.status, said["error"], said.get("retryable")) == (502, "FetchFailed", None)
    assert "cannot be downloaded by a program" in said["message"]
