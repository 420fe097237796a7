"""What can be checked of the deployment files without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from datahub import StreamingLoader
from datahub.cli.app import root, run
from datahub.stream import herald
from datahub.wire.messages import failure_of
from tests.serve.conftest import big_variant, content, digest_of, elsewhere, home, start  # noqa: F401 - fixtures
from tests.serve.running import Answer, Running

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
LEFT_OUT = ("torch", "torchvision", "webdataset")

SLIM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from datahub.cli.app import root, run
import datahub.serve.running, datahub.serve.app, datahub.cli.fetch, datahub.cli.pack, datahub.cli.cache
raise SystemExit(run(root, ["serve", "--help"]) or run(root, ["list", "mnist"]))
"""


def test_the_image_needs_nothing_of_torch():
    command = [sys.executable, "-c", SLIM, ",".join(LEFT_OUT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_images_packages_are_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    listed = [line for line in (DOCKER / "requirements-serve.txt").read_text().splitlines() if line[:1] != "#"]
    left_out = set(LEFT_OUT)
    assert sorted(listed) == sorted(each for each in wanted if re.split(r"[>=]", each)[0] not in left_out)


def test_every_metric_of_the_dashboard_is_told(start, home):  # noqa: F811
    server = start(home)
    told = set(re.findall(r"^# TYPE (\S+) ", server.ask("/metrics").body.decode(), re.MULTILINE))
    panels = json.loads((DOCKER / "grafana" / "dashboards" / "datahub.json").read_text())["panels"]
    shown = {name for panel in panels for each in panel["targets"] for name in re.findall(r"datahub_\w+", each["expr"])}
    assert shown and {name.removesuffix("_bucket") for name in shown} <= told
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_yaml_is_yaml_and_names_files_that_are_there():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    for path in [*DOCKER.rglob("*.yaml"), *DOCKER.rglob("*.yml")]:
        assert list(yaml.safe_load_all(path.read_text()))
    for compose in (DOCKER / "compose.yaml", DOCKER / "scale-out" / "compose.yaml"):
        services = yaml.safe_load(compose.read_text())["services"]
        mounts = [each for service in services.values() for each in service["volumes"] if each.startswith(".")]
        assert all((compose.parent / each.partition(":")[0]).exists() for each in mounts)
        assert all(services[name].get("read_only") for name in services if name.startswith("cache"))


def test_probes_and_flags_are_the_servers(start, home):  # noqa: F811
    server = start(home)
    text = (DOCKER / "kubernetes.yaml").read_text()
    for path in set(re.findall(r"path: (/\w+)", text)):
        assert server.ask(path).status == 200
    said = subprocess.run(
        [sys.executable, "-m", "datahub", "serve", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for path in (DOCKER / "kubernetes.yaml", DOCKER / "compose.yaml", DOCKER / "datahub.service"):
        for flag in re.findall(r"(?<=[\s-])--([a-z-]+)(?==| \S)", path.read_text()):
            known = f"--{flag}" in said
            assert known or flag in ("from-literal", "config.file", "storage.tsdb", "now", "build")


# -- several servers behind nginx ------------------------------------------------------------------------------------

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@pytest.fixture
def balanced(start, home, elsewhere, tmp_path):  # noqa: F811
    """nginx by our file, before two servers that have one origin."""
    for seed in range(6):
        big_variant(home.home, f"set{seed}", seed=seed, size=100_000 + seed)
    servers = [
        start(type(home)(home=tmp_path / name), origin=(str(home.home),), cache_dir=tmp_path / name / "cache")
        for name in ("one", "two")
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (DOCKER / "scale-out" / "nginx.conf").read_text()
    for number, server in enumerate(servers, 1):
        text = text.replace(f"cache-{number}:8080", f"127.0.0.1:{server.port}")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    text = f"daemon off;\npid {tmp_path}/nginx.pid;\nerror_log stderr;\n{text}"
    text = text.replace("http {\n", f"http {{\n    access_log off;\n    client_body_temp_path {tmp_path}/body;\n", 1)
    conf = tmp_path / "nginx.conf"
    conf.write_text(text)
    process = subprocess.Popen(["nginx", "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        _wait(port, process)
        yield Running(f"http://127.0.0.1:{port}", servers[0].server, tmp_path / "log", port=port), servers
    finally:
        process.terminate()
        process.wait(20)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("nginx did not start")


def file_of(front: Running, seed: int, **headers: str) -> Answer:
    return front.ask(f"/v1/datasets/set{seed}/1.0/published/data.bin", **headers)


@needs_nginx
def test_each_file_has_one_server_and_another_in_need(balanced, home):  # noqa: F811
    front, servers = balanced
    for seed in range(6):
        for _ in range(3):
            assert file_of(front, seed).body == content(seed, 100_000 + seed)
    fetched = [
        {seed for seed in range(6) if each.metric("datahub_sent_bytes_total", dataset=f"set{seed}@1.0/published")}
        for each in servers
    ]
    assert fetched[0] | fetched[1] == set(range(6)) and not fetched[0] & fetched[1]
    digest = digest_of(home, "set1")
    part = file_of(front, 1, Range="bytes=10-19")
    assert (part.status, part.body, part.headers["etag"]) == (206, content(1, 100_001)[10:20], f'"{digest}"')
    assert part.headers["content-range"] == "bytes 10-19/100001"
    assert file_of(front, 1, Range="bytes=10-19", If_Range='"other"').status == 200
    assert file_of(front, 1, If_None_Match=f'"{digest}"').status == 304
    servers[0].loop.call_soon_threadsafe(servers[0].stop)
    for seed in range(6):
        assert file_of(front, seed).body == content(seed, 100_000 + seed)


@needs_nginx
def test_a_loader_behind_nginx_reads_and_is_no_job(balanced, monkeypatch, settings):
    """Which server has a blob is nginx's secret: one that was told of a job would fetch what others are asked for."""
    front, servers = balanced
    monkeypatch.setattr(herald, "EVERY", 0.05)
    refused = [front.ask("/v1/jobs", "POST", b"{}"), front.ask("/v1/jobs/a", "DELETE"), front.ask("/v1/cache")]
    assert [each.status for each in refused] == [421] * 3
    assert {each.headers["content-type"] for each in refused} == {"application/json"}
    failure = failure_of(refused[0].body)
    assert failure is not None and failure.error == "AskEachServer" and failure.next and not failure.retryable
    with StreamingLoader("tiny@1.0/published", source=front.url, settings=settings, batch_size=4) as loader:
        epochs = [sum(len(batch["label"]) for batch in loader) for _ in range(3)]
        assert len(set(epochs)) == 1 and epochs[0] > 0
    assert [each.server.jobs.alive() for each in servers] == [[], []]


@needs_nginx
def test_the_command_line_is_told_to_ask_the_servers_themselves(balanced, capfd):
    front, servers = balanced
    assert run(root, ["cache", "status", "--server", front.url]) == 4
    said = capfd.readouterr().err
    assert "each of the cache servers is to be told this itself" in said and said.count("\n") == 1
    assert run(root, ["cache", "status", "--server", servers[0].url]) == 0


@needs_nginx
def test_servers_that_are_named_are_each_told_of_a_job(balanced, monkeypatch, settings):
    _, servers = balanced
    monkeypatch.setattr(herald, "EVERY", 0.05)
    both = ",".join(each.url for each in servers)
    with StreamingLoader("tiny@1.0/published", source=both, settings=settings, batch_size=4) as loader:
        batches = iter(loader)
        next(batches)
        deadline = time.monotonic() + 20
        while not all(each.server.jobs.alive() for each in servers):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        told = [each.server.jobs.alive()[0] for each in servers]
        assert [each.here for each in told] == [each.url for each in servers]
        assert {tuple(each.servers) for each in told} == {tuple(each.url for each in servers)}
        batches.close()
