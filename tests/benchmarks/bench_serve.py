"""The cache server beside nginx: warm files of one store on loopback, one process each, in turns.

Both servers are pinned to one processor and the load to another. Ours serves blobs by digest, nginx the same files by
name; both write an access log. Needs nginx and wrk on the PATH, and a C compiler.

    python tests/benchmarks/bench_serve.py [--size 64] [--files 4] [--seconds 4] [--rounds 3] [--only 256] [--tls]

Prints one JSON line a measurement: requests/s, GB/s and CPU seconds a GB of both, and their ratio. Then both get
requests at half the rate at which ours is saturated, evenly, and the time to the first byte is told (see `pace.c`),
with what in that round was no server's doing: how late requests were sent, how long the server waited for a processor
that others had, and what the host of this machine took of both. Of all rounds there are p99 and these last two, in ms.
With ``--tls`` both speak TLS 1.3 with the cipher that OpenSSL prefers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from datahub.store import blocks  # noqa: E402
from datahub.store import record as records  # noqa: E402
from datahub.store.record import FileEntry, ManifestEntry, PackerEntry, Record  # noqa: E402
from tests.benchmarks._pace import built, paced  # noqa: E402

MIB = 1 << 20
NGINX = """
worker_processes 1;
daemon off;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 4096; }}
http {{
    sendfile on; tcp_nopush on; keepalive_requests 1000000; etag on; access_log {work}/access.log;
    client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
    uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
    server {{ listen 127.0.0.1:{port} backlog=1024{tls}; root {root}; }}
}}
"""
LUA = """
local paths = {{ {paths} }}
local ranges = {ranges}
local size = {size}
math.randomseed({seed})
request = function()
    local headers = {{}}
    if ranges > 0 then
        local at = math.random(0, ranges - 1) * size
        headers["Range"] = "bytes=" .. at .. "-" .. (at + size - 1)
    end
    return wrk.format("GET", paths[math.random(#paths)], headers)
end
"""


class Peer(NamedTuple):
    name: str
    port: int
    pid: int
    paths: list[str]
    secure: bool = False


class Pair(NamedTuple):
    """A certificate that nobody vouches for."""

    cert: Path
    key: Path


class Load(NamedTuple):
    """``size``: bytes of one range, 0 for whole files."""

    name: str
    size: int
    connections: int


class Figure(NamedTuple):
    requests: float
    gigabytes: float
    cpu: float
    """Seconds of processor time a gigabyte."""


def store(home: Path, files: int, size: int) -> list[FileEntry]:
    """A variant of so many files of random bytes."""
    folder = home / "datasets" / "bench" / "1.0" / "published"
    folder.mkdir(parents=True)
    entries, raws = [], []
    for number in range(files):
        data = np.random.default_rng(number).bytes(size)
        (folder / f"shard-{number}.bin").write_bytes(data)
        found = blocks.of_bytes(data)
        raws.append(found.raw)
        name = f"shard-{number}.bin"
        entries.append(FileEntry(path=name, role="metadata", bytes=size, sha256=found.sha256, blocks=found.blocks))
    blocks.write(folder, raws)
    manifest = ManifestEntry(name="bench", version="1.0", digest="sha256:" + "0" * 64)
    plan = "sha256:" + hashlib.sha256(b"bench").hexdigest()
    rest: dict[str, Any] = {"fields": {}, "splits": {}, "classes": []}
    record = Record(manifest=manifest, variant="published", plan=plan, packer=PackerEntry(), files=entries, **rest)
    records.write(folder, record)
    return entries


@contextmanager
def process(command: list[str], processor: int, **options: Any) -> Iterator[subprocess.Popen[str]]:
    found = subprocess.Popen(["taskset", "-c", str(processor), *command], text=True, **options)
    try:
        yield found
    finally:
        found.send_signal(signal.SIGTERM)
        try:
            found.wait(15)
        except subprocess.TimeoutExpired:
            found.kill()
            found.wait()


@contextmanager
def ours(home: Path, work: Path, entries: list[FileEntry], pair: Pair | None = None) -> Iterator[Peer]:
    log = work / "ours.log"
    command = [sys.executable, "-m", "datahub", "serve", "--store", str(home), "--port", "0", "--access-log", str(log)]
    command += ["--cert", str(pair.cert), "--key", str(pair.key)] if pair else []
    with process(command, 0, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        match = re.search(r"//[^ ]*:(\d+)", server.stdout.readline())
        assert match, "our server did not start"
        yield Peer(
            "ours", int(match[1]), server.pid, [f"/v1/blobs/{each.sha256}" for each in entries], pair is not None
        )


@contextmanager
def nginx(home: Path, work: Path, entries: list[FileEntry], port: int, pair: Pair | None = None) -> Iterator[Peer]:
    root = home / "datasets" / "bench" / "1.0" / "published"
    os.chmod(work, 0o755)  # noqa: PTH101 - nginx drops root
    conf = work / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    tls = f" ssl; ssl_protocols TLSv1.3; ssl_certificate {pair.cert}; ssl_certificate_key {pair.key}" if pair else ""
    conf.write_text(user + NGINX.format(work=work, root=root, port=port, tls=tls))
    with process(["nginx", "-p", str(work), "-c", str(conf)], 0, stderr=subprocess.DEVNULL) as master:
        time.sleep(0.5)
        workers = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        yield Peer("nginx", port, int(workers[0]), [f"/{each.path}" for each in entries], pair is not None)


def certificate(work: Path) -> Pair:
    pair = Pair(work / "cert.pem", work / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-out",
         str(pair.cert), "-keyout", str(pair.key)], check=True, capture_output=True,
    )  # fmt: skip
    return pair


def cipher(peer: Peer) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", peer.port)) as plain, context.wrap_socket(plain) as secure:
        return str((secure.cipher() or ("none",))[0])


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kept_from(pid: int) -> tuple[float, float]:
    """Milliseconds that a process waited for a processor, and that the host of this virtual machine took of both."""
    waited = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e6
    stolen = int(Path("/proc/stat").read_text().split()[8]) * 1000 / os.sysconf("SC_CLK_TCK")
    return waited, stolen


def measure(peer: Peer, load: Load, size: int, seconds: float, work: Path, seed: int) -> Figure:
    script = work / "load.lua"
    paths = ", ".join(f'"{path}"' for path in peer.paths)
    script.write_text(LUA.format(paths=paths, ranges=size // load.size if load.size else 0, size=load.size, seed=seed))
    before, began = cpu_of(peer.pid), time.perf_counter()
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{load.connections}", f"-d{seconds:g}s", "--timeout", "30"]
    told = subprocess.run(
        [*command, "-s", str(script), f"http{'s' * peer.secure}://127.0.0.1:{peer.port}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    elapsed, used = time.perf_counter() - began, cpu_of(peer.pid) - before
    found = re.search(r"(\d+) requests in .*?, ([\d.]+)(K|M|G|T)?B read", told)
    assert found and "Non-2xx" not in told, told
    total = float(found[2]) * 1024 ** " KMGT".index(found[3] or " ")
    return Figure(int(found[1]) / elapsed, total / elapsed / 1e9, used / (total / 1e9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="MiB of a file")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=18_480, help="of nginx")
    parser.add_argument("--only", default="", help="the load with this name")
    parser.add_argument("--tls", action="store_true")
    o = parser.parse_args()
    if not shutil.which("nginx") or not shutil.which("wrk"):
        sys.exit("nginx and wrk are needed: apt install nginx-light wrk")
    loads = [Load("256 KiB ranges", 256 << 10, 32), Load("4 MiB ranges", 4 * MIB, 16), Load("whole files", 0, 8)]
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        entries, pair = store(work / "home", o.files, o.size * MIB), certificate(work) if o.tls else None
        with (
            ours(work / "home", work, entries, pair) as mine,
            nginx(work / "home", work, entries, o.port, pair) as peer,
        ):
            if o.tls:
                print(json.dumps({"cipher": {each.name: cipher(each) for each in (mine, peer)}}), flush=True)
            for each in (mine, peer):  # everything verified, everything in the page cache
                measure(each, Load("warm", 0, 2), o.size * MIB, 2.0, work, 0)
            for load in loads:
                if o.only in load.name:
                    compare(mine, peer, load, o, work)
                    if load.size and not o.tls:
                        first_bytes(mine, peer, load, o, work)


def compare(mine: Peer, peer: Peer, load: Load, o: argparse.Namespace, work: Path) -> None:
    figures: dict[str, list[Figure]] = {mine.name: [], peer.name: []}
    for number in range(o.rounds):
        for each in (mine, peer) if number % 2 == 0 else (peer, mine):
            figures[each.name].append(measure(each, load, o.size * MIB, o.seconds, work, number))
    middle = {name: [statistics.median(each) for each in zip(*found, strict=True)] for name, found in figures.items()}
    facts: dict[str, Any] = {"load": load.name}
    for name, (requests, gigabytes, cpu) in middle.items():
        facts[name] = {"requests/s": round(requests, 1), "GB/s": round(gigabytes, 3), "CPU s/GB": round(cpu, 3)}
    facts["ratio"] = round(middle[mine.name][1] / middle[peer.name][1], 3)
    print(json.dumps(facts), flush=True)


def first_bytes(mine: Peer, peer: Peer, load: Load, o: argparse.Namespace, work: Path) -> None:
    """Milliseconds from when a request was due to its first byte: the median round of each, by its p99.

    The rate is half of what ours was saturated at a moment before: a machine's speed changes within a minute.
    """
    program, ranges, rates = built(work), o.size * MIB // load.size, list[float]()
    found: dict[str, list[dict[str, float]]] = {mine.name: [], peer.name: []}
    for number in range(o.rounds):
        rates.append(rate := measure(mine, load, o.size * MIB, 2.0, work, number).requests / 2)
        for each in (mine, peer) if number % 2 == 0 else (peer, mine):
            before = kept_from(each.pid)
            told = paced(
                program, each.port, each.paths, rate=rate, seconds=o.seconds, connections=4 * load.connections,
                size=load.size, ranges=ranges, seed=number,
            )  # fmt: skip
            waited, stolen = (round(b - a, 1) for a, b in zip(before, kept_from(each.pid), strict=True))
            noise = {"late p99": told["late, ms"]["p99"], "no processor": waited, "host": stolen}
            found[each.name].append({**told["first byte, ms"], **noise})
    facts: dict[str, Any] = {"load": load.name, "requests/s": round(statistics.median(rates), 1)}
    for name, rounds in found.items():
        facts[f"{name}, first byte, ms"] = sorted(rounds, key=lambda each: each["p99"])[len(rounds) // 2]
        facts[f"{name}, all rounds"] = [[each["p99"], each["no processor"], each["host"]] for each in rounds]
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
