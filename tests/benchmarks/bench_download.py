"""Downloading from a loopback origin, hash included, beside curl (and openssl for the hash).

    python tests/benchmarks/bench_download.py [--megabytes 500] [--runs 5]

First as fast as the machine goes; then over a link of 50 ms latency and 20 MB/s a connection, against one connection.
Prints a JSON line a run, then the ratios and our peak memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = """
import sys
from pathlib import Path
from datahub.acquire import plan, run
from datahub.core.settings import Settings
from datahub.registry.schema import File, Layout, Licence, Manifest, Tried
url, home, size, sha256 = sys.argv[1:]
file = File(filename="file.bin", role="all", bytes=int(size), sha256=sha256, mirrors=[url])
manifest = Manifest(name="bench", version="1", title="b", licence=Licence(), task="x", splits={"train": 1},
                    tried=Tried(how="never"), layout=Layout(kind="idx"), files=[file])
settings = Settings(home=Path(home))
run(plan(manifest, settings), settings)
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024)
"""


def ours(url: str, work: str, size: int, sha256: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", OURS, url, f"{work}/home", str(size), sha256], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def curl(url: str, work: str, size: int, sha256: str) -> float:
    subprocess.run(["curl", "-sS", "-o", f"{work}/curl.bin", url], check=True)
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", f"{work}/curl.bin"], check=True, capture_output=True, text=True
    )
    if sha256 not in done.stdout:
        raise SystemExit("curl's file is wrong")
    return 0.0


def compare(name: str, file: Path, sha256: str, runs: int, *link: str) -> None:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("_origin.py")), str(file), *link],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/file.bin"
    times: dict[str, list[float]] = {"datahub": [], "curl + openssl": []}
    peak = 0.0
    try:
        for _ in range(runs):
            for side, act in (("datahub", ours), ("curl + openssl", curl)):
                with tempfile.TemporaryDirectory(dir=file.parent) as work:
                    began = time.perf_counter()
                    peak = max(peak, act(url, work, file.stat().st_size, sha256))
                    times[side].append(time.perf_counter() - began)
                print(json.dumps({"link": name, "side": side, "seconds": round(times[side][-1], 3)}), flush=True)
    finally:
        server.kill()
        server.communicate()
    a, b = (statistics.median(each) for each in times.values())
    print(
        json.dumps(
            {
                "link": name,
                "ours_s": round(a, 3),
                "peer_s": round(b, 3),
                "speed_ratio": round(b / a, 2),
                "peak_mib": round(peak, 1),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        file = Path(base) / "file.bin"
        digest = hashlib.sha256()
        with file.open("wb") as handle:
            for seed in range(options.megabytes):
                data = random.Random(seed).randbytes(1_000_000)
                digest.update(data)
                handle.write(data)
        sha256 = digest.hexdigest()
        compare("loopback", file, sha256, options.runs)
        compare(
            "50 ms, 20 MB/s a connection",
            file,
            sha256,
            max(1, options.runs // 2),
            "--latency",
            "0.05",
            "--rate",
            "20e6",
        )


if __name__ == "__main__":
    main()
